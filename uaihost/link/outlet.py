"""One tunnel's queue on its way out (interfaces.Outlet), of revision 1 or of mux.1.

It owns the order inside one tunnel, how its bytes are cut into turns, and what mux.1 permits it to send.
Whose turn it is, is decided by whoever keeps the outlets. A thousand of them wait at a time: they are small.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.interfaces import IPushProducer

from uaihost.link.compression import Gain
from uaihost.wire import mux
from uaihost.wire.codec import encode
from uaihost.wire.credit import SendWindow
from uaihost.wire.frames import TunnelData

# Bytes that a waiting unit counts beside its payload: its objects here and its header on the wire. Without it
# a tunnel that writes single bytes would hold a hundred times its share.
UNIT_COST = 128

# Bytes of one turn that shrink on the wire. A message costs its reader by its length before and by itself;
# compressing this much takes half a millisecond.
MOST_TEXT = 256 * 1024

# Where an outlet is: nothing waits; what waits needs credit of its own tunnel; its turn comes before the
# others', or in order.
IDLE, DRY, SOON, QUEUED = range(4)


class Keeper(Protocol):
    """Who gives outlets their turns (link.outbound).

    gone: the link is lost; full_since: not None while the transport takes nothing; window: of all tunnels of
    mux.1 together.
    """

    gone: bool
    full_since: float | None
    window: SendWindow

    def put(self, outlet: Queue, cost: int) -> None:
        """A unit of `cost` bytes was put into `outlet`."""

    def credited(self, outlet: Queue) -> None:
        """`outlet` may send again."""

    def withdraw(self, outlet: Queue) -> None:
        """Nothing of `outlet` waits any more."""

    def message(self, payload: bytes, binary: bool, gain: Gain | None = None) -> None:
        """Send a message of revision 1."""

    def frame(self, payload: bytes) -> None:
        """Send a frame of mux.1."""

    def data(self, header: bytes, data: bytes, gain: Gain) -> None:
        """Send a DATA frame of mux.1."""


class Queue:
    """What both kinds of outlets have in common.

    waiting: bytes that wait, with their costs; place: see above; tag: link.turns.Taker; spent, since: the
    bytes that it sent since then, by which its keeper tells the busy from the others; gathers: whether what
    it sends goes into messages with that of others.
    """

    gathers = False

    __slots__ = (
        "_finished",
        "_gain",
        "_gone",
        "_keeper",
        "_offset",
        "_producer",
        "_units",
        "paused",
        "place",
        "since",
        "spent",
        "tag",
        "waiting",
    )

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._producer: IPushProducer | None = None
        # (is data, payload), in order; made when something waits: most outlets have nothing for hours.
        self._units: deque[tuple[bool, bytes]] | None = None
        # Bytes of the first unit that have left.
        self._offset = 0
        self._gain: Gain | None = None
        self._finished = False
        self._gone = False
        self.waiting = 0
        self.place = IDLE
        self.paused = False
        self.tag = 0
        self.spent = 0
        self.since = 0.0

    # ---- interfaces.Outlet

    def frame(self, payload: bytes) -> None:
        """An encoded frame."""
        if self._open():
            self._put(False, payload)

    def write(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        if data and self._open():
            self._put(True, data)

    def finish(self, payload: bytes) -> None:
        """The last frame."""
        if self._open():
            self._finished = True
            self.unregisterProducer()
            self._put(False, payload)

    def discard(self) -> None:
        """Drop what waits; nothing is sent any more."""
        if not self._gone:
            self._gone = True
            self.paused = False
            self.unregisterProducer()
            self._keeper.withdraw(self)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Pause and resume `producer`, a push producer, as this tunnel's share fills and empties."""
        assert streaming, "an outlet takes push producers only"
        assert self._producer is None, "an outlet has one producer"
        self._producer = producer
        if self.paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """It is not paused or resumed any more."""
        self._producer = None

    def hint(self, gains: bool | None) -> None:
        """Whether the bytes that follow are worth compressing."""
        if self._gain is None:
            self._gain = Gain(gains)
        else:
            self._gain.hint(gains)

    # ---- for its keeper

    def turn(self, chunk: int) -> int:
        """Bytes of a turn that takes `chunk` bytes of the wire."""
        gain = self._gain
        return chunk if gain is None else max(chunk, min(int(chunk / gain.ratio), MOST_TEXT))

    def next_is_data(self) -> bool:
        """Of what waits: something does."""
        assert self._units
        return self._units[0][0]

    def dry(self) -> bool:
        """Whether what waits cannot be sent for want of this tunnel's own credit."""
        return False

    def needs_credit(self) -> bool:
        """Whether what waits first takes credit of all tunnels."""
        return False

    def send(self, limit: int) -> int:
        """Send what waits, to `limit` bytes or a frame more; the bytes sent, with their costs."""
        before = self.waiting
        rest = limit
        while self._units and rest > 0 and self._keeper.full_since is None:
            if self._units[0][0]:
                size = self._send_data(rest)
                if not size:
                    break
            else:
                payload = self._units.popleft()[1]
                size = len(payload)
                self.waiting -= size + UNIT_COST
                self._send_frame(payload)
            rest -= size
        if not self._units:
            self._units = None
        assert self.waiting >= 0, self.waiting
        return before - self.waiting

    def forget(self) -> int:
        """Drop every unit; the cost of what was dropped."""
        dropped, self.waiting = self.waiting, 0
        self._units = None
        return dropped

    def pause(self) -> None:
        self.paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        self.paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    # ---- inside

    def _open(self) -> bool:
        if self._gone or self._keeper.gone:
            return False
        assert not self._finished, "nothing follows an outlet's last frame"
        return True

    def _put(self, is_data: bool, payload: bytes) -> None:
        if self._units is None:
            self._units = deque()
            self._offset = 0
        self._units.append((is_data, payload))
        cost = len(payload) + UNIT_COST
        self.waiting += cost
        self._keeper.put(self, cost)

    def _cut(self, limit: int) -> bytes:
        """The next bytes, `limit` at most, of as many writes as follow one another."""
        units = self._units
        assert units is not None
        pieces: list[bytes] = []
        while units and units[0][0] and limit > 0:
            data = units[0][1]
            end = self._offset + limit
            if end < len(data):
                piece = data[self._offset : end]
                self._offset = end
            else:
                piece = data[self._offset :] if self._offset else data
                self._offset = 0
                units.popleft()
                self.waiting -= UNIT_COST
            limit -= len(piece)
            self.waiting -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _gains(self) -> Gain:
        if self._gain is None:
            self._gain = Gain()
        return self._gain

    def _send_data(self, limit: int) -> int:
        raise NotImplementedError

    def _send_frame(self, payload: bytes) -> None:
        raise NotImplementedError

    def credit(self, size: int) -> None:
        raise NotImplementedError


