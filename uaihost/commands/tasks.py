"""taskUp, taskDown, taskStatus: a task's way from nothing to a container at work, and back with nothing lost.

It knows the states and what to undo; each step is a neighbour's. The rows say how far a task is, so that a
command that was cut off anywhere is completed by running it again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.commands.exposed import Exposed
from uaihost.commands.lanes import to_the_end
from uaihost.commands.lifecycle import Input, Status
from uaihost.commands.neighbours import Report
from uaihost.commands.overview import Overview
from uaihost.commands.places import TaskPlaces
from uaihost.commands.plan import WORKSPACE, Plan, plan_in, plan_of
from uaihost.commands.previews import Previews, shown, value
from uaihost.commands.progress import Progress
from uaihost.commands.records import Records, parked
from uaihost.commands.startup import Startup
from uaihost.commands.surroundings import Surroundings
from uaihost.commands.takedown import TakeDown
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Journal, Json, Store
from uaihost.paths import checked_task
from uaihost.state import tasks as rows
from uaihost.state.tasks import Exposure, TaskRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.events import PortsChanged
from uaihost.wire.inputs import TaskDown, TaskUp
from uaihost.wire.reasons import Reason, Waiting
from uaihost.workspaces.workspaces import Saved

__all__ = ["Surroundings", "Tasks"]

log = Logger()

PARKED = "this machine was restarted; the task starts again when it is used"


class Tasks:
    """blocking: for the task's folders. Life cycle commands of one task must be serialised by the caller.

    records: the rows and what tasks wait for; around: the neighbours. Both also for who moves tasks without
    a command (commands.adoption).
    """

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
        self.around = around
        self._exposed = exposed
        self.records = Records(store, journal, clock)
        self._places = TaskPlaces(around.folders, blocking, around.uid, around.gid)
        self._previews = Previews(store, journal, clock, around)
        self._startup = Startup(clock, around, self._places, self._reported)
        self._take_down = TakeDown(store, around, self._places, self.records, self._progress, self.let_go)
        self._overview = Overview(store, around, self.records)
        # Tasks whose sockets and ports this daemon serves.
        self._served: set[str] = set()
        self._rising: dict[str, Deferred[Json]] = {}

    def waiting(self, task_id: str) -> Waiting | None:
        """What the task waits for now; None when it waits for nothing."""
        return self.records.waits.now(task_id)

    async def overview(self, task_id: str | None = None) -> list[Json]:
        """What is known of one task or of every one, without asking the engine (commands.overview)."""
        return await self._overview.tasks(task_id)

    def on_ports(self, task_id: str, ports: Collection[int]) -> None:
        """Servers in the task's container listen on these ports now."""
        if task_id in self._served:
            self._previews.heard(task_id, ports)

    # ---- up ------------------------------------------------------------------------------------------------

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
        crew = [agent.id for agent in wanted.task.agents]
        await self.around.channels.set_reviewers(plan.task_id, wanted.task.reviewerOrder or [], crew)
        if record is None:
            record = TaskRecord(plan.task_id, plan.slug, plan.branch, Status.PENDING)
        if record.status == Status.RUNNING:
            container = await self.around.engine.find(plan.task_id)
            if container is not None and container.state == "running":
                return await self.resume(record, container)
        if record.saved is not None and record.status == Status.FAILED:
            # Its taskDown was cut off after the work was put away: what is left is not whole.
            await self._take_down.remove(record.id)
        record = await self._begin(
            record, Input.UP, slug=plan.slug, branch=plan.branch, input=encode_value(wanted), saved=None
        )
        return await self._rise(record, plan, copies=True)

    async def start_again(self, record: TaskRecord, happened: Input = Input.ENDED) -> None:
        """Make the container of a task that should run anew, with the work copies that are there.

        Raises:
            HostError: it could not. The task is `failed` and its work copies stay; or the engine does not
                answer, and the task waits for that.
        """
        plan = plan_in(record)
        record = await self._begin(record, happened)
        await self._rise(record, plan, copies=False)
        await self.around.channels.resume([record.id])

    async def found(self, record: TaskRecord, container: Container) -> None:
        """A parked task's container runs: it lives where the machine was not restarted."""
        starting = await self._begin(record, Input.WAKE)
        running = await self.records.move(starting, Input.READY, ran=True)
        await self.resume(running, container)

    async def resume(self, record: TaskRecord, container: Container) -> Json:
        """The value of a task that runs, whose container is taken over when this daemon did not start it."""
        if record.id not in self._served:
            if self.around.egress is not None:
                await self.around.egress.open(record.id)
            if self.around.broker is not None:
                await self.around.broker.open(plan_in(record).grant)
            self._serve(record.id)
        found = await self._previews.refresh(record.id, plan_in(record), container)
        return {**value(Status.RUNNING, found), "workspacePath": WORKSPACE}

    async def wake(self, task_id: str) -> None:
        """Start a task that starts when it is used; any other is left as it is. In the turn of its life cycle
        commands.

        Raises:
            HostError: it could not be started.
        """
        record = await self.records.find(task_id)
        if record is not None and self.starts_when_used(record):
            await self.start_again(record, Input.WAKE if parked(record) else Input.ENDED)

    def starts_when_used(self, record: TaskRecord) -> bool:
        """Whether it is parked, or was being started when the daemon or its engine ended."""
        if record.status == Status.STARTING and record.ran:
            waiting = self.waiting(record.id)
            return waiting is None or waiting.reason is not Reason.RESTART
        return parked(record)

    async def park(self, record: TaskRecord) -> None:
        """The machine was restarted, and with it the task's container ended."""
        await self.records.move(record, Input.PARK, message=PARKED, stand=(Reason.PARKED, PARKED))

    async def cut_off(self, record: TaskRecord) -> None:
        """A command was cut off by the end of the daemon and does not run again."""
        error = HostError(ErrorCode.CANCELLED, "the host was cut off here; send the command again")
        if record.status == Status.STOPPING:
            # What is not put away lies outside of the container.
            self.let_go(record.id)
            await to_the_end(self.around.engine.remove(record.id))
            await self.records.move(record, Input.LOST, message=error.message)
        else:
            await self._undo(record, error)

    async def fail(self, record: TaskRecord, why: str) -> None:
        """Give a task up whose container does not stay; its work copies stay."""
        await self._undo(record, HostError(ErrorCode.UNAVAILABLE, why))

    async def clear(self, record: TaskRecord) -> None:
        """Remove what a failed attempt left because the engine was away; nobody's work is in it."""
        if not record.ran:
            await self._places.clear(record.id)

    def let_go(self, task_id: str) -> None:
        """The task's container is not there any more: nothing of it is reached, watched or served."""
        self._served.discard(task_id)
        self._previews.drop(task_id)
        if self.around.watch is not None:
            self.around.watch.stop(task_id)
        if self.around.egress is not None:
            self.around.egress.close(task_id)
        if self.around.broker is not None:
            self.around.broker.close(task_id)

    async def _begin(self, record: TaskRecord, happened: Input, **changes: Any) -> TaskRecord:
        """From this row on the task may have a container, which is no orphan."""
        self.let_go(record.id)
        return await self.records.census.run(self._moved, record, happened, changes)

    def _moved(self, record: TaskRecord, happened: Input, changes: dict[str, Any]) -> Any:
        return Deferred.fromCoroutine(self.records.move(record, happened, **changes))

    def give_up(self, task_id: str) -> None:
        """Somebody wants the task down: what brings it up ends now, and is undone."""
        rising = self._rising.pop(task_id, None)
        if rising is not None:
            rising.cancel()

    async def _rise(self, record: TaskRecord, plan: Plan, *, copies: bool) -> Json:
        """From a row to a task that runs.

        Raises:
            HostError: it names the step; `cancelled` when it was given up.
        """
        rising = self._rising[record.id] = Deferred.fromCoroutine(self._risen(record, plan, copies=copies))
        try:
            return await rising
        finally:
            if self._rising.get(record.id) is rising:
                del self._rising[record.id]

    async def _risen(self, record: TaskRecord, plan: Plan, *, copies: bool) -> Json:
        progress = await self._progress(record.id)
        try:
            await self._startup.admit(progress)
            container = await self._startup.make(plan, progress, copies=copies)
            record = await self.records.move(record, Input.PREPARED)
            forwarded = await self._startup.finish(plan, progress)
            found = self._previews.declared(plan, container, forwarded)
            await self.records.move(
                record,
                Input.READY,
                events=(PortsChanged(record.id, self.records.now(), shown(found)),),
                write=lambda db: rows.put_ports(db, record.id, found),
                ran=True,
            )
        except CancelledError:
            if record.id in self._rising:
                # Not given up: the host ends, and its next start goes on from the row.
                raise
            error = HostError(ErrorCode.CANCELLED, "given up: the task was to be taken down")
            await self._undo(await self.records.current(record), error)
            raise error from None
        except Exception as error:
            if not copies and await self._engine_is_away():
                # The pass that follows its return starts the task.
                self.let_go(record.id)
                self.records.waits.stand(record.id, Reason.ENGINE, str(error))
            else:
                await self._undo(await self.records.current(record), error)
            raise
        self._previews.point(record.id, found)
        self._serve(record.id)
        return {**value(Status.RUNNING, found), "workspacePath": WORKSPACE}

    async def _engine_is_away(self) -> bool:
        try:
            await self.around.engine.ping()
        except HostError:
            return True
        return False

    def _serve(self, task_id: str) -> None:
        self._served.add(task_id)
        if self.around.watch is not None:
            self.around.watch.start(task_id)

    async def _reported(self, task_id: str, report: Report) -> None:
        """What a container can reach: a card in the channel, and stored with the task."""
        text = encode_value(report.json())
        await self._store.run(lambda db: rows.put_report(db, task_id, text))
        await self.around.channels.note(task_id, report.text())

    async def _undo(self, record: TaskRecord, error: Exception) -> None:
        """Nothing stays that a failed attempt made; what may hold somebody's work does."""
        why = error.message if isinstance(error, HostError) else "a defect of the host; see its log"
        self.let_go(record.id)
        try:
            await to_the_end(self.around.engine.remove(record.id))
            if not record.ran:
                await self._places.clear(record.id)
        except Exception:
            log.failure("what a failed taskUp of {task} made could not be removed", task=record.id)
        await self.records.move(record, Input.BROKE, message=why)

    # ---- taskDown ------------------------------------------------------------------------------------------

    async def down(self, command_id: str, wanted: TaskDown) -> Json:
        """Put the task's work away, then remove everything else of it. One that is down is left as it is.

        Raises:
            HostError: it says what is kept. Nothing is removed before the work is safe.
        """
        fresh = TaskRecord(wanted.taskId, wanted.task.slug, wanted.task.branch, Status.PENDING)
        return await self._down(wanted.taskId, [project.slug for project in wanted.projects], fresh)

    async def stop(self, task_id: str) -> Json:
        """The same for the owner of the machine, who knows no more than the task's id.

        Raises:
            HostError: as of `down`; `not_found`.
        """
        return await self._down(task_id, [], None)

    async def _down(self, task_id: str, slugs: list[str], fresh: TaskRecord | None) -> Json:
        """fresh: the record of a task that is not known yet; None when it has to be."""
        record, exposure = await self._known(checked_task(task_id))
        if exposure is not None:
            await self._exposed.unexpose(task_id)
            return {"status": Status.STOPPED, "saved": []}
        record = record or fresh
        if record is None:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id}")
        if record.status == Status.STOPPED and record.saved is not None:
            return {"status": Status.STOPPED, "saved": msgspec.json.decode(record.saved)}
        record = await self.records.move(record, Input.DOWN)
        self.around.ports.drop_task(task_id)
        record = await self._take_down.all(record, slugs)
        return {"status": Status.STOPPED, "saved": msgspec.json.decode(record.saved or b"[]")}

    async def put_away(self, record: TaskRecord, why: str) -> None:
        """As taskDown, of a task that does not run and to free disk; what was attached stays.

        Raises:
            HostError: as of taskDown.
        """
        await self._take_down.but_attachments(await self.records.move(record, Input.DOWN), why)

    async def keep(self, record: TaskRecord) -> list[Saved]:
        """Store what a task holds, which stays as it is; while its container runs it may go on changing.

        Raises:
            HostError: something could not be kept; then nothing may be removed.
        """
        return await self._take_down.keep(record)

    # ---- taskStatus and what all share ---------------------------------------------------------------------

    async def status(self, command_id: str, task_id: str) -> Json:
        """What the engine says of the task now, and what is known of it.

        Raises:
            HostError: `not_found`; `unavailable` while the engine does not answer.
        """
        record, exposure = await self._known(checked_task(task_id))
        if exposure is not None:
            return self._exposed.status(exposure)
        if record is None:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id}; bring it up with taskUp")
        return await self._overview.status(record)

    async def _known(self, task_id: str) -> tuple[TaskRecord | None, Exposure | None]:
        def read(connection: sqlite3.Connection) -> tuple[TaskRecord | None, Exposure | None]:
            return rows.find(connection, task_id), rows.exposure(connection, task_id)

        return await self._store.run(read)

    async def _progress(self, task_id: str) -> Progress:
        return await Progress.begin(self._store, self._journal, self._clock, self.records.waits, task_id)
