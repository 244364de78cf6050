"""A container in memory with one agent in it: a Process for sessions whose keeper outlives the daemon.

The agent speaks the mock's language and answers at once. What it prints reaches the daemon line by line, one
line for each turn of the clock, so that a test can stop the daemon between any two of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from uaihost.agents.adapter import Adapter, AgentSettings, Start
from uaihost.agents.framing import Hello
from uaihost.agents.ledger import MakeAdapter
from uaihost.agents.mock import MockAdapter
from uaihost.agents.process import Listener, Starter
from uaihost.agents.progress import Decided, Happening, Note, Said
from uaihost.agents.session import Session
from uaihost.errors import HostError
from uaihost.state.channel import AgentRow
from uaihost.test.channel.rig import MemoryStore

# Seconds of the clock between two lines.
TICK = 0.001


class Container:
    """The keeper's files, and the agent behind them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.log: list[tuple[bytes, int]] = []
        self.applied: list[dict[str, Any]] = []
        self.signals: list[str] = []
        self.stdin_next = 0
        self.runs = 0
        self.run: str | None = None
        self.start = 0
        self.exited: int | None = None
        self.process: FakeProcess | None = None
        self.acknowledged = 0
        # Conversations that cannot be gone on with.
        self.forgotten: set[str] = set()
        # What the engine says instead of starting a keeper.
        self.refusal: HostError | None = None
        self.silent = False
        self.argv: list[Sequence[str]] = []
        # What each prompt makes the agent print; a prompt that is not here is echoed.
        self.script: dict[str, list[dict[str, Any]]] = {}

    @property
    def end(self) -> int:
        return self.log[-1][1] if self.log else 0

    def started(self, argv: Sequence[str]) -> None:
        self.argv.append(argv)
        if self.run is None:
            self.runs += 1
            self.run, self.start, self.exited = f"run{self.runs}", self.end, None

    def print(self, **line: Any) -> None:
        data = json.dumps(line).encode()
        self.log.append((data, self.end + len(data) + 1))

    def apply(self, number: int, line: bytes) -> bool:
        """Whether the keeper acknowledges the line."""
        if number < self.stdin_next:
            return True
        if self.exited is not None or self.run is None:
            return False
        self.stdin_next = number + 1
        message = json.loads(line)
        self.applied.append(message)
        if message["type"] == "start" and message["session"] in self.forgotten:
            self.print(type="lost", text="no such conversation")
            self.die(1)
        elif message["type"] == "start" and not self.silent:
            self.print(type="session", session=message["session"] or f"s{self.runs}", resumed=False)
        elif message["type"] == "prompt":
            for each in self.script.get(message["text"], talk(message["text"])):
                self.print(**each)
        return True

    def die(self, status: int = 1) -> None:
        self.exited = status

    def lose_keeper(self) -> None:
        """Keeper and agent are killed together."""
        self.run = None
        if self.process is not None:
            self.process.dropped()

    def prompts(self) -> list[str]:
        return [message["text"] for message in self.applied if message["type"] == "prompt"]


