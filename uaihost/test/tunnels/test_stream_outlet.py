"""What an outlet of mux.1 promises, kept by the fake that other tests use and by the real one."""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import Outlet
from uaihost.link.outbound import Outbound
from uaihost.test.fakes_tunnels import SHARE, FakeLink, RecordingProducer
from uaihost.test.link.fakes import Pipe
from uaihost.wire import mux
from uaihost.wire.credit import WindowOverflow

END = mux.end_frame(1)
HEAD = mux.head_frame(1, mux.Head(True, 200, "OK", []))


class Link(Protocol):
    def stream(self, number: int) -> Outlet: ...

    def urgent(self, frame: bytes) -> None: ...

    def left(self) -> list[tuple[int, int, bytes]]:
        """The frames that have left since the last call, DATA that follows DATA joined."""


class Fake:
    def __init__(self) -> None:
        self.link = FakeLink()
        self.stream = self.link.stream
        self.urgent = self.link.urgent

    def left(self) -> list[tuple[int, int, bytes]]:
        frames, self.link.muxed = self.link.muxed, []
        return _joined(frames)


class Real:
    """An Outbound over a socket in memory that takes everything."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pipe = Pipe(capacity=1 << 40)
        self.outbound = Outbound(self.pipe, self.clock)
        self.outbound.credit(1 << 30)
        self.stream = self.outbound.stream
        self.urgent = self.outbound.urgent

    def left(self) -> list[tuple[int, int, bytes]]:
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)
        sent = list(self.pipe.sent)
        self.pipe.sent.clear()
        # What it sends unasked, it learns the speed of the way by; nobody answers, and it must go on.
        for mark in self.pipe.marks:
            self.outbound.marked(mark)
        self.pipe.marks.clear()
        found = [frame for message in sent for frame in mux.frames(message.payload)]
        return _joined(found + (self.left() if sent else []))


def _joined(frames: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    joined: list[tuple[int, int, bytes]] = []
    for frame in frames:
        if joined and frame[0] == mux.DATA and joined[-1][:2] == frame[:2]:
            joined[-1] = (*frame[:2], joined[-1][2] + frame[2])
        else:
            joined.append(frame)
    return joined


class StreamContract:
    make: Any

    def setUp(self) -> None:
        assert isinstance(self, SynchronousTestCase)
        self.case = self
        self.link: Link = self.make()
        self.outlet = self.link.stream(1)

    def test_frames_and_bytes_leave_in_order(self) -> None:
        self.outlet.frame(HEAD)
        self.outlet.write(b"one")
        self.outlet.finish(END)
        self.case.assertEqual([frame[0] for frame in self.link.left()], [mux.HEAD, mux.DATA, mux.END])

    def test_bytes_wait_for_credit_and_the_end_behind_them(self) -> None:
        self.outlet.frame(HEAD)
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + 10))
        self.outlet.finish(END)
        (head, data) = self.link.left()
        self.case.assertEqual((head[0], len(data[2])), (mux.HEAD, mux.TUNNEL_WINDOW))
        self.outlet.credit(4)
        self.case.assertEqual(self.link.left(), [(mux.DATA, 1, b"xxxx")])
        self.outlet.credit(6)
        self.case.assertEqual(self.link.left(), [(mux.DATA, 1, b"x" * 6), (mux.END, 1, b"")])

    def test_credit_before_it_is_needed_counts(self) -> None:
        self.outlet.credit(10)
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + 11))
        ((_, _, data),) = self.link.left()
        self.case.assertEqual(len(data), mux.TUNNEL_WINDOW + 10)

    def test_urgent_frames_pass_what_waits_for_credit(self) -> None:
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + 1))
        self.link.left()
        self.link.urgent(mux.credit_frame(0, 5))
        self.case.assertEqual(self.link.left(), [(mux.CREDIT, 0, b"\0\0\0\5")])

    def test_one_without_credit_does_not_stop_another(self) -> None:
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + 1))
        self.link.left()
        self.link.stream(2).write(b"y")
        self.case.assertEqual(self.link.left(), [(mux.DATA, 2, b"y")])

    def test_a_producer_waits_for_credit(self) -> None:
        producer = RecordingProducer()
        self.outlet.registerProducer(producer, True)
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + SHARE + 1))
        self.link.left()
        self.case.assertEqual(producer.states, ["paused"])
        self.outlet.credit(SHARE + 1)
        self.link.left()
        self.case.assertEqual(producer.states, ["paused", "resumed"])

    def test_what_is_discarded_never_leaves(self) -> None:
        self.outlet.write(b"x" * (mux.TUNNEL_WINDOW + 1))
        self.link.left()
        self.outlet.discard()
        self.outlet.credit(100)
        self.outlet.finish(END)
        self.case.assertEqual(self.link.left(), [])

    def test_a_window_has_an_end(self) -> None:
        self.outlet.credit(mux.MAX_WINDOW - mux.TUNNEL_WINDOW)
        self.case.assertRaises(WindowOverflow, self.outlet.credit, 1)


class FakeTests(StreamContract, SynchronousTestCase):
    make = Fake


class RealTests(StreamContract, SynchronousTestCase):
    make = Real
