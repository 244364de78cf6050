"""Hears from a container's first process how far it is: the host's side of /run/uai/init.sock.

The folder is open to the agent, so what is found there is believed only as far as it is a socket and speaks
in short lines; nothing is ever written to it. The lines are described in uaihost/shim/progress.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Step
from uaihost.unix import hostile_socket_endpoint

SOCKET = "init.sock"
# Seconds: a project's set-up may install everything it needs; each of its commands has less.
READY_LIMIT = 600.0
# Seconds between two looks for the socket: it appears about 0.3 s after the container's start.
POLL = 0.1
# Seconds between two questions whether the container still runs.
CHECK = 3.0
# Bytes of one line: 15 lines of a failed command, 400 characters each, escaped.
LINE_LIMIT = 1 << 16
# Lines heard in one wait, of however many connections: more is a flood.
STEP_LIMIT = 2000
# Milliseconds that a step can have taken: a number that is stored and sent as it is.
ELAPSED_LIMIT = 1 << 53
# Ports that a task's repositories may name: each may become a preview.
FORWARD_LIMIT = 32
# A part of a host name, as previews' names are.
_PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\Z")


@attrs.frozen
class Forwarded:
    """A port inside the container that a repository names, as in devcontainer.json's forwardPorts."""

    port: int
    name: str


class Listener(LineOnlyReceiver):
    """One connection: a step for each line.

    limit: lines that are taken; count: how many came. done: fires with the last line's object, or with None
    when the connection ends before it.
    """

    delimiter = b"\n"
    MAX_LENGTH = LINE_LIMIT

    def __init__(self, on_step: Callable[[Step], None], limit: int = STEP_LIMIT) -> None:
        self._on_step = on_step
        self._limit = limit
        self.count = 0
        self.done: Deferred[dict[str, Any] | None] = Deferred(lambda _: self._abort())

    def lineReceived(self, line: bytes) -> None:
        self.count += 1
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or self.count > self._limit:
            self._fail("the first process does not speak as it should")
            return
        if "step" not in entry:
            self._finish(entry)
            return
        step = parse(entry)
        if step is not None and not self.done.called:
            self._on_step(step)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._fail("the first process sent a line without an end")

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._finish(None)

    def _finish(self, entry: dict[str, Any] | None) -> None:
        if not self.done.called:
            self.done.callback(entry)
            self._abort()

    def _fail(self, message: str) -> None:
        if not self.done.called:
            self.done.errback(HostError(ErrorCode.UNAVAILABLE, message))
            self._abort()

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


def parse(entry: dict[str, Any]) -> Step | None:
    """A step from a line's object; None when it is none."""
    name, state = entry.get("step"), entry.get("state")
    message, elapsed = entry.get("message"), entry.get("elapsedMs")
    if not isinstance(name, str) or state not in ("started", "done", "failed"):
        return None
    counted = isinstance(elapsed, int) and not isinstance(elapsed, bool) and 0 <= elapsed < ELAPSED_LIMIT
    return Step(
        storable(name[:200]),
        state,
        storable(message) if isinstance(message, str) else None,
        elapsed if counted else None,
    )


def storable(text: str) -> str:
    """`text` without lone halves of surrogate pairs, which JSON can name and nothing can store or send."""
    return text.encode("utf-8", "replace").decode("utf-8")


def forwarded(value: Any) -> list[Forwarded]:
    """The ports in the last line, each port and each name once; what is none is left out."""
    ports: dict[int, str] = {}
    for entry in value[:FORWARD_LIMIT] if isinstance(value, list) else []:
        port, name = (entry.get("port"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            continue
        if isinstance(name, str) and _PORT_NAME.match(name) and name not in ports.values():
            ports.setdefault(port, name)
    return [Forwarded(port, name) for port, name in ports.items()]


class Readiness:
    """Waits for containers to be ready.

    folder: a task's run folder on the host. running: whether its container runs; asked now and then, so that
    one that ended is not waited for.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Callable[[str], Path],
        running: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._running = running

    async def ready(
        self, task_id: str, on_progress: Callable[[Step], None], timeout: float = READY_LIMIT
    ) -> list[Forwarded]:
        """Wait until the first process reports ready; the ports that its projects forward.

        Steps that failed were told and are no error.

        Args:
            on_progress: is given each step, those before this call too.
            timeout: seconds.

        Raises:
            HostError: `timeout`, with the last step's name; `unavailable` when the set-up or the container
                failed, or what is there is no socket of it.
        """
        last = "the start of the container"

        def heard(step: Step) -> None:
            nonlocal last
            last = step.step
            on_progress(step)

        waiting = Deferred.fromCoroutine(self._wait(task_id, heard))
        deadline = self._reactor.callLater(timeout, waiting.cancel)
        try:
            return await waiting
        except HostError:
            raise
        except Exception as error:
            if deadline.active():
                raise
            raise HostError(
                ErrorCode.TIMEOUT,
                f"the task was not ready after {timeout:.0f} s; the last step was: {last}",
            ) from error
        finally:
            if deadline.active():
                deadline.cancel()

    async def _wait(self, task_id: str, on_step: Callable[[Step], None]) -> list[Forwarded]:
        path = self._folder(task_id) / SOCKET
        checked = self._reactor.seconds()
        left = STEP_LIMIT
        while True:
            listener = Listener(on_step, left)
            last = await self._listen(path, listener)
            left -= listener.count
            if last is not None:
                if last.get("state") == "ready":
                    return forwarded(last.get("ports"))
                said = storable(str(last.get("message") or "no reason given")[:2000])
                raise HostError(ErrorCode.UNAVAILABLE, f"the set-up in the container failed: {said}")
            if self._running is not None and self._reactor.seconds() - checked >= CHECK:
                checked = self._reactor.seconds()
                if not await self._running(task_id):
                    raise HostError(
                        ErrorCode.UNAVAILABLE,
                        "the container ended before it was ready; its log says more (`docker logs`)",
                    )
            await deferLater(self._reactor, POLL)

    async def _listen(self, path: Path, listener: Listener) -> dict[str, Any] | None:
        """The last line of one connection; None when there is none yet."""
        try:
            endpoint = hostile_socket_endpoint(self._reactor, path)
            await endpoint.connect(Factory.forProtocol(lambda: listener))
        except ConnectError:
            return None  # Not there yet, or left by the container's last run: the new one replaces it.
        return await listener.done
