"""state.outbox, state.commands, state.tasks: SQL in, records out."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.interfaces import Entry
from uaihost.paths import data_files
from uaihost.state import commands, outbox, saved, tasks
from uaihost.state.commands import CommandRecord
from uaihost.state.database import Database
from uaihost.state.saved import SavedRecord
from uaihost.state.tasks import Exposure, PortRecord, TaskRecord
from uaihost.test.support import short_folder


class TableCase(TestCase):
    def setUp(self) -> None:
        path = short_folder(self) / "state.db"
        self.db = self.successResultOf(
            ensureDeferred(Database.open(path, data_files("migrations"), Inline()))
        )
        self.addCleanup(lambda: ensureDeferred(self.db.close()))


class OutboxTests(TableCase):
    async def test_rows_come_in_order_from_any_point(self) -> None:
        texts = (b"1", b"2", b"3")
        await self.db.run(lambda db: [outbox.append(db, "event", text, 5) for text in texts])
        found = await self.db.run(lambda db: outbox.pending(db, 1, 10))
        self.assertEqual(found, [Entry(2, "event", b"2"), Entry(3, "event", b"3")])
        self.assertEqual(len(await self.db.run(lambda db: outbox.pending(db, 0, 2))), 2)

    async def test_numbers_are_never_used_again(self) -> None:
        first = await self.db.run(lambda db: outbox.append(db, "result", b"x", 5))
        await self.db.run(lambda db: outbox.confirm(db, first))
        self.assertEqual(await self.db.run(outbox.depth), 0)
        self.assertEqual(await self.db.run(lambda db: outbox.append(db, "event", b"y", 5)), first + 1)


class CommandTests(TableCase):
    def record(self, name: str = "c1") -> CommandRecord:
        return CommandRecord(name, "taskUp", b"[1]", 10, 1, None, None)

    async def test_the_first_of_an_id_stays(self) -> None:
        self.assertIsNone(await self.db.run(lambda db: commands.begin(db, self.record())))
        other = CommandRecord("c1", "taskDown", b"[2]", 11, 1, None, None)
        self.assertEqual(await self.db.run(lambda db: commands.begin(db, other)), self.record())

    async def test_arguments_are_forgotten_when_it_ends(self) -> None:
        await self.db.run(lambda db: commands.begin(db, self.record()))
        await self.db.run(lambda db: commands.finish(db, "c1", b"{}", 20))
        found = await self.db.run(lambda db: commands.find(db, "c1"))
        self.assertEqual(found, CommandRecord("c1", "taskUp", None, 10, 1, b"{}", 20))
        self.assertEqual(await self.db.run(commands.unfinished), [])

    async def test_old_results_are_pruned_and_unfinished_commands_never(self) -> None:
        names = ("c1", "c2", "c3")
        await self.db.run(lambda db: [commands.begin(db, self.record(name)) for name in names])
        await self.db.run(lambda db: commands.finish(db, "c1", b"{}", 20))
        await self.db.run(lambda db: commands.finish(db, "c2", b"{}", 30))
        self.assertEqual(await self.db.run(lambda db: commands.prune(db, 30)), 1)
        self.assertIsNone(await self.db.run(lambda db: commands.find(db, "c1")))
        self.assertEqual([one.id for one in await self.db.run(commands.unfinished)], ["c3"])


class TaskTests(TableCase):
    async def test_a_record_is_replaced_and_its_ports_stay(self) -> None:
        record = TaskRecord("t", "s", "b", "running", "m", b"{}", True, b"[]", 3)
        ports = [PortRecord("preview", "web", 3000, 40001), PortRecord("editor", "", 8100, 40002)]
        await self.db.run(lambda db: tasks.put(db, record))
        await self.db.run(lambda db: tasks.put_ports(db, "t", ports))
        later = TaskRecord("t", "s", "b", "stopped", None, None, False, None, 4)
        await self.db.run(lambda db: tasks.put(db, later))
        self.assertEqual(await self.db.run(tasks.every), [later])
        self.assertEqual(await self.db.run(lambda db: tasks.ports(db, "t")), ports)
        self.assertIsNone(await self.db.run(lambda db: tasks.find(db, "u")))

    async def test_an_exposure_is_replaced_as_a_whole(self) -> None:
        await self.db.run(lambda db: tasks.put_exposure(db, Exposure("t", {"web": 1, "editor": 2}, 5)))
        await self.db.run(lambda db: tasks.put_exposure(db, Exposure("t", {"api": 3}, 6)))
        await self.db.run(lambda db: tasks.put_exposure(db, Exposure("u", {"web": 4}, 7)))
        found = await self.db.run(tasks.exposures)
        self.assertEqual(found, [Exposure("t", {"api": 3}, 6), Exposure("u", {"web": 4}, 7)])
        self.assertTrue(await self.db.run(lambda db: tasks.drop_exposure(db, "t")))
        self.assertFalse(await self.db.run(lambda db: tasks.drop_exposure(db, "t")))
        self.assertIsNone(await self.db.run(lambda db: tasks.exposure(db, "t")))


class SavedTests(TableCase):
    def record(self, task: str, at: int, note: str | None = None) -> SavedRecord:
        return SavedRecord(
            task, "app-2", "app", "org/app", "k", "fix", "1" * 40, None, "/s/a.tar", note, b"[]", 7, at
        )

    async def test_the_newest_come_first_and_one_of_a_name_is_replaced(self) -> None:
        await self.db.run(lambda db: saved.put(db, self.record("t1", 5)))
        await self.db.run(lambda db: saved.put(db, self.record("t2", 6)))
        await self.db.run(lambda db: saved.put(db, self.record("t1", 7, "again")))
        found = await self.db.run(saved.every)
        self.assertEqual(found, [self.record("t1", 7, "again"), self.record("t2", 6)])
        self.assertEqual(await self.db.run(lambda db: saved.every(db, "t2")), [self.record("t2", 6)])

    async def test_it_outlives_the_tasks_row(self) -> None:
        await self.db.run(lambda db: tasks.put(db, TaskRecord("t1", "s", "b", "stopped")))
        await self.db.run(lambda db: saved.put(db, self.record("t1", 5)))
        await self.db.run(lambda db: db.execute("DELETE FROM tasks"))
        self.assertEqual(len(await self.db.run(saved.every)), 1)
