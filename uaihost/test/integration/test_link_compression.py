"""The socket's deflate against npm's `ws`, both ways over real TCP."""

from __future__ import annotations

import json
import zlib
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import uaihost
from uaihost.link.protocol import ClientSocketFactory
from uaihost.link.socket import MessageSocket
from uaihost.test.integration.node import installed, node
from uaihost.test.integration.peer import SOURCE

reactor: Any = global_reactor

# Source code: what tunnels carry while somebody works.
TEXT = b"".join(path.read_bytes() for path in sorted(Path(uaihost.__file__).parent.glob("link/*.py")))
NOISE = Random(7).randbytes(1 << 20)

# What a server may want of a client, as `ws` names it.
TERMS: list[dict[str, object]] = [
    {},
    {"clientNoContextTakeover": True},
    {"serverNoContextTakeover": True, "clientNoContextTakeover": True},
    {"clientMaxWindowBits": 9, "serverMaxWindowBits": 9},
    {"clientMaxWindowBits": 12},
]


class Echo(ProcessProtocol):
    """The process of the other end."""

    def __init__(self, terms: dict[str, object] | None) -> None:
        """terms: None: no deflate."""
        self.port: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()
        program = node()
        words = [program, "echo.mjs", json.dumps(terms is not None and {"threshold": 0, **terms})]
        reactor.spawnProcess(self, program, words, env=None, path=str(installed(SOURCE)))

    def outReceived(self, data: bytes) -> None:
        self.port.callback(int(data))

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class Client:
    """Our end: a receiver that keeps what it hears."""

    def __init__(self) -> None:
        self.opened: Deferred[MessageSocket] = Deferred()
        self.lost: Deferred[tuple[int | None, str]] = Deferred()
        self.heard: list[tuple[bool, bytes]] = []
        self._awaited = 0
        self._enough: Deferred[None] = Deferred()

    def connected(self, socket: MessageSocket) -> None:
        socket.attach(self)
        self.opened.callback(socket)

    def hears(self, count: int) -> Deferred[None]:
        """Fires with the message of this number."""
        self._awaited, self._enough = count, Deferred()
        self._check()
        return self._enough

    def text(self, payload: bytes) -> None:
        self.heard.append((False, payload))
        self._check()

    def binary(self, payload: bytes) -> None:
        self.heard.append((True, payload))
        self._check()

    def marked(self, payload: bytes) -> None:
        raise AssertionError("nothing was marked")

    def closed(self, code: int | None, reason: str) -> None:
        self.lost.callback((code, reason))
        if not self._enough.called:
            self._enough.errback(ConnectionError(f"{code} {reason}"))

    def _check(self) -> None:
        if len(self.heard) >= self._awaited and not self._enough.called:
            self._enough.callback(None)


class CompressionTests(TestCase):
    timeout = 120

    async def connect(self, terms: dict[str, object] | None) -> tuple[MessageSocket, Client]:
        echo = Echo(terms)

        async def end() -> None:
            echo.transport.closeStdin()  # type: ignore[union-attr]
            await echo.ended

        self.addCleanup(end)
        port = await echo.port
        client = Client()
        factory = ClientSocketFactory(
            f"ws://127.0.0.1:{port}/", reactor, client.connected, lambda socket, code, reason: None
        )
        reactor.connectTCP("127.0.0.1", port, factory)
        socket = await client.opened

        async def close() -> None:
            socket.close(1000, "")
            await client.lost

        self.addCleanup(close)
        return socket, client

    async def wire(self, socket: MessageSocket, client: Client) -> int:
        """The bytes that the other end read from the wire so far."""
        socket.send_message(b"wire", False, False)
        await client.hears(len(client.heard) + 1)
        return int(client.heard.pop()[1])

    async def test_every_message_comes_back(self) -> None:
        """Speakers, levels, plain messages between; every term that a server may set."""
        rng = Random(11)
        messages = []
        for number in range(120):
            source = rng.choice([TEXT, TEXT, NOISE])
            start, size = rng.randrange(len(TEXT) // 2), rng.choice([1, 300, 2500, 20_000, 90_000])
            # Text messages are valid UTF-8: the sources are ASCII.
            binary = source is NOISE or number % 3 == 0
            messages.append((binary, source[start : start + size]))
        for terms in TERMS:
            socket, client = await self.connect(terms)
            taken = 0
            for (binary, payload), rate in zip(messages, cycle([None, None, None, 1e5, 1e7]), strict=False):
                socket.set_uplink(rate)
                compress = rng.random() < 0.8
                taken += socket.send_message(payload, binary, compress, rng.choice(["a", "a", "b", None]))
            await client.hears(len(messages))
            self.assertTrue(client.heard == messages, terms)
            self.assertLess(taken, 0.9 * sum(len(payload) for _, payload in messages))

    async def test_bytes_on_the_wire(self) -> None:
        """A tunnel's text takes no more than 1.25 of what zlib's default would; noise takes what it is."""
        pieces = [TEXT[n : n + 65536] for n in range(0, len(TEXT), 65536)]
        writer = zlib.compressobj(6, zlib.DEFLATED, -15)
        default = sum(len(writer.compress(piece) + writer.flush(zlib.Z_SYNC_FLUSH)) for piece in pieces)
        socket, client = await self.connect({})
        start = await self.wire(socket, client)
        taken = sum(socket.send_message(piece, True, True, "tunnel") for piece in pieces)
        await client.hears(len(pieces))
        read = await self.wire(socket, client) - start
        # Frames take eight bytes each, and the question some more.
        self.assertTrue(taken < read < taken + 16 * (len(pieces) + 2), (taken, read))
        self.assertLess(read, 1.25 * default)
        self.assertTrue(b"".join(payload for _, payload in client.heard) == TEXT)
        start = await self.wire(socket, client)
        self.assertEqual(socket.send_message(NOISE, True, True, "tunnel"), len(NOISE))
        await client.hears(len(pieces) + 1)
        self.assertLess(await self.wire(socket, client) - start, len(NOISE) + 100)
        self.assertTrue(client.heard[-1] == (True, NOISE))

    async def test_without_agreement_nothing_is_compressed(self) -> None:
        socket, client = await self.connect({})
        off, other = await self.connect(None)
        self.assertLess(socket.send_message(TEXT, True, True), len(TEXT) // 2)
        self.assertEqual(off.send_message(TEXT, True, True), len(TEXT))
        await client.hears(1)
        await other.hears(1)
        self.assertTrue(client.heard == other.heard == [(True, TEXT)])
