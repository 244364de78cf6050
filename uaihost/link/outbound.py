"""The order in which everything leaves: the only producer on the socket to the other end.

Control frames leave first, in order. Tunnels take turns by bytes (deficit round robin, Shreedhar and Varghese
1995), and one that begins to speak comes before those that speak all the time, for one turn (RFC 8290,
section 4.2), so that a key stroke does not wait behind downloads. Nothing is written while the transport is
full; what waits is bounded, because every tunnel's producer is paused above its share.

Both ends of the link use it. It knows tunnel ids and opaque payloads, and neither sockets below nor tunnels
above. Invariant: while the transport has room and no turn is running, nothing waits.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.wire.codec import encode
from uaihost.wire.frames import TunnelData

# Bytes a tunnel may send in its turn. Larger turns cost fewer switches; at 10 MB/s this one takes 6.5 ms.
QUANTUM = 64 * 1024

# Bytes of tunnel data in one message; what is longer is split.
MESSAGE_LIMIT = 128 * 1024

# Bytes that may wait for one tunnel before its producer is paused, and at which it is resumed: enough to fill
# the transport's buffer at once when a turn comes.
HIGH_WATER = 256 * 1024
LOW_WATER = 64 * 1024

# Bytes that may wait for all tunnels together, so that a hundred of them do not take a hundred shares.
TOTAL_HIGH_WATER = 4 * 1024 * 1024
TOTAL_LOW_WATER = 2 * 1024 * 1024

# Bytes that a waiting unit counts beside its payload: its objects here and its header on the wire. Without it
# a tunnel that writes single bytes would hold a hundred times its share.
UNIT_COST = 128


class Messages(Protocol):
    """The socket below (link.socket.MessageSocket)."""

    def send_message(self, payload: bytes, binary: bool, compress: bool) -> None:
        """One message."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """`producer` is paused and resumed as the transport's room goes and comes."""


@implementer(IPushProducer)
class Outbound:
    """The scheduler of one connection.

    total: bytes that wait for tunnels; control_waiting: bytes of control frames that wait;
    full_since: when the transport became full, on the clock; None while it has room.
    """

    def __init__(self, socket: Messages, clock: IReactorTime) -> None:
        self._socket = socket
        self._clock = clock
        self._lost = False
        self._turning = False
        self._control: deque[tuple[bytes, bool]] = deque()
        # Tunnels with something to send: those that have just begun to, and those in rotation.
        self._fresh: deque[_Outlet] = deque()
        self._rotation: deque[_Outlet] = deque()
        # Paused tunnels with little left, which wait until the total has fallen; in order.
        self._starved: dict[_Outlet, None] = {}
        self._room: list[Deferred[bool]] = []
        self.total = 0
        self.control_waiting = 0
        self.full_since: float | None = None
        socket.registerProducer(self, True)

    def control(self, payload: bytes, compress: bool = False) -> None:
        """A text message before anything of the tunnels; in order among its like."""
        if self._lost:
            return
        if self.full_since is None and not self._turning:
            self._socket.send_message(payload, False, compress)
        else:
            self._control.append((payload, compress))
            self.control_waiting += len(payload)

    def outlet(self, tunnel_id: str) -> Outlet:
        """A tunnel's way out; to be finished or discarded at its end."""
        return _Outlet(self, encode(TunnelData(tunnelId=tunnel_id)))

    def room(self) -> Deferred[bool]:
        """Fires when no control frame waits and the tunnels have had their turn; False when the link is lost.

        For whoever has much to send that is not a tunnel: between two batches the tunnels get on.
        """
        done: Deferred[bool] = Deferred()
        self._room.append(done)
        if self._lost or (self.full_since is None and not self._turning):
            self._tell_room(not self._lost)
        return done

    def lost(self) -> None:
        """The connection is gone: drop everything. Later calls of every kind do nothing."""
        if self._lost:
            return
        self._lost = True
        for ring in (self._fresh, self._rotation):
            for outlet in ring:
                self.total -= outlet.forget()
                outlet.listed = False
            ring.clear()
        self._control.clear()
        self._starved.clear()
        self.control_waiting = 0
        assert self.total == 0, self.total
        self._tell_room(False)

    # IPushProducer, called by the transport.

    def pauseProducing(self) -> None:
        if self.full_since is None:
            self.full_since = self._clock.seconds()

    def resumeProducing(self) -> None:
        self.full_since = None
        self._take_turns()

    def stopProducing(self) -> None:
        self.lost()

    # For the outlets.

    def _put(self, outlet: _Outlet, unit: tuple[bool, bytes]) -> None:
        if self.full_since is None and not self._turning:
            # Nothing waits: no turn to take.
            self._transmit(outlet, unit)
            return
        cost = len(unit[1]) + UNIT_COST
        outlet.units.append(unit)
        outlet.waiting += cost
        self.total += cost
        if not outlet.listed:
            outlet.listed = True
            outlet.deficit = QUANTUM
            self._fresh.append(outlet)
        if not outlet.paused and (outlet.waiting > HIGH_WATER or self.total > TOTAL_HIGH_WATER):
            outlet.pause()

    def _take_turns(self) -> None:
        """Send until the transport is full or nothing waits."""
        if self._turning or self._lost:
            return
        self._turning = True
        tunnels_sent = False
        try:
            while self.full_since is None:
                if self._control:
                    payload, compress = self._control.popleft()
                    self.control_waiting -= len(payload)
                    self._socket.send_message(payload, False, compress)
                elif ring := self._fresh or self._rotation:
                    tunnels_sent = True
                    self._turn(ring)
                else:
                    assert self.total == 0, self.total
                    break
        finally:
            self._turning = False
        if not self._control and (tunnels_sent or self.full_since is None):
            self._tell_room(True)

    def _turn(self, ring: deque[_Outlet]) -> None:
        """One step of the tunnel at the head of `ring`: send a unit, or go to the end of the rotation."""
        outlet = ring[0]
        if not outlet.units:
            ring.popleft()
            if ring is self._fresh:
                # Not forgotten at once: one that sends a little again and again must not always come first.
                self._rotation.append(outlet)
            else:
                outlet.listed = False
        elif outlet.deficit <= 0:
            outlet.deficit += QUANTUM
            ring.popleft()
            self._rotation.append(outlet)
        else:
            unit, cost = outlet.take()
            outlet.deficit -= cost
            self.total -= cost
            self._transmit(outlet, unit)
            self._relieve(outlet)

    def _transmit(self, outlet: _Outlet, unit: tuple[bool, bytes]) -> None:
        """A unit to the socket. Framing of a tunnel's bytes has its only place here."""
        is_data, payload = unit
        if is_data:
            self._socket.send_message(outlet.header, False, False)
        self._socket.send_message(payload, is_data, False)

    def _relieve(self, outlet: _Outlet) -> None:
        """Let producers go on for which there is room again."""
        if self._lost:
            return
        if outlet.paused and outlet.waiting <= LOW_WATER:
            self._starved[outlet] = None
        while self._starved and self.total <= TOTAL_LOW_WATER:
            first = next(iter(self._starved))
            del self._starved[first]
            first.resume()

    def _withdraw(self, outlet: _Outlet) -> None:
        """Nothing of `outlet` waits any more."""
        self.total -= outlet.forget()
        self._starved.pop(outlet, None)
        if outlet.listed:
            outlet.listed = False
            (self._fresh if outlet in self._fresh else self._rotation).remove(outlet)
        self._relieve(outlet)

    def _tell_room(self, room: bool) -> None:
        waiting, self._room = self._room, []
        for done in waiting:
            done.callback(room)


