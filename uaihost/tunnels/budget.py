"""What may wait on this host for slow upstreams, in bytes, and who is closed when it waits too long.

Revision 1 of the protocol cannot slow one tunnel down from here: beyond a bound the whole link's input is
held (docs/protocol.md, section 5), and a tunnel that would hold it for long is closed, so that one stuck
upstream does not stall the others. Knows counts, the clock and the link's input; neither sockets nor tunnels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from uaihost.interfaces import LinkInput

# Bytes that may wait for one upstream before the link is held, and at which it is released: about ten
# milliseconds of a fast link, enough that a busy reader never runs dry.
HIGH_WATER = 1024 * 1024
LOW_WATER = 256 * 1024

# Bytes that may wait for all upstreams together, so that many slow ones do not take a share each.
TOTAL_HIGH_WATER = 8 * 1024 * 1024
TOTAL_LOW_WATER = 4 * 1024 * 1024

# Seconds for which one tunnel may hold the link: below the 45 s of silence after which a peer counts as dead.
HOLD_LIMIT = 30.0


class Account(Protocol):
    """Who is told what becomes of one tunnel's bytes on their way to its upstream."""

    def passed(self, size: int) -> None:
        """The upstream's socket took `size` bytes at once."""

    def add(self, size: int) -> None:
        """`size` bytes begin to wait."""

    def remove(self, size: int) -> None:
        """The upstream's socket took `size` of the bytes that waited."""

    def close(self) -> None:
        """Nothing waits and nothing will."""


class Budget:
    """The account of one connection to the bridge. total: bytes that wait now."""

    def __init__(self, clock: IReactorTime, link_input: LinkInput) -> None:
        self.total = 0
        self._clock = clock
        self._input: LinkInput | None = link_input
        self._accounts: set[Share] = set()
        self._holds: dict[object, IDelayedCall] = {}

    def account(self, too_long: Callable[[str], None]) -> Share:
        """A tunnel's share. too_long: told, with a reason for people, that the tunnel has to be closed."""
        made = Share(self, too_long)
        self._accounts.add(made)
        return made

    def close(self) -> None:
        """The link is gone: nothing is held or released any more."""
        self._input = None
        for timer in self._holds.values():
            timer.cancel()
        self._holds.clear()

    # For the accounts.

    def _grown(self, account: Share) -> None:
        if account.waiting >= HIGH_WATER and account not in self._holds:
            self._hold(account, account._held_too_long)
        if self.total >= TOTAL_HIGH_WATER and self not in self._holds:
            self._hold(self, self._all_held_too_long)

    def _shrunk(self, account: Share) -> None:
        if account.waiting <= LOW_WATER and account in self._holds:
            self._release(account)
        if self.total <= TOTAL_LOW_WATER and self in self._holds:
            self._release(self)

    def _forget(self, account: Share) -> None:
        self._accounts.discard(account)

    def _hold(self, reason: object, too_long: Callable[[], None]) -> None:
        if self._input is not None:
            self._holds[reason] = self._clock.callLater(HOLD_LIMIT, too_long)
            self._input.hold(reason)

    def _release(self, reason: object) -> None:
        timer = self._holds.pop(reason)
        if timer.active():
            timer.cancel()
        assert self._input is not None
        self._input.release(reason)

    def _all_held_too_long(self) -> None:
        # The worst first: most tunnels are innocent and small.
        for account in sorted(self._accounts, key=lambda each: each.waiting, reverse=True):
            if self.total <= TOTAL_LOW_WATER:
                break
            account._held_too_long()


class Share:
    """One tunnel's share of the budget (Account). waiting: bytes that wait for its upstream."""

    __slots__ = ("_budget", "_too_long", "waiting")

    def __init__(self, budget: Budget, too_long: Callable[[str], None]) -> None:
        self._budget = budget
        self._too_long = too_long
        self.waiting = 0

    def passed(self, size: int) -> None:
        """Only what waits counts."""

    def add(self, size: int) -> None:
        self.waiting += size
        self._budget.total += size
        self._budget._grown(self)

    def remove(self, size: int) -> None:
        self.waiting -= size
        self._budget.total -= size
        self._budget._shrunk(self)

    def close(self) -> None:
        self._budget.total -= self.waiting
        self.waiting = 0
        self._budget._forget(self)
        self._budget._shrunk(self)

    def _held_too_long(self) -> None:
        self._too_long(
            f"the upstream took none or too few of the bytes sent to it for {HOLD_LIMIT:.0f} s "
            f"({self.waiting} bytes waited); it was given up so that other tunnels can go on"
        )
