"""A bridge and a database in memory: real Autobahn on both ends, real SQL, no network and no thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.test import iosim
from zope.interface import implementer

import uaihost
from uaihost.interfaces import Entry
from uaihost.link.protocol import ServerSocketFactory
from uaihost.link.socket import MessageSocket
from uaihost.state import outbox as rows
from uaihost.wire.codec import BadFrame, encode, from_host
from uaihost.wire.frames import Frame, Ping, Pong

T = TypeVar("T")

_MIGRATIONS = Path(uaihost.__file__).parent.parent / "migrations"


class BridgeEnd:
    """The bridge's end of one connection. pongs: whether it answers pings of both kinds.

    frames, texts, binaries: what the host sent; marks: what it answered; closes: how the connection ended.
    """

    socket: MessageSocket

    def __init__(self, pongs: bool = True) -> None:
        self.pongs = pongs
        self.frames: list[Any] = []
        self.texts: list[bytes] = []
        self.binaries: list[bytes] = []
        self.marks: list[bytes] = []
        self.closes: list[tuple[int | None, str]] = []

    def opened(self, socket: MessageSocket) -> None:
        self.socket = socket
        socket.attach(self)
        if not self.pongs:
            # As if nobody ran there any more.
            socket.onPing = lambda payload: None  # type: ignore[method-assign]

    def text(self, payload: bytes) -> None:
        frame = from_host(payload)
        assert not isinstance(frame, BadFrame), frame.why
        self.texts.append(payload)
        self.frames.append(frame)
        if isinstance(frame, Ping) and self.pongs:
            self.send(Pong(ts=frame.ts))

    def binary(self, payload: bytes) -> None:
        self.binaries.append(payload)

    def marked(self, payload: bytes) -> None:
        self.marks.append(payload)

    def closed(self, code: int | None, reason: str) -> None:
        self.closes.append((code, reason))

    def send(self, frame: Frame) -> None:
        self.socket.send_message(encode(frame), False, False)

    def said(self, kind: type[T]) -> list[T]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


@implementer(IStreamClientEndpoint)
class Network:
    """Connects to bridges in memory; each attempt makes an end in `bridges`.

    error: what attempts fail with. silent: attempts never end. lost: what the ends' factory was told.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.error: Exception | None = None
        self.silent = False
        self.pongs = True
        self.attempts: list[float] = []
        self.cancelled = 0
        self.bridges: list[BridgeEnd] = []
        self.lost: list[tuple[int | None, str]] = []
        self.pumps: list[iosim.IOPump] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        self.attempts.append(self.clock.seconds())
        if self.silent:
            return Deferred(self._cancel)
        if self.error is not None:
            return fail(self.error)
        bridge = BridgeEnd(self.pongs)
        self.bridges.append(bridge)
        server = ServerSocketFactory(
            self.clock, bridge.opened, lambda socket, code, reason: self.lost.append((code, reason))
        ).buildProtocol(None)
        client = protocolFactory.buildProtocol(iosim.FakeAddress())
        assert client is not None
        self.pumps.append(
            iosim.connect(
                server,
                iosim.FakeTransport(server, True),
                client,
                iosim.FakeTransport(client, False),
                greet=False,
                clock=self.clock,
            )
        )
        return succeed(client)

    def flush(self) -> None:
        """Carry everything that is on its way, and what is said at once."""
        self.clock.advance(0)
        while sum(pump.flush() for pump in self.pumps):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time, and carry what is said."""
        self.flush()
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            self.flush()

    def cut(self) -> None:
        """The latest connection ends without a closing handshake."""
        self.pumps[-1].serverIO.loseConnection()
        self.flush()

    def _cancel(self, attempt: Deferred[IProtocol]) -> None:
        self.cancelled += 1


class MemoryStore:
    """interfaces.Store on sqlite in memory.

    With `slow`, calls wait for `release`, in order; with `late`, only their results wait.
    """

    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript((_MIGRATIONS / "0001_core.sql").read_text())
        self.slow = False
        self.late = False
        self.error: Exception | None = None
        self._waiting: list[Deferred[None]] = []

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self.slow:
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn
        if self.error is not None:
            raise self.error
        result = work(self.database)
        if self.late:
            turn = Deferred()
            self._waiting.append(turn)
            await turn
        return result

    def release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.callback(None)

    def depth(self) -> int:
        return rows.depth(self.database)


class MemoryJournal:
    """interfaces.Journal as far as the link hears it."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._listeners: list[Callable[[Entry], None]] = []

    def subscribe(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def store(self, payload: bytes, kind: Literal["event", "result"] = "event") -> Entry:
        """A row, of which nobody is told."""
        return Entry(rows.append(self._store.database, kind, payload, 0), kind, payload)

    def tell(self, entry: Entry) -> None:
        for listener in self._listeners:
            listener(entry)

    def add(self, payload: bytes, kind: Literal["event", "result"] = "event") -> int:
        """A row and its notice; the row's number."""
        entry = self.store(payload, kind)
        self.tell(entry)
        assert entry.seq is not None
        return entry.seq

    def fleeting_now(self, payload: bytes) -> None:
        self.tell(Entry(None, "event", payload))

    async def record(self, *events: object, write: Callable[[sqlite3.Connection], T]) -> T:
        return await self._store.run(write)

    async def emit(self, *events: object) -> None:
        raise AssertionError("the link emits nothing")

    def fleeting(self, event: object) -> None:
        raise AssertionError("the link emits nothing")