class FakeProcess:
    """The host's end, in the shape of AgentProcess."""

    def __init__(self, container: Container, starter: Starter, listener: Listener) -> None:
        self.container = container
        self.starter = starter
        self.listener = listener
        self.pending: dict[int, bytes] = {}
        self.cursor = 0
        self.connected = False
        self.wanted = False
        self.paused = False
        self.told_exit = False

    def attach(self, offset: int) -> None:
        self.cursor, self.wanted = offset, True
        self.container.clock.callLater(TICK, self._connect)

    def dropped(self) -> None:
        self.connected = False
        if self.wanted:
            self.container.clock.callLater(TICK, self._connect)

    def _connect(self) -> None:
        if not self.wanted:
            return
        container = self.container
        if container.run is None:
            ensureDeferred(self._start()).addCallbacks(lambda _: self._connect(), self._refused)
            return
        self.connected, self.told_exit, container.process = True, False, self
        self.pending = {n: line for n, line in self.pending.items() if n >= container.stdin_next}
        self.cursor = min(self.cursor, container.end)
        held = sorted(self.pending)
        self.listener.greeted(
            Hello(container.run, container.start, 7, container.exited, container.stdin_next, container.end)
        )
        if not self.connected:
            return
        for number in held:
            if number in self.pending:
                self.write_line(number, self.pending[number])
        container.clock.callLater(TICK, self._next)

    async def _start(self) -> None:
        await self.starter()

    def _refused(self, failure: Failure) -> None:
        failure.trap(HostError)
        self.wanted = False
        self.listener.process_lost(failure.getErrorMessage())

    def _next(self) -> None:
        """One line, then the next turn of the clock."""
        if not self.connected:
            return
        line = next((each for each in self.container.log if each[1] > self.cursor), None)
        if line is not None and not self.paused:
            self.cursor = line[1]
            self.listener.line_received(*line)
        elif line is None and self.container.exited is not None and not self.told_exit:
            self.told_exit = True
            self.listener.agent_exited(self.container.exited, "the last words")
        self.container.clock.callLater(TICK, self._next)

    def write_line(self, number: int, line: bytes) -> None:
        self.pending[number] = line
        if self.connected and self.container.apply(number, line):
            del self.pending[number]

    def holds(self, number: int) -> bool:
        return number in self.pending

    def first_unacknowledged(self, default: int) -> int:
        return min(self.pending, default=default)

    def acknowledge(self, offset: int) -> None:
        self.container.acknowledged = offset

    def forget_lines(self) -> None:
        self.pending.clear()

    def signal(self, name: str) -> None:
        self.container.signals.append(name)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def renew(self) -> None:
        self.container.run = None
        self.dropped()

    def quit(self) -> None:
        if self.connected:
            self.container.run = None
        self.detach()

    def detach(self) -> None:
        self.wanted = self.connected = False

    async def stop(self, grace: float) -> None:
        self.quit()


class NoteBook:
    """A Room that keeps what it is told; a transaction that fails tells it nothing."""

    def __init__(self, store: MemoryStore, container: Container) -> None:
        self.store = store
        self.container = container
        self.happened: list[Happening] = []
        self.pieces: list[str] = []
        self.open = True
        self.told_before = ""
        # What is decided already, until it is recorded.
        self.due: list[Decided] = []
        self.renewed: list[bool] = []
        self.refusal: HostError | None = None
        self.filling: Deferred[None] | None = None

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        await self.store.run(write)
        self.happened += happened
        self.due = [each for each in self.due if each not in happened]
        return list(self.due)

    async def fill(self, agent_id: str, line: bytes, renew: bool) -> bytes:
        self.renewed.append(renew)
        if self.filling is not None:
            await self.filling
        if self.refusal is not None:
            raise self.refusal
        return line.replace(b"{{key}}", b"sesame")

    async def history(self, agent_id: str) -> str:
        return self.told_before

    def may_begin(self, agent_id: str, origin: str) -> bool:
        return self.open

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        self.pieces.append(text)

    async def start(self, agent_id: str, start: Start) -> None:
        if self.container.refusal is not None:
            raise self.container.refusal
        self.container.started(start.argv)

    def said(self) -> list[str]:
        return [each.text for each in self.happened if isinstance(each, Said)]

    def notes(self) -> list[str]:
        return [each.text for each in self.happened if isinstance(each, Note)]


def talk(text: str) -> list[dict[str, Any]]:
    """An answer of two pieces that are then told whole."""
    return [
        {"type": "delta", "text": "you said "},
        {"type": "delta", "text": text},
        {"type": "message", "text": f"you said {text}"},
        {"type": "usage", "input": 1, "output": 2},
        {"type": "end", "reason": "done"},
    ]


def adapter(row: AgentRow) -> Adapter:
    return MockAdapter(AgentSettings(row.agent_id, row.model, "/f", row.instructions), row.memory)


def make_session(
    store: MemoryStore, room: NoteBook, row: AgentRow, make_adapter: MakeAdapter = adapter
) -> Session:
    def process(agent_id: str, starter: Starter, listener: Listener) -> FakeProcess:
        return FakeProcess(room.container, starter, listener)

    return Session(room.container.clock, store, room, row, make_adapter, process)


def run(work: Any) -> Deferred[Any]:
    return ensureDeferred(work)
