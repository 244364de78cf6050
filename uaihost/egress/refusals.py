"""What was refused, told so that a person hears of each destination and a hostile task floods nobody."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.egress.names import Destination

log = Logger()

# Seconds for which a destination that was told is not told again: programs try again and again.
QUIET = 600.0
# Destinations of one task that are told within that time. A program can invent names without end.
MOST = 20

# task id, destination, and why it was refused: a sentence for people.
OnBlocked = Callable[[str, Destination, str], object]


@attrs.define
class Traffic:
    """Counters since the start, of all tasks. sent, received: bytes, as the tasks see them."""

    allowed: int = 0
    blocked: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0


class Refusals:
    """Tells `on_blocked` once per task and destination within QUIET, and of no more than MOST per task."""

    def __init__(self, clock: IReactorTime, on_blocked: OnBlocked) -> None:
        self._clock = clock
        self._on_blocked = on_blocked
        # When each was told, oldest first.
        self._told: dict[str, dict[Destination, float]] = {}

    def add(self, task_id: str, to: Destination, why: str) -> None:
        """`to` was refused to the task."""
        now = self._clock.seconds()
        told = self._told.setdefault(task_id, {})
        for known, at in list(told.items()):
            if now - at < QUIET:
                break
            del told[known]
        if to in told or len(told) >= MOST:
            return
        told[to] = now
        if len(told) == MOST:
            why += f" Further destinations are not shown for up to {QUIET / 60:.0f} minutes."
        try:
            self._on_blocked(task_id, to, why)
        except Exception:
            log.failure("a blocked destination could not be reported")

    def forget(self, task_id: str) -> None:
        """The task is gone."""
        self._told.pop(task_id, None)
