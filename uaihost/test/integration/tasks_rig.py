"""A host whose process may end at any boundary: real rows and folders, an engine that outlives it in a file.

Every call of a neighbour, every transaction and every blocking call begins and ends at a boundary; the world
is told the number of the one at which it dies, with nothing of it left but what lies on the disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from uaihost.blocking import Inline
from uaihost.commands.adoption import Adoption
from uaihost.commands.channel import ChannelCommands
from uaihost.commands.dispatch import Dispatch
from uaihost.commands.exposed import Exposed
from uaihost.commands.files import FileCommands
from uaihost.commands.lanes import Lanes
from uaihost.commands.push import PushCommands
from uaihost.commands.registry import registry
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.commands.waking import Waking
from uaihost.events import EventJournal
from uaihost.interfaces import Container, Launch
from uaihost.paths import Folders, data_files
from uaihost.state import commands as command_rows
from uaihost.state.commands import CommandRecord
from uaihost.state.database import Database
from uaihost.state.tasks import TaskRecord
from uaihost.test.commands.fakes import (
    FakeAdmission,
    FakeAttachments,
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
from uaihost.wire.frames import Command
from uaihost.workspaces.workspaces import Saved

T = TypeVar("T")

# The status of a process that ended at its boundary.
DEAD = 77


class Boundaries:
    """Counts the boundaries that are passed. die_at: the one at which the process ends; 0: none."""

    def __init__(self, die_at: int = 0) -> None:
        self.passed: list[str] = []
        self._die_at = die_at

    def hit(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._die_at:
            # As SIGKILL: nothing is unwound, flushed or closed.
            os._exit(DEAD)


class Bounded:
    """`inner` with a boundary before and after each call of its coroutines."""

    def __init__(self, inner: Any, boundaries: Boundaries, name: str) -> None:
        self._inner = inner
        self._boundaries = boundaries
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._inner, attribute)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            return self._bounded(attribute, result) if hasattr(result, "__await__") else result

        return call

    async def _bounded(self, attribute: str, work: Awaitable[T]) -> T:
        self._boundaries.hit(f"before {self._name}.{attribute}")
        result = await work
        self._boundaries.hit(f"after {self._name}.{attribute}")
        return result


class FileEngine(FakeEngine):
    """A FakeEngine whose containers and networks are in a file, each change at once. networks: tasks' ids."""

    def __init__(self, path: Path, boundaries: Boundaries | None = None) -> None:
        super().__init__()
        self._path = path
        self._boundaries = boundaries or Boundaries()
        self.networks: set[str] = set()
        if path.exists():
            kept = json.loads(path.read_text())
            self.networks = set(kept["networks"])
            for one in kept["containers"]:
                ports = {int(port): host for port, host in one.pop("ports").items()}
                self.containers[one["task_id"]] = Container(**one, ports=ports)

    async def launch(self, launch: Launch) -> Container:
        self.networks.add(launch.task_id)
        self._keep("a network")
        try:
            made = await super().launch(launch)
        except Exception:
            self.networks.discard(launch.task_id)
            self._keep("no network")
            raise
        self.containers[launch.task_id] = attrs.evolve(made, state="created", ports={})
        self._keep("a container")
        self.containers[launch.task_id] = made
        self._keep("a start")
        return made

    async def remove(self, task_id: str) -> None:
        await super().remove(task_id)
        self._keep("no container")
        self.networks.discard(task_id)
        self._keep("no network")

    async def sweep(self, known: set[str]) -> list[str]:
        self._check()
        swept = sorted((self.containers.keys() | self.networks) - known)
        for task_id in swept:
            await self.remove(task_id)
        return swept

    def stop(self, task_id: str, exit_code: int = 137) -> None:
        super().stop(task_id, exit_code)
        self._keep("an end")

    def _keep(self, what: str) -> None:
        containers = [attrs.asdict(one) for one in self.containers.values()]
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps({"networks": sorted(self.networks), "containers": containers}))
        beside.rename(self._path)
        self._boundaries.hit(f"engine: {what}")


