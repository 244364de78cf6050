"""The frames about tunnels and their answers."""

from __future__ import annotations

from uaihost.test.fakes_tunnels import FakeLink
from uaihost.test.tunnels.memory import MemoryTestCase
from uaihost.tunnels.table import TunnelTable
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


class OpenTests(MemoryTestCase):
    def test_no_target(self) -> None:
        line = RequestLine("GET", "/", [])
        for task, target, name in (("u", "editor", None), ("t", "preview", "api"), ("t", "preview", None)):
            for upgrade in (False, True):
                self.table.open(TunnelOpen("a", target, task, line, upgrade, name))  # type: ignore[arg-type]
                self.assertEqual(
                    self.last(),
                    TunnelAck("a", False, 503, message="target port is not available on this host"),
                )
        self.assertEqual((self.table.open_tunnels, self.connects, self.table.traffic.refused), (0, 0, 6))

    def test_the_editor(self) -> None:
        self.table.open(TunnelOpen("a", "editor", "t", RequestLine("GET", "/", []), False))
        host, port, *_ = self.reactor.tcpClients[-1]
        self.assertEqual((host, port), ("127.0.0.1", 8100))

    def test_a_request_that_would_inject_is_refused_and_never_connects(self) -> None:
        for upgrade in (False, True):
            self.open("a", "GET", ("X", "a\r\nY: b"), upgrade=upgrade)
            ack = self.last()
            self.assertEqual((ack.ok, ack.status), (False, 400))
            self.assertIn("'X'", ack.message)
        self.assertEqual((self.connects, self.table.open_tunnels), (0, 0))

    def test_a_second_tunnel_of_the_same_id_does_not_harm_the_first(self) -> None:
        self.open("a")
        self.end()
        wire = self.connect()
        wire.take()
        self.open("a", "POST", upgrade=True)
        self.assertEqual(
            self.last(), TunnelAck("a", False, 409, message="a tunnel with this id is open already")
        )
        self.assertEqual((self.connects, wire.take(), self.table.open_tunnels), (1, b"", 1))
        wire.send(HEAD + b"0123456789")
        self.assertEqual((self.link.data("a"), self.last().reason), (b"0123456789", "upstream ended"))

    def test_an_id_can_be_used_again_after_its_end(self) -> None:
        for _ in range(2):
            self.open("a")
            self.end()
            wire = self.connect()
            wire.send(HEAD + b"0123456789")
            wire.close()
        self.assertEqual(self.table.traffic.opened, 2)

    def test_the_scheme_is_passed_on(self) -> None:
        self.table = TunnelTable(self.reactor, self.targets, scheme="https")
        self.table.link_up(self.link, self.link, self.broken.append)
        self.open("a")
        self.end()
        self.assertIn(b"X-Forwarded-Proto: https\r\n", self.connect().take())


class CloseTests(MemoryTestCase):
    def test_it_destroys_the_upstream_and_is_answered(self) -> None:
        for upgrade in (False, True):
            self.setUp()
            self.open("a", upgrade=upgrade)
            self.end()
            wire = self.connect()
            wire.send(HEAD + b"01234")
            self.close(reason="the tab was closed")
            self.assertTrue(wire.aborted)
            self.assertEqual(self.last(), TunnelClose("a", "the tab was closed"))
            self.assertEqual(self.table.open_tunnels, 0)
            wire.close()
            self.assertEqual(self.link.order().count("TunnelClose"), 1)

    def test_what_has_not_left_is_thrown_away(self) -> None:
        self.open("a")
        self.end()
        wire = self.connect()
        wire.send(HEAD)
        self.link.block()
        wire.send(b"01234")
        self.close()
        self.link.unblock()
        self.assertEqual((self.link.order(), self.link.data("a")), (["TunnelAck", "TunnelClose"], b""))

    def test_unknown_ids_are_answered_with_the_reason(self) -> None:
        self.close("nobody", "why not")
        self.close("nobody")
        self.assertEqual(self.link.frames(), [TunnelClose("nobody", "why not"), TunnelClose("nobody")])
        self.assertNotIn(b"reason", self.link.sent[-1])

    def test_frames_for_tunnels_that_are_gone_are_dropped(self) -> None:
        self.table.deliver("nobody", b"data")
        self.end("nobody")
        self.assertEqual((self.link.sent, self.table.traffic.received), ([], 0))


class LinkTests(MemoryTestCase):
    def test_a_lost_link_destroys_every_upstream_and_nothing_is_said(self) -> None:
        self.open("a")
        self.end("a")
        plain = self.connect()
        plain.send(HEAD + b"01234")
        self.open("b", upgrade=True)
        raw = self.connect()
        raw.full()
        self.table.deliver("b", b"x" * (1 << 20))
        self.open("c")
        said = len(self.link.sent), len(self.link.history)
        self.table.link_lost()
        self.assertTrue(plain.aborted and raw.aborted)
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
        self.assertEqual((self.table.open_tunnels, self.table.waiting), (0, 0))
        for wire in (plain, raw):
            wire.close()
        self.reactor.advance(100)
        self.assertEqual((len(self.link.sent), len(self.link.history)), said)

    def test_nothing_happens_without_a_link(self) -> None:
        self.table.link_lost()
        self.open("a")
        self.close("a")
        self.table.deliver("a", b"x")
        self.end("a")
        self.table.link_lost()
        self.assertEqual((self.connects, self.link.sent), (0, []))

    def test_a_new_link_begins_with_nothing(self) -> None:
        self.open("a", upgrade=True)
        wire = self.connect()
        wire.full()
        self.table.deliver("a", b"x" * (1 << 20))
        other = FakeLink()
        self.table.link_up(other, other, self.broken.append)
        self.assertTrue(wire.aborted)
        self.assertEqual((other.sent, other.holds, self.table.waiting), ([], [], 0))
        self.open("a")
        self.end("a")
        self.connect().send(HEAD + b"0123456789")
        self.assertEqual(other.data("a"), b"0123456789")

    def test_a_held_link_is_released_when_its_tunnel_ends(self) -> None:
        self.open("a", upgrade=True)
        wire = self.connect()
        wire.full()
        self.table.deliver("a", b"x" * (1 << 20))
        self.assertEqual(len(self.link.holds), 1)
        wire.close()
        self.assertEqual((self.link.holds, self.table.waiting), ([], 0))

    def test_stopping_leaves_nothing(self) -> None:
        self.open("a")
        self.end("a")
        wire = self.connect()
        wire.send(HEAD + b"0123456789")
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1, "an idle connection")
        self.table.stop()
        self.assertEqual((self.reactor.getDelayedCalls(), wire.aborted), ([], True))
