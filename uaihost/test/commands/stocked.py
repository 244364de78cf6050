"""A host with things on its disk, for the tests of cleaning up: real tasks between fakes, sizes as told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from uaihost.blocking import Inline
from uaihost.commands.disk import CLASSES, Disk, Measured, Space, TaskUsage
from uaihost.commands.gc import Gc
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.stock import DAY, Stock
from uaihost.containers.images import ImageInfo
from uaihost.containers.tools import ToolVersion
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch
from uaihost.state import tasks as rows
from uaihost.state.tasks import TaskRecord
from uaihost.test.commands.bench import CommandCase
from uaihost.test.commands.fakes import task_up
from uaihost.wire.codec import encode_value
from uaihost.wire.reasons import Reason, Waiting

GB = 1 << 30
NOW = 1_800_000_000
TOTAL = 1000 * GB


class FakeImages:
    """As containers.images: what a container is made from stays."""

    def __init__(self) -> None:
        self.there: dict[str, ImageInfo] = {}

    async def list(self) -> Sequence[ImageInfo]:
        return list(self.there.values())

    async def remove(self, reference: str) -> None:
        if self.there[reference].in_use:
            raise HostError(ErrorCode.CONFLICT, "a container is made of it")
        del self.there[reference]


class FakeTools:
    """As containers.tools: what a task has stays."""

    def __init__(self) -> None:
        self.there: dict[str, ToolVersion] = {}

    async def list(self) -> Sequence[ToolVersion]:
        return sorted(self.there.values(), key=lambda one: one.last_used)

    async def remove(self, name: str, version: str) -> None:
        if self.there[name].tasks:
            raise HostError(ErrorCode.CONFLICT, "in use")
        del self.there[name]


@attrs.define
class FakeMirror:
    """at: of its last fetch; needed: by a task or saved work."""

    size: int
    at: float
    needed: bool = False


class FakeMirrors:
    """As workspaces.workspaces."""

    def __init__(self) -> None:
        self.there: dict[str, FakeMirror] = {}

    async def idle_mirrors(self) -> dict[str, float]:
        return {key: one.at for key, one in self.there.items() if not one.needed}

    async def remove_mirror(self, key: str) -> bool:
        if self.there[key].needed:
            return False
        del self.there[key]
        return True


class ToldDisk:
    """As commands.disk, but what is there takes as much as was said: sizes, by path; other: not ours.

    broken: nothing can be measured.
    """

    def __init__(self, case: StockedCase) -> None:
        self._case = case
        self.sizes: dict[Path, int] = {}
        self.other = 0
        self.broken = False
        self._last: Measured | None = None

    def taken(self, path: Path) -> int:
        return self.sizes.get(path, 0) if path.exists() else 0

    def now(self) -> Measured:
        case, folders = self._case, self._case.folders
        classes = dict.fromkeys(CLASSES, 0)
        tasks = {}
        for task in sorted(path.name for path in folders.tasks.iterdir() if path.name[0] != "."):
            usage = tasks[task] = TaskUsage(
                self.taken(folders.work(task)),
                self.taken(folders.home(task)),
                self.taken(folders.scratch(task)),
            )
            classes["work"] += usage.work
            classes["homes"] += usage.home
            classes["scratch"] += usage.scratch
        mirrors = {key: one.size for key, one in case.mirrors.there.items()}
        classes["mirrors"] = sum(mirrors.values())
        classes["tools"] = sum(one.bytes for one in case.shared.there.values())
        classes["trash"] = sum(self.taken(path) for path in (folders.tasks / ".trash").glob("*"))
        return Measured(case.clock.seconds(), classes, tasks, mirrors)

    def used(self) -> int:
        """By all that can go."""
        images = sum(one.size for one in self._case.built.there.values())
        return images + sum(self.now().classes.values())

    def known(self) -> Measured | None:
        return self._last

    def forget(self) -> None:
        self._last = None

    def stop(self) -> None:
        """Nothing is being measured."""

    async def measure(self) -> Measured:
        if self.broken:
            raise HostError(ErrorCode.UNAVAILABLE, "cannot be read")
        self._last = self.now()
        return self._last

    async def space(self) -> Space:
        return Space(TOTAL - self.used() - self.other, TOTAL)

    async def size(self, path: Path) -> int:
        return self.taken(path)


class StockedCase(CommandCase):
    """A host on which things can be put."""

    gc: Gc | None = None

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(NOW - self.clock.seconds())
        self.built = FakeImages()
        self.shared = FakeTools()
        self.mirrors = FakeMirrors()
        self.disk = ToldDisk(self)
        self.folders.tasks.mkdir(parents=True, exist_ok=True)
        self.gates: list[Deferred[None]] = []
        self.gc = None
        self.make(50 * GB)

    def make(self, budget: int) -> None:
        """Another Gc, with this budget."""
        assert self.db is not None
        if self.gc is not None:
            self.gc.stop()
        disk = cast(Disk, self.disk)
        stock = Stock(
            self.clock,
            Inline(),
            self.folders,
            disk,
            self.tasks,
            self.dispatch.lanes,
            self.engine,
            self.built,
            self.shared,
            self.mirrors,
        )
        self.gc = gc = Gc(self.clock, self.db, disk, stock, budget)
        gc.start()
        self.addCleanup(gc.stop)

    def put_task(
        self,
        task_id: str,
        status: str = "failed",
        days: float = 40,
        *,
        size: int = GB,
        waits: Reason | None = None,
        container: bool = False,
        busy: bool = False,
        saved: bool = False,
    ) -> None:
        """A task as it is on disk and in its row, with a work copy, a home, a scratch folder and a file that
        was attached. days: since it moved. size: of each of the first three.
        """
        folders, at = self.folders, int((NOW - days * DAY) * 1000)
        for path in (folders.work(task_id), folders.home(task_id), folders.scratch(task_id)):
            path.mkdir(parents=True)
            self.disk.sizes[path] = size
        folders.work_copy(task_id, f"shop-{task_id}").mkdir()
        folders.attachments(task_id).mkdir()
        (folders.attachments(task_id) / "note.txt").touch()
        record = TaskRecord(
            task_id, "slug", "fix", status, input=encode_value(task_up(task_id=task_id)), ran=True,
            saved=b"[]" if saved else None, updated_at=at,
        )  # fmt: skip
        waiting = None if waits is None else encode_value(Waiting(waits, "", since=at))

        def write(db: object) -> None:
            rows.put(db, record)  # type: ignore[arg-type]
            rows.put_waiting(db, task_id, waiting)  # type: ignore[arg-type]

        assert self.db is not None
        self.done(self.db.run(write))
        if container:
            self.done(self.engine.launch(Launch(task_id, "i", 1, 1, (), ())))
        if busy:
            self.work_on(task_id)

    def work_on(self, task_id: str) -> None:
        """A command has the task's turn until the test ends."""
        gate: Deferred[None] = Deferred()
        self.gates.append(gate)

        async def command() -> None:
            await gate

        ensureDeferred(self.dispatch.lanes.turn(lifecycle_key(task_id), command))

    def put_leftover(self, name: str, size: int = GB) -> Path:
        path = self.folders.tasks / ".trash" / name
        path.mkdir(parents=True)
        self.disk.sizes[path] = size
        return path

    def put_image(
        self, name: str, days: float = 10, *, current: bool = False, in_use: bool = False, size: int = GB
    ) -> None:
        created = int((NOW - days * DAY) * 1000)
        self.built.there[name] = ImageInfo(name, "standard", size, created, current, in_use)

    def put_tool(self, name: str, days: float = 40, tasks: tuple[str, ...] = (), size: int = GB) -> None:
        self.shared.there[name] = ToolVersion(name, "1", size, NOW - days * DAY, tasks)

    def put_mirror(self, key: str, days: float = 40, needed: bool = False, size: int = GB) -> None:
        self.mirrors.there[key] = FakeMirror(size, NOW - days * DAY, needed)

    def run_gc(self, dry_run: bool = False) -> dict[str, Any]:
        assert self.gc is not None
        return self.done(self.gc.run(dry_run))

    def gone(self, dry_run: bool = False) -> list[tuple[str, str]]:
        return [(one["class"], one["what"]) for one in self.run_gc(dry_run)["removed"]]

    def reasons(self) -> dict[str, str]:
        """Why each thing is kept, by what it is."""
        return {one["what"]: one["why"] for one in self.run_gc()["kept"]}
