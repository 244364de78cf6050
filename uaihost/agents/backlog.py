"""What stands between an agent's process and its session: output not yet applied, and rows in the store."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import attrs

from uaihost.agents.framing import Hello
from uaihost.agents.given import Given
from uaihost.interfaces import Store
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, LineRow

# Output that waits to be applied, bytes, at which the socket is paused.
HIGH_WATER = 8 << 20
# The most that is applied in one transaction, bytes.
BATCH = 1 << 20


class Backlog:
    """Lines of output, each with the offset after it, in order; and where a new process begins among them."""

    def __init__(self) -> None:
        self._lines: deque[tuple[bytes | None, int]] = deque()
        self._waiting = 0
        self.new_run: Hello | None = None

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def full(self) -> bool:
        return self._waiting > HIGH_WATER

    def add(self, line: bytes | None, end: int) -> None:
        self._lines.append((line, end))
        self._waiting += len(line or b"")

    def take(self, cursor: int) -> list[tuple[bytes | None, int]]:
        """The next lines, up to BATCH, none from beyond the start of a new process."""
        taken: list[tuple[bytes | None, int]] = []
        size = 0
        while self._lines and size < BATCH and not self.begins(cursor):
            line, cursor = self._lines.popleft()
            taken.append((line, cursor))
            size += len(line or b"") + 1
            self._waiting -= len(line or b"")
        return taken

    def begins(self, cursor: int) -> bool:
        """Whether at `cursor` all output of the process before a new one has been taken."""
        return self.new_run is not None and cursor >= self.new_run.start

    def clear(self) -> None:
        self._lines.clear()
        self._waiting = 0
        self.new_run = None


class AgentRows:
    """One agent's rows."""

    def __init__(self, store: Store, task_id: str, agent_id: str) -> None:
        self._store = store
        self._task_id = task_id
        self._agent_id = agent_id

    async def load(self) -> tuple[AgentRow | None, list[LineRow]]:
        """The agent, and the lines it may not have got."""
        task_id, agent_id = self._task_id, self._agent_id
        return await self._store.run(
            lambda db: (table.agent(db, task_id, agent_id), table.lines(db, task_id, agent_id))
        )

    async def lines(self) -> list[LineRow]:
        return await self._store.run(lambda db: table.lines(db, self._task_id, self._agent_id))

    async def given(self, lines: Sequence[LineRow]) -> Given:
        """The decisions in these lines."""
        wanted = {line.request: line.number for line in lines if line.request is not None}
        rows = await self._store.run(lambda db: table.permissions(db, self._task_id)) if wanted else []
        given = Given()
        for row in rows:
            if row.agent_id == self._agent_id and row.request_id in wanted:
                # As it was before it was on its way.
                given.add(wanted[row.request_id], attrs.evolve(row, told=False))
        return given

    async def queued(self) -> tuple[int, str, str] | None:
        """What the agent is to be told next: its place in the queue, the text and who it is from."""
        return await self._store.run(lambda db: table.queued(db, self._task_id, self._agent_id))
