"""A service that starts in steps which may wait or fail, and that undoes them in the opposite order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.errors import ErrorCode, HostError, OwnerNeeded

log = Logger()

Undo = Callable[[], Awaitable[object] | None]


class StagedService(Service, ABC):
    """Subclasses give `begin`, which appends to `undo` what takes each step back.

    what: the service in the sentence "... cannot start". on_fatal: told why it cannot start or go on.
    on_refused: the same when only the owner can put it right; on_fatal where it is not given.
    """

    def __init__(
        self,
        what: str,
        on_fatal: Callable[[str], object],
        on_refused: Callable[[str], object] | None = None,
    ) -> None:
        self._what = what
        self._starting: Deferred[None] | None = None
        self._failure: HostError | None = None
        self.on_fatal = on_fatal
        self.on_refused = on_refused or on_fatal
        self.undo: list[Undo] = []

    @abstractmethod
    async def begin(self) -> None:
        """Every step of the start."""

    def startService(self) -> None:
        super().startService()
        self._starting = Deferred.fromCoroutine(self.begin())
        self._starting.addErrback(self._failed)

    async def started(self) -> None:
        """Returns once the last step is done; asked after `startService`.

        Raises:
            HostError: it cannot start; the sentence says what to do.
        """
        assert self._starting is not None
        waiting: Deferred[None] = Deferred()
        self._starting.addCallback(lambda _: waiting.callback(None))
        await waiting
        if self._failure is not None:
            raise self._failure

    async def stopService(self) -> None:
        super().stopService()
        if self._starting is not None and not self._starting.called:
            self._starting.cancel()
        while self.undo:
            try:
                done = self.undo.pop()()
                if done is not None:
                    await done
            except Exception:
                log.failure("a part of {what} did not stop in order", what=self._what)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return  # Stopped while starting.
        error = failure.value
        if not isinstance(error, HostError):
            log.failure("{what} cannot start", failure, what=self._what)
            error = HostError(ErrorCode.INTERNAL, f"{error}; its log says more")
        self._failure = HostError(error.code, f"{self._what} cannot start: {error.message}")
        tell = self.on_refused if isinstance(error, OwnerNeeded) else self.on_fatal
        tell(self._failure.message)
