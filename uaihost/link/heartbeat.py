"""Whether the other end is alive: pings of ours, and an end to a connection on which nothing arrives.

It knows a clock and a socket's `traffic` flag; what a pong proves beyond life is decided in `outbox`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uaihost.wire.codec import encode
from uaihost.wire.frames import Ping

# Seconds (docs/protocol.md, section 1).
PING_INTERVAL = 15.0
DEAD_AFTER = 45.0
CHECK_INTERVAL = 5.0

# The close that says so.
TIMEOUT_CODE = 4000
TIMEOUT_REASON = "heartbeat timeout"


class Heard(Protocol):
    """The socket, as far as silence is concerned; `traffic` is set when a byte arrives that is no pong."""

    traffic: bool

    def close(self, code: int, reason: str) -> None: ...


class Silence:
    """Closes a socket on which nothing has arrived for DEAD_AFTER seconds, looked at every CHECK_INTERVAL.

    Counted in looks, not in clock readings, so that a stopped machine or a clock that was set kills no link.
    """

    def __init__(self, clock: IReactorTime, socket: Heard) -> None:
        self._clock = clock
        self._socket = socket
        self._silent = 0.0
        self._held = False
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        self._socket.traffic = False
        self._next = self._clock.callLater(CHECK_INTERVAL, self._look)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def hold(self, held: bool) -> None:
        """While we do not read ourselves, silence says nothing about the peer."""
        self._held = held
        self._silent = 0.0

    def _look(self) -> None:
        self._next = self._clock.callLater(CHECK_INTERVAL, self._look)
        if self._socket.traffic or self._held:
            self._socket.traffic = False
            self._silent = 0.0
            return
        self._silent += CHECK_INTERVAL
        if self._silent >= DEAD_AFTER:
            self.stop()
            self._socket.close(TIMEOUT_CODE, TIMEOUT_REASON)


class Heartbeat:
    """Our pings: one every PING_INTERVAL, and early ones on request.

    send: takes an encoded ping; sent: told the `ts` of every ping, just after it was handed to `send`.
    """

    def __init__(
        self, clock: IReactorTime, send: Callable[[bytes], None], sent: Callable[[int], None]
    ) -> None:
        self._clock = clock
        self._send = send
        self._sent = sent
        self._last = 0
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        self._next = self._clock.callLater(PING_INTERVAL, self._beat)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def ping(self) -> None:
        """Send one now, beside the regular ones."""
        # Every ts is another, so that a pong names one ping.
        self._last = max(int(self._clock.seconds() * 1000), self._last + 1)
        self._send(encode(Ping(ts=self._last)))
        self._sent(self._last)

    def _beat(self) -> None:
        self._next = self._clock.callLater(PING_INTERVAL, self._beat)
        self.ping()
