"""taskUp, taskDown, taskStatus: a task's way from nothing to a container at work, and back with nothing lost.

It knows the order of the steps and what to undo; each step is a neighbour's. The rows say how far a task is,
so that a command that was cut off anywhere is completed by running it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.commands.exposed import LOOPBACK, Exposed
from uaihost.commands.lanes import together
from uaihost.commands.lifecycle import Input, Status, step
from uaihost.commands.neighbours import Channels, Images, Ports, Readiness, Workspaces
from uaihost.commands.places import TaskPlaces
from uaihost.commands.plan import WORKSPACE, Plan, plan_of
from uaihost.commands.progress import Progress
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Address, Container, Engine, Journal, Json, Launch, Limits, Store
from uaihost.paths import Folders, checked_task
from uaihost.state import tasks as rows
from uaihost.state.tasks import Exposure, PortRecord, TaskRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.events import PortsChanged, TaskStatus
from uaihost.wire.inputs import PreviewPort, Project, TaskDown, TaskUp

log = Logger()


@attrs.frozen
class Surroundings:
    """The neighbours, and what every container of this host is given.

    uid, gid: the container's user; editor_port: where the image's editor listens in the container, None when
    it has none.
    """

    workspaces: Workspaces
    engine: Engine
    images: Images
    readiness: Readiness
    channels: Channels
    ports: Ports
    folders: Folders
    uid: int
    gid: int
    limits: Limits = attrs.field(factory=Limits)
    editor_port: int | None = None


class Tasks:
    """blocking: for the task's folders. Life cycle commands of one task must be serialised by the caller."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        clock: IReactorTime,
        blocking: Blocking,
        around: Surroundings,
        exposed: Exposed,
    ) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._around = around
        self._exposed = exposed
        self._places = TaskPlaces(around.folders, blocking, around.uid, around.gid)

    # ---- taskUp --------------------------------------------------------------------------------------------

    async def up(self, command_id: str, wanted: TaskUp) -> Json:
        """Bring the task up; one that runs is left as it is, one that is half there is completed.

        Raises:
            HostError: it names the step. Nothing stays that this attempt made.
        """
        plan = plan_of(wanted)
        record, exposure = await self._known(plan.task_id)
        if exposure is not None:
            raise HostError(
                ErrorCode.CONFLICT,
                f"the id {plan.task_id} is exposed; `uaihost unexpose {plan.task_id}` first",
            )
        if record is None:
            record = TaskRecord(plan.task_id, plan.slug, plan.branch, Status.PENDING)
        if record.status == Status.RUNNING:
            container = await self._around.engine.find(plan.task_id)
            if container is not None and container.state == "running":
                return await self.resume(record, container)
        if record.saved is not None and record.status == Status.FAILED:
            # Its taskDown was cut off after the work was put away: what is left is not whole.
            await self._remove(record.id)
        record = await self.move(
            record, Input.UP, slug=plan.slug, branch=plan.branch, input=encode_value(wanted), saved=None
        )
        progress = Progress(self._journal, self._clock, plan.task_id)
        try:
            image = await self._prepare(plan, progress)
            record = await self.move(record, Input.PREPARED)
            # One that is left over was made for another plan, perhaps; the work lies outside of it.
            await self._around.engine.remove(plan.task_id)
            await self._places.make(plan.task_id, fresh=True)
            return await self._launch(record, plan, image, progress)
        except Exception as error:
            await self._undo(await self._current(record), error)
            raise

    async def start_again(self, record: TaskRecord) -> None:
        """Start the container of a task that should run, with the work copies that are there.

        Raises:
            HostError: it could not; the work copies stay, the task is `failed`.
        """
        plan = _plan_in(record)
        progress = Progress(self._journal, self._clock, record.id)
        try:
            image = await progress.step("image", self._around.images.ensure)
            await self._places.make(plan.task_id, fresh=False)
            await self._launch(record, plan, image, progress)
        except Exception as error:
            await self._undo(await self._current(record), error)
            raise

    async def resume(self, record: TaskRecord, container: Container) -> Json:
        """The value of a task that runs; its ports are read anew: each start moves them."""
        found = self._ports_of(_plan_in(record), container)
        if found != await self._store.run(lambda db: rows.ports(db, record.id)):
            changed = PortsChanged(record.id, self._now(), _previews(found))
            await self._journal.record(changed, write=lambda db: rows.put_ports(db, record.id, found))
        self._point(record.id, found)
        return {**_value(Status.RUNNING, found), "workspacePath": WORKSPACE}

    async def cut_off(self, record: TaskRecord) -> None:
        """A command was cut off by the end of the daemon and does not run again."""
        error = HostError(ErrorCode.CANCELLED, "the host was cut off here; send the command again")
        if record.status == Status.STOPPING:
            await self.move(record, Input.LOST, message=error.message)
        else:
            await self._undo(record, error)

    async def _prepare(self, plan: Plan, progress: Progress) -> str:
        """Work copies and image at once; the image's reference."""
        workspaces = self._around.workspaces

        async def copy(project: Project) -> str:
            await progress.step(
                f"clone {project.slug}",
                lambda say: workspaces.prepare(
                    plan.task_id, project.slug, project.repoUrl, plan.branch, plan.identity, say
                ),
            )
            return ""

        image = progress.step("image", self._around.images.ensure)
        return (await together([*(copy(project) for project in plan.projects), image]))[-1]

    async def _launch(self, record: TaskRecord, plan: Plan, image: str, progress: Progress) -> Json:
        """From work copies to a task that runs."""
        around = self._around
        editor = set() if around.editor_port is None else {around.editor_port}
        launch = Launch(
            task_id=plan.task_id,
            image=image,
            uid=around.uid,
            gid=around.gid,
            mounts=plan.mounts(around.folders),
            ports=tuple(sorted(plan.container_ports | editor)),
            env=plan.env,
            limits=around.limits,
        )

        async def start(say: Callable[[str], None]) -> Container:
            say("; ".join(plan.hidden))
            return await around.engine.launch(launch)

        container = await progress.step("container", start)
        await progress.step("setup", lambda say: around.readiness.ready(plan.task_id, progress.inner))
        found = self._ports_of(plan, container)
        status = step(Status(record.status), Input.READY)
        at = self._now()
        running = attrs.evolve(record, status=status, message=None, ran=True, updated_at=at)

        def write(connection: sqlite3.Connection) -> None:
            rows.put(connection, running)
            rows.put_ports(connection, record.id, found)

        events = TaskStatus(record.id, at, status), PortsChanged(record.id, at, _previews(found))
        await self._journal.record(*events, write=write)
        self._point(record.id, found)
        return {**_value(status, found), "workspacePath": WORKSPACE}

    async def _undo(self, record: TaskRecord, error: Exception) -> None:
        """Nothing stays that a failed attempt made; what may hold somebody's work does."""
        why = error.message if isinstance(error, HostError) else "a defect of the host; see its log"
        self._around.ports.drop_task(record.id)
        try:
            await self._around.engine.remove(record.id)
            if not record.ran:
                await self._places.clear(record.id)
        except Exception:
            log.failure("what a failed taskUp of {task} made could not be removed", task=record.id)
        await self.move(record, Input.BROKE, message=why)

    # ---- taskDown ------------------------------------------------------------------------------------------

    async def down(self, command_id: str, wanted: TaskDown) -> Json:
        """Put the task's work away, then remove everything else of it. One that is down is left as it is.

        Raises:
            HostError: it says what is kept. Nothing is removed before the work is safe.
        """
        task_id = checked_task(wanted.taskId)
        record, exposure = await self._known(task_id)
        if exposure is not None:
            await self._exposed.unexpose(task_id)
            return {"status": Status.STOPPED, "saved": []}
        if record is None:
            record = TaskRecord(task_id, wanted.task.slug, wanted.task.branch, Status.PENDING)
        if record.status == Status.STOPPED and record.saved is not None:
            return {"status": Status.STOPPED, "saved": msgspec.json.decode(record.saved)}
        record = await self.move(record, Input.DOWN)
        self._around.ports.drop_task(task_id)
        progress = Progress(self._journal, self._clock, task_id)
        try:
            await progress.step("channel", lambda say: self._around.channels.teardown(task_id))
            if record.saved is None:
                record = await self._save(record, [project.slug for project in wanted.projects], progress)
            await progress.step("remove", lambda say: self._remove(task_id))
        except _NotSaved as error:
            why = f"{error.message}; nothing was removed: put that right and send taskDown again"
            await self.move(record, Input.NOT_SAVED, message=why)
            raise HostError(error.code, why) from error
        except Exception as error:
            sentence = error.message if isinstance(error, HostError) else "a defect of the host; see its log"
            await self.move(record, Input.BROKE, message=f"{sentence}; send taskDown again")
            raise
        await self._gone(record)
        return {"status": Status.STOPPED, "saved": msgspec.json.decode(record.saved or b"[]")}

    async def _save(self, record: TaskRecord, named: Sequence[str], progress: Progress) -> TaskRecord:
        """The record with what was saved, which is also stored: from then on the work copies may go."""
        workspaces, engine = self._around.workspaces, self._around.engine
        try:
            slugs = sorted({*named, *await self._places.slugs(record.id)})
            await progress.step("save", lambda say: workspaces.save(record.id, slugs))
        except HostError as error:
            raise _NotSaved(error.code, error.message) from error
        await progress.step("container", lambda say: engine.remove(record.id))
        try:
            # What ran in the container could write to its very end.
            saved = await workspaces.save(record.id, slugs)
        except HostError as error:
            raise _NotSaved(error.code, f"save: {error.message}") from error
        done = attrs.evolve(record, saved=encode_value([attrs.asdict(one) for one in saved]))
        await self._store.run(lambda db: rows.put(db, done))
        return done

    async def _remove(self, task_id: str) -> None:
        await self._around.engine.remove(task_id)
        await self._around.workspaces.remove(task_id)

    async def _gone(self, record: TaskRecord) -> None:
        at = self._now()
        status = step(Status(record.status), Input.GONE)
        # The input may hold secrets of the person's environment, and is not needed any more.
        gone = attrs.evolve(record, status=status, message=None, input=None, ran=False, updated_at=at)

        def write(connection: sqlite3.Connection) -> None:
            rows.put(connection, gone)
            rows.put_ports(connection, record.id, [])

        events = TaskStatus(record.id, at, status), PortsChanged(record.id, at, [])
        await self._journal.record(*events, write=write)

    # ---- taskStatus and what all share ---------------------------------------------------------------------

    async def status(self, command_id: str, task_id: str) -> Json:
        """What the engine says of the task now.

        Raises:
            HostError: `not_found`; `unavailable` while the engine does not answer.
        """
        record, exposure = await self._known(checked_task(task_id))
        if exposure is not None:
            return self._exposed.status(exposure)
        if record is None:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id}; bring it up with taskUp")
        container = await self._around.engine.find(task_id)
        runs = container is not None and container.state == "running"
        status = record.status
        if status == Status.RUNNING and not runs:
            status = Status.STOPPED
        found = await self._store.run(lambda db: rows.ports(db, task_id)) if status == Status.RUNNING else []
        return {
            **_value(status, found),
            "memoryBytes": await self._memory(task_id) if runs else 0,
            "startedAt": container.started_at if container is not None and runs else None,
            "agents": [{"id": one.id, "state": one.state} for one in self._around.channels.states(task_id)],
        }

    async def move(self, record: TaskRecord, happened: Input, **changes: Any) -> TaskRecord:
        """The record after `happened`, stored together with its event.

        Raises:
            HostError: `conflict`, that cannot happen in this state.
        """
        status = step(Status(record.status), happened)
        message = changes.pop("message", None)
        at = self._now()
        moved = attrs.evolve(record, status=status, message=message, updated_at=at, **changes)
        await self._journal.record(
            TaskStatus(record.id, at, status, message), write=lambda db: rows.put(db, moved)
        )
        return moved

    async def _known(self, task_id: str) -> tuple[TaskRecord | None, Exposure | None]:
        return await self._store.run(lambda db: (rows.find(db, task_id), rows.exposure(db, task_id)))

    async def _current(self, record: TaskRecord) -> TaskRecord:
        return await self._store.run(lambda db: rows.find(db, record.id)) or record

    async def _memory(self, task_id: str) -> int:
        try:
            return (await self._around.engine.usage(task_id)).memory
        except HostError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return 0  # It ended just now.
            raise

    def _ports_of(self, plan: Plan, container: Container) -> list[PortRecord]:
        wanted = [PortRecord("preview", one.name, one.port, 0) for one in plan.previews]
        if self._around.editor_port is not None:
            wanted.append(PortRecord("editor", "", self._around.editor_port, 0))
        found = []
        for one in wanted:
            host_port = container.ports.get(one.container_port)
            if host_port is None:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"the engine published no port of this machine for {one.container_port} of task "
                    f"{plan.task_id}; take the task down and up again",
                )
            found.append(attrs.evolve(one, host_port=host_port))
        return found

    def _point(self, task_id: str, found: list[PortRecord]) -> None:
        editors = [Address(LOOPBACK, one.host_port) for one in found if one.target == "editor"]
        previews = {one.name: Address(LOOPBACK, one.host_port) for one in found if one.target == "preview"}
        self._around.ports.set_task(task_id, editors[0] if editors else None, previews)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


class _NotSaved(HostError):
    """The work is not safe, so nothing may be removed."""


def _plan_in(record: TaskRecord) -> Plan:
    if record.input is None:
        raise HostError(
            ErrorCode.CONFLICT,
            f"how task {record.id} was brought up is not known any more; send taskUp again",
        )
    return plan_of(msgspec.json.decode(record.input, type=TaskUp))


def _previews(found: list[PortRecord]) -> list[PreviewPort]:
    return [
        PreviewPort(one.name, one.container_port, one.host_port) for one in found if one.target == "preview"
    ]


def _value(status: str, found: list[PortRecord]) -> Json:
    editors = [one.host_port for one in found if one.target == "editor"]
    return {
        "status": status,
        "codeServerPort": editors[0] if editors else None,
        "previewPorts": _previews(found),
    }
