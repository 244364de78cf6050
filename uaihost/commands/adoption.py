"""After a start, and whenever the engine comes back: what the rows say against what the engine runs.

Running tasks are taken over with the ports they have now, those that should run are started again,
containers that no row knows are removed, and what cannot be mended is told as it is. It takes the same turns
as a task's life cycle commands, so it never works beside one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uaihost.commands.exposed import Exposed
from uaihost.commands.lanes import Lanes, together
from uaihost.commands.lifecycle import Input, Status
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Tasks
from uaihost.errors import HostError
from uaihost.interfaces import Container, Engine, Store
from uaihost.state import tasks as rows
from uaihost.state.tasks import PortRecord, TaskRecord
from uaihost.wire.events import Event, PortsChanged, TaskStatus
from uaihost.wire.inputs import PreviewPort

log = Logger()

# Seconds between tries while the engine does not answer; the last one stays.
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0)

# Seconds between looks whether an engine that answered still does: how late its restart is noticed.
LOOK = 15.0

_GONE = "its container is gone; the work copies are kept: taskUp starts it again"


class Adoption:
    """on_running: told of each task whose container runs after a pass, to attach its channel again."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        engine: Engine,
        tasks: Tasks,
        exposed: Exposed,
        lanes: Lanes,
        on_running: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = engine
        self._tasks = tasks
        self._exposed = exposed
        self._lanes = lanes
        self._on_running = on_running
        self._failures = 0
        self._adopted = False
        self._stopped = False
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Begin now, and again after every absence of the engine. Call it after `Dispatch.recover`."""
        self._stopped = False
        self._next = None
        looking = Deferred.fromCoroutine(self._look())
        looking.addErrback(lambda failure: log.failure("adoption failed", failure))
        looking.addBoth(lambda _: self._again())

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None and self._next.active():
            self._next.cancel()

    async def snapshot(self) -> list[Event]:
        """The state and the ports of every live task, for a bridge that knows nothing; not to be stored."""
        known = await self._store.run(
            lambda db: [
                (one, rows.ports(db, one.id)) for one in rows.every(db) if one.status != Status.STOPPED
            ]
        )
        events: list[Event] = []
        for record, ports in known:
            at = int(self._clock.seconds() * 1000)
            events.append(TaskStatus(record.id, at, record.status, record.message))
            events.append(PortsChanged(record.id, at, _previews(ports)))
        for exposure in await self._store.run(rows.exposures):
            events += self._exposed.events(exposure)
        return events

    async def adopt(self) -> None:
        """One pass over everything.

        Raises:
            HostError: `unavailable`, the engine does not answer; nothing was changed.
        """
        ids = {container.task_id for container in await self._engine.all()}
        ids |= {record.id for record in await self._store.run(rows.every)}
        await together(self._one(task_id) for task_id in sorted(ids))

    async def _look(self) -> None:
        try:
            if self._adopted:
                await self._engine.ping()
            else:
                await self.adopt()
                self._adopted = True
            self._failures = 0
        except HostError as error:
            if self._failures == 0:
                log.warn("the container engine does not answer: {error}", error=error.message)
            self._failures += 1
            self._adopted = False

    def _again(self) -> None:
        if not self._stopped:
            delay = BACK_OFF[min(self._failures, len(BACK_OFF)) - 1] if self._failures else LOOK
            self._next = self._clock.callLater(delay, self.start)

    async def _one(self, task_id: str) -> None:
        try:
            await self._lanes.turn(lifecycle_key(task_id), lambda: self._settle(task_id))
        except HostError as error:
            log.warn("task {task} could not be taken over: {error}", task=task_id, error=error.message)
        except Exception:
            # One task's trouble is not the others'.
            log.failure("task {task} could not be taken over", task=task_id)

    async def _settle(self, task_id: str) -> None:
        # Looked up now: a command may have had its turn in between.
        record = await self._store.run(lambda db: rows.find(db, task_id))
        container = await self._engine.find(task_id)
        if record is None:
            if container is not None:
                log.info("removing the container of task {task}, which nobody knows", task=task_id)
                await self._engine.remove(task_id)
        elif record.status == Status.RUNNING:
            await self._settle_running(record, container)
        elif record.status in (Status.PREPARING, Status.STARTING, Status.STOPPING):
            await self._tasks.cut_off(record)
        elif container is not None and not (record.status == Status.STOPPED and record.saved is None):
            # What failed or is stopped has no container, but where taskDown could not save.
            await self._engine.remove(task_id)

    async def _settle_running(self, record: TaskRecord, container: Container | None) -> None:
        if container is None:
            await self._tasks.move(record, Input.LOST, message=_GONE)
            return
        if container.state == "running":
            await self._tasks.resume(record, container)
        else:
            await self._tasks.start_again(record)
        if self._on_running is not None:
            await self._on_running(record.id)


def _previews(ports: list[PortRecord]) -> list[PreviewPort]:
    return [
        PreviewPort(one.name, one.container_port, one.host_port) for one in ports if one.target == "preview"
    ]
