"""A bridge without sockets: its rooms over a real database, a clock, and hosts that the test plays."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.calls import Calls
from uaihost.bridge.feed import Feed, News
from uaihost.bridge.hosts import Hosts
from uaihost.bridge.tasks import Tasks
from uaihost.state.database import Database
from uaihost.test.bridge.fakes import FakeSocket, memory_database

TOKEN = "token-1"


class BridgeCase(SynchronousTestCase):
    """news: everything that was told; host: a host that is connected once `connect` was called."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.database = memory_database(self)
        self.begin(self.database)

    def begin(self, database: Database) -> None:
        """Build everything on the database, as a bridge that starts does."""
        self.feed = Feed(database)
        self.calls = Calls(database, self.clock)
        self.hosts = Hosts((TOKEN, "token-2"), database, self.feed, self.calls, self.clock)
        self.tasks = Tasks(database, self.feed, self.hosts, self.calls, self.clock, 8789)
        self.feed.on_task = self.tasks.changed
        self.feed.on_failure = lambda: self.hosts.shut(1011, "the bridge cannot store events")
        self.news: list[News] = []
        self.feed.subscribe(self.news.append)
        for part in (self.hosts, self.calls, self.tasks):
            self.successResultOf(part.load())

    def open(self) -> FakeSocket:
        socket = FakeSocket()
        self.hosts.opened(socket)  # type: ignore[arg-type]
        return socket

    def connect(self, host_id: str = "host-1") -> FakeSocket:
        """A host that has said everything it says at first."""
        socket = self.open()
        socket.hear(kind="auth", token=TOKEN, hostId=host_id)
        kinds = [{"kind": "mock", "models": ["careful"]}]
        socket.hear(kind="host.capabilities", capabilities={"agentKinds": kinds, "runtimes": []})
        return socket

    def event(
        self, socket: FakeSocket, kind: str, task_id: str, seq: int | None = None, **fields: Any
    ) -> None:
        event = {"type": kind, "taskId": task_id, "at": 1_700_000_000_000, **fields}
        if seq is not None:
            event["seq"] = seq
        socket.hear(kind="event", event=event)

    def answer(self, socket: FakeSocket, command: dict[str, Any], value: Any = None) -> None:
        socket.hear(kind="result", commandId=command["commandId"], result={"ok": True, "value": value})

    def refuse(self, socket: FakeSocket, command: dict[str, Any], code: str, message: str) -> None:
        result = {"ok": False, "code": code, "message": message}
        socket.hear(kind="result", commandId=command["commandId"], result=result)

    def commands(self, socket: FakeSocket) -> list[dict[str, Any]]:
        """The commands that the host got, oldest first."""
        return [frame for frame in socket.sent if frame.get("kind") == "command"]

    def events(self) -> list[News]:
        return [news for news in self.news if news.kind == "event"]
