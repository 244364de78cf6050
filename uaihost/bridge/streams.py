"""mux.1 at the bridge: tunnels in binary messages, with credit (docs/protocol.md, "mux.1").

A browser that reads slowly stops its own tunnel: it gets no credit for what waits for it. The link's credit
is given back as bytes arrive, so that nobody else is stopped, until more waits than is to be held here. It
knows neither browsers nor how the host's socket works.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uaihost.bridge.names import Destination
from uaihost.bridge.tunnel import BridgeTunnel, BrowserSide, Traffic
from uaihost.interfaces import LinkOutput
from uaihost.wire import mux
from uaihost.wire.credit import LinkWindow, ReceiveWindow, WindowExceeded, WindowOverflow
from uaihost.wire.frames import RequestLine

# Bytes, the largest windows: what a browser at 400 MB/s on a 10 ms way to the host takes, and four of them.
TUNNEL_LIMIT = 4 << 20
LINK_LIMIT = 16 << 20

# Bytes that may wait for browsers before the link's credit waits with them: 256 browsers that never read, or
# four that stopped in the middle of the fastest download.
HELD = 16 << 20

# Seconds for which a browser may take nothing while more than HELD bytes wait.
STALL_LIMIT = 30.0

# Interim answers of one request that are passed on, and the bytes of one. They have no credit, and no server
# sends more than a `100` and a few `103`.
INTERIMS = 8
INTERIM_SIZE = 16 << 10


class Stream:
    """One tunnel: tunnel.Voice, and who takes its host's frames."""

    __slots__ = (
        "_drains",
        "_held",
        "_interims",
        "_streams",
        "_unpaid",
        "_window",
        "headed",
        "number",
        "outlet",
        "since",
        "tunnel",
        "whole",
    )

    tunnel: BridgeTunnel

    def __init__(self, number: int, streams: Streams) -> None:
        self.number = number
        self.outlet = streams.wire.stream(number)
        # What came so far: the answer, and all of the response.
        self.headed = False
        self.whole = False
        # Since when its browser has taken nothing of what waits for it.
        self.since = 0.0
        self._streams = streams
        self._window = ReceiveWindow(mux.TUNNEL_WINDOW, TUNNEL_LIMIT)
        self._interims = 0
        self._held = 0
        # Bytes for the host that need more credit than it gave; no sooner than that are they all sent.
        self._unpaid = -mux.TUNNEL_WINDOW
        self._drains = False

    # ---- tunnel.Voice

    def write(self, data: bytes) -> None:
        self._unpaid += len(data)
        self.outlet.write(data)

    def end(self) -> None:
        self._drains = True
        self.outlet.finish(mux.end_frame(self.number))

    def close(self, code: int, reason: str) -> None:
        self.drop()
        self._streams.wire.urgent(mux.reset_frame(self.number, code, reason))

    def drop(self) -> None:
        self._drains = False
        self.outlet.discard()

    def took(self, size: int) -> None:
        streams = self._streams
        credit = self._window.consumed(size, streams.clock.seconds(), streams.wire.round_trip)
        if credit:
            streams.wire.urgent(mux.credit_frame(self.number, credit))

    def keeps(self, size: int) -> None:
        if size < self._held or not self._held:
            self.since = self._streams.clock.seconds()
        change, self._held = size - self._held, size
        if change:
            self._streams.hold(change)

    def over(self) -> None:
        # What was written last may still wait for the host's credit, or for its word that it is not needed.
        if not self._drains or self._unpaid <= 0:
            self._streams.forget(self.number)

    @property
    def held(self) -> int:
        """Bytes that wait for its browser."""
        return self._held

    # ---- from the host

    def head(self, payload: bytes) -> None:
        head = mux.read_head(payload)
        if not head.ok:
            self.tunnel.refused(head)
        elif 100 <= head.status <= 199 and head.status != 101:
            self._interims += 1
            if self._interims <= INTERIMS and len(payload) <= INTERIM_SIZE:
                self.tunnel.informed(head)
        else:
            self.headed = True
            self.tunnel.acked(head)

    def data(self, payload: bytes) -> None:
        self._window.received(len(payload))
        self.tunnel.delivered(payload)

    def end_of(self, payload: bytes) -> None:
        trailers = mux.read_trailers(payload)
        self.whole = True
        self.tunnel.ended(trailers)

    def reset(self, payload: bytes) -> None:
        reset = mux.read_reset(payload)
        if self.tunnel.done:
            self.lost()
        self.tunnel.stopped(reset.reason or "reset by the host")

    def lost(self) -> None:
        """Nothing of a tunnel that is over will be sent any more."""
        self.drop()
        self._streams.forget(self.number)

    def credit(self, payload: bytes) -> None:
        size = mux.read_credit(payload)
        self.outlet.credit(size)
        self._unpaid -= size
        if self.tunnel.done and self._unpaid <= 0:
            self._streams.forget(self.number)


