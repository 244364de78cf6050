"""One piece of work at a time, in the order in which they were given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet.defer import DeferredLock, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.about import about

log = Logger()

Work = Callable[[], Coroutine[Any, Any, None]]


class Serial:
    """task, agent: for the log; on_fault: called when work that was given has failed, before the next begins;
    mend: done before the next work, until it does not fail, since the one before stopped in the middle."""

    def __init__(
        self,
        task: str,
        agent: str,
        on_fault: Callable[[], None],
        mend: Callable[[], Awaitable[object]],
    ) -> None:
        self._task = task
        self._agent = agent
        self._on_fault = on_fault
        self._mend = mend
        self._broken = False
        self._lock = DeferredLock()
        self.closed = False

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it when its turn comes and wait for its end; nothing is done once closed."""
        await self._lock.acquire()
        try:
            if not self.closed:
                with about(task=self._task):
                    await self._whole()
                    await work()
        except Exception:
            self._broken = True
            self._on_fault()
            raise
        finally:
            self._lock.release()

    def later(self, work: Work) -> None:
        """`run` without waiting; a failure is logged."""
        ensureDeferred(self.run(work)).addErrback(self._log)

    async def last(self, work: Callable[[], Awaitable[None]]) -> None:
        """Close, wait for what runs, then do this."""
        self.closed = True
        await self._lock.acquire()
        try:
            await self._whole()
            await work()
        finally:
            self._lock.release()

    async def _whole(self) -> None:
        if self._broken:
            await self._mend()
            self._broken = False

    def _log(self, failure: Failure) -> None:
        log.failure("agent {agent} failed and begins anew", failure, agent=self._agent, task=self._task)
