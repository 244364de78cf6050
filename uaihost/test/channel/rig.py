"""What surrounds a channel in its tests: rows in memory, a journal that remembers, agents on this machine."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from uaihost.interfaces import Container, Entry, Launch, Ran, Usage
from uaihost.wire.events import Event, Fleeting
from uaihost.wire.inputs import Agent, ChannelEnsure, ChannelProject

T = TypeVar("T")

ROOT = Path(__file__).parents[3]
SHIM = ROOT / "uaihost" / "shim"


class MemoryStore:
    """A Store without a thread: each piece of work runs at once, in its own transaction."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        for path in sorted((ROOT / "migrations").glob("*.sql")):
            self.db.executescript(path.read_text(encoding="utf-8"))
        # Set by a test that wants the n-th next transaction to fail before it is complete.
        self.fail_after: int | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self.db.execute("BEGIN")
        try:
            result = work(self.db)
            if self.fail_after is not None:
                self.fail_after -= 1
                if self.fail_after < 0:
                    raise sqlite3.OperationalError("disk full")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")
        return result


class Heard:
    """What was told, as JSON objects: `events` and, of the moment only, `fleeted`."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.fleeted: list[dict[str, Any]] = []

    def hear(self, entry: Entry) -> None:
        """As a listener of a real journal."""
        (self.fleeted if entry.seq is None else self.events).append(json.loads(entry.payload))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def texts(self, author: str | None = None) -> list[str]:
        """What was said, by everybody or by one."""
        return [
            event["text"] for event in self.of("channel.message") if author in (None, event["author"]["id"])
        ]


class MemoryJournal(Heard):
    """A Journal that keeps what it was told."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.store = store

    async def record(self, *events: Event, write: Callable[[sqlite3.Connection], T]) -> T:
        result = await self.store.run(write)
        self.events += [msgspec.to_builtins(event) for event in events]
        return result

    async def emit(self, *events: Event) -> None:
        await self.record(*events, write=lambda db: None)

    def fleeting(self, event: Fleeting) -> None:
        self.fleeted.append(msgspec.to_builtins(event))

    def subscribe(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        raise NotImplementedError("channels do not listen")


class LocalEngine:
    """An Engine whose containers are folders of this machine: paths of the container are moved there."""

    def __init__(self, tasks: Path, work: Path) -> None:
        self.tasks = tasks
        self.work = work
        self.started: list[subprocess.Popen[bytes]] = []

    async def start_process(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:
        moved = [self._here(task_id, word) for word in argv]
        self._spawn(moved)

    def _spawn(self, argv: Sequence[str]) -> None:
        self.started.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL))

    def end(self) -> None:
        """End every keeper, and its agent with it."""
        for keeper in self.started:
            if keeper.poll() is None:
                keeper.terminate()
            keeper.wait()

    def _here(self, task_id: str, word: str) -> str:
        if word == "python3":
            return sys.executable
        for inside, here in (
            ("/opt/uai", SHIM),
            ("/run/uai", self.tasks / task_id / "run"),
            ("/workspace", self.work),
        ):
            if word == inside or word.startswith(f"{inside}/"):
                return str(here) + word[len(inside) :]
        return word

    async def ping(self) -> str:
        return "local"

    async def launch(self, launch: Launch) -> Container:
        raise NotImplementedError("channels launch nothing")

    async def find(self, task_id: str) -> Container | None:
        return None

    async def all(self) -> list[Container]:
        return []

    async def remove(self, task_id: str) -> None:
        raise NotImplementedError("channels remove nothing")

    async def sweep(self, known: set[str]) -> list[str]:
        raise NotImplementedError("channels remove nothing")

    async def usage(self, task_id: str) -> Usage:
        raise NotImplementedError("channels measure nothing")

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        raise NotImplementedError("channels wait for no command")

    async def log_tail(self, task_id: str, lines: int) -> str:
        return ""


def crew(*agents: Agent, task: str = "t1", context: str | None = None) -> ChannelEnsure:
    return ChannelEnsure(
        taskId=task,
        agents=list(agents),
        projects=[ChannelProject("app", "Keep it small.")],
        branch="work",
        workspacePath="/workspace",
        status="running",
        globalContext=context,
    )


def agent(id: str = "a", **fields: Any) -> Agent:
    return Agent(**{"id": id, "label": id.upper(), "kind": "mock"} | fields)
