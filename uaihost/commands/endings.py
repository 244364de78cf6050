"""Containers that end though nobody asked for it: what is told of that, and when they are started again.

Memory that ran out is explained; a container that keeps ending is given up. It moves tasks through
`commands.tasks`, always in the turn of the task's life cycle commands.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uaihost.commands.lifecycle import Input
from uaihost.commands.tasks import Tasks
from uaihost.errors import HostError
from uaihost.interfaces import Container, Store
from uaihost.state import tasks as rows
from uaihost.state.tasks import TaskRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.reasons import Reason

log = Logger()

# How often a container is started again within WINDOW milliseconds, and the seconds before each start.
DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)
WINDOW = 600_000
# Seconds after the engine says that memory ran out: did the whole container end, or one process of it?
OOM_SETTLE = 1.0
# Seconds between two notes of one task that memory ran out.
OOM_PAUSE = 60.0
# Seconds that such a word explains an end of the container.
OOM_RECENT = 10.0
# Of what its first process printed last: lines and characters.
LAST_LINES = 15
LAST_WORDS = 2000

# 128 and the number of SIGKILL, the kernel's way to end a process when memory is out (signal(7)).
KILLED = 137


@attrs.frozen
class Ended:
    """As it is stored. at: milliseconds since the epoch; exitCode: None when the container goes on."""

    at: int
    exitCode: int | None
    outOfMemory: bool
    text: str


class Endings:
    """restart: settles a task in its turn; called when the pause before a start is over."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        tasks: Tasks,
        restart: Callable[[str], object],
    ) -> None:
        self._store = store
        self._clock = clock
        self._engine = tasks.around.engine
        self._channels = tasks.around.channels
        self._limits = tasks.around.limits
        self._tasks = tasks
        self._restart = restart
        self._pauses: dict[str, IDelayedCall] = {}
        self._out_of_memory: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._looks: dict[str, IDelayedCall] = {}

    def stop(self) -> None:
        for call in [*self._pauses.values(), *self._looks.values()]:
            call.cancel()
        self._pauses.clear()
        self._looks.clear()

    def resting(self, task_id: str) -> bool:
        """Whether its start is due after a pause."""
        return task_id in self._pauses

    def out_of_memory(self, task_id: str) -> None:
        """The engine says that the task's memory ran out; told when it is known what that ended."""
        self._out_of_memory[task_id] = self._clock.seconds()
        if task_id not in self._looks:
            self._looks[task_id] = self._clock.callLater(OOM_SETTLE, self._look, task_id)

    async def ended(self, record: TaskRecord, container: Container | None, *, paused: bool) -> None:
        """The container of a task that should run does not. Start it again, after a pause, or give it up.

        paused: there is a pause, which grows from start to start; else the start is now and does not count:
        the engine itself was away.
        """
        self._forget(record.id)
        ended = self._explain(record.id, container)
        times = await self._note(record, ended, counted=paused)
        if paused and len(times) > len(DELAYS):
            await self._tasks.fail(record, await self._given_up(record.id, ended, container is not None))
            return
        if not paused:
            await self._tasks.start_again(record)
            return
        delay = DELAYS[len(times) - 1]
        self._tasks.let_go(record.id)
        text = f"{ended.text}; started again in {delay:.0f} s"
        await self._tasks.records.move(record, Input.ENDED, message=ended.text, stand=(Reason.RESTART, text))
        self._pauses[record.id] = self._clock.callLater(delay, self._over, record.id)

    async def cut_off(self, record: TaskRecord) -> None:
        """The daemon ended while it started the container; a start that always ends it is given up."""
        self._forget(record.id)
        times = await self._count(record)
        if len(times) > len(DELAYS):
            await self._tasks.fail(
                record, f"the host was cut off {len(DELAYS)} times while it started this task"
            )
            return
        await self._tasks.start_again(record)

    # ---- within --------------------------------------------------------------------------------------------

    def _over(self, task_id: str) -> None:
        del self._pauses[task_id]
        self._restart(task_id)

    def _forget(self, task_id: str) -> None:
        for calls in (self._pauses, self._looks):
            call = calls.pop(task_id, None)
            if call is not None:
                call.cancel()

    def _explain(self, task_id: str, container: Container | None) -> Ended:
        at = int(self._clock.seconds() * 1000)
        if container is None:
            return Ended(at, None, False, "its container was removed")
        recent = self._clock.seconds() - self._out_of_memory.pop(task_id, -OOM_RECENT) < OOM_RECENT
        # The engine's word stands for the container's whole life: a child's end long ago explains no kill.
        survived = self._told.pop(task_id, None) is not None
        if container.exit_code == KILLED and (recent or (container.out_of_memory and not survived)):
            return Ended(at, KILLED, True, f"out of memory: its first process was killed. {self._advice()}")
        return Ended(at, container.exit_code, False, f"its container ended with status {container.exit_code}")

    def _advice(self) -> str:
        return (
            f"The task may use {self._limits.memory / (1 << 20):.0f} MiB, its /dev/shm counted; run less at "
            "once in it, or raise UAI_TASK_MEMORY and bring it down and up"
        )

    async def _note(self, record: TaskRecord, ended: Ended, *, counted: bool) -> list[int]:
        """Store and tell the end; the times of recent starts, this one included when it counts."""
        text = encode_value(attrs.asdict(ended))
        await self._store.run(lambda db: rows.put_ended(db, record.id, text))
        await self._channels.note(record.id, f"The task's container ended: {ended.text}")
        return await self._count(record) if counted else []

    async def _count(self, record: TaskRecord) -> list[int]:
        now = int(self._clock.seconds() * 1000)
        times = [*(at for at in msgspec.json.decode(record.restarts) if at > now - WINDOW), now]
        text = encode_value(times)
        await self._store.run(lambda db: rows.put_restarts(db, record.id, text))
        return times

    async def _given_up(self, task_id: str, ended: Ended, words: bool) -> str:
        said = ""
        if words:
            try:
                said = (await self._engine.log_tail(task_id, LAST_LINES)).strip()[-LAST_WORDS:]
            except HostError as error:
                said = f"(what it printed cannot be read: {error.message})"
        within = f"{len(DELAYS)} times in {WINDOW // 60_000} minutes"
        why = f"it was started again {within} and ended each time: {ended.text}"
        return f"{why}. It printed last:\n{said}" if said else why

    def _look(self, task_id: str) -> None:
        del self._looks[task_id]
        looked = Deferred.fromCoroutine(self._tell(task_id))
        looked.addErrback(
            lambda failure: log.failure("that memory ran out was not told to {task}", failure, task=task_id)
        )

    async def _tell(self, task_id: str) -> None:
        """A process of a container that goes on was killed: say so."""
        now = self._clock.seconds()
        container = await self._engine.find(task_id)
        if container is None or container.state != "running":
            return  # Its end explains it.
        self._out_of_memory.pop(task_id, None)
        if now - self._told.get(task_id, -OOM_PAUSE) < OOM_PAUSE:
            return
        self._told[task_id] = now
        text = f"out of memory: a process in it was killed, the task goes on. {self._advice()}"
        stored = encode_value(attrs.asdict(Ended(int(now * 1000), None, True, text)))
        await self._store.run(lambda db: rows.put_ended(db, task_id, stored))
        await self._channels.note(task_id, text[0].upper() + text[1:])
