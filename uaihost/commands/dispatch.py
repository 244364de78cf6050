"""Exactly one result for every command, whatever happens in between.

A command is a row before it runs; its result and the frame that carries it are written in one transaction.
So a repeated `commandId` is answered from its row, and after a crash the rows without a result run again
(docs/adr/0004). It knows rows, lanes and the journal; it does not know what a command does.

What is kept: the arguments until the command has ended, except those of `bulky` commands beyond KEEP_LIMIT
(cut off by a crash, such a command is answered `cancelled`); the result for RETENTION, except one beyond
KEEP_LIMIT of a command that only reads (a repeat reads again).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Mapping
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.about import about
from uaihost.commands.lanes import Lanes, Queued
from uaihost.commands.registry import Row, lane_of, task_in
from uaihost.commands.waits import Waits
from uaihost.counts import Lifecycle
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.interfaces import Store
from uaihost.state import commands as rows
from uaihost.state.commands import CommandRecord
from uaihost.wire.codec import encode_value
from uaihost.wire.frames import Command, ResultFailed, ResultOk
from uaihost.wire.inputs import BadArgs, parse
from uaihost.wire.reasons import Reason

log = Logger()

# Bytes of JSON: a chat message or a task's description fits, a file does not.
KEEP_LIMIT = 64 * 1024

# Milliseconds that results are kept: a bridge that was away for a long weekend may still ask.
RETENTION = 7 * 24 * 3600 * 1000

# Milliseconds between two looks for results that are old enough to be forgotten.
PRUNE_PAUSE = 3600 * 1000

# Seconds that commands under way have at the end of the host: to end by themselves, and again to let go once
# they are cut off. Together far less than the 90 s after which systemd kills (TimeoutStopSec).
PATIENCE = 10.0

# How often a command is begun; a daemon that dies three times over one command is killed by it.
MAX_ATTEMPTS = 3


@attrs.frozen
class _Arrived:
    """A command as it came. bad: why it cannot even be read, else None."""

    id: str
    name: str
    args: list[Any]
    bad: str | None = None


class Dispatch:
    """Commands in, results into the journal.

    lanes: whoever else must not run beside a task's life cycle commands takes its turn here
    (`registry.lifecycle_key`). waits: told which tasks' commands wait for their turn. counted: what ran, and
    how they ended.
    """

    def __init__(
        self,
        registry: Mapping[str, Row],
        store: Store,
        journal: EventJournal,
        clock: IReactorTime,
        lanes: Lanes | None = None,
        waits: Waits | None = None,
        counted: Lifecycle | None = None,
    ) -> None:
        self._registry = registry
        self._store = store
        self._journal = journal
        self._clock = clock
        self._running: dict[str, Deferred[None]] = {}
        self._draining = False
        # Commands that are not begun now, with the sentence that says why.
        self.refused: dict[str, str] = {}
        # From then on what fails was cut off.
        self._cut = False
        self._idle: Deferred[None] = Deferred()
        self._pruned_at = 0
        self._waits = waits
        self._counted = Lifecycle() if counted is None else counted
        self.lanes = Lanes() if lanes is None else lanes

    @property
    def running(self) -> int:
        """How many commands have been accepted and have no result yet."""
        return len(self._running)

    def received(self, frame: Command) -> None:
        """A command from the bridge. Never raises; its one result goes to the journal."""
        self._start(
            frame.commandId, lambda: self._accept(_Arrived(frame.commandId, frame.command, frame.args))
        )

    def bad_command(self, command_id: str, why: str) -> None:
        """A command frame whose fields are ill-typed but whose id can be answered."""
        self._start(command_id, lambda: self._accept(_Arrived(command_id, "", [], bad=why)))

    async def recover(self) -> None:
        """Begin every command again that has no result; returns when all are begun.

        Call it once, after the neighbours are ready and before the bridge is dialled.
        """
        for record in await self._store.run(rows.unfinished):
            self._start(record.id, lambda record=record: self._resume(record))

    async def drain(self) -> None:
        """Refuse new commands and wait for the results of the accepted ones, twice PATIENCE at most.

        One that takes longer, as a taskUp that waits for memory, is cut off and has no result: the next start
        runs it again.
        """
        self._draining = True
        await self._all_ended()
        self._cut = True
        # The last first: what is cut off gives its turn to one that is cut off already.
        for running in reversed(list(self._running.values())):
            running.cancel()
        await self._all_ended()
        if self._running:
            log.warn("{count} commands do not let go; the host ends without them", count=len(self._running))

    async def _all_ended(self) -> None:
        """Returns when nothing runs, after PATIENCE at the latest."""
        if not self._running:
            return
        self._idle = idle = Deferred[None]()
        timer = self._clock.callLater(PATIENCE, idle.callback, None)
        await idle
        if timer.active():
            timer.cancel()

    def _start(self, command_id: str, work: Any) -> None:
        if command_id in self._running:
            return  # Joined: the run under way answers for both.
        # Known before it begins: it may have ended when that call returns.
        turn: Deferred[None] = Deferred()
        running = self._running[command_id] = Deferred.fromCoroutine(self._guarded(command_id, work, turn))
        running.addErrback(lambda failure: log.failure("a command's result was lost", failure))
        running.addBoth(self._ended, command_id)
        turn.callback(None)

    def _ended(self, _: object, command_id: str) -> None:
        del self._running[command_id]
        if not self._running and not self._idle.called:
            self._idle.callback(None)

    async def _guarded(self, command_id: str, work: Any, turn: Deferred[None]) -> None:
        """Only the database can fail here, and then the caller still gets an answer."""
        await turn
        try:
            await work()
        except _CutOff:
            log.info("{command} is cut off by the host's end and runs again at its start", command=command_id)
            await self._store.run(lambda db: rows.set_back(db, command_id))
        except Exception as error:
            if self._cut:
                log.failure("{command} was cut off while it was stored", command=command_id)
                return
            log.failure("the state could not be read or written", command=command_id)
            why = error.message if isinstance(error, HostError) else "the host's state could not be written"
            code = error.code if isinstance(error, HostError) else ErrorCode.INTERNAL
            self._journal.fleeting_result(command_id, _failed(code, f"{why}; see the host's log"))

    async def _accept(self, arrived: _Arrived) -> None:
        why = "host is shutting down; send it again" if self._draining else self.refused.get(arrived.name)
        if why is not None:
            await self._refuse(arrived, why)
            return
        row = self._registry.get(arrived.name)
        try:
            args: bytes | None = encode_value(arrived.args)
        except (ValueError, OverflowError, TypeError, RecursionError, msgspec.MsgspecError):
            args, arrived = None, attrs.evolve(arrived, bad="the arguments cannot be written down")
        if args is not None and len(args) > KEEP_LIMIT and row is not None and row.bulky:
            args = None
        record = CommandRecord(arrived.id, arrived.name, args, self._now(), 1, None, None)
        known = await self._store.run(lambda db: self._begin(db, record))
        if known is None:
            await self._run(arrived)
        elif known.finished_at is None:
            await self._resume(known)
        else:
            await self._repeat(known, arrived)

    def _begin(self, connection: sqlite3.Connection, record: CommandRecord) -> CommandRecord | None:
        """In the database's thread: the record that stands there, or None once the new one is stored."""
        if record.received_at - self._pruned_at >= PRUNE_PAUSE:
            self._pruned_at = record.received_at
            rows.prune(connection, record.received_at - RETENTION)
        return rows.begin(connection, record)

    async def _refuse(self, arrived: _Arrived, why: str) -> None:
        known = await self._store.run(lambda db: rows.find(db, arrived.id))
        if known is None:
            await self._journal.record_result(arrived.id, _failed(ErrorCode.UNAVAILABLE, why), _nothing)
        elif known.result is not None:
            await self._journal.record_result(known.id, known.result, _nothing)
        # Else it is one that a crash cut off: the next start runs it and answers.

    async def _repeat(self, known: CommandRecord, arrived: _Arrived) -> None:
        """Answer from the record; what was too large to keep is read again."""
        if known.result is not None:
            await self._journal.record_result(known.id, known.result, _nothing)
        elif arrived.name == known.name:
            await self._run(arrived)
        else:
            sentence = f"this commandId was a {known.name}, whose result is not kept; use a new commandId"
            await self._journal.record_result(known.id, _failed(ErrorCode.CONFLICT, sentence), _nothing)

    async def _resume(self, record: CommandRecord) -> None:
        """Run a command again that was cut off."""
        if record.args is None:
            sentence = "the host stopped before this was done, and its data was not kept; send it again"
            await self._finish(record.id, _failed(ErrorCode.CANCELLED, sentence), keep=True)
        elif record.attempts >= MAX_ATTEMPTS:
            sentence = (
                f"the host stopped {record.attempts} times while {record.name} was under way, so it is not "
                "begun again; look at the host's log, then send it as a new command"
            )
            await self._finish(record.id, _failed(ErrorCode.INTERNAL, sentence), keep=True)
        else:
            await self._store.run(lambda db: rows.again(db, record.id))
            log.info("{name} {command} runs again", name=record.name, command=record.id)
            await self._run(_Arrived(record.id, record.name, msgspec.json.decode(record.args)))

    async def _run(self, arrived: _Arrived) -> None:
        row = self._registry.get(arrived.name)
        counted = self._counted.begin()
        try:
            with about(command=arrived.id):
                result = await self._result(arrived, row)
            keep = row is None or not row.reads or len(result) <= KEEP_LIMIT
            await self._finish(arrived.id, result, keep=keep)
            counted.end("completed" if result.endswith(_DONE) else "failed")
        finally:
            # Without a result it is begun again at the next start.
            counted.end("interrupted")

    async def _result(self, arrived: _Arrived, row: Row | None) -> bytes:
        if arrived.bad is not None:
            return _failed(ErrorCode.INVALID_ARGS, arrived.bad)
        if row is None:
            return _failed(ErrorCode.UNKNOWN_COMMAND, f"this host knows no command {arrived.name[:60]!r}")
        try:
            args = parse(arrived.args, row.types)
            if row.first is not None:
                row.first(*args)
            key = lane_of(row, args)
            with about(task=task_in(key) or getattr(args[0] if args else None, "taskId", None)):
                if key is None:
                    value = await row.run(arrived.id, *args)
                else:
                    value = await self.lanes.turn(
                        key, lambda: row.run(arrived.id, *args), self._queued(arrived.name, key)
                    )
            return encode_value(ResultOk(value))
        except BadArgs as error:
            return _failed(ErrorCode.INVALID_ARGS, f"{arrived.name}: {error}")
        except HostError as error:
            if self._cut:
                raise _CutOff from error
            return _failed(error.code, error.message)
        except Exception as error:
            if self._cut:
                raise _CutOff from error
            log.failure("{name} {command} failed", name=arrived.name, command=arrived.id)
            return _failed(
                ErrorCode.INTERNAL,
                f"{arrived.name} failed by a defect of the host; look at its log for command {arrived.id}",
            )

    def _queued(self, name: str, key: Hashable) -> Queued | None:
        """Who is told that a life cycle command waits for its turn, and bounds that."""
        waits = self._waits
        task_id = task_in(key)
        if waits is None or task_id is None:
            return None

        def queued(turn: Deferred[Any]) -> Deferred[Any]:
            wait = waits.begin(task_id, Reason.QUEUED, f"{name} waits for its turn", turn.cancel)

            def over(result: Any) -> Any:
                wait.end()
                return Failure(wait.failure()) if wait.expired is not None else result

            return turn.addBoth(over)

        return queued

    async def _finish(self, command_id: str, result: bytes, *, keep: bool) -> None:
        kept = result if keep else None
        at = self._now()
        await self._journal.record_result(
            command_id, result, lambda db: rows.finish(db, command_id, kept, at)
        )

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


# How the result of a command that was done ends, as the encoder writes it.
_DONE = encode_value(ResultOk(None)).rpartition(b",")[2]


class _CutOff(Exception):
    """The host ends in the middle of a command."""


def _failed(code: ErrorCode, message: str) -> bytes:
    return encode_value(ResultFailed(code.value, message))


def _nothing(connection: sqlite3.Connection) -> None:
    """Only the result frame is written."""
