"""The thread boundary: the one way by which blocking work leaves the reactor thread.

Every user gets its own `Threads` with its own cap, so that slow engine calls never keep the resolver
(which shares the reactor's pool) or the database waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from uaihost.counts import Calls

P = ParamSpec("P")
T = TypeVar("T")


class Blocking(Protocol):
    """Where blocking calls go."""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` outside the reactor thread; its result or its exception comes back."""

    def stop(self) -> None:
        """Take no more calls. What still runs is not waited for: whoever needs its end awaits the call."""


class _Daemon(Thread):
    """A thread that does not keep the process from ending: an engine may never answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "daemon": True})


class Threads:
    """Blocking calls in a pool of their own.

    limit: how many run at once; with 1, calls run one after another in the order they were made. calls: where
    they are counted; the time of one is that of its whole way, waiting for a thread included.
    """

    def __init__(
        self, reactor: IReactorFromThreads, name: str, limit: int, calls: Calls | None = None
    ) -> None:
        self._reactor = reactor
        # The same object: every reactor is a clock.
        self._clock = cast(IReactorTime, reactor)
        self._calls = Calls() if calls is None else calls
        self._pool = ThreadPool(minthreads=0, maxthreads=limit, name=name)
        self._pool.threadFactory = _Daemon
        self._pool.start()

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun = self._clock.seconds()
        try:
            with self._calls.run():
                done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)
                return await done
        finally:
            self._calls.seconds.add(self._clock.seconds() - begun)

    def stop(self) -> None:
        if self._pool.working:
            # The pool's own stop waits, and this may be the reactor's thread.
            Thread(target=self._pool.stop, daemon=True).start()
        else:
            self._pool.stop()


class Inline:
    """For unit tests: the call runs at once, in the caller's thread."""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    def stop(self) -> None:
        """Nothing runs."""
