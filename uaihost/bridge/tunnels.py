"""The bridge's end of every tunnel of one host: frames in, bytes out, bounded memory (protocol, section 5).

Revision 1 has no credit per tunnel. So what a slow browser does not take is kept, up to a bound; beyond it
the host's socket is not read, which slows the host's other tunnels too, and a browser that keeps it so for
long loses its tunnel. It knows neither HTTP nor how the host's socket works.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from uaihost.bridge.names import Destination
from uaihost.interfaces import LinkInput, Outlet
from uaihost.wire import codec
from uaihost.wire.frames import RequestLine, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

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


class Wire(Protocol):
    """The sending side of a host's socket (link.outbound)."""

    def control(self, payload: bytes) -> None:
        """A frame of no tunnel, ahead of all tunnels' bytes."""

    def outlet(self, tunnel_id: str) -> Outlet:
        """A new tunnel's way to the host."""

    def lost(self) -> None:
        """The socket is gone."""


class BrowserSide(Protocol):
    """Who asked for the tunnel."""

    def acked(self, ack: TunnelAck) -> None:
        """The host's answer; the first call."""

    def received(self, data: bytes) -> None:
        """Bytes of the response; never while the tunnel is paused."""

    def closed(self, reason: str) -> None:
        """The last call, after every byte; not made when this side closed the tunnel."""


class Reading:
    """Several reasons to stop reading one source, merged: it is read while there is none."""

    def __init__(self, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        self._pause = pause
        self._resume = resume
        self._reasons: set[object] = set()

    def hold(self, reason: object) -> None:
        """Stop until `reason` is released."""
        if not self._reasons:
            self._pause()
        self._reasons.add(reason)

    def release(self, reason: object) -> None:
        """Withdraw one reason; one that was not given is no error."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                self._resume()


@implementer(IPushProducer)
class BridgeTunnel:
    """One tunnel. It is the producer of the browser's transport, which pauses and resumes it."""

    def __init__(self, id: str, outlet: Outlet, browser: BrowserSide, table: TunnelTable) -> None:
        self.id = id
        self.outlet = outlet
        self._browser = browser
        self._table = table
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._done = False
        self._ending: str | None = None
        self._stall: IDelayedCall | None = None

    # ---- the browser's side

    def write(self, data: bytes) -> None:
        """Bytes of the request's body, or of an upgraded connection."""
        if not self._done:
            self.outlet.write(data)

    def end_request(self) -> None:
        """The request's body is complete."""
        if not self._done:
            self.outlet.frame(codec.encode(TunnelRequestEnd(self.id)))

    def close(self, reason: str) -> None:
        """The browser wants no more; nothing is called afterwards."""
        if not self._done:
            self._forget()
            self.outlet.finish(codec.encode(TunnelClose(self.id, reason)))

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._kept and not self._paused:
            data = self._kept.popleft()
            self._size -= len(data)
            self._browser.received(data)
        if self._size <= LOW_WATER:
            self._let_read()
        if not self._kept and self._ending is not None and not self._done:
            self._end(self._ending)

    def stopProducing(self) -> None:
        self.close("the browser is gone")

    # ---- the host's side, called by the table

    def acked(self, ack: TunnelAck) -> None:
        self._browser.acked(ack)

    def delivered(self, data: bytes) -> None:
        if not self._paused and not self._kept:
            self._browser.received(data)
            return
        self._kept.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and self._stall is None:
            self._table.input.hold(self)
            self._stall = self._table.clock.callLater(STALL_LIMIT, self._stalled)

    def ended(self, reason: str) -> None:
        """The host closed it: what is kept goes to the browser first, unless it is cut short anyway."""
        if self._ending is not None:
            return  # It is whole here already, whatever happens to the link.
        self._ending = reason
        if not self._kept or reason not in WHOLE:
            self._end(reason)

    def _end(self, reason: str) -> None:
        self._forget()
        self.outlet.discard()
        self._browser.closed(reason)

    def _forget(self) -> None:
        self._done = True
        self._kept.clear()
        self._size = 0
        self._let_read()
        self._table.forget(self.id)

    def _let_read(self) -> None:
        if self._stall is not None:
            if self._stall.active():
                self._stall.cancel()
            self._stall = None
            self._table.input.release(self)

    def _stalled(self) -> None:
        log.warn("a browser took nothing of tunnel {id} for {s} s; closed", id=self.id, s=STALL_LIMIT)
        self.outlet.finish(codec.encode(TunnelClose(self.id, "the browser reads too slowly")))
        self._forget()
        self._browser.closed("the browser read too slowly")


class TunnelTable:
    """The tunnels of one connection of a host, by id.

    wire: what is sent goes there. input: the reading of the host's socket. clock: for the stall limit.
    """

    def __init__(self, wire: Wire, input: LinkInput, clock: IReactorTime) -> None:
        self.wire = wire
        self.input = input
        self.clock = clock
        self._tunnels: dict[str, BridgeTunnel] = {}
        self._opened = 0
        self._next: str | None = None
        self._lost = False

    def __len__(self) -> int:
        return len(self._tunnels)

    def open(
        self, browser: BrowserSide, place: Destination, line: RequestLine, upgrade: bool
    ) -> BridgeTunnel | None:
        """Ask the host for a tunnel; None when the link is gone."""
        if self._lost:
            return None
        self._opened += 1
        # Ids live as long as the link, so a short number is enough; it travels before every chunk.
        tunnel_id = f"t{self._opened}"
        tunnel = BridgeTunnel(tunnel_id, self.wire.outlet(tunnel_id), browser, self)
        self._tunnels[tunnel_id] = tunnel
        tunnel.outlet.frame(
            codec.encode(TunnelOpen(tunnel_id, place.target, place.task_id, line, upgrade, place.name))
        )
        return tunnel

    def ack(self, ack: TunnelAck) -> None:
        """A `tunnel.ack` arrived."""
        tunnel = self._tunnels.get(ack.tunnelId)
        if tunnel is not None:
            tunnel.acked(ack)

    def data(self, tunnel_id: str) -> None:
        """A `tunnel.data` arrived: the next binary message is that tunnel's."""
        self._next = tunnel_id

    def binary(self, payload: bytes) -> None:
        """A binary message arrived."""
        tunnel_id, self._next = self._next, None
        if tunnel_id is None:
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
            tunnel.ended(frame.reason or "closed by the host")

    def lost(self) -> None:
        """The link is gone: every tunnel ends as cut short."""
        self._lost = True
        for tunnel in list(self._tunnels.values()):
            tunnel.ended(LINK_LOST)

    def forget(self, tunnel_id: str) -> None:
        """The tunnel is over."""
        self._tunnels.pop(tunnel_id, None)
