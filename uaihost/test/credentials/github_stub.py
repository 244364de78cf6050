"""What stands around a task's counter in unit tests: tokens in memory, and a GitHub of scripted answers."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

from uaihost.credentials.counter import Counter
from uaihost.errors import ErrorCode, HostError


class StubTokens:
    """proofs.Tokens: each user's tokens are `<user>-<number>`, the next after each refusal."""

    def __init__(self, host: str = "github.com") -> None:
        self.numbers: dict[str, int] = {"ada": 1}
        self._host = host

    def login(self, user_id: str) -> str | None:
        return user_id if user_id in self.numbers else None

    def host(self, user_id: str) -> str | None:
        return self._host if user_id in self.numbers else None

    async def access(self, user_id: str, *, renew: bool = False) -> str:
        if user_id not in self.numbers:
            raise HostError(ErrorCode.UNAVAILABLE, "the owner is not connected")
        self.numbers[user_id] += renew
        return f"{user_id}-{self.numbers[user_id]}"

    def refused(self, user_id: str, token: str) -> None:
        self.numbers[user_id] += token == f"{user_id}-{self.numbers[user_id]}"


@attrs.define
class Asked:
    method: str
    url: str
    headers: dict[str, list[str]]
    body: bytes


class Answer:
    """iweb.IResponse. The body comes in its parts as the test says: `send`, `end`."""

    phrase = b"Said"

    def __init__(self, code: int, headers: dict[str, str]) -> None:
        self.code = code
        self.headers = Headers({name: [value] for name, value in headers.items()})
        self.transport = StringTransport()
        self.body: Any = None
        self._parts: list[bytes] = []
        self._end: Failure | None = None

    def deliverBody(self, protocol: Any) -> None:
        self.body = protocol
        protocol.makeConnection(self.transport)
        for part in self._parts:
            protocol.dataReceived(part)
        if self._end is not None:
            protocol.connectionLost(self._end)

    def send(self, data: bytes) -> None:
        self.body.dataReceived(data) if self.body else self._parts.append(data)

    def end(self, reason: Exception | None = None) -> None:
        self._end = Failure(reason or ResponseDone())
        if self.body:
            self.body.connectionLost(self._end)


def answer(body: Any = b"", code: int = 200, **headers: str) -> Answer:
    """A whole one. body: bytes, or what becomes JSON."""
    found = Answer(code, {name.replace("_", "-"): value for name, value in headers.items()})
    found.send(body if isinstance(body, bytes) else json.dumps(body).encode())
    found.end()
    return found


class StubGitHub:
    """iweb.IAgent. answers: taken in order; one that is missing is waited for. waiting: who waits."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: list[Answer | Exception] = []
        self.waiting: list[Deferred[Any]] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None) -> Any:
        given = {name.decode().lower(): values for name, values in headers.getAllRawHeaders()}
        text = {name: [value.decode() for value in values] for name, values in given.items()}
        sent = b"" if bodyProducer is None else bodyProducer._inputFile.read()
        self.asked.append(Asked(method.decode(), uri.decode(), text, sent))
        waiting: Deferred[Any] = Deferred()
        if self.answers:
            found = self.answers.pop(0)
            waiting.callback(found) if isinstance(found, Answer) else waiting.errback(found)
        else:
            self.waiting.append(waiting)
        return waiting


class Client:
    """One connection to a counter."""

    def __init__(self, counter: Counter) -> None:
        self.transport = StringTransport()
        # The counter ends connections so.
        self.transport.abortConnection = self.transport.loseConnection  # type: ignore[method-assign]
        self.protocol: Any = counter.buildProtocol(None)
        if self.protocol is not None:
            self.protocol.makeConnection(self.transport)

    def ask(
        self, method: str, target: str, body: bytes = b"", host: str = "api.github.com", **headers: str
    ) -> None:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)

    def said(self) -> tuple[int, dict[str, str], bytes]:
        """The answer's status, headers (names in small letters) and body, without what chunks add."""
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if headers.get("transfer-encoding") == "chunked":
            body = _joined(body)
        return int(first.split()[1]), headers, body

    def leave(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


def _joined(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, rest = data.partition(b"\r\n")
        found, data = found + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return found
