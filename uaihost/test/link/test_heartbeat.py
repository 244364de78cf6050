"""Pings in time, and the end of a connection that fell silent."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.heartbeat import Heartbeat, Silence
from uaihost.test.link.fakes import Pipe


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.sent: list[bytes] = []
        self.stamps: list[int] = []
        self.heartbeat = Heartbeat(self.clock, self.sent.append, self.stamps.append)

    def test_a_ping_every_fifteen_seconds(self) -> None:
        self.heartbeat.start()
        self.clock.pump([1.0] * 45)
        self.assertEqual(self.stamps, [1015000, 1030000, 1045000])
        self.assertEqual(self.sent[0], b'{"kind":"ping","ts":1015000}')

    def test_every_ping_has_another_stamp(self) -> None:
        for _ in range(3):
            self.heartbeat.ping()
        self.assertEqual(self.stamps, [1000000, 1000001, 1000002])

    def test_stopped_it_leaves_no_timer(self) -> None:
        self.heartbeat.start()
        self.heartbeat.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SilenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.socket = Pipe()
        self.silence = Silence(self.clock, self.socket)
        self.silence.start()

    def test_forty_five_silent_seconds_close_the_connection_once(self) -> None:
        self.clock.pump([1.0] * 44)
        self.assertEqual(self.socket.closes, [])
        self.clock.pump([1.0] * 100)
        self.assertEqual(self.socket.closes, [(4000, "heartbeat timeout")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_any_byte_begins_the_count_anew(self) -> None:
        self.clock.pump([1.0] * 41)
        self.socket.traffic = True
        self.clock.pump([1.0] * 48)
        self.assertEqual(self.socket.closes, [])
        self.clock.pump([1.0] * 5)
        self.assertEqual(len(self.socket.closes), 1)

    def test_silence_of_our_own_making_does_not_count(self) -> None:
        self.clock.pump([1.0] * 40)
        self.silence.hold(True)
        self.clock.pump([1.0] * 600)
        self.silence.hold(False)
        self.clock.pump([1.0] * 44)
        self.assertEqual(self.socket.closes, [])
        self.clock.pump([1.0] * 5)
        self.assertEqual(len(self.socket.closes), 1)

    def test_a_machine_that_stood_still_is_no_silence(self) -> None:
        self.clock.advance(3600)
        self.assertEqual(self.socket.closes, [])

    def test_stopped_it_leaves_no_timer(self) -> None:
        self.silence.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
