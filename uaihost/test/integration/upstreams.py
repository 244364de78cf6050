"""Servers on 127.0.0.1 that stand where a task's editor and previews would be."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site


def refused_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "text/plain")
        request.responseHeaders.addRawHeader("Set-Cookie", "a=1")
        request.responseHeaders.addRawHeader("Set-Cookie", "b=2")
        return b"hello\n"


class Digest(Resource):
    """Answers with what it was sent: size and SHA-256 of the body, and the head's fields."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:
        assert request.content is not None
        body = request.content.read()
        heads = [[name.decode(), value.decode()] for name, values in request.requestHeaders.getAllRawHeaders()
                 for value in values]  # fmt: skip
        answer = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "headers": heads}
        request.setHeader("Content-Type", "application/json")
        return json.dumps(answer).encode()


class Gate(Resource):
    """Keeps every request waiting until `release`; answers 404 then.

    arrived: fires with each request, in turn.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Request] = []
        self.requests = 0
        self.arrived: Deferred[None] = Deferred()

    def render_GET(self, request: Request) -> int:
        self.requests += 1
        self.held.append(request)
        request.notifyFinish().addErrback(lambda _: self.held.remove(request))
        arrived, self.arrived = self.arrived, Deferred()
        arrived.callback(None)
        return NOT_DONE_YET

    def release(self) -> None:
        held, self.held = self.held[:], []
        for request in held:
            request.setResponseCode(404)
            request.finish()


class Web(Site):
    """GET and HEAD /hello, POST /digest, GET /gate/..."""

    def __init__(self) -> None:
        self.gate = Gate()
        root = Resource()
        root.putChild(b"hello", Hello())
        root.putChild(b"digest", Digest())
        root.putChild(b"gate", self.gate)
        super().__init__(root)
        self.displayTracebacks = False
        self.noisy = False


class _Echo(WebSocketServerProtocol):
    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


def websocket_echo() -> WebSocketServerFactory:
    """A WebSocket server that answers every message with itself."""
    factory = WebSocketServerFactory()
    factory.protocol = _Echo
    factory.noisy = False
    return factory


class Spoken(Protocol):
    """One connection in a test's own hands: `heard` grows, the test writes through `transport`."""

    transport: Any

    def __init__(self, script: Script) -> None:
        self.script = script
        self.heard = b""
        self.lost: Deferred[None] = Deferred()
        self._until: tuple[bytes, Deferred[bytes]] | None = None

    def connectionMade(self) -> None:
        self.script.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self._check()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)

    def until(self, end: bytes) -> Deferred[bytes]:
        """All that was heard, once it holds `end`."""
        waiter: Deferred[bytes] = Deferred()
        self._until = (end, waiter)
        self._check()
        return waiter

    def _check(self) -> None:
        if self._until is not None and self._until[0] in self.heard:
            waiter, self._until = self._until[1], None
            waiter.callback(self.heard)


class Script(Factory):
    """Hands every connection to the test through `connection()`."""

    noisy = False

    def __init__(self) -> None:
        self._new: list[Spoken] = []
        self._waiting: list[Deferred[Spoken]] = []

    def buildProtocol(self, addr: Any) -> Spoken:
        return Spoken(self)

    def connected(self, spoken: Spoken) -> None:
        if self._waiting:
            self._waiting.pop(0).callback(spoken)
        else:
            self._new.append(spoken)

    def connection(self) -> Deferred[Spoken]:
        """The next connection that nobody took."""
        waiter: Deferred[Spoken] = Deferred()
        if self._new:
            waiter.callback(self._new.pop(0))
        else:
            self._waiting.append(waiter)
        return waiter

    def forget(self, waiter: Deferred[Spoken]) -> None:
        """Who asked by `connection()` waits no more."""
        self._waiting.remove(waiter)


class Source(Protocol):
    """Answers a request with `total` bytes of noise, as fast as they are taken; `sent` says how far it is."""

    PIECE = 1 << 18
    transport: Any

    def __init__(self, total: int) -> None:
        self.total = total
        self.sent = 0
        self.hash = hashlib.sha256()
        self.noise = os.urandom(self.PIECE)
        self.head = b""

    def dataReceived(self, data: bytes) -> None:
        self.head += data
        if self.head.endswith(b"\r\n\r\n"):
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Length: %d\r\n\r\n" % self.total
            )
            self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        piece = self.noise[: self.total - self.sent]
        self.hash.update(piece)
        self.sent += len(piece)
        self.transport.write(piece)
        if self.sent == self.total:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.sent = -1


class Sink(Protocol):
    """Takes a request whose body has `total` bytes, and reads it only while `transport` is not paused."""

    transport: Any

    def __init__(self, total: int) -> None:
        self.total = total
        self.got = -1
        self.hash = hashlib.sha256()
        self.head = b""

    def dataReceived(self, data: bytes) -> None:
        if self.got < 0:
            self.head += data
            head, blank, data = self.head.partition(b"\r\n\r\n")
            if not blank:
                return
            self.head, self.got = head, 0
        self.hash.update(data)
        self.got += len(data)
        if self.got == self.total:
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
