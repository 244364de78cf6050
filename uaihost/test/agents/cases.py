"""One session over rows in memory, a container in memory and a clock that the test moves."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.agents.adapter import Adapter
from uaihost.agents.progress import Activity, Decided
from uaihost.agents.session import Session
from uaihost.agents.turn import State
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, PermissionRow
from uaihost.test.agents.container import TICK, Container, NoteBook, adapter, make_session
from uaihost.test.channel.rig import MemoryStore

ROW = AgentRow("t", "a", 0, True, "A", "mock", None, "be kind")
ASK = {"type": "permission", "request": "r1", "tool": "Run", "title": "ls", "input": {"command": "ls"}}
# Seconds since the epoch: 14 November 2023, 22:13:20 UTC.
NOW = 1_700_000_000.0


class SessionCase(TestCase):
    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.store = MemoryStore()
        self.container = Container(self.clock)
        self.room = NoteBook(self.store, self.container)
        table.save_agent(self.store.db, ROW)
        self.session = self.daemon()

    def daemon(self) -> Session:
        """A daemon's session over what is stored."""
        row = table.agent(self.store.db, "t", "a")
        assert row is not None
        session = make_session(self.store, self.room, row, self.adapter)
        self.successResultOf(session.open())
        return session

    def restart_daemon(self) -> None:
        """It ends as by a power cut: nothing is stored at its end."""
        process = self.container.process
        if process is not None:
            process.detach()
        for call in list(self.clock.getDelayedCalls()):
            call.cancel()
        self.session = self.daemon()

    def adapter(self, row: AgentRow) -> Adapter:
        return adapter(row)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(TICK)

    def queue(self, text: str, origin: str = "user:ann") -> None:
        table.enqueue(self.store.db, "t", "a", text, origin=origin)
        self.session.pump()

    def ready(self) -> None:
        self.tick(10)
        self.assertEqual(self.session.state, State.IDLE)

    def states(self) -> list[str]:
        return [each.state for each in self.room.happened if isinstance(each, Activity)]

    def asking(self) -> None:
        """The agent waits for a decision."""
        self.container.script["act"] = [ASK]
        self.ready()
        self.queue("act")
        self.tick(5)
        self.assertEqual(self.session.state, State.AWAITING)

    def decided(self, decision: str = "accept") -> Decided:
        return Decided(PermissionRow("t", "a", "r1", "r1", 0, "Run", "ls", "{}", "", decision, "ann", 1))