class Pairs(Queue):
    """A tunnel of revision 1: its bytes are announced by a text message."""

    __slots__ = ("_header",)

    def __init__(self, keeper: Keeper, tunnel_id: str) -> None:
        super().__init__(keeper)
        self._header = encode(TunnelData(tunnelId=tunnel_id))

    def credit(self, size: int) -> None:
        raise AssertionError("revision 1 has no credit")

    def _send_frame(self, payload: bytes) -> None:
        self._keeper.message(payload, False)

    def _send_data(self, limit: int) -> int:
        data = self._cut(limit)
        self._keeper.message(self._header, False)
        self._keeper.message(data, True, self._gains())
        return len(data)


class Stream(Queue):
    """A tunnel of mux.1: its bytes go in DATA frames, as many as its window and the link's permit."""

    gathers = True

    __slots__ = ("_number", "_window")

    def __init__(self, keeper: Keeper, number: int) -> None:
        super().__init__(keeper)
        self._number = number
        self._window = SendWindow(mux.TUNNEL_WINDOW)

    def credit(self, size: int) -> None:
        """The other end takes `size` more bytes. Raises: credit.WindowOverflow."""
        self._window.add(size)
        if self.place == DRY:
            self._keeper.credited(self)

    def dry(self) -> bool:
        return not self._window.left and self.next_is_data()

    def needs_credit(self) -> bool:
        return self.next_is_data()

    def _send_frame(self, payload: bytes) -> None:
        self._keeper.frame(payload)

    def _send_data(self, limit: int) -> int:
        limit = min(limit, self._window.left, self._keeper.window.left)
        if not limit:
            return 0
        data = self._cut(limit)
        self._window.take(len(data))
        self._keeper.window.take(len(data))
        self._keeper.data(mux.data_header(self._number, len(data)), data, self._gains())
        return len(data)
