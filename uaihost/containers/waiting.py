"""Engine calls that stream or wait, straight over the reactor so that none holds a thread.

The output of a command (`POST /exec/{id}/start`, a connection that is upgraded to 8-byte frames; Docker
Engine API 1.41, "Attach to a container", stream format) and answers that the engine takes a second for.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from uaihost.errors import ErrorCode, HostError

# Seconds to be let in: a Unix socket answers at once.
CONNECT_LIMIT = 10
# Bytes of an answer's head. The engine's are under 1 KiB.
HEAD_LIMIT = 16384
_STREAMS = {1: "out", 2: "err"}


class Collected(Protocol):
    """One request on one connection; everything up to its end is the answer.

    done: fires with the status and the body, the connection's bytes after the head.
    """

    def __init__(self, request: bytes, limit: int) -> None:
        self._request = request
        self._limit = limit
        self._data = bytearray()
        self.done: Deferred[tuple[int, bytes]] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._limit + HEAD_LIMIT and not self.done.called:
            self._end()
            self.done.errback(
                HostError(ErrorCode.TOO_LARGE, f"the command printed more than {self._limit >> 20} MiB")
            )

    def connectionLost(self, reason: Failure = Failure(ConnectError())) -> None:  # noqa: B008
        if self.done.called:
            return
        head, end, body = bytes(self._data).partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        if not end or len(words) < 2 or not words[1].isdigit():
            self.done.errback(
                HostError(
                    ErrorCode.UNAVAILABLE, "the container engine ended the connection without an answer"
                )
            )
            return
        self.done.callback((int(words[1]), body))

    def _cancelled(self, _: Deferred[tuple[int, bytes]]) -> None:
        self._end()

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]


class Waiting:
    """One engine, asked over the reactor. docker_host: `unix://` or `tcp://`."""

    def __init__(self, reactor: Any, docker_host: str) -> None:
        self._reactor = reactor
        self._docker_host = docker_host

    async def request(self, method: str, path: str, body: Any, *, timeout: float, limit: int) -> bytes:
        """The body of one answer.

        Args:
            path: quoted; without a version in it the engine's own applies. body: sent as JSON unless None.
            timeout: seconds for all of it; limit: bytes of the answer.

        Raises:
            HostError: `unavailable`, `timeout`, `too_large`, `not_found`.
        """
        text = b"" if body is None else json.dumps(body).encode()
        # HTTP/1.0 without keep-alive: the answer ends with the connection and is not chunked.
        head = f"{method} {path} HTTP/1.0\r\nHost: docker\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
        protocol = Collected(head.encode() + b"\r\n" + text, limit)
        try:
            await self.endpoint().connect(Factory.forProtocol(lambda: protocol))
        except (ConnectError, OSError) as error:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "the container engine does not answer; start Docker or check DOCKER_HOST",
            ) from error
        protocol.done.addTimeout(timeout, self._reactor)
        try:
            status, answer = await protocol.done
        except TimeoutError:
            raise HostError(
                ErrorCode.TIMEOUT, f"the container engine had not finished after {timeout:.0f} s"
            ) from None
        if status >= 300:
            said = _message(answer)
            code = {404: ErrorCode.NOT_FOUND, 409: ErrorCode.CONFLICT}.get(status, ErrorCode.UNAVAILABLE)
            raise HostError(code, f"the container engine refused: {said}")
        return answer

    async def json(self, method: str, path: str, *, timeout: float) -> Any:
        """An answer that is JSON; see `request`."""
        return json.loads(await self.request(method, path, None, timeout=timeout, limit=HEAD_LIMIT * 16))

    def endpoint(self) -> IStreamClientEndpoint:
        """Where the engine listens; HostError `unavailable` for an address of another kind."""
        parts = urlsplit(self._docker_host)
        if parts.scheme == "unix":
            return UNIXClientEndpoint(self._reactor, parts.path, timeout=CONNECT_LIMIT)
        if parts.scheme in ("tcp", "http") and parts.hostname:
            return HostnameEndpoint(self._reactor, parts.hostname, parts.port or 2375, timeout=CONNECT_LIMIT)
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"DOCKER_HOST {self._docker_host!r} is not supported: give a unix:// or a tcp:// address",
        )


def frames(data: bytes) -> tuple[bytes, bytes]:
    """A command's (stdout, stderr) from its framed stream; a frame that was cut off is left out."""
    found = {"out": bytearray(), "err": bytearray()}
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        stream = _STREAMS.get(data[at])
        if stream is not None and at + 8 + size <= len(data):
            found[stream] += data[at + 8 : at + 8 + size]
        at += 8 + size
    return bytes(found["out"]), bytes(found["err"])


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode("utf-8", "replace").strip() or "no reason given"
