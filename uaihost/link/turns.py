"""Whose turn it is: start-time fair queueing (Goyal, Vin and Cheng 1996) of whoever has bytes to send.

Everyone has a start tag: the larger of the queue's own time, which is the start tag of the latest served,
and of where its last turn ended; a turn ends as many bytes later as it sent. The lowest start tag is served.
So two that always have something to send never differ by more than a turn of each, and one that sends
little comes before all that send much.

Pure; it knows counts of bytes only, and neither sockets nor what is sent.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar


class Taker(Protocol):
    """Who takes turns. tag: where its last turn ended, 0 at first; kept for Turns."""

    tag: int


T = TypeVar("T", bound=Taker)


class Turns(Generic[T]):
    """Those who wait for a turn. Some of them need credit that all share, and are left out without it."""

    def __init__(self) -> None:
        self._now = 0
        self._latest = 0
        self._entries = 0
        self._free: list[tuple[int, int, T]] = []
        self._bound: list[tuple[int, int, T]] = []

    def __len__(self) -> int:
        return len(self._free) + len(self._bound)

    def add(self, taker: T, needs_credit: bool) -> None:
        """`taker`, who does not wait, has something to send; among equals it comes last."""
        self._entries += 1
        start = max(self._now, taker.tag)
        heappush(self._bound if needs_credit else self._free, (start, self._entries, taker))

    def any(self, credit: bool) -> bool:
        """Whether `take` gives somebody."""
        return bool(self._free or (credit and self._bound))

    def take(self, credit: bool) -> T:
        """Whose turn it is; waits no longer. credit: whether there is any to share."""
        free, bound = self._free, self._bound
        heap = bound if credit and bound and not (free and free[0] < bound[0]) else free
        self._now, _, taker = heappop(heap)
        return taker

    def served(self, taker: T, size: int) -> None:
        """`taker`, who does not wait, has sent `size` bytes."""
        taker.tag = max(self._now, taker.tag) + size
        self._latest = max(self._latest, taker.tag)
        if not self._free and not self._bound:
            # Whoever was served while nobody else waited owes nobody anything.
            self._now = self._latest

    def remove(self, taker: T) -> None:
        """`taker`, who waits, has nothing to send any more."""
        for heap in (self._free, self._bound):
            for at, entry in enumerate(heap):
                if entry[2] is taker:
                    heap[at] = heap[-1]
                    heap.pop()
                    heapify(heap)
                    return

    def clear(self) -> list[T]:
        """All that wait; nobody waits any more."""
        gone = [entry[2] for entry in (*self._free, *self._bound)]
        self._free.clear()
        self._bound.clear()
        return gone
