"""mux.1 at the host: tunnels in binary messages, with credit (docs/protocol.md, "mux.1").

A slow upstream stops its own tunnel: it gets no credit for what waits for it. The link's credit is given back
as bytes arrive, so that nobody else is stopped, until more waits than is to be held here. Knows neither HTTP
nor sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uaihost.interfaces import LinkOutput
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.servers import Refused, Servers
from uaihost.tunnels.tunnel import Traffic, Tunnel
from uaihost.wire import mux
from uaihost.wire.credit import Allowance, LinkWindow, ReceiveWindow, WindowExceeded, WindowOverflow
from uaihost.wire.frames import Header

# Bytes, the largest windows: 40 and 80 MB/s of uploads over 100 ms.
TUNNEL_LIMIT = 4 << 20
LINK_LIMIT = 8 << 20

# By how many bytes all tunnels' windows together may grow: eight of the largest.
GROWTH = 32 << 20

# Bytes that may wait for upstreams before the link's credit waits with them: 128 that take nothing.
HELD = 8 << 20

# Seconds for which an upstream may take nothing while more than HELD bytes wait.
STALL_LIMIT = 30.0

# Interim answers of one request that are passed on: they have no credit, and no server sends more than a 100
# and a few 103.
INTERIMS = 8


class Stream:
    """One tunnel: the tunnel's voice (tunnel.Voice), and the account of what comes for it (budget.Account).

    waiting: bytes that wait for its upstream; since: when it last took some, or there were none.
    """

    __slots__ = (
        "_closed",
        "_halved",
        "_interims",
        "_link",
        "_number",
        "_permitted",
        "_whole",
        "_window",
        "outlet",
        "since",
        "tunnel",
        "waiting",
    )

    tunnel: Tunnel

    def __init__(self, number: int, link: Streams) -> None:
        self.outlet = link.output.stream(number)
        self.waiting = 0
        self.since = 0.0
        self._number = number
        self._link = link
        self._window = ReceiveWindow(mux.TUNNEL_WINDOW, TUNNEL_LIMIT, link.allowance)
        # Bytes that the bridge permits and that were not yet written; less than 0 when some wait for credit.
        self._permitted = mux.TUNNEL_WINDOW
        self._interims = 0
        # The bridge's END came; our own was said; the tunnel is over, and only its last bytes are to leave.
        self._whole = False
        self._halved = False
        self._closed = False

    # ---- tunnel.Voice

    def interim(self, head: ResponseHead) -> None:
        self._interims += 1
        if self._interims <= INTERIMS:
            self.head(head)

    def head(self, head: ResponseHead) -> None:
        self.outlet.frame(mux.head_frame(self._number, mux.Head(True, head.status, head.text, head.headers)))

    def write(self, data: bytes) -> None:
        self._permitted -= len(data)
        self.outlet.write(data)

    def refuse(self, code: int, message: str) -> None:
        if code == mux.FAILED:
            self.outlet.finish(_refusal(self._number, 502, message))
        else:
            self.fail(code, message)

    def half(self) -> None:
        self._halved = True
        self.outlet.frame(mux.end_frame(self._number))

    def end(self, trailers: Sequence[Header], reason: str) -> None:
        number = self._number
        if not self._halved:
            if self._whole:
                self.outlet.finish(mux.end_frame(number, trailers))
                return
            self.outlet.frame(mux.end_frame(number, trailers))
        if not self._whole:
            self.outlet.finish(mux.reset_frame(number, mux.NOT_NEEDED, reason))

    def fail(self, code: int, reason: str) -> None:
        if self._halved and self._whole:
            # Over for the bridge.
            return
        last = mux.reset_frame(self._number, code, reason)
        if code == mux.FAILED:
            # After what the upstream had said.
            self.outlet.finish(last)
        else:
            self._link.output.urgent(last)
            self._drop()

    def leave(self, reason: str | None) -> None:
        self._drop()

    def vanish(self) -> None:
        self._drop()

    def over(self) -> None:
        self._closed = True
        if self._permitted >= 0:
            self._link.forget(self._number)

    # ---- budget.Account

    def passed(self, size: int) -> None:
        self._taken(size)

    def add(self, size: int) -> None:
        if not self.waiting:
            self.since = self._link.clock.seconds()
        self.waiting += size
        self._link.hold(size)

    def remove(self, size: int) -> None:
        self.since = self._link.clock.seconds()
        self.waiting -= size
        self._link.hold(-size)
        self._taken(size)

    def close(self) -> None:
        waiting, self.waiting = self.waiting, 0
        self._window.close()
        self._link.hold(-waiting)

    def _taken(self, size: int) -> None:
        link = self._link
        credit = self._window.consumed(size, link.clock.seconds(), link.output.round_trip)
        if credit and not self._whole:
            link.output.urgent(mux.credit_frame(self._number, credit))

    # ---- from the bridge

    def take(self, kind: int, payload: bytes) -> None:
        """A frame.

        Raises:
            BadPayload, WindowExceeded: the tunnel cannot go on.
            WindowOverflow: the link cannot.
        """
        if kind == mux.CREDIT:
            self._credited(mux.read_credit(payload))
        elif self._closed:
            if kind == mux.RESET:
                self._drop()
                self._link.forget(self._number)
        elif kind == mux.RESET:
            self.tunnel.close(mux.read_reset(payload).reason)
        elif self._whole or kind == mux.HEAD:
            raise mux.BadPayload(f"a frame of type {kind} out of turn")
        elif kind == mux.DATA:
            if not payload:
                raise mux.BadPayload("DATA without bytes")
            self._window.received(len(payload))
            self.tunnel.deliver(payload)
        elif kind == mux.END:
            if payload:
                raise mux.BadPayload("an END with content")
            self._whole = True
            self.tunnel.request_end()

    def _credited(self, size: int) -> None:
        self._permitted += size
        self.outlet.credit(size)
        if self._closed and self._permitted >= 0:
            self._link.forget(self._number)

    def _drop(self) -> None:
        """Nothing more leaves."""
        self._permitted = 0
        self.outlet.discard()


class Streams:
    """The tunnels of one connection, by number.

    output: the way to the bridge; clock; allowance: what all tunnels' windows may grow by.
    """

    def __init__(
        self,
        clock: IReactorTime,
        output: LinkOutput,
        servers: Servers,
        traffic: Traffic,
        broken: Callable[[str], None],
    ) -> None:
        """broken: told once why the connection cannot go on; then nothing is taken any more."""
        self.clock = clock
        self.output = output
        self.allowance = Allowance(GROWTH)
        self._servers = servers
        self._traffic = traffic
        self._tell_broken = broken
        self._broken = False
        self._opened = 0
        self._streams: dict[int, Stream] = {}
        self._window = LinkWindow(mux.LINK_WINDOW, LINK_LIMIT, HELD)
        self._stall: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def held(self) -> int:
        """Bytes that wait for upstreams."""
        return self._window.held

    def message(self, message: bytes) -> None:
        """A binary message arrived."""
        try:
            for kind, number, payload in mux.frames(message):
                if self._broken:
                    return
                self._take(kind, number, payload)
        except (mux.BadMessage, WindowExceeded, WindowOverflow) as error:
            self._break(str(error))

    def lost(self) -> None:
        """The link is gone: every upstream is destroyed and nothing is sent."""
        self._broken = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.tunnel.cut()
        self._let_stall()

    # ---- for the streams

    def hold(self, change: int) -> None:
        """So many bytes more, or less, wait for upstreams."""
        window = self._window
        window.held += change
        if not window.strained:
            self._let_stall()
        elif self._stall is None and not self._broken:
            self._stall = self.clock.callLater(STALL_LIMIT, self._relieve)
        if change < 0:
            self._give_back()

    def forget(self, number: int) -> None:
        """Nothing of the tunnel is left."""
        self._streams.pop(number, None)

    # ---- frames

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind == mux.DATA:
            self._window.received(len(payload))
        # An OPEN with a number that was used is no frame of that tunnel: the two ends no longer agree.
        stream = self._streams.get(number) if kind != mux.OPEN else None
        if stream is not None:
            try:
                stream.take(kind, payload)
            except mux.BadPayload as error:
                stream.tunnel.give_up(f"the bridge broke the protocol: {error}", mux.BAD_FRAME)
            except WindowExceeded as error:
                stream.tunnel.give_up(f"the bridge broke the protocol: {error}", mux.WINDOW_EXCEEDED)
        elif number == 0:
            self._of_link(kind, payload)
        elif kind == mux.OPEN:
            self._open(number, payload)
        elif number > self._opened and mux.HEAD <= kind <= mux.CREDIT:
            self._break(f"a frame of type {kind} for a tunnel that was never opened")
        # What comes of a tunnel that is over was on its way; it counts all the same.
        if kind == mux.DATA:
            self._give_back()

    def _of_link(self, kind: int, payload: bytes) -> None:
        if kind == mux.CREDIT:
            try:
                self.output.credit(mux.read_credit(payload))
            except mux.BadPayload as error:
                self._break(str(error))
        elif mux.OPEN <= kind <= mux.RESET:
            self._break("a tunnel's frame with the link's number")

    def _open(self, number: int, payload: bytes) -> None:
        if number <= self._opened:
            self._break(f"tunnel {number} was opened after tunnel {self._opened}")
            return
        self._opened = number
        try:
            make = self._servers.find(mux.read_open(payload), half_closes=True)
        except mux.BadPayload as error:
            self.output.urgent(mux.reset_frame(number, mux.BAD_FRAME, str(error)))
        except Refused as refused:
            self._traffic.refused += 1
            self.output.urgent(_refusal(number, refused.status, str(refused)))
        else:
            self._traffic.opened += 1
            stream = self._streams[number] = Stream(number, self)
            tunnel = stream.tunnel = Tunnel(stream, self._traffic)
            tunnel.start(make(stream, tunnel))

    def _break(self, reason: str) -> None:
        if not self._broken:
            self._broken = True
            self._let_stall()
            self._tell_broken(reason)

    # ---- the link's credit

    def _give_back(self) -> None:
        credit = self._window.due(self.clock.seconds(), self.output.round_trip)
        if credit and not self._broken:
            self.output.urgent(mux.credit_frame(0, credit))

    def _relieve(self) -> None:
        """Too much has waited for too long: end the tunnels whose upstreams took nothing meanwhile."""
        self._stall = None
        late = self.clock.seconds() - STALL_LIMIT
        holding = [stream for stream in self._streams.values() if stream.waiting]
        stuck = [stream for stream in holding if stream.since <= late]
        for stream in stuck or [max(holding, key=lambda stream: stream.waiting)]:
            stream.tunnel.give_up(
                f"the upstream took none or too few of the bytes sent to it for {STALL_LIMIT:.0f} s "
                f"({stream.waiting} bytes waited); it was given up so that other tunnels can go on"
            )
        if self._window.strained and self._stall is None:
            self._stall = self.clock.callLater(STALL_LIMIT, self._relieve)

    def _let_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None


def _refusal(number: int, status: int, message: str) -> bytes:
    return mux.head_frame(number, mux.Head(False, status, message=message))
