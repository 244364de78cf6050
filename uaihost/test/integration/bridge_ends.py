"""Both ends of the bridge's tunnels in tests: browsers as plain TCP connections, and what hosts lead to."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from uaihost.test.integration.bridge_host import Upstream

reactor: Any = _reactor

MIB = 1 << 20


class Client(Protocol):
    """A browser's TCP connection that keeps what it reads; `limit` bytes and it stops reading."""

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0
        self.keep = True
        self.digest = hashlib.sha256()
        self.gone: Deferred[type] = Deferred()
        self.waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        if self.keep:
            self.data += data
        for wanted, done in list(self.waiting):
            if wanted in self.data:
                self.waiting.remove((wanted, done))
                done.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(type(reason.value))

    def see(self, wanted: bytes) -> Deferred[None]:
        """Wait until these bytes have been read."""
        done: Deferred[None] = Deferred()
        if wanted in self.data:
            done.callback(None)
        else:
            self.waiting.append((wanted, done))
        return done.addTimeout(20, reactor)


class Pipe(Upstream):
    """Bytes to and from a server on the port `number`, as a host pipes them."""

    number = 0

    def start(self) -> None:
        self.early = b""
        self.pipe: Any = None
        line = self.opened["reqLine"]
        head = "".join(f"{name}: {value}\r\n" for name, value in line["headers"])
        self.request = f"{line['method']} {line['url']} HTTP/1.1\r\n{head}\r\n".encode()
        connecting = TCP4ClientEndpoint(reactor, "127.0.0.1", self.number).connect(
            Factory.forProtocol(Client)
        )
        connecting.addCallback(self.connected)

    def connected(self, pipe: Any) -> None:
        self.pipe = pipe
        pipe.dataReceived = self.answered
        pipe.gone.addCallback(self.closed)
        pipe.transport.write(self.request)

    def closed(self, reason: type) -> type:
        if not self.is_lost:
            self.close("upstream closed")
        return reason

    def answered(self, data: bytes) -> None:
        self.early += data
        head, end, rest = self.early.partition(b"\r\n\r\n")
        if end:
            lines = head.decode().split("\r\n")[1:]
            self.ack(101, [line.split(": ", 1) for line in lines], "Switching Protocols")
            self.pipe.dataReceived = self.send
            if rest:
                self.send(rest)

    def data(self, data: bytes) -> None:
        self.pipe.transport.write(data)

    def lost(self) -> None:
        super().lost()
        self.pipe.transport.abortConnection()


class Pump(Upstream):
    """Sends `size` bytes as fast as the host's socket takes them."""

    size = 20 * MIB
    chunk = 64 * 1024

    def start(self) -> None:
        self.digest = hashlib.sha256()
        self.left = self.size
        self.ack(200, [["Content-Length", str(self.size)]])
        self.paused = False
        self.host.socket.registerProducer(self, True)
        self.resumeProducing()

    def ended(self) -> None:
        """A request without a body."""

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        while self.left and not self.paused and not self.is_lost:
            piece = os.urandom(min(self.left, self.chunk))
            self.left -= len(piece)
            self.digest.update(piece)
            self.send(piece)
        if not self.left and not self.is_lost:
            self.is_lost = True
            self.host.socket.unregisterProducer()
            self.close()
