"""A way to another end in memory, in the clock's time: a rate, a delay, a queue, and a peer that answers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock

from uaihost.link.flight import MARK_SIZE
from uaihost.link.outbound import MESSAGE_COST, Outbound


@attrs.define
class Arrival:
    """sent, at: when it was handed over and when it arrived, seconds."""

    payload: bytes
    sent: float
    at: float


class Way:
    """A socket (link.parcel.Messages) with a bottleneck behind it.

    Args:
        rate: bytes per second; delay: seconds each way.
        jitter: seconds that an answer may come later, by chance; a hundredth of them come ten times as late.
        buffer: bytes that the way takes before the transport is full.
        answers: whether marks are answered.

    arrived: what came to the other end; marks: pings sent; delayed: for each moment at which something was
    handed over, the seconds until all before it had left the queue.
    """

    smallest = 256

    def __init__(
        self,
        rate: float,
        delay: float,
        jitter: float = 0.0,
        buffer: int = 8 << 20,
        answers: bool = True,
    ) -> None:
        self.clock = Clock()
        self.rate = rate
        self.delay = delay
        self.arrived: list[Arrival] = []
        self.received = 0
        self.marks = 0
        self.uplinks: list[float | None] = []
        self.delayed: list[float] = []
        self._jitter = jitter
        self._buffer = buffer
        self._answers = answers
        self._random = Random(7)
        self._busy_until = 0.0
        self._answered_until = 0.0
        self._full = False
        self._producer: IPushProducer | None = None
        self.outbound = Outbound(self, self.clock)

    # link.parcel.Messages

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._producer = producer

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        at = self._carry(len(payload) + MESSAGE_COST)
        arrival = Arrival(payload[:64], self.clock.seconds(), at)
        size = len(payload)
        self.clock.callLater(at - self.clock.seconds(), lambda: self._arrive(arrival, size))
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        self.marks += 1
        at = self._carry(MARK_SIZE) + self.delay
        if self._jitter:
            at += self._random.random() * self._jitter * (10 if self._random.random() < 0.01 else 1)
        # Answers do not overtake one another.
        self._answered_until = at = max(at, self._answered_until)
        if self._answers:
            self.clock.callLater(at - self.clock.seconds(), lambda: self.outbound.marked(payload))

    def set_uplink(self, rate: float | None) -> None:
        self.uplinks.append(rate)

    # For tests.

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        while calls := self.clock.getDelayedCalls():
            first = min(call.getTime() for call in calls)
            if first > end:
                break
            self.clock.advance(max(0.0, first - self.clock.seconds()))
        self.clock.advance(end - self.clock.seconds())

    def every(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something again and again."""

        def again() -> None:
            act()
            self.clock.callLater(seconds, again)

        self.clock.callLater(seconds, again)

    def stall(self, seconds: float) -> None:
        """The peer does nothing for a while: what was sent arrives, and its answers are late."""
        self._answered_until = max(self._answered_until, self.clock.seconds() + seconds)

    def _carry(self, size: int) -> float:
        now = self.clock.seconds()
        self.delayed.append(max(0.0, self._busy_until - now))
        self._busy_until = max(now, self._busy_until) + size / self.rate
        waiting = self._busy_until - now
        if waiting * self.rate > self._buffer and not self._full:
            self._full = True
            self.clock.callLater(waiting, self._drained)
            assert self._producer is not None
            self._producer.pauseProducing()
        return self._busy_until + self.delay

    def _drained(self) -> None:
        # More may have come since, what belonged together; it is little.
        self._full = False
        assert self._producer is not None
        self._producer.resumeProducing()

    def _arrive(self, arrival: Arrival, size: int) -> None:
        self.received += size
        self.arrived.append(arrival)
