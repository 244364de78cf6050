"""Tasks whose agents wait for a person's permission: the journal's word, kept as what the task waits for."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from uaihost.commands.neighbours import Channels
from uaihost.commands.waits import Waits
from uaihost.interfaces import Entry, Journal
from uaihost.wire.reasons import Reason

AWAITING = "awaiting-permission"


class _Activity(msgspec.Struct, tag_field="type", tag="channel.activity"):
    """The part of wire.events.ChannelActivity that counts here."""

    taskId: str
    agentId: str
    state: str


class Approvals:
    """From `start` on every task whose agent asks waits for approval, and no other does."""

    def __init__(self, journal: Journal, channels: Channels, waits: Waits) -> None:
        self._journal = journal
        self._channels = channels
        self._waits = waits
        self._asking: dict[str, set[str]] = {}
        self._leave: Callable[[], None] | None = None

    def start(self) -> None:
        self._leave = self._journal.subscribe(self._heard)

    def stop(self) -> None:
        if self._leave is not None:
            self._leave()

    def look(self, task_id: str) -> None:
        """Ask the channel: after a start nothing of what stands there is told again."""
        asking = {one.id for one in self._channels.states(task_id) if one.state == AWAITING}
        self._set(task_id, asking)

    def _heard(self, entry: Entry) -> None:
        # Cheaper than to decode everything that is ever said.
        if entry.kind != "event" or b'"channel.activity"' not in entry.payload[:64]:
            return
        try:
            told = msgspec.json.decode(entry.payload, type=_Activity)
        except msgspec.DecodeError:
            return
        asking = set(self._asking.get(told.taskId, ()))
        if told.state == AWAITING:
            asking.add(told.agentId)
        else:
            asking.discard(told.agentId)
        self._set(told.taskId, asking)

    def _set(self, task_id: str, asking: set[str]) -> None:
        if asking == self._asking.get(task_id, set()):
            return
        if asking:
            self._asking[task_id] = asking
            names = ", ".join(f"@{agent}" for agent in sorted(asking))
            self._waits.stand(task_id, Reason.APPROVAL, f"{names} asks for permission in the channel")
        else:
            self._asking.pop(task_id, None)
            self._waits.lift(task_id, Reason.APPROVAL)
