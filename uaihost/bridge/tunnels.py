"""The tunnels of one host: opened for browsers, by mux.1 once that is agreed on, else by revision 1.

Revision 1 (protocol, section 5) is spoken here. It has no credit per tunnel: what a slow browser does not
take is kept, up to a bound; beyond it the host's socket is not read, which slows the host's other tunnels
too, and a browser that keeps it so for long loses its tunnel. It knows neither HTTP nor sockets.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uaihost.bridge.names import Destination
from uaihost.bridge.streams import Streams
from uaihost.bridge.tunnel import BridgeTunnel, BrowserSide, Traffic
from uaihost.interfaces import LinkInput, LinkOutput
from uaihost.wire import codec
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd
from uaihost.wire.mux import Head

log = Logger()

# Bytes kept for one browser before the host's socket is held. Enough that a browser which renders or compiles
# for some 100 ms at 40 MB/s disturbs nobody.
HIGH_WATER = 4 << 20

# Bytes at which reading goes on. Close to the bound, so that a browser on a slow line (8 KiB/s) still makes
# the step within STALL_LIMIT.
LOW_WATER = HIGH_WATER - (256 << 10)

# Seconds for which one browser may keep the host's socket unread. Below the 45 s after which the host, which
# gets no pong meanwhile, takes the bridge for dead.
STALL_LIMIT = 30.0

# The reasons of a close after which the response is whole; any other one cut it short.
WHOLE = frozenset({"upstream ended", "upstream closed"})

LINK_LOST = "the connection to the host was lost"


# Bytes of what is urgent, OPENs above all, that may wait for a host's socket: no browser that asks is paused
# by it, and pages of a task are not to be trusted.
OPENS_LIMIT = 1 << 20


class Spoken:
    """tunnel.Voice of revision 1."""

    def __init__(self, id: str, table: TunnelTable) -> None:
        self.outlet = table.wire.outlet(id)
        self._id = id
        self._table = table
        self._closed = False
        self._stall: IDelayedCall | None = None

    def write(self, data: bytes) -> None:
        self.outlet.write(data)

    def end(self) -> None:
        self.outlet.frame(codec.encode(TunnelRequestEnd(self._id)))

    def close(self, code: int, reason: str) -> None:
        self._closed = True
        self.outlet.finish(codec.encode(TunnelClose(self._id, reason)))

    def drop(self) -> None:
        self.outlet.discard()

    def took(self, size: int) -> None:
        """Nothing to say: there is no credit."""

    def keeps(self, size: int) -> None:
        if size > HIGH_WATER and self._stall is None:
            self._table.input.hold(self)
            self._stall = self._table.clock.callLater(STALL_LIMIT, self._stalled)
        elif size <= LOW_WATER and self._stall is not None:
            if self._stall.active():
                self._stall.cancel()
            self._stall = None
            self._table.input.release(self)

    def over(self) -> None:
        if not self._closed:
            self.outlet.discard()
        self._table.forget(self._id)

    def _stalled(self) -> None:
        self._table.stalled(self._id)


class TunnelTable:
    """The tunnels of one connection of a host.

    wire: what is sent goes there. input: the reading of the host's socket. clock: for the stall limit.
    streams: the tunnels of mux.1; None as long as it is not agreed on. traffic: where tunnels are counted.
    """

    def __init__(
        self, wire: LinkOutput, input: LinkInput, clock: IReactorTime, traffic: Traffic | None = None
    ) -> None:
        self.traffic = traffic or Traffic()
        self.wire = wire
        self.input = input
        self.clock = clock
        self.streams: Streams | None = None
        self._tunnels: dict[str, BridgeTunnel] = {}
        self._opened = 0
        self._next: str | None = None
        self._lost = False

    def __len__(self) -> int:
        return len(self._tunnels) + (0 if self.streams is None else len(self.streams))

    def agree(self, broken: Callable[[str], None]) -> None:
        """From now on tunnels are opened by mux.1; `broken` is told why the connection cannot go on."""
        self.streams = Streams(self.wire, self.clock, broken, self.traffic)

    @property
    def tells_all(self) -> bool:
        """Whether the host passes interim answers on, and so a request that expects one."""
        return self.streams is not None

    def open(
        self, browser: BrowserSide, place: Destination, line: RequestLine, upgrade: bool
    ) -> BridgeTunnel | None:
        """Ask the host for a tunnel; None when the link is gone, or has not taken what it was asked."""
        if self._lost or self.wire.urgent_waiting > OPENS_LIMIT:
            return None
        if self.streams is not None:
            return self.streams.open(browser, place, line, upgrade)
        self._opened += 1
        # Ids live as long as the link, so a short number is enough; it travels before every chunk.
        tunnel_id = f"t{self._opened}"
        tunnel = BridgeTunnel(
            tunnel_id, browser, Spoken(tunnel_id, self), half_closes=False, traffic=self.traffic
        )
        self._tunnels[tunnel_id] = tunnel
        tunnel.outlet.frame(
            codec.encode(TunnelOpen(tunnel_id, place.target, place.task_id, line, upgrade, place.name))
        )
        return tunnel

    def ack(self, ack: TunnelAck) -> None:
        """A `tunnel.ack` arrived."""
        tunnel = self._tunnels.get(ack.tunnelId)
        if tunnel is not None:
            tunnel.acked(Head(ack.ok, ack.status, ack.statusText, ack.headers, ack.message))

    def data(self, tunnel_id: str) -> None:
        """A `tunnel.data` arrived: the next binary message is that tunnel's."""
        self._next = tunnel_id

    def binary(self, payload: bytes) -> None:
        """A binary message arrived."""
        tunnel_id, self._next = self._next, None
        if tunnel_id is None:
            if self.streams is not None:
                self.streams.message(payload)
            else:
                log.warn("a binary message without a tunnel.data before it was dropped")
            return
        tunnel = self._tunnels.get(tunnel_id)
        # Of a tunnel that this side closed, bytes may still be on their way.
        if tunnel is not None and payload:
            tunnel.delivered(payload)

    def close(self, frame: TunnelClose) -> None:
        """A `tunnel.close` arrived."""
        tunnel = self._tunnels.get(frame.tunnelId)
        if tunnel is not None:
            reason = frame.reason or "closed by the host"
            if reason in WHOLE:
                tunnel.ended(())
            tunnel.stopped(reason)

    def lost(self) -> None:
        """The link is gone: every tunnel ends as cut short."""
        self._lost = True
        for tunnel in list(self._tunnels.values()):
            tunnel.stopped(LINK_LOST)
        if self.streams is not None:
            self.streams.lost(LINK_LOST)

    # ---- for the voices

    def forget(self, tunnel_id: str) -> None:
        """The tunnel is over."""
        self._tunnels.pop(tunnel_id, None)

    def stalled(self, tunnel_id: str) -> None:
        """The tunnel's browser kept the host's socket unread for too long."""
        tunnel = self._tunnels.get(tunnel_id)
        if tunnel is not None:
            tunnel.stalled()
