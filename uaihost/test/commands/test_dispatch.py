"""commands.dispatch: exactly one result for every command, also when the daemon dies in between."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from uaihost.blocking import Inline
from uaihost.commands.dispatch import KEEP_LIMIT, MAX_ATTEMPTS, PATIENCE, RETENTION, Dispatch
from uaihost.commands.lanes import to_the_end
from uaihost.commands.registry import Lane, Row
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.interfaces import Entry, Store
from uaihost.paths import data_files
from uaihost.state import commands, outbox
from uaihost.state.database import Database
from uaihost.test.support import given, short_folder, strategies
from uaihost.wire.frames import Command

T = TypeVar("T")


class Work:
    """Commands that a test steers: `begun` in order; `held` ones end when the test says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.held: dict[str, Deferred[Any]] = {}

    def registry(self) -> dict[str, Row]:
        return {
            "quick": Row((str,), Lane.CHANNEL, self.quick),
            "hold": Row((str,), Lane.LIFECYCLE, self.hold),
            "look": Row((str,), Lane.FREE, self.quick, reads=True),
            "large": Row((str,), Lane.FREE, self.large, reads=True),
            "file": Row((str, str), Lane.CHANNEL, self.quick, bulky=True),
            "refuse": Row((str,), Lane.FREE, self.refuse),
            "break": Row((str,), Lane.FREE, self.defect),
        }

    async def quick(self, command_id: str, *args: str) -> dict[str, str]:
        self.begun.append(command_id)
        return {"of": command_id}

    async def hold(self, command_id: str, task_id: str) -> dict[str, str]:
        self.begun.append(command_id)
        self.held[command_id] = waiting = Deferred[Any]()
        await waiting
        return {"of": command_id}

    async def large(self, command_id: str, task_id: str) -> str:
        self.begun.append(command_id)
        return "x" * (KEEP_LIMIT + 1)

    async def refuse(self, command_id: str, task_id: str) -> None:
        raise HostError(ErrorCode.NOT_FOUND, "no such thing; look elsewhere")

    async def defect(self, command_id: str, task_id: str) -> None:
        raise ZeroDivisionError("a secret detail")


def results(entries: list[Entry]) -> list[tuple[str, dict[str, Any]]]:
    frames = [json.loads(entry.payload) for entry in entries if entry.kind == "result"]
    return [(frame["commandId"], frame["result"]) for frame in frames]


async def _wait(for_it: Deferred[None]) -> None:
    await for_it


def open_database(path: Path) -> Database:
    opened: list[Database] = []
    ensureDeferred(Database.open(path, data_files("migrations"), Inline())).addCallback(opened.append)
    return opened[0]


