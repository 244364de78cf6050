"""Turns and company: what must wait for what. It knows keys and coroutines, not commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, DeferredLock
from twisted.python.failure import Failure

T = TypeVar("T")


class Lanes:
    """Work under one key runs one after another in the order of asking; other keys do not wait."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, DeferredLock] = {}

    async def turn(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work`, begun when all that asked earlier under `key` has ended, however it ended."""
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            return await work()
        finally:
            if not lock.waiting:
                self._locks.pop(key, None)
            lock.release()

    def __len__(self) -> int:
        """How many keys are in use."""
        return len(self._locks)


async def together(works: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """All at once; the results in order. Waits for every one, then raises the first failure, if any."""
    waiting = [Deferred.fromCoroutine(work) for work in works]
    ended = await DeferredList(waiting, consumeErrors=True)
    for _, value in ended:
        if isinstance(value, Failure):
            value.raiseException()
    return [value for _, value in ended]
