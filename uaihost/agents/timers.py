"""Calls to come, each by a name; one that is set again replaces the one before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall


class Timers:
    """clock: with callLater."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._calls: dict[str, IDelayedCall] = {}

    def set(self, name: str, delay: float, call: Callable[[], object]) -> None:
        """Call once, in `delay` seconds."""
        self.cancel(name)

        def due() -> None:
            del self._calls[name]
            call()

        self._calls[name] = self._clock.callLater(delay, due)

    def __contains__(self, name: str) -> bool:
        return name in self._calls

    def cancel(self, *names: str) -> None:
        """Those; without names all of them."""
        for name in names or list(self._calls):
            call = self._calls.pop(name, None)
            if call is not None:
                call.cancel()
