"""Which ports are told: the relay is played on a real socket, the clock is the test's."""

from __future__ import annotations

import json
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers import ports
from uaihost.containers.ports import BACK_OFF, EPHEMERAL, LINE_LIMIT, PAUSE, PORT_LIMIT, PortWatch
from uaihost.test.sockets import SocketReactor, listening
from uaihost.test.support import given, short_folder, strategies


def line(*numbers: int) -> bytes:
    return json.dumps({"ports": [{"port": one, "loopback": True} for one in numbers]}).encode() + b"\n"


class PortWatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = SocketReactor()
        self.folder = short_folder(self)
        self.told: list[tuple[str, list[int]]] = []
        self.watch = PortWatch(
            self.reactor, lambda task_id: self.folder / task_id, lambda *told: self.told.append(told)
        )
        self.addCleanup(self.nothing_is_left)
        (self.folder / "t").mkdir()
        self.listen()

    def nothing_is_left(self) -> None:
        self.watch.stop_all()
        self.reactor.turn()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.reactor.getReaders(), [])

    def listen(self) -> None:
        self.path = self.folder / "t" / "relay.sock"
        self.path.unlink(missing_ok=True)
        self.server = listening(self, self.path)

    def accept(self) -> socket.socket:
        """The relay's side of the host's next connection, which asks to watch."""
        self.reactor.turn()
        peer, _ = self.server.accept()
        self.addCleanup(peer.close)
        self.reactor.turn()
        self.assertEqual(peer.recv(100), b"watch\n")
        peer.setblocking(False)
        return peer

    def say(self, peer: socket.socket, data: bytes) -> None:
        peer.sendall(data)
        self.reactor.turn()

    def pass_time(self, seconds: float) -> None:
        self.reactor.advance(seconds)
        self.reactor.turn()

    def took(self) -> list[list[int]]:
        """What was told since the last call."""
        told, self.told[:] = list(self.told), []
        self.assertEqual({task_id for task_id, _ in told} - {"t"}, set())
        return [found for _, found in told]

    def test_the_first_line_and_every_change_is_told(self) -> None:
        self.watch.start("t")
        peer = self.accept()
        self.say(peer, line())
        self.assertEqual(self.took(), [[]])
        for found in ([3000], [3000], [3000, 5173], [5173]):
            self.pass_time(PAUSE)
            self.say(peer, line(*found))
        self.assertEqual(self.took(), [[3000], [3000, 5173], [5173]])

    def test_only_what_is_worth_telling(self) -> None:
        self.watch.start("t", declared=[40000], excluded=[9229])
        peer = self.accept()
        self.say(peer, line(40000, 8100, 3128, 9229, 5173, 40001, EPHEMERAL, EPHEMERAL - 1, 80, 80))
        self.assertEqual(self.took(), [[80, 5173, EPHEMERAL - 1, 40000]])
        self.pass_time(PAUSE)
        self.say(peer, line(*range(1, 1000)))
        self.assertEqual(self.took(), [list(range(1, PORT_LIMIT + 1))])

    def test_a_change_of_what_is_not_told_is_none(self) -> None:
        self.watch.start("t")
        peer = self.accept()
        for hidden in (40000, 40001, 8100):
            self.say(peer, line(3000, hidden))
            self.pass_time(PAUSE)
        self.assertEqual(self.took(), [[3000]])

    def test_two_changes_a_second_at_most_and_the_newest_wins(self) -> None:
        self.watch.start("t")
        peer = self.accept()
        for number in range(1, 101):
            self.say(peer, line(number))
        self.assertEqual(self.took(), [[1]])
        self.pass_time(PAUSE - 0.01)
        self.assertEqual(self.took(), [])
        self.pass_time(0.01)
        self.assertEqual(self.took(), [[100]])
        self.pass_time(PAUSE)
        self.assertEqual(self.took(), [])

    def test_a_line_in_pieces(self) -> None:
        self.watch.start("t")
        peer = self.accept()
        for byte in line(3000):
            self.assertEqual(self.took(), [])
            self.say(peer, bytes([byte]))
        self.assertEqual(self.took(), [[3000]])

    def test_what_does_not_speak_as_it_should_is_dropped_and_tried_again(self) -> None:
        self.watch.start("t")
        for said in (
            b"hello\n",
            b"\n",
            b"[]\n",
            b'{"ports": 1}\n',
            b"x" * (LINE_LIMIT + 1),
            b"[" * 60000 + b"\n",
        ):
            peer = self.accept()
            sent = 0
            while sent < len(said):
                sent += peer.send(said[sent : sent + 1000])
                self.reactor.turn()
            self.assertEqual(peer.recv(10), b"")
            self.pass_time(BACK_OFF[-1])
        self.assertEqual(self.took(), [])
        self.say(self.accept(), line(3000))
        self.assertEqual(self.took(), [[3000]])

    def test_a_relay_that_comes_back_is_heard_again(self) -> None:
        self.watch.start("t")
        peer = self.accept()
        self.say(peer, line(3000))
        self.server.close()
        peer.close()
        self.reactor.turn()
        # What is open does not change because nobody tells.
        self.assertEqual(self.took(), [[3000]])
        for wait in BACK_OFF:
            self.pass_time(wait)
        self.listen()
        self.pass_time(BACK_OFF[-1])
        self.say(self.accept(), line(3000))
        self.assertEqual(self.took(), [])
        self.pass_time(PAUSE)

    def test_attempts_become_rare_until_a_relay_has_answered(self) -> None:
        self.watch.start("t")
        for wait in (*BACK_OFF, BACK_OFF[-1]):
            self.accept().close()
            self.reactor.turn()
            self.pass_time(wait - 0.01)
            self.assertRaises(BlockingIOError, self.server.accept)
            self.pass_time(0.01)
        peer = self.accept()
        self.say(peer, line())
        peer.close()
        self.pass_time(PAUSE)
        self.pass_time(BACK_OFF[0])
        self.accept()

    def test_a_link_in_its_place_is_not_followed(self) -> None:
        engine = listening(self, short_folder(self) / "engine.sock")
        self.path.unlink()
        self.path.symlink_to(engine.getsockname())
        self.watch.start("t")
        self.pass_time(BACK_OFF[0])
        self.assertRaises(BlockingIOError, engine.accept)
        self.listen()
        self.pass_time(BACK_OFF[1])
        self.accept()

    def test_after_a_stop_nothing_is_told(self) -> None:
        self.watch.stop("t")
        self.watch.start("t")
        peer = self.accept()
        self.say(peer, line(3000))
        self.say(peer, line(4000))
        self.watch.stop("t")
        self.pass_time(PAUSE)
        self.assertEqual(self.took(), [[3000]])
        # While it connects, and while it waits to.
        self.watch.start("t")
        self.watch.stop("t")
        self.server.close()
        self.watch.start("t")
        self.reactor.turn()
        self.watch.stop("t")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_started_anew_everything_is_told_anew(self) -> None:
        for _ in range(2):
            self.watch.start("t")
            self.say(self.accept(), line(3000))
        self.assertEqual(self.took(), [[3000], [3000]])

    @given(
        strategies.binary(max_size=60)
        | strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.integers() | strategies.text(max_size=5),
            lambda inner: (
                strategies.lists(inner, max_size=3)
                | strategies.dictionaries(strategies.sampled_from(["ports", "port", "loopback"]), inner)
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode())
    )
    def test_a_line_is_a_list_of_ports_or_nothing(self, data: bytes) -> None:
        found = ports.parse(data)
        if found is not None:
            self.assertTrue(all(type(port) is int and 0 < port < 65536 for port in found))
            self.assertEqual([each["port"] for each in json.loads(data)["ports"]], found)
            told = ports.counted(found, (), ports.OWN_PORTS)
            self.assertEqual(told, sorted(set(told)))
            self.assertLessEqual(set(told), set(found))