class DispatchTests(TestCase):
    def setUp(self) -> None:
        self.path = short_folder(self) / "state.db"
        self.clock = Clock()
        self.start()
        self.addCleanup(lambda: ensureDeferred(self.db.close()))

    def start(self) -> None:
        """A daemon on the database that is there, as after a crash."""
        self.db = open_database(self.path)
        self.work = Work()
        self.journal = EventJournal(self.db, self.clock)
        self.dispatch = Dispatch(self.work.registry(), self.db, self.journal, self.clock)

    def send(self, command_id: str, name: str, *args: object) -> None:
        self.dispatch.received(Command(command_id, name, list(args)))

    def results(self) -> list[tuple[str, dict[str, Any]]]:
        entries = self.successResultOf(ensureDeferred(self.db.run(lambda db: outbox.pending(db, 0, 1000))))
        return results(entries)

    def failure_of(self, command_id: str) -> tuple[str, str]:
        found = dict(self.results())[command_id]
        self.assertIs(found["ok"], False)
        return found["code"], found["message"]

    def test_a_command_is_answered(self) -> None:
        self.send("c", "quick", "t")
        self.assertEqual(self.results(), [("c", {"ok": True, "value": {"of": "c"}})])
        self.assertEqual(self.dispatch.running, 0)

    def test_it_is_a_row_before_it_runs(self) -> None:
        self.send("c", "hold", "t")
        record = self.successResultOf(ensureDeferred(self.db.run(lambda db: commands.find(db, "c"))))
        assert record is not None
        self.assertEqual((record.args, record.attempts, record.finished_at), (b'["t"]', 1, None))
        self.assertEqual((self.results(), self.dispatch.running), ([], 1))

    def test_a_repeat_is_answered_from_its_record(self) -> None:
        self.send("c", "quick", "t")
        self.send("c", "quick", "t")
        self.send("c", "refuse", "other")
        self.assertEqual(self.results(), [("c", {"ok": True, "value": {"of": "c"}})] * 3)
        self.assertEqual(self.work.begun, ["c"])

    def test_a_repeat_joins_the_run_under_way(self) -> None:
        self.send("c", "hold", "t")
        self.send("c", "hold", "t")
        self.dispatch.bad_command("c", "args: expected a list")
        self.work.held["c"].callback(None)
        self.assertEqual((len(self.results()), self.work.begun), (1, ["c"]))

    def test_failures_have_their_code(self) -> None:
        self.send("a", "fly")
        self.send("b", "quick")
        self.send("c", "quick", 5)
        self.send("d", "refuse", "t")
        self.assertEqual(self.failure_of("a")[0], "unknown_command")
        self.assertEqual(self.failure_of("b"), ("invalid_args", "quick: expected 1 argument(s), got 0"))
        self.assertIn("argument 0", self.failure_of("c")[1])
        self.assertEqual(self.failure_of("d"), ("not_found", "no such thing; look elsewhere"))

    def test_a_defect_is_internal_and_tells_nothing_of_itself(self) -> None:
        self.send("c", "break", "t")
        code, message = self.failure_of("c")
        self.assertEqual(code, "internal")
        self.assertNotIn("secret", message)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_command_that_cannot_be_read_is_answered_once(self) -> None:
        self.dispatch.bad_command("c", "args: expected a list")
        self.dispatch.bad_command("c", "something else")
        self.assertEqual([result["message"] for _, result in self.results()], ["args: expected a list"] * 2)
        self.assertEqual(self.failure_of("c")[0], "invalid_args")

    def test_lanes(self) -> None:
        """Life cycle commands of a task wait for one another; other tasks and other lanes do not wait."""
        self.send("a", "hold", "t")
        self.send("b", "hold", "t")
        self.send("c", "hold", "u")
        self.send("d", "quick", "t")
        self.send("e", "look", "t")
        self.assertEqual(self.work.begun, ["a", "c", "d", "e"])
        self.work.held["a"].errback(HostError(ErrorCode.CONFLICT, "no"))
        self.assertEqual(self.work.begun[-1], "b")
        self.work.held["b"].callback(None)
        self.work.held["c"].callback(None)
        self.assertEqual((len(self.dispatch.lanes), self.dispatch.running), (0, 0))

    def test_drain_refuses_the_new_and_waits_for_the_rest(self) -> None:
        self.send("done", "quick", "t")
        self.send("a", "hold", "t")
        self.send("b", "hold", "t")
        drained = ensureDeferred(self.dispatch.drain())
        self.send("late", "quick", "t")
        self.send("done", "quick", "t")
        self.send("a", "hold", "t")
        self.assertEqual(self.failure_of("late"), ("unavailable", "host is shutting down; send it again"))
        self.assertEqual([name for name, _ in self.results()].count("done"), 2)
        self.work.held["a"].callback(None)
        self.assertNoResult(drained)
        self.work.held["b"].callback(None)
        self.successResultOf(drained)
        self.start()
        self.send("late", "quick", "t")
        self.assertIs(dict(self.results())["late"]["ok"], True)

    def test_what_takes_long_is_cut_off_at_the_end_and_runs_again(self) -> None:
        for _ in range(MAX_ATTEMPTS + 1):
            # However often: an orderly end is no death of the daemon.
            if not self.work.held:
                self.send("a", "hold", "t")
            self.send("b", "hold", "t")
            drained = ensureDeferred(self.dispatch.drain())
            self.clock.advance(PATIENCE - 0.1)
            self.assertNoResult(drained)
            self.clock.advance(0.1)
            self.successResultOf(drained)
            self.assertEqual((self.results(), self.dispatch.running), ([], 0))
            self.start()
            self.successResultOf(ensureDeferred(self.dispatch.recover()))
            self.assertEqual(self.work.begun, ["a"])
        self.work.held["a"].callback(None)
        self.work.held["b"].callback(None)
        self.assertEqual([name for name, _ in self.results()], ["a", "b"])

    def test_what_does_not_let_go_does_not_hold_the_end(self) -> None:
        stubborn: Deferred[None] = Deferred()

        async def hold(command_id: str, task_id: str) -> None:
            await to_the_end(_wait(stubborn))

        self.dispatch = Dispatch(
            {"hold": Row((str,), Lane.LIFECYCLE, hold)}, self.db, self.journal, self.clock
        )
        self.send("a", "hold", "t")
        drained = ensureDeferred(self.dispatch.drain())
        self.clock.advance(PATIENCE)
        self.assertNoResult(drained)
        self.clock.advance(PATIENCE)
        self.successResultOf(drained)
        stubborn.callback(None)
        self.assertEqual(self.results(), [])

    def test_what_was_cut_off_runs_again(self) -> None:
        self.send("a", "hold", "t")
        self.start()
        self.successResultOf(ensureDeferred(self.dispatch.recover()))
        self.assertEqual(self.work.begun, ["a"])
        self.work.held["a"].callback(None)
        self.assertEqual(self.results(), [("a", {"ok": True, "value": {"of": "a"}})])

    def test_a_command_that_kills_the_daemon_is_given_up(self) -> None:
        self.send("a", "hold", "t")
        begun = 1
        for _ in range(MAX_ATTEMPTS):
            self.start()
            self.successResultOf(ensureDeferred(self.dispatch.recover()))
            begun += len(self.work.begun)
        self.assertEqual(begun, MAX_ATTEMPTS)
        code, message = self.failure_of("a")
        self.assertEqual(code, "internal")
        self.assertIn("3 times", message)

    def test_a_file_is_not_kept_and_its_command_not_run_again(self) -> None:
        self.send("hold", "hold", "t")
        self.work.held["hold"].callback(None)
        gate = ensureDeferred(self.dispatch.lanes.turn((Lane.CHANNEL, "t"), lambda: Deferred[None]()))
        self.addCleanup(gate.cancel)
        gate.addErrback(lambda failure: None)
        self.send("f", "file", "t", "x" * KEEP_LIMIT)
        record = self.successResultOf(ensureDeferred(self.db.run(lambda db: commands.find(db, "f"))))
        assert record is not None
        self.assertIsNone(record.args)
        self.start()
        self.successResultOf(ensureDeferred(self.dispatch.recover()))
        self.assertEqual(self.failure_of("f")[0], "cancelled")
        self.assertEqual(self.work.begun, [])

    def test_a_large_reading_is_not_kept_but_read_again(self) -> None:
        self.send("c", "large", "t")
        record = self.successResultOf(ensureDeferred(self.db.run(lambda db: commands.find(db, "c"))))
        assert record is not None
        self.assertIsNone(record.result)
        self.send("c", "large", "t")
        self.send("c", "quick", "t")
        self.assertEqual([result["ok"] for _, result in self.results()], [True, True, False])
        self.assertEqual(self.work.begun, ["c", "c"])

    def test_old_results_are_forgotten(self) -> None:
        self.send("c", "quick", "t")
        self.send("held", "hold", "t")
        self.clock.advance(RETENTION / 1000 + 1)
        self.send("c", "quick", "t")
        self.assertEqual(self.work.begun, ["c", "held", "c"])
        self.work.held["held"].callback(None)
        self.assertEqual(len(self.results()), 3)

    def test_without_a_database_there_is_still_an_answer(self) -> None:
        heard: list[Entry] = []
        self.journal.subscribe(heard.append)
        self.successResultOf(ensureDeferred(self.db.close()))
        self.send("c", "quick", "t")
        self.assertEqual([(name, result["code"]) for name, result in results(heard)], [("c", "unavailable")])
        self.assertEqual(self.dispatch.running, 0)
        self.flushLoggedErrors(HostError)

    def test_numbers_that_no_database_holds_are_still_json(self) -> None:
        self.send("c", "quick", "t", 10**40, float("nan"))
        self.assertIs(dict(self.results())["c"]["ok"], True)


