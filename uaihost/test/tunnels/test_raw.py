"""Raw tunnels: a head each way, then bytes."""

from __future__ import annotations

from twisted.internet.error import ConnectionLost, ConnectionRefusedError

from uaihost.test.tunnels.memory import MemoryTestCase, Wire
from uaihost.tunnels.raw_upstream import LINGER
from uaihost.wire.frames import TunnelAck, TunnelClose

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class RawTests(MemoryTestCase):
    def opened(self) -> Wire:
        self.open("a", "GET", ("Upgrade", "websocket"), ("Connection", "Upgrade"), upgrade=True)
        return self.connect()

    def switched(self) -> Wire:
        wire = self.opened()
        wire.take()
        wire.send(SWITCH)
        self.assertEqual(self.link.order(), ["TunnelAck"])
        return wire

    def test_the_head_goes_up_as_given(self) -> None:
        wire = self.opened()
        self.assertEqual(
            wire.take(),
            b"GET / HTTP/1.1\r\nHost: example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        )
        self.assertTrue(wire.nodelay)
        self.assertGreaterEqual(wire.bufferSize, 128 * 1024)

    def test_the_answer_is_the_ack_and_what_follows_it_is_data(self) -> None:
        wire = self.opened()
        wire.send(SWITCH[:30])
        self.assertEqual(self.link.sent, [])
        wire.send(SWITCH[30:] + b"\x81\x02hi")
        ack = TunnelAck(
            "a",
            True,
            101,
            statusText="Switching Protocols",
            headers=[("Upgrade", "websocket"), ("Connection", "Upgrade")],
        )
        self.assertEqual((self.link.frames(), self.link.data("a")), ([ack], b"\x81\x02hi"))
        piece = b"\x00\xff" * 100
        wire.send(piece)
        sent = self.link.sent[-1]
        assert isinstance(sent, tuple)
        self.assertIs(sent[1], piece)

    def test_an_interim_answer_is_not_the_answer(self) -> None:
        wire = self.opened()
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SWITCH + b"hi")
        [ack] = self.link.frames()
        self.assertEqual((ack.status, self.link.data("a")), (101, b"hi"))

    def test_bytes_go_up_as_they_come(self) -> None:
        self.open("a", upgrade=True)
        self.table.deliver("a", b"early")
        wire = self.connect()
        self.assertTrue(wire.take().endswith(b"\r\n\r\nearly"))
        wire.send(SWITCH)
        self.table.deliver("a", b"\x00late")
        self.assertEqual(wire.take(), b"\x00late")

    def test_an_answer_that_is_no_http(self) -> None:
        wire = self.opened()
        wire.send(b"SSH-2.0-x\r\n\r\n")
        self.assertEqual(
            self.link.frames(), [TunnelAck("a", True, 502, statusText="Bad Gateway", headers=[])]
        )

    def test_an_answer_whose_head_has_no_end(self) -> None:
        wire = self.opened()
        for _ in range(8):
            if not wire.aborted:
                wire.send(b"x" * 10_000)
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, ack.status, wire.aborted), (False, 502, True))

    def test_no_answer(self) -> None:
        for error in (None, ConnectionLost()):
            self.setUp()
            self.opened().close(error)
            [ack] = self.link.frames()
            self.assertEqual((ack.ok, ack.status, self.table.open_tunnels), (False, 502, 0))
        self.setUp()
        wire = self.opened()
        wire.protocol.readConnectionLost()
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, wire.aborted), (False, True))

    def test_nothing_listens(self) -> None:
        self.open("a", upgrade=True)
        self.refuse(ConnectionRefusedError())
        [ack] = self.link.frames()
        self.assertEqual((ack.ok, ack.status), (False, 502))
        self.assertIn("refused", ack.message)

    def test_a_server_that_closes_its_side_gets_what_was_on_its_way(self) -> None:
        wire = self.switched()
        wire.send(b"last words")
        wire.full()
        self.table.deliver("a", b"on its way")
        wire.protocol.readConnectionLost()
        self.assertEqual(self.last(), TunnelClose("a", "upstream closed"))
        self.assertEqual(self.link.order(), ["TunnelAck", "data", "TunnelClose"])
        self.assertEqual((wire.take(), wire.disconnecting, wire.aborted), (b"on its way", True, False))
        self.reactor.advance(LINGER)
        self.assertTrue(wire.aborted, "it did not take it in time")

    def test_a_server_that_closes_its_side_and_then_all_of_it(self) -> None:
        wire = self.switched()
        wire.protocol.readConnectionLost()
        wire.close()
        self.assertEqual(self.link.order(), ["TunnelAck", "TunnelClose"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_connection_that_breaks(self) -> None:
        wire = self.switched()
        wire.close(ConnectionLost())
        self.assertTrue(self.last().reason.startswith("upstream closed"))
        self.assertEqual(self.table.open_tunnels, 0)

    def test_the_bridges_end_becomes_an_end_of_file(self) -> None:
        wire = self.switched()
        wire.full()
        self.table.deliver("a", b"before it")
        self.end()
        self.assertFalse(wire.write_closed)
        wire.drained()
        self.assertEqual((wire.take(), wire.write_closed), (b"before it", True))
        wire.send(b"still heard")
        self.assertEqual(self.link.data("a"), b"still heard")

    def test_the_end_of_a_request_that_has_no_body_is_no_end_of_file(self) -> None:
        self.open("a", upgrade=True)
        self.end()
        wire = self.connect()
        self.end()
        wire.send(SWITCH)
        self.assertFalse(wire.write_closed)
        wire.take()
        self.table.deliver("a", b"goes on")
        self.assertEqual(wire.take(), b"goes on")

    def test_silence_never_ends_it(self) -> None:
        wire = self.switched()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.reactor.advance(7 * 24 * 3600)
        wire.send(b"after a week")
        self.assertEqual(self.link.data("a"), b"after a week")

    def test_flow_both_ways(self) -> None:
        wire = self.switched()
        self.link.block()
        wire.send(b"x" * 300_000)
        self.assertEqual(wire.producerState, "paused")
        wire.full()
        for _ in range(20):
            self.table.deliver("a", b"y" * 65536)
        self.assertEqual(len(self.link.holds), 1)
        wire.drained()
        self.assertEqual((self.link.holds, len(wire.take())), ([], 20 * 65536))
        self.assertEqual(wire.producerState, "paused")
        self.link.unblock()
        self.assertEqual(wire.producerState, "producing")

    def test_a_server_that_takes_nothing_is_given_up_after_its_data_has_left(self) -> None:
        wire = self.switched()
        wire.send(b"data")
        wire.full()
        self.table.deliver("a", b"y" * (1 << 20))
        self.reactor.advance(30)
        self.assertTrue(wire.aborted)
        self.assertEqual(self.link.order(), ["TunnelAck", "data", "TunnelClose"])
        self.assertIn("30 s", self.last().reason)

    def test_a_close_while_it_connects(self) -> None:
        self.open("a", upgrade=True)
        self.close(reason="gone")
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)
        self.assertEqual(self.link.frames(), [TunnelClose("a", "gone")])
