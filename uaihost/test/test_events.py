"""The journal: stored first, told after, in the order of the rows."""

from __future__ import annotations

import json
import sqlite3

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.events import EventJournal
from uaihost.interfaces import Entry
from uaihost.paths import data_files
from uaihost.state import outbox
from uaihost.state.database import Database
from uaihost.test.support import short_folder
from uaihost.wire.events import ChannelDelta, TaskStatus


def status(number: int) -> TaskStatus:
    return TaskStatus("t", number, "running")


class JournalTests(TestCase):
    def setUp(self) -> None:
        path = short_folder(self) / "state.db"
        self.db = self.successResultOf(
            ensureDeferred(Database.open(path, data_files("migrations"), Inline()))
        )
        self.addCleanup(lambda: ensureDeferred(self.db.close()))
        self.journal = EventJournal(self.db, Clock())
        self.heard: list[Entry] = []

    async def rows(self) -> list[Entry]:
        return await self.db.run(lambda db: outbox.pending(db, 0, 100))

    async def test_an_event_is_a_row_before_it_is_heard(self) -> None:
        depths: list[int] = []
        self.journal.subscribe(
            lambda entry: depths.append(self.successResultOf(ensureDeferred(self.db.run(outbox.depth))))
        )
        await self.journal.emit(status(1), status(2))
        self.assertEqual(depths, [2, 2])

    async def test_listeners_hear_the_rows(self) -> None:
        self.journal.subscribe(self.heard.append)
        await self.journal.emit(status(1), status(2))
        await self.journal.emit(status(3))
        self.assertEqual(self.heard, await self.rows())
        self.assertEqual([json.loads(entry.payload)["at"] for entry in self.heard], [1, 2, 3])

    async def test_write_and_events_are_one_transaction(self) -> None:
        self.journal.subscribe(self.heard.append)

        def write(connection: sqlite3.Connection) -> None:
            outbox.append(connection, "event", b"{}", 0)
            raise KeyError("no")

        with self.assertRaises(KeyError):
            await self.journal.record(status(1), write=write)
        self.assertEqual((self.heard, await self.rows()), ([], []))
        self.assertEqual(await self.journal.record(status(1), write=lambda db: "done"), "done")
        self.assertEqual(len(self.heard), 1)

    async def test_a_result_stands_in_the_same_order(self) -> None:
        self.journal.subscribe(self.heard.append)
        await self.journal.emit(status(1))
        await self.journal.record_result("c", b'{"ok":true,"value":1}', lambda db: None)
        await self.journal.emit(status(2))
        self.assertEqual([entry.kind for entry in self.heard], ["event", "result", "event"])
        self.assertEqual([entry.seq for entry in self.heard], [1, 2, 3])
        expected = {"kind": "result", "commandId": "c", "result": {"ok": True, "value": 1}}
        self.assertEqual(json.loads(self.heard[1].payload), expected)

    async def test_what_a_listener_causes_comes_after_what_it_heard(self) -> None:
        """For every listener, also those that are told later."""

        def echo(entry: Entry) -> None:
            if entry.seq == 1:
                self.journal.fleeting(ChannelDelta("t", 0, "m", "a", "x"))
                ensureDeferred(self.journal.emit(status(2)))

        self.journal.subscribe(echo)
        self.journal.subscribe(self.heard.append)
        await self.journal.emit(status(1))
        self.assertEqual([entry.seq for entry in self.heard], [1, None, 2])

    async def test_what_is_fleeting_is_not_stored(self) -> None:
        self.journal.subscribe(self.heard.append)
        self.journal.fleeting(ChannelDelta("t", 0, "m", "a", "x"))
        self.journal.fleeting_result("c", b'{"ok":true,"value":1}')
        self.assertEqual(
            [(entry.seq, entry.kind) for entry in self.heard], [(None, "event"), (None, "result")]
        )
        self.assertEqual(await self.rows(), [])

    async def test_a_listener_that_raises_harms_nobody(self) -> None:
        calls: list[Entry] = []

        def broken(entry: Entry) -> None:
            calls.append(entry)
            raise RuntimeError("listener")

        self.journal.subscribe(broken)
        self.journal.subscribe(self.heard.append)
        await self.journal.emit(status(1), status(2))
        self.assertEqual((len(calls), len(self.heard)), (1, 2))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_one_that_left_hears_nothing_more(self) -> None:
        def once(entry: Entry) -> None:
            self.heard.append(entry)
            leave()

        leave = self.journal.subscribe(once)
        await self.journal.emit(status(1), status(2))
        leave()
        self.assertEqual(len(self.heard), 1)
