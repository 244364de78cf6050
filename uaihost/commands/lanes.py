"""Turns and company: what must wait for what. It knows keys and coroutines, not commands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.python.failure import Failure

T = TypeVar("T")

# Given the wait for a turn, which may be cancelled; the same wait, or one that fails as it should.
Queued = Callable[[Deferred[Any]], Deferred[Any]]


class Lanes:
    """Work under one key runs one after another in the order of asking; other keys do not wait."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, DeferredLock] = {}

    async def turn(self, key: Hashable, work: Callable[[], Awaitable[T]], queued: Queued | None = None) -> T:
        """The result of `work`, begun when all that asked earlier under `key` has ended, however it ended.

        queued: is called when there is something to wait for, with what gives the place in the queue up.
        """
        lock = self._locks.setdefault(key, DeferredLock())
        acquired = lock.acquire()
        if queued is not None and not acquired.called:
            acquired = queued(acquired)
        await acquired
        try:
            return await work()
        finally:
            if not lock.waiting:
                self._locks.pop(key, None)
            lock.release()

    def busy(self, key: Hashable) -> bool:
        """Whether somebody has the turn under `key`. If not, a `turn` that is asked for at once begins so."""
        return key in self._locks

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


async def side_by_side(works: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """All at once; the results in order. The first failure ends the others, waits for that, and is raised."""
    running: list[Deferred[T]] = []
    first: list[Failure] = []

    def failed(failure: Failure) -> Failure:
        if not first:
            first.append(failure)
            for other in running:
                other.cancel()
        return failure

    for work in works:
        if first:
            work.close()
        else:
            # Known to `failed` before it can fail.
            running.append(Deferred.fromCoroutine(work))
            running[-1].addErrback(failed)
    ended = await DeferredList(running, consumeErrors=True)
    if first:
        first[0].raiseException()
    return [value for _, value in ended]


async def to_the_end(work: Coroutine[Deferred[Any], Any, T]) -> T:
    """The result of `work`, which is not cut off: cancelled, this waits for its end and then is so.

    For calls that go on in a thread whatever becomes of who asked: what they leave must be known.
    """
    outcome: list[T | Failure] = []
    waiting: list[Deferred[None]] = []

    def over(result: T | Failure) -> None:
        outcome.append(result)
        for one in waiting:
            if not one.called:
                one.callback(None)

    Deferred.fromCoroutine(work).addBoth(over)
    cut: CancelledError | None = None
    while not outcome:
        waiting.append(Deferred())
        try:
            await waiting[-1]
        except CancelledError as error:
            cut = error
    if cut is not None:
        raise cut
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result