class Dying:
    """A store whose daemon dies at the `calls`-th transaction: before it, or after it was committed."""

    def __init__(self, store: Store, calls: int, committed: bool) -> None:
        self._store = store
        self._left = calls
        self._committed = committed

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._committed):
            return await Deferred[T]()
        done = await self._store.run(work)
        return await Deferred[T]() if self._left == 0 else done


class CrashTests(SynchronousTestCase):
    @given(
        sent=strategies.lists(
            strategies.sampled_from(["quick", "look", "refuse", "fly", "file"]), min_size=1, max_size=4
        ),
        deaths=strategies.lists(
            strategies.tuples(strategies.integers(1, 9), strategies.booleans()), max_size=MAX_ATTEMPTS - 1
        ),
    )
    def test_one_result_wherever_it_dies(self, sent: list[str], deaths: list[tuple[int, bool]]) -> None:
        """The bridge sends again what has no result; each command ends with one and ran at most thrice."""
        folder = Path(tempfile.mkdtemp(prefix="uai-"))
        try:
            self._campaign(folder / "state.db", sent, deaths)
        finally:
            shutil.rmtree(folder)

    def _campaign(self, path: Path, sent: list[str], deaths: list[tuple[int, bool]]) -> None:
        runs: Counter[str] = Counter()
        for death in [*deaths, None]:
            database = open_database(path)
            store: Store = database if death is None else Dying(database, *death)
            clock, work = Clock(), Work()
            dispatch = Dispatch(work.registry(), store, EventJournal(store, clock), clock)
            ensureDeferred(dispatch.recover())
            answered = {name for name, _ in self._results(database)}
            for number, name in enumerate(sent):
                if f"{number}" not in answered:
                    dispatch.received(Command(f"{number}", name, ["t", "small"]))
            runs.update(work.begun)
            if death is None:
                self.assertEqual(dispatch.running, 0)
            final = self._results(database)
            ensureDeferred(database.close())
        self.assertEqual(Counter(name for name, _ in final), Counter(str(n) for n in range(len(sent))))
        self.assertLessEqual(max(runs.values(), default=0), MAX_ATTEMPTS)
        for command_id, result in final:
            self.assertIs(result["ok"], sent[int(command_id)] in ("quick", "look", "file"))

    def _results(self, database: Database) -> list[tuple[str, dict[str, Any]]]:
        entries = self.successResultOf(ensureDeferred(database.run(lambda db: outbox.pending(db, 0, 1000))))
        return results(entries)
