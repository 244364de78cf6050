"""The order in which everything leaves: the only producer on the socket to the other end.

Control frames leave first, in order; then what is urgent of mux.1; then tunnels that say little (a key
stroke, an echo); then all others, in fair turns of small size (link.turns). Of those no more is on the way to
the other end than fills it (link.flight), so that whatever comes first really arrives first. What tunnels say
within one turn of the reactor leaves together, frames of mux.1 in one message. What waits is bounded: every
tunnel's producer is paused above its share.

Both ends of the link use it. It knows tunnels and opaque payloads, and neither sockets below nor tunnels
above. Invariant: when nothing is scheduled, what waits waits for the transport, the other end or credit.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.link.compression import Gain
from uaihost.link.flight import Flight
from uaihost.link.outlet import DRY, IDLE, QUEUED, SOON, Pairs, Queue, Stream
from uaihost.link.parcel import Messages, Parcel
from uaihost.link.turns import Turns
from uaihost.wire import mux
from uaihost.wire.credit import SendWindow

# Bytes that may wait for one tunnel before its producer is paused, and at which it is resumed: enough to fill
# the transport's buffer at once when a turn comes.
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024

# Bytes that may wait for all tunnels together, so that a hundred of them do not take a hundred shares. What
# waits for the credit of tunnels whose readers are slow counts apart, or they would stop all others.
TOTAL_HIGH_WATER = 4 * 1024 * 1024
TOTAL_LOW_WATER = 2 * 1024 * 1024

# Bytes that a tunnel may send in a round trip, and in SPARSE_TIME seconds at least, to go before the others
# and beyond the window: what people type and what answers them.
SPARSE = 4 * 1024
SPARSE_TIME = 0.01

# Bytes that a message takes on the wire beside its payload (RFC 6455, section 5.2).
MESSAGE_COST = 8

# The socket is told of the way's speed when it changes by this share.
_RATE_CHANGE = 0.25


@implementer(IPushProducer)
class Outbound:
    """The scheduler of one connection (interfaces.LinkOutput).

    total: bytes that wait for tunnels' turns; held: those that wait for credit of their tunnels;
    control_waiting, urgent_waiting: bytes of control frames, and of urgent ones, that wait; full_since: when
    the transport became full, on the clock; None while it has room; gone: the connection is lost; window:
    link.outlet.Keeper.
    """

    gone: bool
    full_since: float | None

    def __init__(self, socket: Messages, clock: IReactorTime) -> None:
        self._socket = socket
        self._clock = clock
        self._flight = Flight()
        self._uplink: float | None = None
        self._pumping = False
        self._scheduled: IDelayedCall | None = None
        self._control: deque[tuple[bytes, bool]] = deque()
        self._urgent: deque[bytes] = deque()
        self._soon: dict[Queue, None] = {}
        self._turns: Turns[Queue] = Turns()
        self._dry: dict[Queue, None] = {}
        # Paused tunnels with little left, which wait until the total has fallen; in order.
        self._starved: dict[Queue, None] = {}
        self._room: list[Deferred[bool]] = []
        self._parcel = Parcel()
        self.gone = False
        self.window = SendWindow(mux.LINK_WINDOW)
        self.total = 0
        self.held = 0
        self.control_waiting = 0
        self.urgent_waiting = 0
        self.full_since: float | None = None
        socket.registerProducer(self, True)

    # ---- interfaces.LinkOutput

    @property
    def round_trip(self) -> float | None:
        """Seconds to the other end and back, smoothed; None: not known."""
        return self._flight.round_trip

    @property
    def rate(self) -> float | None:
        """Bytes per second that the way to the other end takes; None: not known."""
        return self._flight.rate

    def control(self, payload: bytes, compress: bool = False) -> None:
        """A text message before anything of the tunnels; in order among its like."""
        if self.gone:
            return
        if self.full_since is None and not self._pumping:
            self._send(payload, False, compress)
            self._mark()
        else:
            self._control.append((payload, compress))
            self.control_waiting += len(payload)

    def urgent(self, frame: bytes) -> None:
        """A frame of mux.1 before anything that waits in outlets."""
        if not self.gone:
            self._urgent.append(frame)
            self.urgent_waiting += len(frame)
            self._schedule()

    def outlet(self, tunnel_id: str) -> Outlet:
        """A way out for a tunnel of revision 1; to be finished or discarded at its end."""
        return Pairs(self, tunnel_id)

    def stream(self, number: int) -> Outlet:
        """The same for one of mux.1."""
        return Stream(self, number)

    def credit(self, size: int) -> None:
        """The other end takes `size` more bytes of all tunnels of mux.1. Raises: credit.WindowOverflow."""
        self.window.add(size)
        self._schedule()

    # ---- for who owns the connection

    def room(self) -> Deferred[bool]:
        """Fires when no control frame waits and the tunnels have had their turn; False when the link is lost.

        For whoever has much to send that is not a tunnel: between two batches the tunnels get on.
        """
        done: Deferred[bool] = Deferred()
        self._room.append(done)
        if self.gone or (self.full_since is None and not self._pumping and self._flight.room > 0):
            self._tell_room(not self.gone)
        return done

    def marked(self, payload: bytes) -> None:
        """A pong came."""
        if self.gone:
            return
        self._flight.answered(payload, self._clock.seconds())
        rate = self._flight.rate
        known = self._uplink
        if rate is not None and (known is None or abs(rate - known) > _RATE_CHANGE * known):
            self._uplink = rate
            self._socket.set_uplink(rate)
        if self._soon or self._turns or self._room:
            self._schedule()

    def deaf(self, deaf: bool) -> None:
        """Nothing is read from the socket any more, or again: marks say nothing meanwhile."""
        self._flight.deaf(deaf)
        self._schedule()

    def lost(self) -> None:
        """The connection is gone: drop everything. Later calls of every kind do nothing."""
        if self.gone:
            return
        self.gone = True
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        for outlet in (*self._soon, *self._dry, *self._turns.clear()):
            outlet.place = IDLE
            outlet.forget()
        self._soon.clear()
        self._dry.clear()
        self._starved.clear()
        self._control.clear()
        self._urgent.clear()
        self._parcel.take()
        self.total = self.held = self.control_waiting = self.urgent_waiting = 0
        self._tell_room(False)

    # ---- IPushProducer, called by the transport

    def pauseProducing(self) -> None:
        if self.full_since is None:
            self.full_since = self._clock.seconds()

    def resumeProducing(self) -> None:
        self.full_since = None
        self._pump()

    def stopProducing(self) -> None:
        self.lost()

    # ---- link.outlet.Keeper

    def put(self, outlet: Queue, cost: int) -> None:
        """`outlet` has a unit of `cost` bytes more."""
        if outlet.place == DRY:
            self.held += cost
        else:
            self.total += cost
            if outlet.place == IDLE:
                self._place(outlet)
            self._schedule()
        held = self.held if outlet.place == DRY else self.total
        if not outlet.paused and (outlet.waiting > HIGH_WATER or held > TOTAL_HIGH_WATER):
            outlet.pause()

    def credited(self, outlet: Queue) -> None:
        """`outlet`, which was dry, may send."""
        del self._dry[outlet]
        self.held -= outlet.waiting
        self.total += outlet.waiting
        outlet.place = IDLE
        self._place(outlet)
        self._schedule()

    def withdraw(self, outlet: Queue) -> None:
        """Nothing of `outlet` waits any more."""
        if outlet.place == DRY:
            del self._dry[outlet]
            self.held -= outlet.forget()
        else:
            if outlet.place == SOON:
                del self._soon[outlet]
            elif outlet.place == QUEUED:
                self._turns.remove(outlet)
            self.total -= outlet.forget()
        outlet.place = IDLE
        self._starved.pop(outlet, None)
        self._relieve(None)
        if self._room:
            self._schedule()

    def message(self, payload: bytes, binary: bool, gain: Gain | None = None) -> None:
        """A message of revision 1, at once."""
        self._send(payload, binary, gain is not None and gain.worth(payload), gain)

    def frame(self, payload: bytes) -> None:
        """A frame of mux.1, with the message that is being put together; never with compressed bytes."""
        self._gather(None, payload)

    def data(self, header: bytes, data: bytes, gain: Gain) -> None:
        """A DATA frame of mux.1, with the message if that is to be compressed like it."""
        compressed = len(data) >= self._socket.smallest and gain.worth(data)
        self._gather(gain if compressed else None, header, data)

    # ---- inside

    def _gather(self, gain: Gain | None, *pieces: bytes) -> None:
        """Into one message. What is compressed is one tunnel's DATA alone (docs/adr/0007)."""
        parcel = self._parcel
        if parcel.size and gain is not parcel.gain:
            self._flush()
        parcel.add(gain, pieces)
        if parcel.size >= self._flight.chunk:
            self._flush()

    def _schedule(self) -> None:
        """Send once all that happens in this turn of the reactor has happened."""
        if self._scheduled is None and self.full_since is None and not self._pumping and not self.gone:
            self._scheduled = self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = None
        if self.full_since is None:
            self._pump()

    def _pump(self) -> None:
        """Send until nothing may leave any more."""
        if self._pumping or self.gone:
            return
        self._pumping = True
        tunnels_sent = False
        try:
            while self.full_since is None and not self.gone:
                if self._control:
                    payload, compress = self._control.popleft()
                    self.control_waiting -= len(payload)
                    self._send(payload, False, compress)
                elif self._urgent:
                    frame = self._urgent.popleft()
                    self.urgent_waiting -= len(frame)
                    self.frame(frame)
                elif (outlet := self._next()) is not None:
                    tunnels_sent = True
                    self._serve(outlet)
                else:
                    break
                self._mark()
            self._flush()
        finally:
            self._pumping = False
        self._pumped(tunnels_sent)

    def _pumped(self, tunnels_sent: bool) -> None:
        if self.gone:
            return
        free = self.full_since is None and self._flight.room > 0
        if free:
            self._flight.idle()
        self._mark()
        if not self._control and (tunnels_sent or free):
            self._tell_room(True)

    def _next(self) -> Queue | None:
        """Whose turn it is; None while nobody may send."""
        credit = self.window.left > 0
        room = self._flight.room - self._parcel.size
        while self._soon and room + self._flight.reserve > 0:
            outlet = next(iter(self._soon))
            del self._soon[outlet]
            if outlet.spent + outlet.waiting <= SPARSE and (credit or not outlet.needs_credit()):
                outlet.place = IDLE
                return outlet
            self._queue(outlet)
        if room <= 0 or not self._turns.any(credit):
            return None
        outlet = self._turns.take(credit)
        outlet.place = IDLE
        return outlet

    def _serve(self, outlet: Queue) -> None:
        """The turn of `outlet`, which is nowhere."""
        if not outlet.gathers:
            self._flush()
            if self.full_since is not None:
                self._queue(outlet)
                return
        size = outlet.send(outlet.turn(self._flight.chunk))
        if self.gone:
            return
        self.total -= size
        outlet.spent += size
        self._turns.served(outlet, size)
        if outlet.waiting:
            if outlet.dry():
                self._dry_up(outlet)
            else:
                self._queue(outlet)
        self._relieve(outlet)

    def _place(self, outlet: Queue) -> None:
        """`outlet` has something to send and is nowhere."""
        if outlet.dry():
            self._dry_up(outlet)
            return
        now = self._clock.seconds()
        if not 0 <= now - outlet.since <= max(SPARSE_TIME, self._flight.round_trip or 0.0):
            outlet.since, outlet.spent = now, 0
        if outlet.spent + outlet.waiting <= SPARSE:
            outlet.place = SOON
            self._soon[outlet] = None
        else:
            self._queue(outlet)

    def _queue(self, outlet: Queue) -> None:
        outlet.place = QUEUED
        self._turns.add(outlet, outlet.needs_credit())

    def _dry_up(self, outlet: Queue) -> None:
        outlet.place = DRY
        self._dry[outlet] = None
        self.total -= outlet.waiting
        self.held += outlet.waiting

    def _flush(self) -> None:
        """The message of mux.1 that was put together leaves."""
        if self._parcel.size:
            payload, gain = self._parcel.take()
            self._send(payload, True, gain is not None, gain)

    def _send(self, payload: bytes, binary: bool, compress: bool, gain: Gain | None = None) -> None:
        """A message to the socket."""
        size = self._socket.send_message(payload, binary, compress, gain)
        self._flight.sent(size + MESSAGE_COST)
        if compress and gain is not None:
            gain.learn(len(payload), size)

    def _mark(self) -> None:
        now = self._clock.seconds()
        if self._flight.due(now):
            self._socket.send_mark(self._flight.mark(now))

    def _relieve(self, outlet: Queue | None) -> None:
        """Let producers go on for which there is room again; `outlet` has sent something."""
        if outlet is not None and outlet.paused and outlet.waiting <= LOW_WATER:
            self._starved[outlet] = None
        while self._starved and self.total <= TOTAL_LOW_WATER and not self.gone:
            first = next(iter(self._starved))
            del self._starved[first]
            first.resume()

    def _tell_room(self, room: bool) -> None:
        waiting, self._room = self._room, []
        for done in waiting:
            done.callback(room)
