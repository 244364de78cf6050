"""How many bytes may be on the way to the other end: measured, from one application to the other.

WebSocket pings are the marks (RFC 6455, section 5.5.2): a peer answers one when it has read all before it, so
that its pong tells how long the way is and how fast it takes bytes, whatever lies between: kernels, proxies
and the peer's own queue. The model is BBR's (Cardwell et al. 2016): what may be on the way is the largest
delivery rate seen lately times the shortest round trip, and a little more. That little is what waits in
queues, so whatever is urgent waits no longer than that.

Pure: times are arguments, seconds on any clock. It knows neither sockets nor who sends.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

import attrs

# Seconds that bulk may wait in queues on its way: this, and a share of the shortest round trip. Less does not
# fill a link whose round trip changes; more is felt by who types.
TARGET: Final = 0.002
TARGET_SHARE: Final = 0.25

# Bytes on the way, least and most: 2 Mbit/s, and more than any memory copies in the target's time.
LEAST: Final = 16 * 1024
MOST: Final = 16 * 1024 * 1024

# Bytes of one turn of bulk, least and most: small beside the window, large beside a message's own cost.
CHUNK_SHARE: Final = 8
LEAST_CHUNK: Final = 2 * 1024
MOST_CHUNK: Final = 128 * 1024

# Seconds after which the next thing that is sent has a mark behind it, however little was sent.
MARK_INTERVAL: Final = 10.0

# Marks that are on their way at once. Some peers end a connection that has many unanswered pings (npm's `ws`:
# 60, while it cannot send).
MOST_MARKS: Final = 16

# Bytes that a mark and its pong take on the wire: header, mask and payload.
MARK_SIZE: Final = 14

# Seconds for which the shortest round trip counts. Then it is measured anew, on a way with empty queues.
SHORTEST_LASTS: Final = 10.0

# What a fresh measurement of the shortest round trip takes the least of: one answer may come late by chance.
_DRAIN_SAMPLES: Final = 3

# Answers that must all have waited in a queue before the way is taken to be full.
_FULL_SAMPLES: Final = 3

# Shortest round trips, and seconds at least, for which a delivery rate counts.
RATE_ROUNDS: Final = 10.0
RATE_LASTS: Final = 1.0

# Every so many round trips the window is larger by this factor for one of them. When the round trip is long
# for other reasons than our own queue (a busy peer, its own bulk before our pongs), the rate grows with it.
_PROBE_ROUNDS: Final = 8
_PROBE: Final = 1.25

_number = struct.Struct(">Q")


@attrs.define
class _Mark:
    """A ping on its way.

    position: bytes sent before it; at: when it was; delivered, delivered_at: what is taken to have arrived
    then, and since when; sent_at: when the mark that told so was sent; idle: less was sent than permitted.
    """

    number: int
    position: int
    at: float
    delivered: int
    delivered_at: float
    sent_at: float
    idle: bool


class Flight:
    """One direction of one connection.

    window: bytes that may be on the way; None while no mark was ever answered, which is no limit, so that a
    peer that answers none gets its bytes.
    chunk: bytes of one turn of bulk.
    rate: bytes per second that arrive at best; round_trip: seconds, smoothed; None: not known.
    """

    def __init__(self) -> None:
        self.window: int | None = None
        self.chunk = MOST_CHUNK
        self.rate: float | None = None
        self.round_trip: float | None = None
        self._sent = 0
        self._delivered = 0
        self._delivered_at = 0.0
        self._acknowledged_at = 0.0
        self._marks: deque[_Mark] = deque()
        self._numbers = 0
        # Answers up to this number say nothing of time.
        self._void = 0
        self._deaf = False
        self._marked = 0
        self._marked_at: float | None = None
        self._interval = LEAST // 4
        # Up to this position less was sent than permitted: what is measured there says little of the way.
        self._idle_until = 0
        self._growing = True
        self._size = float(LEAST)
        self._rates: deque[tuple[float, float]] = deque()
        self._shortest = 0.0
        self._shortest_at = 0.0
        self._round_end = 0
        self._recent: deque[float] = deque(maxlen=_FULL_SAMPLES)
        self._rounds = 0
        self._draining: float | None = None
        self._drained: list[float] = []

    @property
    def under_way(self) -> int:
        """Bytes sent and not known to have arrived."""
        return self._sent - self._delivered

    @property
    def room(self) -> int:
        """Bytes of bulk that may be sent now; below 1: none."""
        return MOST if self.window is None or self._deaf else self.window - self.under_way

    @property
    def reserve(self) -> int:
        """Bytes beyond `room` for what is small and rare."""
        return self.window or 0

    def sent(self, size: int) -> None:
        """`size` bytes were handed to the transport."""
        self._sent += size

    def due(self, now: float) -> bool:
        """Whether a mark should be sent now; asked after whatever changed anything.

        While there is no room there is always a mark on its way, so that room comes back.
        """
        if self._deaf or len(self._marks) >= MOST_MARKS:
            return False
        return (
            self._sent - self._marked >= self._interval
            or self._marked_at is None
            or (now - self._marked_at >= MARK_INTERVAL and self._sent > self._marked)
            or (not self._marks and self.room < 1)
        )

    def mark(self, now: float) -> bytes:
        """What to send as a ping, just now."""
        self._numbers += 1
        self._sent += MARK_SIZE
        self._marked = self._sent
        self._marked_at = now
        idle = self._delivered < self._idle_until
        if idle and not self._marks:
            # The time of a silence is not the way's.
            self._delivered_at = self._acknowledged_at = now
        delivered = self._idle_until if idle else self._delivered
        self._marks.append(
            _Mark(self._numbers, self._sent, now, delivered, self._delivered_at, self._acknowledged_at, idle)
        )
        return _number.pack(self._numbers)

    def deaf(self, deaf: bool) -> None:
        """Whether answers are not read: then nothing can be measured, and nothing is limited."""
        self._deaf = deaf
        self._void = self._numbers

    def idle(self) -> None:
        """Everything was sent, and there is still room."""
        self._idle_until = self._sent

    def answered(self, payload: bytes, now: float) -> None:
        """A pong came; one that answers no mark on its way is ignored.

        A peer may answer the latest ping only (RFC 6455, section 5.5.3), which stands for those before.
        """
        if len(payload) != _number.size:
            return
        (number,) = _number.unpack(payload)
        if not self._marks or not self._marks[0].number <= number <= self._numbers:
            return
        mark = self._marks.popleft()
        while mark.number < number:
            mark = self._marks.popleft()
        arrived = mark.position - self._delivered
        self._delivered = mark.position
        self._delivered_at = now
        self._acknowledged_at = mark.at
        took = now - mark.at
        if took >= 0 and number > self._void:
            # Else the clock was set, or the answer waited here.
            self._take(mark, took, arrived, now)

    # ---- the model

    def _take(self, mark: _Mark, took: float, arrived: int, now: float) -> None:
        """What one answer says: `took` seconds there and back, `arrived` bytes more than at the last one."""
        first = self.round_trip is None
        self.round_trip = took if self.round_trip is None else self.round_trip + (took - self.round_trip) / 8
        if first or took <= self._shortest:
            self._shortest, self._shortest_at = took, now
        elapsed = max(now - mark.delivered_at, mark.at - mark.sent_at)
        if elapsed > 0 and not mark.idle:
            # Of an idle time it is not known when what the mark followed was sent.
            self._rated((mark.position - mark.delivered) / elapsed, now)
        if mark.delivered >= self._round_end:
            # What was on the way when the round began has arrived.
            self._round_end = self._sent
            self._rounds += 1
        if self._growing and not mark.idle:
            self._grow(took, arrived)
        self._drain(mark, took, now)
        self._resize()

    def _rated(self, rate: float, now: float) -> None:
        """Keep the largest of the last rates."""
        rates = self._rates
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((now, rate))
        oldest = now - max(RATE_LASTS, RATE_ROUNDS * self._shortest)
        while rates[0][0] < oldest:
            rates.popleft()
        self.rate = rates[0][1]

    def _grow(self, took: float, arrived: int) -> None:
        """At first the window doubles each round trip while it is what limits, until the way is full."""
        self._recent.append(took)
        if len(self._recent) == _FULL_SAMPLES and min(self._recent) > self._shortest + self._target():
            # Even the fastest of these waited in a queue.
            self._growing = False
        elif self._size < 2 * (self.under_way + arrived):
            self._size += arrived

    def _drain(self, mark: _Mark, took: float, now: float) -> None:
        """Once the shortest round trip is old, let queues run empty and measure it anew."""
        if self._draining is None:
            if now - self._shortest_at > SHORTEST_LASTS:
                self._draining = now
                self._drained = []
        elif mark.at >= self._draining + (self.round_trip or 0.0):
            self._drained.append(took)
        if len(self._drained) >= _DRAIN_SAMPLES or (self._draining is not None and took <= self._shortest):
            self._shortest, self._shortest_at = min([*self._drained, took]), now
            self._draining = None
            self._drained = []

    def _target(self) -> float:
        return TARGET + TARGET_SHARE * self._shortest

    def _resize(self) -> None:
        rate = self.rate or 0.0
        if not self._growing and rate:
            self._size = rate * (self._shortest + self._target())
        size = self._size
        if self._draining is not None and not self._growing:
            size = rate * self._shortest / 2
        elif not self._growing and self._rounds % _PROBE_ROUNDS == 0:
            size *= _PROBE
        least = LEAST if self._draining is None else LEAST // 4
        self._size = min(self._size, MOST)
        self.window = int(min(max(size, least), MOST))
        self.chunk = min(max(self.window // CHUNK_SHARE, LEAST_CHUNK), MOST_CHUNK)
        # A mark for half of what may wait: what has no mark yet must fit in the window beside the way itself.
        # As few marks as may be on the way must reach through all of it.
        interval = min(int(rate * self._target() / 2), self.window // 2)
        self._interval = max(interval, self.window // (MOST_MARKS - 4))
