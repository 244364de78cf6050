"""A host without engine and bridge: the real commands on a real database, between the fakes."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.commands.adoption import Adoption
from uaihost.commands.approvals import Approvals
from uaihost.commands.channel import ChannelCommands
from uaihost.commands.dispatch import Dispatch
from uaihost.commands.exposed import Exposed
from uaihost.commands.files import FileCommands
from uaihost.commands.lanes import Lanes
from uaihost.commands.push import PushCommands
from uaihost.commands.registry import registry
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.commands.waking import Waking
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.paths import Folders, data_files
from uaihost.state import outbox
from uaihost.state import tasks as rows
from uaihost.state.database import Database
from uaihost.state.tasks import TaskRecord
from uaihost.test.commands.fakes import (
    FakeAdmission,
    FakeAttachments,
    FakeBroker,
    FakeChannels,
    FakeEgress,
    FakeImages,
    FakeIsolation,
    FakePorts,
    FakePullRequests,
    FakeReadiness,
    FakeTools,
    FakeWatch,
    FakeWorkspaces,
)
from uaihost.test.fakes_containers import FakeEngine
from uaihost.test.support import short_folder

T = TypeVar("T")

EDITOR_PORT = 8100


class CommandCase(TestCase):
    """`engine` and the other neighbours outlive a `restart`, as they do in life."""

    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.clock = Clock()
        self.clock.advance(1000)
        self.engine = FakeEngine()
        self.workspaces = FakeWorkspaces(self.folders)
        self.images = FakeImages()
        self.readiness = FakeReadiness()
        self.channels = FakeChannels()
        self.attachments = FakeAttachments()
        self.admission = FakeAdmission()
        self.isolation = FakeIsolation(self.folders)
        self.egress = FakeEgress()
        self.broker = FakeBroker()
        self.tools = FakeTools()
        self.boot = "first boot"
        self.running: list[str] = []
        self.db: Database | None = None
        self.restart()

    adoption: Adoption

    def restart(self) -> None:
        """As if the daemon had died and come back: nothing of its memory is left."""
        if self.db is not None:
            self.adoption.stop()
            for call in self.clock.getDelayedCalls():
                call.cancel()
            self.done(self.db.close())
        self.db = db = self.done(Database.open(self.folders.database, data_files("migrations"), Inline()))
        self.addCleanup(lambda: ensureDeferred(db.close()))
        self.journal = EventJournal(db, self.clock)
        self.ports = FakePorts()
        self.exposed = Exposed(db, self.journal, self.clock, self.ports)
        self.watch = FakeWatch()
        self.egress.opened.clear()
        self.broker.opened.clear()
        around = Surroundings(
            workspaces=self.workspaces,
            engine=self.engine,
            images=self.images,
            readiness=self.readiness,
            channels=self.channels,
            ports=self.ports,
            folders=self.folders,
            uid=1000,
            gid=1000,
            editor_port=EDITOR_PORT,
            admission=self.admission,
            isolation=self.isolation,
            egress=self.egress,
            tools=self.tools,
            watch=self.watch,
            broker=self.broker,
        )
        self.tasks = Tasks(db, self.journal, self.clock, Inline(), around, self.exposed)
        self.files = FileCommands(self.workspaces, self.attachments, self.channels, Inline())
        lanes = Lanes()
        self.waking = Waking(self.tasks, lanes)
        self.channel = ChannelCommands(self.channels, self.waking)
        self.pulls = FakePullRequests()
        self.pushes = PushCommands(self.tasks.records, self.workspaces, self.pulls, db)
        surface = registry(self.tasks, self.channel, self.files, self.pushes)
        self.dispatch = Dispatch(surface, db, self.journal, self.clock, lanes, self.tasks.records.waits)
        self.adoption = Adoption(
            db,
            self.clock,
            self.engine,
            self.tasks,
            self.exposed,
            lanes,
            self._runs,
            boot_id=lambda: self.boot,
        )
        self.approvals = Approvals(self.journal, self.channels, self.tasks.records.waits)
        self.approvals.start()
        self.addCleanup(self.adoption.stop)

    async def _runs(self, task_id: str) -> None:
        self.running.append(task_id)

    def done(self, work: Awaitable[T]) -> T:
        """The result of a coroutine that waits for nothing."""
        return self.successResultOf(ensureDeferred(_plain(work)))

    def refused(self, work: Awaitable[object]) -> HostError:
        """The HostError that it raises."""
        failure = self.failureResultOf(ensureDeferred(_plain(work)), HostError)
        assert isinstance(failure.value, HostError)
        return failure.value

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Every event of this type that was recorded so far."""
        assert self.db is not None
        entries = self.done(self.db.run(lambda db: outbox.pending(db, 0, 10_000)))
        found = [json.loads(entry.payload) for entry in entries if entry.kind == "event"]
        return [event for event in found if event["type"] == kind]

    def statuses(self) -> list[str]:
        return [event["status"] for event in self.events("task.status")]

    def record(self, task_id: str = "t1") -> TaskRecord:
        assert self.db is not None
        found = self.done(self.db.run(lambda db: rows.find(db, task_id)))
        assert found is not None
        return found


async def _plain(work: Awaitable[T]) -> T:
    return await work


def trouble(message: str = "it does not work") -> HostError:
    return HostError(ErrorCode.UNAVAILABLE, message)
