"""Draining: nothing new begins, what is under way ends, and the host can then be exchanged.

Words that people send meanwhile are kept and begin a turn afterwards; only tasks that are to come up are sent
back. It lasts until it is taken back or the host starts anew.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, Protocol

from uaihost.errors import ErrorCode, HostError

# Commands that begin work which lasts.
HELD = ("taskUp",)
WHY = "the host is draining: it takes no new tasks; send it again later, or type `uaihost drain --off` there"


class Turns(Protocol):
    """The agents of all channels."""

    def hold(self, held: bool) -> None:
        """Begin no turn, or begin those that wait."""

    async def interrupt_all(self) -> None:
        """End the turns under way; sessions stay."""

    def busy(self) -> int:
        """How many agents are in a turn, also one that began before this process did."""


class Drain:
    """refused: names of commands that are refused, with the reason; whoever dispatches them reads it.
    running: how many commands are under way. end: ends the process in order.
    """

    def __init__(
        self,
        turns: Turns,
        refused: dict[str, str],
        running: Callable[[], int],
        end: Callable[[], object] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    ) -> None:
        self._turns = turns
        self._refused = refused
        self._running = running
        self._end = end
        self.on = False

    def verbs(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """For the local API."""
        return {"host.drain": self.drain, "host.stop": self.stop}

    async def drain(self, words: dict[str, Any]) -> dict[str, Any]:
        """`{off?, now?}` -> `{draining, turns, commands}`, the numbers of what is under way.

        off: take it back. now: end the turns under way. Without either it begins, or says how far it is.

        Raises:
            HostError: `invalid_args`.
        """
        for name in ("off", "now"):
            if not isinstance(words.get(name, False), bool):
                raise HostError(ErrorCode.INVALID_ARGS, f"{name} must be true or false")
        self._set(not words.get("off", False))
        if words.get("now") and self.on:
            await self._turns.interrupt_all()
        return {"draining": self.on, "turns": self._turns.busy(), "commands": self._running()}

    async def stop(self, words: dict[str, Any]) -> dict[str, Any]:
        """End the host as SIGTERM does: commands in flight end, results leave, agents go on in their tasks.

        -> `{stopping}`."""
        self._end()
        return {"stopping": True}

    def _set(self, on: bool) -> None:
        if on == self.on:
            return
        self.on = on
        for name in HELD:
            if on:
                self._refused[name] = WHY
            else:
                self._refused.pop(name, None)
        self._turns.hold(on)
