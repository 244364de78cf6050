"""How late the reactor's timers fire: the one figure that shows that something blocked it."""

from __future__ import annotations

from collections import deque

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from uaihost.counts import Histogram

# Seconds between two looks, and looks that are remembered: the last minute.
PERIOD = 0.25
REMEMBERED = 240


class ReactorLag:
    """lateness: where every look counts."""

    def __init__(self, clock: IReactorTime, lateness: Histogram | None = None) -> None:
        self._clock = clock
        self._lateness = lateness
        self._late: deque[float] = deque(maxlen=REMEMBERED)
        self._due = 0.0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    @property
    def worst(self) -> float:
        """Seconds, of the last minute."""
        return max(self._late, default=0.0)

    def start(self) -> None:
        self._due = self._clock.seconds() + PERIOD
        self._loop.start(PERIOD, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        now = self._clock.seconds()
        late = max(0.0, now - self._due)
        self._late.append(late)
        if self._lateness is not None:
            self._lateness.add(late)
        self._due = now + PERIOD