class _Outlet:
    """One tunnel's queue; the public part is interfaces.Outlet.

    units: (is data, payload), in order; waiting: their cost in bytes; deficit: bytes left in this turn.
    """

    __slots__ = (
        "_finished",
        "_gone",
        "_outbound",
        "_producer",
        "deficit",
        "header",
        "listed",
        "paused",
        "units",
        "waiting",
    )

    def __init__(self, outbound: Outbound, header: bytes) -> None:
        self._outbound = outbound
        self._producer: IPushProducer | None = None
        self._finished = False
        self._gone = False
        self.header = header
        self.units: deque[tuple[bool, bytes]] = deque()
        self.waiting = 0
        self.deficit = 0
        self.listed = False
        self.paused = False

    def frame(self, payload: bytes) -> None:
        """One text message (an encoded frame)."""
        if self._open():
            self._outbound._put(self, (False, payload))

    def write(self, data: bytes) -> None:
        """Bytes of the tunnel."""
        if not data or not self._open():
            return
        if len(data) <= MESSAGE_LIMIT:
            self._outbound._put(self, (True, data))
            return
        for start in range(0, len(data), MESSAGE_LIMIT):
            self._outbound._put(self, (True, data[start : start + MESSAGE_LIMIT]))

    def finish(self, payload: bytes) -> None:
        """The last frame."""
        if self._open():
            self._finished = True
            self.unregisterProducer()
            self._outbound._put(self, (False, payload))

    def discard(self) -> None:
        """Drop what waits; nothing is sent any more."""
        if not self._gone:
            self._gone = True
            self.paused = False
            self.unregisterProducer()
            self._outbound._withdraw(self)

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

    def _open(self) -> bool:
        if self._gone or self._outbound._lost:
            return False
        assert not self._finished, "nothing follows an outlet's last frame"
        return True

    # For the scheduler.

    def take(self) -> tuple[tuple[bool, bytes], int]:
        """The next unit and its cost; small pieces of data that follow one another become one."""
        is_data, payload = self.units.popleft()
        cost = len(payload) + UNIT_COST
        if is_data and len(payload) < QUANTUM and self.units:
            pieces = [payload]
            size = len(payload)
            while self.units and self.units[0][0] and size + len(self.units[0][1]) <= QUANTUM:
                piece = self.units.popleft()[1]
                pieces.append(piece)
                size += len(piece)
                cost += len(piece) + UNIT_COST
            if len(pieces) > 1:
                payload = b"".join(pieces)
        self.waiting -= cost
        assert self.waiting >= 0, self.waiting
        return (is_data, payload), cost

    def forget(self) -> int:
        """Drop every unit; the cost of what was dropped."""
        dropped, self.waiting = self.waiting, 0
        self.units.clear()
        return dropped

    def pause(self) -> None:
        self.paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        self.paused = False
        if self._producer is not None:
            self._producer.resumeProducing()
