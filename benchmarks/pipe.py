"""One direction of a slow link: a queue, a rate, a delay, and what gets lost. It knows no clock."""

from __future__ import annotations

import random
from collections import deque


class Pipe:
    """Packets that wait to be sent one after the other, and then travel.

    Args:
        rate: bits per second.
        delay: seconds from the last bit's sending to its arrival.
        limit: packets that may wait, the one that is being sent included; one more is dropped.
        loss: the part of the packets that is lost on the way, 0 to 1; a lost packet takes its time all the
            same.
        chance: decides which.
    """

    def __init__(self, rate: float, delay: float, limit: int, loss: float, chance: random.Random) -> None:
        self._rate = rate
        self._delay = delay
        self._limit = limit
        self._loss = loss
        self._chance = chance
        self._free = 0.0
        # When each packet that waits will have been sent.
        self._waiting: deque[float] = deque()
        self._travelling: deque[tuple[float, bytes]] = deque()
        self.dropped = 0
        self.lost = 0

    def put(self, now: float, packet: bytes) -> None:
        """A packet wants to be sent; `now`, in seconds, never goes back."""
        while self._waiting and self._waiting[0] <= now:
            self._waiting.popleft()
        if len(self._waiting) >= self._limit:
            self.dropped += 1
            return
        self._free = max(self._free, now) + len(packet) * 8 / self._rate
        self._waiting.append(self._free)
        if self._chance.random() < self._loss:
            self.lost += 1
        else:
            self._travelling.append((self._free + self._delay, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived since the last call, in order."""
        arrived = []
        while self._travelling and self._travelling[0][0] <= now:
            arrived.append(self._travelling.popleft()[1])
        return arrived

    def next(self) -> float | None:
        """When the next packet arrives; None when none is on its way."""
        return self._travelling[0][0] if self._travelling else None
