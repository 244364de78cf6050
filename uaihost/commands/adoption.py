"""After a start, when the engine comes back, when a container ends: rows against what the engine runs.

Running tasks are taken over with the ports they have now, those that should run are started again, what no
row knows is removed, and what cannot be mended is told as it is. It takes the same turns as a task's life
cycle commands, so it never works beside one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uaihost.commands.endings import Endings
from uaihost.commands.exposed import Exposed
from uaihost.commands.lanes import Lanes, together
from uaihost.commands.lifecycle import Status
from uaihost.commands.previews import shown
from uaihost.commands.records import parked
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Tasks
from uaihost.containers.watch import EngineEvent
from uaihost.errors import HostError
from uaihost.interfaces import Engine, Store
from uaihost.state import steps
from uaihost.state import tasks as rows
from uaihost.state.tasks import TaskRecord
from uaihost.wire.events import Event, PortsChanged, TaskStatus
from uaihost.wire.reasons import Reason

log = Logger()

# Seconds between tries while the engine does not answer; the last one stays.
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0)

# Seconds between looks whether an engine that answered still does, when its events do not tell.
LOOK = 15.0

# Different after every start of the machine (proc_sys_kernel(5)); in memory, so that reading does not wait.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# States in which a task may have a container, or a network, of its own.
_LIVE = (Status.PREPARING, Status.STARTING, Status.RUNNING, Status.STOPPING)


class Adoption:
    """on_running: told of each task whose container runs after a pass, to attach its channel again.

    boot_id: of this start of the machine, None where it has none. others: ids of containers of this host that
    belong to no task and are in use. It listens to the engine's events
    (containers.watch.Listener).
    """

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        engine: Engine,
        tasks: Tasks,
        exposed: Exposed,
        lanes: Lanes,
        on_running: Callable[[str], Awaitable[None]] | None = None,
        *,
        boot_id: Callable[[], str | None] | None = None,
        others: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._tasks = tasks
        self._exposed = exposed
        self._lanes = lanes
        self._on_running = on_running
        self._boot_id = boot_id or read_boot_id
        self._others = others
        self._endings = Endings(store, clock, tasks, self._settle_later)
        self._restored = False
        self._failures = 0
        self._adopted = False
        # Some task could not be settled: the next look takes all up again.
        self._unsettled = False
        self._stopped = True
        self._looking = False
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin now, and again after every absence of the engine. Call it after `Dispatch.recover`."""
        self._stopped = False
        self._look_now()

    def stop(self) -> None:
        self._stopped = True
        self._endings.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()

    async def restore(self) -> None:
        """What the rows say that the end of the daemon, or of the machine, has changed. It needs no engine.

        Call it before anything else asks for a task: those that ran before a restart of the machine are
        parked. Calling it again changes nothing.
        """
        if self._restored:
            return
        boot, before = self._boot_id(), await self._store.run(steps.boot)
        await self._tasks.records.restore()
        if boot is not None and boot != before:
            if before is not None:
                for record in await self._tasks.records.every():
                    if record.status == Status.RUNNING or (record.status == Status.STARTING and record.ran):
                        await self._tasks.park(record)
            # Last: cut off before this, the next start does it again.
            await self._store.run(lambda db: steps.put_boot(db, boot))
        self._restored = True

    async def snapshot(self) -> list[Event]:
        """The state and the ports of every live task, for a bridge that knows nothing; not to be stored."""
        known = await self._store.run(
            lambda db: [
                (one, rows.ports(db, one.id))
                for one in rows.every(db)
                if one.status != Status.STOPPED or parked(one)
            ]
        )
        events: list[Event] = []
        for record, ports in known:
            at = int(self._clock.seconds() * 1000)
            waiting = self._tasks.waiting(record.id)
            events.append(TaskStatus(record.id, at, record.status, record.message, waiting))
            events.append(PortsChanged(record.id, at, shown(ports)))
        for exposure in await self._store.run(rows.exposures):
            events += self._exposed.events(exposure)
        return events

    async def adopt(self) -> None:
        """One pass over everything.

        Raises:
            HostError: `unavailable`, the engine does not answer; nothing was changed.
        """
        await together([self._one(task_id, True) for task_id in await self._survey()])

    # ---- containers.watch.Listener -------------------------------------------------------------------------

    def engine_heard(self, event: EngineEvent) -> None:
        if event.action == "oom":
            self._endings.out_of_memory(event.task_id)
        elif event.action == "die":
            self._settle_later(event.task_id)

    def engine_found(self) -> None:
        """Whatever happened before was not heard."""
        self._adopted = False
        self._look_now()

    def engine_lost(self) -> None:
        self._look_now()

    # ---- looks ---------------------------------------------------------------------------------------------

    def _look_now(self) -> None:
        if self._looking or self._stopped:
            return  # One under way ends with the time of the next.
        if self._next is not None and self._next.active():
            self._next.cancel()
        self._looking = True
        looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(lambda failure: log.failure("adoption failed", failure))
        looking.addBoth(lambda _: self._again())

    async def _look(self) -> None:
        try:
            if self._adopted and not self._unsettled:
                await self._engine.ping()
            else:
                self._adopted, self._unsettled = True, False
                for task_id in await self._survey():
                    # Not waited for: a command that has its turn may take long.
                    self._settle_later(task_id, True)
            self._failures = 0
        except HostError as error:
            if self._failures == 0:
                log.warn("the container engine does not answer: {error}", error=error.message)
                await self._without(error.message)
            self._failures += 1
            self._adopted = False

    def _again(self) -> None:
        self._looking = False
        if self._stopped:
            return
        if self._failures:
            delay = BACK_OFF[min(self._failures, len(BACK_OFF)) - 1]
        else:
            # Not adopted: the engine was found anew while the look was under way.
            delay = LOOK if self._adopted else 0.0
        self._next = self._clock.callLater(delay, self._look_now)

    async def _without(self, why: str) -> None:
        """Tell of every task that should run that its engine does not answer."""
        for record in await self._tasks.records.every():
            if record.status == Status.RUNNING:
                self._tasks.records.waits.stand(record.id, Reason.ENGINE, why)

    async def _survey(self) -> list[str]:
        """What concerns all tasks; then the ids of those that are to be settled."""
        await self.restore()
        await self._tasks.records.census.run(lambda: Deferred.fromCoroutine(self._sweep()))
        found = [record.id for record in await self._tasks.records.every()]
        for task_id in found:
            self._tasks.records.waits.lift(task_id, Reason.ENGINE)
        return found

    async def _sweep(self) -> None:
        """Remove what belongs to no task that may have a container. No task becomes one meanwhile."""
        known = {one.id for one in await self._tasks.records.every() if _may_have_container(one)}
        known.update(self._others())
        for task_id in await self._engine.sweep(known):
            log.info("removed what was left of task {task} at the engine", task=task_id)

    # ---- one task ------------------------------------------------------------------------------------------

    def _settle_later(self, task_id: str, is_pass: bool = False) -> None:
        if not self._stopped:
            done = Deferred.fromCoroutine(self._one(task_id, is_pass))
            done.addErrback(lambda failure: log.failure("task {task} was not settled", failure, task=task_id))

    async def _one(self, task_id: str, is_pass: bool) -> None:
        try:
            await self._lanes.turn(lifecycle_key(task_id), lambda: self._settle(task_id, is_pass))
        except HostError as error:
            self._unsettled = True
            log.warn("task {task} could not be taken over: {error}", task=task_id, error=error.message)
        except Exception:
            # One task's trouble is not the others'.
            self._unsettled = True
            log.failure("task {task} could not be taken over", task=task_id)

    async def _settle(self, task_id: str, is_pass: bool) -> None:
        # Looked up now: a command may have had its turn in between.
        record = await self._tasks.records.find(task_id)
        if record is None or self._endings.resting(task_id):
            return
        if record.status == Status.RUNNING:
            await self._settle_running(record, is_pass)
        elif record.status == Status.STARTING and record.ran:
            # Its container was to be started again.
            if is_pass:
                await self._endings.cut_off(record)
            else:
                await self._tasks.start_again(record)
        elif not is_pass:
            return
        elif record.status in (Status.PREPARING, Status.STARTING, Status.STOPPING):
            await self._tasks.cut_off(record)
        elif record.status == Status.FAILED:
            await self._tasks.clear(record)
        elif parked(record):
            await self._settle_parked(record)

    async def _settle_running(self, record: TaskRecord, is_pass: bool) -> None:
        container = await self._engine.find(record.id)
        # The owner's `docker pause` keeps the processes, and so does this.
        if container is None or container.state not in ("running", "paused"):
            await self._endings.ended(record, container, paused=not is_pass)
            return
        await self._tasks.resume(record, container)
        if is_pass:
            await self._attach(record)

    async def _settle_parked(self, record: TaskRecord) -> None:
        """Where the engine did not restart with the machine the daemon runs on."""
        container = await self._engine.find(record.id)
        if container is not None and container.state == "running":
            await self._tasks.found(record, container)
            await self._attach(record)

    async def _attach(self, record: TaskRecord) -> None:
        if self._on_running is not None:
            await self._on_running(record.id)


def _may_have_container(record: TaskRecord) -> bool:
    """What failed or is down has none, but where taskDown could not save, or where the task is parked."""
    return record.status in _LIVE or (record.status == Status.STOPPED and record.saved is None)


def read_boot_id() -> str | None:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip() or None
    except OSError:
        return None  # Another system: a restart of it is then one of the engine.