class KeepingWorkspaces(FakeWorkspaces):
    """Saves what lies in the work copies into the folder `saved`, and makes and removes in pieces."""

    def __init__(self, folders: Folders, boundaries: Boundaries) -> None:
        super().__init__(folders)
        self._boundaries = boundaries

    async def prepare(self, task_id: str, slug: str, url: str, *rest: Any) -> Any:
        copy = self.folders.work_copy(task_id, slug)
        if not copy.exists():
            half = self.folders.task(task_id) / "git" / slug
            half.mkdir(parents=True, exist_ok=True)
            self._boundaries.hit("a half-made copy")
            (half / "origin").write_text(url)
            half.rename(copy)
            self._boundaries.hit("a whole copy")
        return await super().prepare(task_id, slug, url, *rest)

    async def save(self, task_id: str, slugs: list[str]) -> list[Saved]:
        for slug in slugs:
            copy = self.folders.work_copy(task_id, slug)
            if copy.is_dir():
                kept = self.folders.saved / slug
                shutil.copytree(copy, kept, dirs_exist_ok=True)
                self._boundaries.hit("a saved copy")
        return await super().save(task_id, slugs)

    async def remove(self, task_id: str) -> None:
        for path in sorted(self.folders.task(task_id).glob("*")):
            shutil.rmtree(path)
            self._boundaries.hit("a removed folder")
        await super().remove(task_id)


class World:
    """One life of the daemon on `root`, from its start to the end of the process or to `close`."""

    def __init__(self, root: Path, die_at: int = 0, boot: str = "boot") -> None:
        self.folders = folders = Folders(root)
        folders.tasks.mkdir(parents=True, exist_ok=True)
        self.boundaries = boundaries = Boundaries(die_at)
        self.clock = clock = Clock()
        clock.advance(1000)
        self.engine = FileEngine(root / "engine.json", boundaries)
        self.database = done(Database.open(folders.database, data_files("migrations"), Inline()))
        store = Bounded(self.database, boundaries, "store")
        self.journal = journal = EventJournal(store, clock)
        ports = FakePorts()
        exposed = Exposed(store, journal, clock, ports)
        self.channels = FakeChannels()

        def bounded(inner: Any, name: str) -> Any:
            return Bounded(inner, boundaries, name)

        around = Surroundings(
            workspaces=bounded(KeepingWorkspaces(folders, boundaries), "workspaces"),
            engine=bounded(self.engine, "engine"),
            images=bounded(FakeImages(), "images"),
            readiness=bounded(FakeReadiness(), "readiness"),
            channels=bounded(self.channels, "channels"),
            ports=ports,
            folders=folders,
            uid=os.geteuid(),
            gid=os.getegid(),
            admission=bounded(FakeAdmission(), "admission"),
            isolation=bounded(FakeIsolation(folders), "isolation"),
            egress=bounded(FakeEgress(), "egress"),
            tools=bounded(FakeTools(), "tools"),
            watch=FakeWatch(),
        )
        self.tasks = Tasks(store, journal, clock, bounded(Inline(), "folders"), around, exposed)
        lanes = Lanes()
        self.waking = Waking(self.tasks, lanes)
        files = FileCommands(around.workspaces, FakeAttachments(), around.channels, Inline())
        pushes = PushCommands(self.tasks.records, around.workspaces, FakePullRequests(), store)
        surface = registry(self.tasks, ChannelCommands(self.channels, self.waking), files, pushes)
        self.dispatch = Dispatch(surface, store, journal, clock, lanes, self.tasks.records.waits)
        self.adoption = Adoption(
            store, clock, around.engine, self.tasks, exposed, lanes, boot_id=lambda: boot
        )

    def begin(self) -> None:
        """As app does, up to where the bridge is dialled."""
        done(self.adoption.restore())
        done(self.dispatch.recover())
        self.adoption.start()
        self.settle()

    def send(self, command_id: str, name: str, args: list[Any]) -> None:
        self.dispatch.received(Command(command_id, name, args))
        self.settle()

    def settle(self) -> None:
        """Let pass what waits for the clock: throttled words, pauses before starts."""
        for _ in range(40):
            self.clock.advance(0.5)

    def record(self, task_id: str = "t1") -> TaskRecord | None:
        return done(self.tasks.records.find(task_id))

    def command(self, command_id: str) -> CommandRecord | None:
        return done(self.database.run(lambda db: command_rows.find(db, command_id)))

    def close(self) -> None:
        self.adoption.stop()
        done(self.database.close())


def done(work: Awaitable[T]) -> T:
    """The result of what waits for nothing."""
    found: list[Any] = []
    Deferred.fromCoroutine(_plain(work)).addBoth(found.append)
    if not found:
        raise AssertionError("it waits")
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    result: T = found[0]
    return result


async def _plain(work: Awaitable[T]) -> T:
    return await work


def die(root: Path, play: Callable[[World], object], boundary: int, boot: str = "boot") -> bool:
    """Whether a process that plays on `root` ended at that boundary; else it played to the end."""
    child = os.fork()
    if child == 0:
        _be(root, play, boundary, boot)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, DEAD):
        raise AssertionError(f"the process ended with status {code}")
    return code == DEAD


def _be(root: Path, play: Callable[[World], object], boundary: int, boot: str) -> NoReturn:
    status = 1
    try:
        play(World(root, boundary, boot))
        status = 0
    finally:
        os._exit(status)
