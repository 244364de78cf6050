"""A daemon's channels with agents in memory, for tests of the whole room."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.agents.process import Listener, Starter
from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Inline
from uaihost.channel import channel as module
from uaihost.channel.channel import Channels, Rules
from uaihost.channel.reviewing import Changes
from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Recovery
from uaihost.test.agents.container import TICK, Container, FakeProcess
from uaihost.test.channel.rig import LocalEngine, MemoryJournal, MemoryStore, crew
from uaihost.test.support import short_folder


class MemoryEngine(LocalEngine):
    """Starts agents in their containers in memory, one for each agent."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.agents: dict[str, Container] = {}

    def of(self, agent_id: str) -> Container:
        return self.agents.setdefault(agent_id, Container(self.clock))

    async def start_process(self, task_id: str, argv: Any, **ignored: Any) -> None:
        agent_id = argv[argv.index("--dir") + 1].rpartition("/")[2]
        self.of(agent_id).started(argv)


class ChannelCase(TestCase):
    rules = Rules()
    # The work copies, of which there are none.
    changes: Changes | None = None
    # A host that keeps no connections to GitHub.
    recovery: Recovery | None = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.engine = MemoryEngine(self.clock)
        self.folder = short_folder(self)

        def process(reactor: Any, folder: Any, agent_id: str, starter: Starter, listener: Listener) -> Any:
            return FakeProcess(self.engine.of(agent_id), starter, listener)

        self.patch(module, "AgentProcess", process)
        self.channels = self.daemon()

    def daemon(self) -> Channels:
        return Channels(
            self.store,
            self.journal,
            self.engine,
            self.clock,
            AgentRegistry(),
            Inline(),
            self.folder / "tasks",
            self.folder / "transcripts",
            changes=self.changes,
            rules=self.rules,
            recovery=self.recovery,
        )

    def ensure(self, *agents: Any) -> None:
        self.successResultOf(self.channels.ensure(crew(*agents)))
        self.tick(10)

    def tick(self, count: int = 40) -> None:
        for _ in range(count):
            self.clock.advance(TICK)

    def deliver(self, text: str, message_id: str | None = None, by: str = "ann") -> list[str]:
        _, heard = self.successResultOf(self.channels.deliver("t1", by, text, message_id))
        return list(heard)

    def fails(self, code: ErrorCode, work: Any) -> str:
        failure = self.failureResultOf(work, HostError).value
        self.assertEqual(failure.code, code)
        return str(failure.message)

    def states(self) -> list[tuple[str, str]]:
        return [(each.id, each.state) for each in self.channels.states("t1")]
