"""The event loop of a command that runs services: start them, wait for a signal, stop them in order."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from uaihost.errors import HostError
from uaihost.exits import Exits
from uaihost.logs.observers import ProcessLog

reactor: Any = _reactor


def run_until_signalled(
    start: Callable[[Any, Exits], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    process_log: ProcessLog,
) -> None:
    """Run `start`; at SIGINT or SIGTERM, or when `start` fails, run `stop` and return.

    Errors are shown on standard error.

    Raises:
        HostError: what `start` failed with.
    """
    # A person at a terminal is told what matters; the data folder's file has the rest.
    process_log.to_stream(sys.stderr, "text", least="error")
    globalLogBeginner.beginLoggingTo([process_log], redirectStandardIO=False, discardBuffer=True)
    failures: list[BaseException] = []
    exits = Exits(reactor)
    exits.watch_signals()

    def failed(failure: Failure) -> None:
        assert failure.value is not None
        failures.append(failure.value)
        if reactor.running:
            reactor.stop()

    def begin() -> None:
        ensureDeferred(_as_coroutine(start(reactor, exits))).addErrback(failed)

    def end() -> Deferred[None]:
        return ensureDeferred(_as_coroutine(stop()))

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.run(installSignalHandlers=True)
    for error in failures:
        if isinstance(error, HostError):
            raise error
        raise RuntimeError(f"could not start: {error}") from error


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
