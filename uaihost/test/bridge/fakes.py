"""What the bridge's rooms are tested with: a host's socket, the way to a host, a browser's transport."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.bridge.tunnels import TunnelTable
from uaihost.paths import data_files
from uaihost.state.database import Database
from uaihost.wire import mux
from uaihost.wire.credit import WindowOverflow


def memory_database(case: SynchronousTestCase) -> Database:
    """A database with the bridge's schema whose calls run at once."""
    folder = Path(case.mktemp())
    folder.mkdir(parents=True)
    migrations = data_files("migrations") / "bridge"
    database: Database = case.successResultOf(Database.open(folder / "bridge.db", migrations, Inline()))
    case.addCleanup(lambda: case.successResultOf(database.close()))
    return database


class FakeOutlet:
    """interfaces.Outlet that keeps what leaves: frames as objects, data as bytes."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.finished = False
        self.discarded = False
        self.producer: IPushProducer | None = None

    def frame(self, payload: bytes) -> None:
        assert not self.finished
        self.sent.append(json.loads(payload))

    def write(self, data: bytes) -> None:
        assert not self.finished
        self.sent.append(data)

    def finish(self, payload: bytes) -> None:
        self.frame(payload)
        self.finished = True
        self.producer = None

    def discard(self) -> None:
        self.discarded = True
        self.producer = None

    def hint(self, gains: bool | None) -> None:
        """Nothing is compressed here."""

    def credit(self, size: int) -> None:
        raise AssertionError("revision 1 has no credit")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def body(self) -> bytes:
        """All data."""
        return b"".join(item for item in self.sent if isinstance(item, bytes))

    def kinds(self) -> list[str]:
        """The frames' kinds, `data` for data."""
        return [item["kind"] if isinstance(item, dict) else "data" for item in self.sent]


class FakeStream(FakeOutlet):
    """interfaces.Outlet of mux.1: frames as (type, payload), data as bytes. permitted: by credit."""

    permitted = 0

    def frame(self, payload: bytes) -> None:
        assert not self.finished
        (frame,) = mux.frames(payload)
        self.sent.append((frame[0], frame[2]))

    def credit(self, size: int) -> None:
        self.permitted += size
        if self.permitted > mux.MAX_WINDOW:
            raise WindowOverflow("a window grew beyond its largest size")


class FakeWire:
    """interfaces.LinkOutput that keeps every outlet by its tunnel's id, and what is urgent as frames."""

    round_trip: float | None = 0.01

    def __init__(self) -> None:
        self.outlets: dict[str, FakeOutlet] = {}
        self.streams: dict[int, FakeStream] = {}
        self.urgents: list[tuple[int, int, bytes]] = []
        self.permitted = 0
        self.urgent_waiting = 0

    def control(self, payload: bytes, compress: bool = False) -> None:
        raise AssertionError("tunnels send no frame of the link's own")

    def outlet(self, tunnel_id: str) -> FakeOutlet:
        return self.outlets.setdefault(tunnel_id, FakeOutlet())

    def stream(self, number: int) -> FakeStream:
        assert number not in self.streams
        return self.streams.setdefault(number, FakeStream())

    def urgent(self, frame: bytes) -> None:
        self.urgents.extend(mux.frames(frame))

    def credit(self, size: int) -> None:
        self.permitted += size
        if self.permitted > mux.MAX_WINDOW:
            raise WindowOverflow("the link's window grew beyond its largest size")


class FakeInput:
    """interfaces.LinkInput that keeps the reasons."""

    def __init__(self) -> None:
        self.reasons: set[object] = set()

    def hold(self, reason: object) -> None:
        self.reasons.add(reason)

    def release(self, reason: object) -> None:
        self.reasons.discard(reason)


class Link:
    """A host's connection as the proxy sees it: a table over fakes. It serves every host id but `gone`."""

    def __init__(self, clock: Clock) -> None:
        self.wire = FakeWire()
        self.input = FakeInput()
        self.table = TunnelTable(self.wire, self.input, clock)

    def tunnels(self, host_id: str) -> TunnelTable | None:
        return None if host_id == "gone" else self.table


class BrowserTransport(StringTransport):
    """A browser's TCP connection: with half-close, and with a producer that is paused by hand."""

    half_closed = False
    aborted = False
    lost = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def loseConnection(self) -> None:
        self.lost = True
        super().loseConnection()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def take(self) -> bytes:
        """What was written since the last call."""
        data: bytes = self.value()
        self.clear()
        return data


class FakeSocket:
    """link.socket.MessageSocket as a host's session uses it."""

    smallest = 256
    traffic = False

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None
        self.reading = True
        self.receiver: Any = None

    def attach(self, receiver: Any) -> None:
        self.receiver = receiver

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        if self.closed is None:
            self.sent.append({"binary": payload} if binary else json.loads(payload))
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        """Nobody answers it."""

    def set_uplink(self, rate: float | None) -> None:
        raise AssertionError("without an answer nothing is known")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)

    def hear(self, **frame: Any) -> None:
        """A frame arrives from the host."""
        self.receiver.text(json.dumps(frame).encode())