class Streams:
    """The tunnels of one connection, by number.

    broken: told once why the connection cannot go on; then nothing is taken any more.
    """

    def __init__(
        self, wire: LinkOutput, clock: IReactorTime, broken: Callable[[str], None], traffic: Traffic
    ) -> None:
        self.wire = wire
        self._traffic = traffic
        self.clock = clock
        self._tell_broken = broken
        self._broken = False
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._window = LinkWindow(mux.LINK_WINDOW, LINK_LIMIT, HELD)
        self._stall: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._streams)

    def open(
        self, browser: BrowserSide, place: Destination, line: RequestLine, upgrade: bool
    ) -> BridgeTunnel:
        """Ask the host for a tunnel."""
        self._opened += 1
        number = self._opened
        stream = Stream(number, self)
        stream.tunnel = BridgeTunnel(str(number), browser, stream, half_closes=True, traffic=self._traffic)
        self._streams[number] = stream
        # Not by its outlet: numbers must arrive in order, and outlets take turns.
        content = mux.Open(place.target, place.task_id, line, upgrade, place.name)
        self.wire.urgent(mux.open_frame(number, content))
        return stream.tunnel

    def message(self, message: bytes) -> None:
        """A binary message arrived."""
        try:
            for kind, number, payload in mux.frames(message):
                if self._broken:
                    return
                self._take(kind, number, payload)
        except (mux.BadMessage, WindowExceeded, WindowOverflow) as error:
            self._break(str(error))

    def lost(self, reason: str) -> None:
        """The link is gone: every tunnel ends as cut short, unless it is whole here already."""
        self._broken = True
        self._let_stall()
        for stream in list(self._streams.values()):
            if stream.tunnel.done:
                stream.lost()
            stream.tunnel.stopped(reason)

    # ---- for the voices

    def hold(self, change: int) -> None:
        """So many bytes more, or less, wait for browsers."""
        self._window.held += change
        if not self._window.strained:
            self._let_stall()
        elif self._stall is None and not self._broken:
            self._stall = self.clock.callLater(STALL_LIMIT, self._relieve)
        if change < 0:
            self._give_back()

    def forget(self, number: int) -> None:
        """The tunnel is over."""
        self._streams.pop(number, None)

    # ---- frames

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == mux.DATA:
            self._window.received(len(payload))
        stream = self._streams.get(number)
        if stream is not None:
            self._hand(stream, kind, payload)
        elif number == 0:
            self._of_link(kind, payload)
        # What comes of a tunnel that is over was on its way; it counts all the same.
        if kind == mux.DATA:
            self._give_back()

    def _hand(self, stream: Stream, kind: int, payload: bytes) -> None:
        try:
            if kind == mux.RESET:
                stream.reset(payload)
            elif kind == mux.CREDIT:
                stream.credit(payload)
            elif kind in (mux.OPEN, mux.HEAD, mux.DATA, mux.END):
                _check_turn(stream, kind, payload)
                if kind == mux.HEAD:
                    stream.head(payload)
                elif kind == mux.DATA:
                    stream.data(payload)
                else:
                    stream.end_of(payload)
        except mux.BadPayload as error:
            stream.tunnel.broken(mux.BAD_FRAME, f"the host broke the protocol: {error}")
        except WindowExceeded:
            stream.tunnel.broken(mux.WINDOW_EXCEEDED, "the host sent more than the window allows")

    def _of_link(self, kind: int, payload: bytes) -> None:
        if kind == mux.CREDIT:
            try:
                self.wire.credit(mux.read_credit(payload))
            except mux.BadPayload as error:
                self._break(str(error))
        elif mux.OPEN <= kind <= mux.RESET:
            self._break("a tunnel's frame with the link's number")

    def _break(self, reason: str) -> None:
        if not self._broken:
            self._broken = True
            self._tell_broken(reason)

    # ---- the link's credit

    def _give_back(self) -> None:
        credit = self._window.due(self.clock.seconds(), self.wire.round_trip)
        if credit and not self._broken:
            self.wire.urgent(mux.credit_frame(0, credit))

    def _relieve(self) -> None:
        """Too much has waited for too long: end the tunnels whose browsers took nothing meanwhile."""
        self._stall = None
        late = self.clock.seconds() - STALL_LIMIT
        holding = sorted((s for s in self._streams.values() if s.held), key=lambda stream: stream.since)
        stuck = [stream for stream in holding if stream.since <= late]
        for stream in stuck or [max(holding, key=lambda stream: stream.held)]:
            stream.tunnel.stalled()
        if self._window.strained and self._stall is None:
            self._stall = self.clock.callLater(STALL_LIMIT, self._relieve)

    def _let_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def _check_turn(stream: Stream, kind: int, payload: bytes) -> None:
    """HEAD, then DATA, then END.

    Raises:
        BadPayload: the frame is out of turn.
    """
    if kind == mux.OPEN or stream.whole or stream.headed != (kind != mux.HEAD):
        raise mux.BadPayload(f"a frame of type {kind} out of turn")
    if kind == mux.DATA and not payload:
        raise mux.BadPayload("DATA without bytes")
