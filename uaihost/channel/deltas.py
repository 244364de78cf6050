"""Pieces of streamed answers, merged for a moment before they become events: fewer frames, same text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

# Seconds; below what a reader notices, and 20 frames a second at most for each answer.
MERGE = 0.05


class Deltas:
    """emit(agent id, message id, text) is called for what came within MERGE of the first piece."""

    def __init__(self, clock: Any, emit: Callable[[str, str, str], None]) -> None:
        self._clock = clock
        self._emit = emit
        self._held: dict[str, tuple[str, list[str]]] = {}
        self._timers: dict[str, IDelayedCall] = {}

    def add(self, agent_id: str, message_id: str, text: str) -> None:
        if message_id not in self._held:
            self._held[message_id] = (agent_id, [])
            self._timers[message_id] = self._clock.callLater(MERGE, self._flush, message_id)
        self._held[message_id][1].append(text)

    def drop(self, message_id: str) -> None:
        """The whole message is told: its held pieces say nothing new."""
        if message_id in self._held:
            del self._held[message_id]
            self._timers.pop(message_id).cancel()

    def close(self) -> None:
        for message_id in list(self._held):
            self.drop(message_id)

    def _flush(self, message_id: str) -> None:
        del self._timers[message_id]
        agent_id, pieces = self._held.pop(message_id)
        self._emit(agent_id, message_id, "".join(pieces))
