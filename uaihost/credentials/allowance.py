"""How often one task may use its owner's credentials: a token bucket. It knows no use."""

from __future__ import annotations

from typing import Any


class Allowance:
    """clock: IReactorTime. burst: uses at once; rate: further ones for each second."""

    def __init__(self, clock: Any, burst: float, rate: float) -> None:
        self._clock = clock
        self._burst = burst
        self._rate = rate
        self._left, self._filled = burst, clock.seconds()

    def take(self) -> bool:
        """Whether one more use is in bounds, which then counts."""
        now = self._clock.seconds()
        self._left = min(self._burst, self._left + (now - self._filled) * self._rate)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
