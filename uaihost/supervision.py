"""The service manager's side of this process: ready, alive, stopping, and a line on how it is (sd_notify(3)).

Without a service manager nothing is sent and nothing is timed. It must not know what the service does.
"""

from __future__ import annotations

import faulthandler
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

# Seconds between two looks at how late the reactor is.
LOOK = 1.0
# Seconds. A reactor whose every timer is later than this is drowned: it turns, and serves nobody.
LATE = 5.0
# Seconds between two looks at what the one line says.
TELL = 5.0
# Seconds that a start or a stop which goes on asks for at a time; asked anew each LOOK.
MORE = 30.0
# Seconds for which a stop asks for more: what is in flight by then is taken up by the next start.
LONGEST_STOP = 300.0
# Bytes of a line: more is cut by the programs that show it.
LINE = 256


@attrs.frozen
class Orders:
    """What a service manager has said in the environment.

    address: of its socket, None when nobody listens; a name that begins with NUL is abstract (unix(7)).
    watchdog: seconds in which it wants to hear that we live, None when it does not ask.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def taken(cls, environ: MutableMapping[str, str], pid: int) -> Orders:
        """Read them, and take them out of the environment: they are not for our children."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds = environ.pop("WATCHDOG_USEC", "")
        asked = environ.pop("WATCHDOG_PID", "")
        # Other forms, such as vsock:, are for machines in machines.
        if not address.startswith(("/", "@")) or len(address) < 2:
            return cls()
        watchdog = None
        if microseconds.isascii() and microseconds.isdigit() and asked in ("", str(pid)):
            watchdog = int(microseconds) / 1e6 or None
        return cls("\0" + address[1:] if address[0] == "@" else address, watchdog)


class Supervisor:
    """Speaks to the service manager.

    clock: of the reactor, which must turn for the watchdog to be fed. send: for tests; takes one datagram.
    """

    def __init__(self, clock: Any, orders: Orders, *, send: Callable[[bytes], None] | None = None) -> None:
        self._clock = clock
        self._orders = orders
        self._send = send or self._datagram
        self._socket: socket.socket | None = None
        self._line = ""
        self._due = 0.0
        self._fed = 0.0
        # Whether a look since the last feeding was in time.
        self._in_time = False
        self._until: float | None = None
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    @property
    def watched(self) -> bool:
        """Whether a service manager listens."""
        return self._orders.address is not None

    def starting(self) -> None:
        """The service begins to start: from now on a start that takes long is not taken for a hanging one."""
        if not self.watched:
            return
        now = self._clock.seconds()
        self._until = float("inf")
        self._due, self._fed, self._in_time = now + LOOK, now, True
        self._tell("STATUS=starting", *self._more())
        if not self._loop.running:
            self._loop.start(LOOK, now=False)

    def ready(self) -> None:
        """The service has started."""
        self._until = None
        self._tell("READY=1")

    def stopping(self) -> None:
        """The service begins to stop: what it waits for is told by `say`."""
        self._until = self._clock.seconds() + LONGEST_STOP
        self._tell("STOPPING=1", "STATUS=stopping", *self._more())

    def stopped(self) -> None:
        """Nothing more is said."""
        if self._loop.running:
            self._loop.stop()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def say(self, line: str) -> None:
        """One line for people on how the service is; a line that stays is sent once."""
        line = " ".join(line.split())[:LINE]
        if line != self._line:
            self._line = line
            self._tell(f"STATUS={line}")

    def _look(self) -> None:
        now = self._clock.seconds()
        self._in_time = self._in_time or now - self._due < LATE
        self._due = now + LOOK
        words = self._more()
        half = None if self._orders.watchdog is None else self._orders.watchdog / 2
        # The next look may be too late for it.
        if half is not None and now + LOOK - self._fed > half:
            if self._in_time:
                words.append("WATCHDOG=1")
                self._fed, self._in_time = now, False
            else:
                log.warn("every timer is late by more than {late} s: the watchdog is not fed", late=LATE)
        if words:
            self._tell(*words)

    def _more(self) -> list[str]:
        if self._until is None or self._clock.seconds() >= self._until:
            return []
        return [f"EXTEND_TIMEOUT_USEC={int(MORE * 1e6)}"]

    def _tell(self, *words: str) -> None:
        if not self.watched:
            return
        try:
            self._send("\n".join(words).encode())
        except OSError as error:
            # A full queue empties again; whoever does not listen any more needs to know nothing.
            log.debug("the service manager was not told {words}: {error}", words=words, error=error)

    def _datagram(self, data: bytes) -> None:
        assert self._orders.address is not None
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self._socket.sendto(data, self._orders.address)


class Supervisable(Protocol):
    """What can be supervised: staged.StagedService with one line about itself."""

    def startService(self) -> None: ...

    async def started(self) -> None: ...

    def stopService(self) -> Awaitable[object]: ...

    async def summary(self) -> str:
        """One line on how it is, for people; asked while it starts, runs and stops."""
        ...


class Supervised(Service):
    """A service of twistd that tells the service manager how the inner one is."""

    def __init__(self, clock: Any, inner: Supervisable, supervisor: Supervisor) -> None:
        self.inner = inner
        self._clock = clock
        self._supervisor = supervisor
        self._telling = LoopingCall(lambda: Deferred.fromCoroutine(self._tell()))
        self._telling.clock = clock

    def startService(self) -> None:
        super().startService()
        self._supervisor.starting()
        self.inner.startService()
        Deferred.fromCoroutine(self._wait()).addErrback(
            lambda failure: self._supervisor.say(failure.getErrorMessage())
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _wait(self) -> None:
        await self.inner.started()
        if not self.running:
            return
        self._supervisor.ready()
        if self._supervisor.watched:
            self._telling.start(TELL)

    async def _stop(self) -> None:
        self._supervisor.stopping()
        try:
            await self.inner.stopService()
        finally:
            if self._telling.running:
                self._telling.stop()
            self._supervisor.stopped()

    async def _tell(self) -> None:
        try:
            self._supervisor.say(await self.inner.summary())
        except Exception:
            log.failure("the line for the service manager could not be made")


def supervised(clock: Any, inner: Supervisable, environ: MutableMapping[str, str]) -> Supervised:
    """`inner` under whatever service manager the environment names.

    A service manager ends a process that hangs by SIGABRT: its last word is then where every thread was.
    """
    faulthandler.enable(file=2)
    return Supervised(clock, inner, Supervisor(clock, Orders.taken(environ, os.getpid())))
