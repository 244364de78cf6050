"""What a session has stored: the agent's row, what happened to it, and the lines that it is owed.

Everything leaves memory by `commit`: in one transaction what happened, the row with the offset of the output
that it came from, and the lines that follow; only then does a line leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

import attrs

from uaihost.agents.adapter import Adapter
from uaihost.agents.backlog import AgentRows
from uaihost.agents.course import Course
from uaihost.agents.progress import Decided, Happening, Room
from uaihost.interfaces import Store
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, LineRow

MakeAdapter = Callable[[AgentRow], Adapter]


def nothing(db: Connection) -> None:
    """No rows besides."""


@attrs.frozen
class Line:
    """One that the agent is to be given; prompt: the words, if it begins a turn; secret, request: as in
    LineRow."""

    line: bytes
    prompt: str | None = None
    secret: int = 0
    request: str | None = None


class Ledger:
    """course, adapter: as of the last line of output that has taken effect."""

    def __init__(
        self, clock: Any, store: Store, room: Room, row: AgentRow, make_adapter: MakeAdapter
    ) -> None:
        self._clock = clock
        self._room = room
        self._make_adapter = make_adapter
        self.rows = AgentRows(store, row.task_id, row.agent_id)
        self.course = Course(row, self.now)
        self.adapter = make_adapter(row)

    @property
    def row(self) -> AgentRow:
        return self.course.row

    def now(self) -> int:
        return int(self._clock.seconds() * 1000)

    async def reload(self) -> list[LineRow]:
        """Forget what is in memory; the lines that the agent may not have got."""
        row, lines = await self.rows.load()
        self.course = Course(row or self.row, self.now)
        self.adapter = self._make_adapter(self.row)
        return lines

    async def fresh_adapter(self) -> Adapter:
        """For a new process: one that remembers no conversation is told what was said."""
        row = attrs.evolve(self.row, memory="")
        if row.session_id is None:
            told = await self._room.history(row.agent_id)
            row = attrs.evolve(row, instructions="\n\n".join(filter(None, (row.instructions, told))))
        return self._make_adapter(row)

    async def commit(
        self,
        happened: Sequence[Happening],
        lines: Sequence[Line],
        write: Callable[[Connection], None],
        acknowledged: int,
    ) -> tuple[Sequence[Decided], list[LineRow]]:
        """acknowledged: lines below this number have arrived. Returns the decisions that wait to be given,
        and the lines under their numbers."""
        first = self.row.next_line
        numbered = [
            LineRow(first + n, each.line, each.prompt, each.secret, each.request)
            for n, each in enumerate(lines)
        ]
        self.course.change(next_line=first + len(numbered), memory=self.adapter.memory())
        row = self.row

        def store(db: Connection) -> None:
            table.save_agent(db, row)
            table.drop_lines(db, row.task_id, row.agent_id, below=acknowledged)
            write(db)
            for line in numbered:
                table.add_line(db, row.task_id, row.agent_id, line)

        return await self._room.record(row.agent_id, happened, store), numbered

    def drop_all_lines(self, db: Connection) -> None:
        table.drop_lines(db, self.row.task_id, self.row.agent_id, below=1 << 62)
