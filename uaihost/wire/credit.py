"""mux.1: the windows of a link and of its tunnels (docs/protocol.md, "mux.1"). Pure.

A receiver's window grows while its size is what limits the speed: when half of it was taken by its reader in
less than two round trips, the sender must have waited, or soon will (the rule of QUIC implementations; RFC
9000, section 4.2, leaves it open). Knows counts and times only; neither frames nor who reads.
"""

from __future__ import annotations

from typing import Final

from uaihost.wire.mux import MAX_WINDOW

# Round trips within which half a window is taken by a reader that could take more than the window permits.
_HURRY: Final = 2.0

# Seconds, for as long as the round trip is not known: a far bridge. Too long costs memory that the limits
# bound, too short costs speed.
ASSUMED_ROUND_TRIP: Final = 0.1


class WindowExceeded(ValueError):
    """More came than was permitted."""


class WindowOverflow(ValueError):
    """A window was made larger than the largest one."""


class SendWindow:
    """What may be sent. left: bytes."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> None:
        """`size` bytes, at most `left`, are sent."""
        assert 0 <= size <= self.left, (size, self.left)
        self.left -= size

    def add(self, size: int) -> None:
        """The other end permits `size` more. Raises: WindowOverflow."""
        if self.left + size > MAX_WINDOW:
            raise WindowOverflow(f"a window would be larger than {MAX_WINDOW} bytes")
        self.left += size


class Allowance:
    """By how many bytes all windows together may be larger than at first. left: bytes."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size


class ReceiveWindow:
    """What the other end may send, and when to permit more.

    size: bytes that may be under way or wait here together.
    """

    __slots__ = ("_allowance", "_grown", "_limit", "_open", "_since", "_taken", "size")

    def __init__(self, size: int, limit: int, allowance: Allowance | None = None) -> None:
        """
        Args:
            size: at first, as the protocol has it.
            limit: of `size`.
            allowance: what its growth is taken from, if it shares that with others.
        """
        self.size = size
        self._limit = limit
        self._allowance = allowance
        self._grown = 0
        self._open = size
        self._taken = 0
        # When half a window began to be taken; None until something is.
        self._since: float | None = None

    def received(self, size: int) -> None:
        """`size` bytes came. Raises: WindowExceeded."""
        if size > self._open:
            raise WindowExceeded(f"{size} bytes came where {self._open} were permitted")
        self._open -= size

    def consumed(self, size: int, now: float, round_trip: float | None) -> int:
        """The reader took `size` of the bytes that came.

        Args:
            now: seconds on any clock.
            round_trip: seconds to the other end and back; None if it is not known.

        Returns:
            Bytes to permit now; 0 while less than half a window was taken.
        """
        if self._since is None:
            self._since = now
        self._taken += size
        if 2 * self._taken < self.size:
            return 0
        hurry = _HURRY * (ASSUMED_ROUND_TRIP if round_trip is None else round_trip)
        credit = self._taken
        if now - self._since < hurry:
            credit += self._grow()
        self._since = now
        self._taken = 0
        self._open += credit
        return credit

    def close(self) -> None:
        """Nothing comes any more: what it grew by is there for others."""
        if self._allowance is not None:
            self._allowance.left += self._grown
        self._grown = 0
        self._allowance = None
        self._limit = 0

    def _grow(self) -> int:
        more = min(self.size, self._limit - self.size)
        if self._allowance is not None:
            more = min(more, self._allowance.left)
            if more > 0:
                self._allowance.left -= more
        if more <= 0:
            return 0
        self._grown += more
        self.size += more
        return more


class LinkWindow(ReceiveWindow):
    """The window of all tunnels together.

    What came is given back at once, so that no tunnel's reader stops the others, except for as much as more
    than `bound` bytes wait here: never more than `bound` and a window do.

    held: bytes that wait for readers; kept by whoever knows them.
    """

    __slots__ = ("_bound", "_owed", "held")

    def __init__(self, size: int, limit: int, bound: int) -> None:
        super().__init__(size, limit)
        self.held = 0
        self._bound = bound
        self._owed = 0

    def received(self, size: int) -> None:
        """`size` bytes of any tunnel came, also of one that is over. Raises: WindowExceeded."""
        super().received(size)
        self._owed += size

    @property
    def strained(self) -> bool:
        """More waits than is to be held here."""
        return self.held > self._bound

    def due(self, now: float, round_trip: float | None) -> int:
        """Bytes to permit now; asked whenever something came or `held` has become less."""
        back = self._owed - max(0, self.held - self._bound)
        if back <= 0:
            return 0
        self._owed -= back
        return self.consumed(back, now, round_trip)
