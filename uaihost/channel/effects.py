"""What one piece of an agent's work means to its channel, collected before one transaction stores it."""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

import attrs

from uaihost.channel.transcript import entry
from uaihost.state.channel import MessageRow
from uaihost.wire import events

Write = Callable[[Connection], object]


@attrs.define
class Effects:
    """Events, rows, who hears it; how to take back what was done in memory, and what follows once it is
    stored. notice: makes a message of the system."""

    notice: Callable[[str], MessageRow]
    told: list[events.Event] = attrs.field(factory=list)
    writes: list[Write] = attrs.field(factory=list)
    heard: list[str] = attrs.field(factory=list)
    undoing: list[Callable[[], None]] = attrs.field(factory=list)
    after: list[Callable[[], None]] = attrs.field(factory=list)

    def message(self, row: MessageRow) -> None:
        event, write = entry(row)
        self.told.append(event)
        self.writes.append(write)

    def note(self, text: str) -> None:
        """A line of the system."""
        self.message(self.notice(text))

    def store(self, db: Connection) -> None:
        for write in self.writes:
            write(db)

    def undo(self) -> None:
        for undo in reversed(self.undoing):
            undo()
