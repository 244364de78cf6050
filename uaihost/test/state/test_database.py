"""state.database and state.migration: one transaction a call, a schema that only goes forward."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import data_files
from uaihost.state import migration, outbox
from uaihost.state.database import Database
from uaihost.test.support import short_folder

FIRST = "CREATE TABLE a (x INTEGER PRIMARY KEY);\nINSERT INTO a VALUES (1);\n"
SECOND = "CREATE TABLE b (y TEXT NOT NULL, x INTEGER REFERENCES a (x));\n"


class DatabaseCase(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.path = self.folder / "state.db"
        self.migrations = self.folder / "migrations"
        self.migrations.mkdir()
        self.write(1, FIRST)

    def write(self, version: int, sql: str, name: str = "step") -> None:
        (self.migrations / f"{version:04}_{name}.sql").write_text(sql)

    async def open(self, folder: Path | None = None) -> Database:
        database = await Database.open(self.path, folder or self.migrations, Inline())
        self.addCleanup(lambda: ensureDeferred(database.close()))
        return database

    async def refused(self) -> HostError:
        try:
            await self.open()
        except HostError as error:
            return error
        raise self.failureException("it was opened")


class TransactionTests(DatabaseCase):
    async def test_work_is_stored_and_its_value_comes_back(self) -> None:
        database = await self.open()
        self.assertEqual(await database.run(lambda db: db.execute("INSERT INTO a VALUES (7)").lastrowid), 7)
        await database.close()
        again = await self.open()
        self.assertEqual(await again.run(lambda db: db.execute("SELECT x FROM a").fetchall()), [(1,), (7,)])

    async def test_an_exception_undoes_the_work(self) -> None:
        database = await self.open()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO a VALUES (2)")
            raise KeyError("no")

        with self.assertRaises(KeyError):
            await database.run(work)
        self.assertEqual(await database.run(lambda db: db.execute("SELECT x FROM a").fetchall()), [(1,)])

    async def test_work_may_not_end_its_transaction(self) -> None:
        database = await self.open()
        with self.assertRaises(AssertionError):
            await database.run(lambda db: db.execute("COMMIT"))
        self.assertEqual(await database.run(lambda db: 5), 5)

    async def test_references_are_enforced(self) -> None:
        self.write(2, SECOND)
        database = await self.open()
        with self.assertRaises(sqlite3.IntegrityError):
            await database.run(lambda db: db.execute("INSERT INTO b VALUES ('', 99)"))

    async def test_what_is_told_outlives_a_power_cut(self) -> None:
        database = await self.open()
        modes = await database.run(
            lambda db: [
                db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
            ]
        )
        self.assertEqual(modes, ["wal", 2])

    async def test_only_its_owner_can_read_it(self) -> None:
        database = await self.open()
        await database.run(lambda db: db.execute("INSERT INTO a VALUES (2)"))
        for path in self.folder.glob("state.db*"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path.name)

    async def test_a_closed_database_says_so(self) -> None:
        database = await self.open()
        await database.close()
        await database.close()
        with self.assertRaises(HostError) as caught:
            await database.run(lambda db: None)
        self.assertIs(caught.exception.code, ErrorCode.UNAVAILABLE)

    async def test_a_full_disk_is_named(self) -> None:
        database = await self.open()

        def fill(connection: sqlite3.Connection) -> None:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
            connection.execute("CREATE TABLE c AS SELECT zeroblob(100000)")

        with self.assertRaises(HostError) as caught:
            await database.run(fill)
        self.assertIn("disk", caught.exception.message)


class MigrationTests(DatabaseCase):
    async def test_an_upgraded_schema_is_the_fresh_one_and_the_data_stays(self) -> None:
        await (await self.open()).close()
        self.write(2, SECOND)
        upgraded = await self.open()
        fresh = await Database.open(self.folder / "fresh.db", self.migrations, Inline())
        self.assertEqual(await upgraded.run(migration.schema), await fresh.run(migration.schema))
        self.assertEqual(await upgraded.run(lambda db: db.execute("SELECT x FROM a").fetchall()), [(1,)])
        await fresh.close()

    async def test_a_copy_is_kept_before_an_upgrade(self) -> None:
        await (await self.open()).close()
        self.write(2, SECOND)
        await self.open()
        copy = self.folder / "state.db.before-0002"
        self.assertEqual(copy.stat().st_mode & 0o777, 0o600)
        connection = sqlite3.connect(copy)
        self.assertEqual(connection.execute("SELECT version FROM schema_versions").fetchall(), [(1,)])
        connection.close()

    async def test_neither_a_fresh_database_nor_a_current_one_is_copied(self) -> None:
        await (await self.open()).close()
        await self.open()
        self.assertEqual(list(self.folder.glob("*before*")), [])

    async def test_a_migration_that_fails_leaves_the_version_before_it(self) -> None:
        await (await self.open()).close()
        self.write(2, "CREATE TABLE c (x);\nINSERT INTO nowhere VALUES (1);\n")
        with self.assertRaises(sqlite3.OperationalError):
            await self.open()
        self.write(2, SECOND)
        database = await self.open()
        names = await database.run(lambda db: db.execute("SELECT name FROM sqlite_master").fetchall())
        self.assertIn(("b",), names)
        self.assertNotIn(("c",), names)

    async def test_a_migration_may_not_leave_dangling_references(self) -> None:
        self.write(2, SECOND + "INSERT INTO b VALUES ('', 99);\n")
        with self.assertRaises(ValueError) as caught:
            await self.open()
        self.assertIn("0002", str(caught.exception))

    async def test_a_trigger_is_one_statement(self) -> None:
        self.write(2, "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n DELETE FROM a;\n SELECT 1;\nEND;\n")
        database = await self.open()
        names = await database.run(lambda db: db.execute("SELECT name FROM sqlite_master").fetchall())
        self.assertIn(("t",), names)

    async def test_a_newer_database_opens_above_its_floor(self) -> None:
        self.write(2, SECOND)
        await (await self.open()).close()
        (self.migrations / "0002_step.sql").unlink()
        database = await self.open()
        self.assertEqual(await database.run(lambda db: db.execute("SELECT x FROM a").fetchall()), [(1,)])

    async def test_a_newer_database_is_refused_below_its_floor(self) -> None:
        self.write(2, SECOND)
        self.write(3, "UPDATE schema_floor SET version = 3;\n")
        await (await self.open()).close()
        before = self.path.read_bytes()
        (self.migrations / "0003_step.sql").unlink()
        error = await self.refused()
        self.assertIs(error.code, ErrorCode.CONFLICT)
        self.assertIn("the lowest that may open it is 3", error.message)
        self.assertEqual(self.path.read_bytes(), before)

    async def test_what_is_no_database_of_ours_is_refused_and_left_alone(self) -> None:
        other = self.folder / "other"
        other.mkdir()
        (other / "0001_bridge.sql").write_text("CREATE TABLE users (x);\n")

        def foreign() -> None:
            connection = sqlite3.connect(self.path)
            connection.execute("CREATE TABLE mine (x)")
            connection.commit()
            connection.close()

        await (await Database.open(self.path, other, Inline())).close()
        bridge = self.path.read_bytes()
        self.path.unlink()
        foreign()
        contents = [self.path.read_bytes(), bridge, b"these are words, not a database\n" * 100]
        for content in contents:
            self.path.write_bytes(content)
            error = await self.refused()
            self.assertIs(error.code, ErrorCode.CONFLICT)
            self.assertIn("state.db", error.message)
            self.assertEqual(self.path.read_bytes(), content)

    async def test_a_damaged_database_is_refused_and_left_alone(self) -> None:
        database = await self.open()
        await database.run(
            lambda db: db.executemany("INSERT INTO a VALUES (?)", [(n,) for n in range(10, 5000)])
        )
        await database.close()
        content = bytearray(self.path.read_bytes())
        content[-8192:-4096] = b"\xff" * 4096
        self.path.write_bytes(content)
        error = await self.refused()
        self.assertIn("damaged", error.message)
        self.assertEqual(self.path.read_bytes(), content)

    async def test_an_empty_file_is_a_new_database(self) -> None:
        self.path.touch()
        database = await self.open()
        self.assertEqual(await database.run(lambda db: db.execute("SELECT x FROM a").fetchall()), [(1,)])

    async def test_a_folder_that_is_not_there_is_named(self) -> None:
        self.path = self.folder / "nowhere" / "state.db"
        error = await self.refused()
        self.assertIs(error.code, ErrorCode.UNAVAILABLE)

    def test_versions_have_no_gap_and_names_fit(self) -> None:
        self.write(3, SECOND)
        self.assertRaises(ValueError, migration.read, self.migrations)
        (self.migrations / "0003_step.sql").unlink()
        (self.migrations / "notes.sql").write_text("")
        self.assertRaises(ValueError, migration.read, self.migrations)

    def test_folders_below_are_another_database(self) -> None:
        (self.migrations / "bridge").mkdir()
        (self.migrations / "bridge" / "0001_other.sql").write_text(FIRST)
        self.assertEqual([one.name for one in migration.read(self.migrations)], ["step"])


class ShippedMigrationTests(DatabaseCase):
    async def test_every_upgrade_ends_in_the_fresh_schema(self) -> None:
        shipped = sorted(data_files("migrations").glob("*.sql"))
        (self.migrations / "0001_step.sql").unlink()
        for path in shipped:
            (self.migrations / path.name).write_bytes(path.read_bytes())
            await (await self.open()).close()
        upgraded = await self.open()
        fresh = await Database.open(self.folder / "fresh.db", data_files("migrations"), Inline())
        self.assertEqual(await upgraded.run(migration.schema), await fresh.run(migration.schema))
        self.assertEqual(await fresh.run(outbox.depth), 0)
        await fresh.close()
