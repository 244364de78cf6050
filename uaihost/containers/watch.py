"""What the engine says unasked: containers of this host that start, end, or run out of memory.

One answer of `GET /events` that does not end (Docker Engine API 1.41, "Monitor events"), read over the
reactor; it is asked again whenever it breaks. What an event means for a task is its listener's business.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast
from urllib.parse import quote

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as Wire
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.containers import spec
from uaihost.containers.waiting import Waiting

log = Logger()

ACTIONS = ("start", "die", "oom")
# Seconds between tries while the engine does not answer; the last one stays.
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0)
# Bytes of the answer's head, and of one event: the engine's are about 1 KiB with labels.
HEAD_LIMIT = 16 << 10
EVENT_LIMIT = 256 << 10


@attrs.frozen
class EngineEvent:
    """exit_code: of `die`. at: milliseconds since the epoch, by the engine's clock."""

    task_id: str
    action: Literal["start", "die", "oom"]
    exit_code: int | None
    at: int


class Listener(Protocol):
    """Nothing here waits or raises."""

    def engine_heard(self, event: EngineEvent) -> None:
        """Something happened to a container."""

    def engine_found(self) -> None:
        """From now on everything is heard; what happened before may have been missed."""

    def engine_lost(self) -> None:
        """Nothing is heard any more, until `engine_found`."""


def parse(line: bytes) -> EngineEvent | None:
    """The event in a line of the answer; None when it is none of ours."""
    try:
        entry = json.loads(line)
        actor = entry["Actor"]["Attributes"]
        action, task_id = str(entry["Action"]), str(actor[spec.LABEL_TASK])
        at = int(entry.get("timeNano") or 0) // 1_000_000
        code = int(actor["exitCode"]) if "exitCode" in actor else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if action not in ACTIONS:
        return None
    return EngineEvent(task_id, cast(Literal["start", "die", "oom"], action), code, at)


class Events(Wire):
    """One connection. opened: called when the engine has said yes; done: fires when it is over."""

    def __init__(
        self, request: bytes, opened: Callable[[], None], heard: Callable[[EngineEvent], None]
    ) -> None:
        self._request = request
        self._opened = opened
        self._heard = heard
        self._data = bytearray()
        self._open = False
        self.done: Deferred[None] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if not self._open:
            head, end, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not end:
                if len(head) > HEAD_LIMIT:
                    self._abort()
                return
            if head.split(b" ", 2)[1:2] != [b"200"]:
                log.warn("the engine tells no events: {head}", head=head[:200].decode("latin-1"))
                self._abort()
                return
            self._data = bytearray(rest)
            self._open = True
            self._opened()
        *lines, rest = bytes(self._data).split(b"\n")
        self._data = bytearray(rest)
        for line in lines:
            event = parse(line)
            if event is not None and not self.done.called:
                self._heard(event)
        if len(self._data) > EVENT_LIMIT:
            self._abort()

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        if not self.done.called:
            self.done.callback(None)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


class EngineEvents:
    """The events of the engine at `docker_host`, of the containers of one host, told to `listener`."""

    def __init__(self, reactor: Any, docker_host: str, host_id: str, listener: Listener) -> None:
        self._reactor = reactor
        self._engine = Waiting(reactor, docker_host)
        self._listener = listener
        wanted = {"type": ["container"], "event": list(ACTIONS), **spec.filters(host_id)}
        path = f"/events?filters={quote(json.dumps(wanted))}"
        # HTTP/1.0: the answer is not chunked, a line is an event.
        self._request = f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode()
        self._failures = 0
        self._running: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self._stopped = True

    def start(self) -> None:
        self._stopped = False
        self._listen()

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()
        if self._running is not None:
            self._running.cancel()

    def _listen(self) -> None:
        self._running = Deferred.fromCoroutine(self._once())
        self._running.addErrback(self._failed)
        self._running.addBoth(lambda _: self._again())

    async def _once(self) -> None:
        """One connection, from its making to its end."""
        found = False

        def opened() -> None:
            nonlocal found
            found, self._failures = True, 0
            self._listener.engine_found()

        protocol = Events(self._request, opened, self._listener.engine_heard)
        try:
            await self._engine.endpoint().connect(Factory.forProtocol(lambda: protocol))
            await protocol.done
        finally:
            if found and not self._stopped:
                self._listener.engine_lost()

    def _failed(self, failure: Failure) -> None:
        if not self._stopped and self._failures == 0:
            log.info("the engine's events are not heard: {why}", why=failure.getErrorMessage())

    def _again(self) -> None:
        self._running = None
        if self._stopped:
            return
        delay = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
        self._failures += 1
        self._next = self._reactor.callLater(delay, self._listen)
