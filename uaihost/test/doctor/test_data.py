"""Checks of the data folder: where it lies, its room, its database."""

from __future__ import annotations

import os
import sqlite3
from collections import namedtuple
from pathlib import Path
from unittest.mock import patch

from uaihost.doctor import data
from uaihost.doctor.model import Finding, Verdict
from uaihost.paths import Folders
from uaihost.test.doctor.rig import Rig

Room = namedtuple("Room", "f_frsize f_blocks f_bavail f_files f_favail")
GIB = 1 << 30


class FolderTests(Rig):
    def look(self, root: Path, mounts: str = "") -> Finding:
        table = self.folder / "mounts"
        table.write_text(mounts)
        return data.look_at_folder(Folders(root), table)

    def test_a_good_one(self) -> None:
        root = self.folder / "data"
        root.mkdir(mode=0o700)
        self.is_(self.look(root, "/dev/sda / ext4 rw 0 0\n"), Verdict.OK, str(root))
        self.assertEqual(list(root.iterdir()), [])

    def test_one_to_be_made(self) -> None:
        self.is_(self.look(self.folder / "data"), Verdict.OK, "first start")
        self.assertFalse((self.folder / "data").exists())

    def test_open_to_others_until_the_fix_is_typed(self) -> None:
        root = self.folder / "data"
        root.mkdir()
        root.chmod(0o755)
        found = self.is_(self.look(root), Verdict.WARN, "other users")
        self.type_(found.fix[0])
        self.is_(self.look(root), Verdict.OK)

    def test_a_file_in_its_place(self) -> None:
        root = self.folder / "data"
        root.write_text("")
        found = self.is_(self.look(root), Verdict.FAIL, "not a folder")
        self.type_(found.fix[0])
        self.is_(self.look(root), Verdict.OK)

    def test_in_memory_and_far_away(self) -> None:
        root = self.folder / "data"
        root.mkdir(mode=0o700)
        mounts = f"/dev/sda / ext4 rw 0 0\ntmpfs {self.folder} tmpfs rw 0 0\n"
        self.is_(self.look(root, mounts), Verdict.FAIL, "in memory", "UAI_DATA_DIR")
        self.is_(self.look(root, mounts.replace("tmpfs", "nfs4")), Verdict.FAIL, "network file system")

    def test_a_path_too_long_for_a_socket(self) -> None:
        self.is_(self.look(self.folder / ("long" * 30)), Verdict.FAIL, "Unix socket", "UAI_DATA_DIR")

    def test_the_mount_that_holds_a_path(self) -> None:
        table = "a / ext4 rw\nb /var ext4 rw\nc /var/lib/my\\040data xfs rw\nd /va btrfs rw\n"
        found = [data.mount_of(Path(path), table) for path in ("/usr", "/var/lib", "/var/lib/my data/x")]
        self.assertEqual([one and one.place for one in found], ["/", "/var", "/var/lib/my data"])
        self.assertIsNone(data.mount_of(Path("/usr"), ""))


class DiskTests(Rig):
    def look(self, free: int, total: int = 100 * GIB, files: int = 10**7, budget: int = 50 * GIB) -> Finding:
        room = Room(4096, total // 4096, free // 4096, 10**7, files)
        with patch("os.statvfs", return_value=room):
            return data.look_at_disk(self.folder, budget)

    def test_rooms(self) -> None:
        self.is_(self.look(60 * GIB), Verdict.OK, "60.0 GiB of 100.0 GiB")
        self.is_(self.look(5 * GIB), Verdict.WARN, "uaihost gc")
        self.is_(self.look(1 * GIB), Verdict.FAIL, "no task starts", "uaihost gc")
        self.is_(self.look(60 * GIB, files=1000), Verdict.WARN, "more files")
        self.is_(self.look(60 * GIB, budget=200 * GIB), Verdict.WARN, "UAI_DISK_BUDGET=25G")

    def test_a_file_system_that_makes_room_for_files_as_it_goes(self) -> None:
        with patch("os.statvfs", return_value=Room(4096, 10**8, 10**8, 0, 0)):
            self.is_(data.look_at_disk(self.folder, GIB), Verdict.OK)


class DatabaseTests(Rig):
    def look(self) -> Finding:
        return data.look_at_database(Folders(self.folder).database)

    def test_none_yet(self) -> None:
        self.is_(self.look(), Verdict.OK, "first start")
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_whole_one_also_while_it_is_used(self) -> None:
        database = await self.database()
        self.is_(self.look(), Verdict.OK, "whole")
        await database.close()
        self.is_(self.look(), Verdict.OK, "whole")

    async def test_another_journal(self) -> None:
        await (await self.database()).close()
        connection = sqlite3.connect(Folders(self.folder).database)
        connection.execute("PRAGMA journal_mode=delete")
        connection.close()
        self.is_(self.look(), Verdict.WARN, "PRAGMA journal_mode=wal")

    async def test_a_damaged_one_until_the_copy_is_put_in_its_place(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        copy = path.with_name("state.db.before-0003")
        copy.write_bytes(path.read_bytes())
        path.write_bytes(b"no database" * 1000)
        found = self.is_(self.look(), Verdict.FAIL, "damaged", "before-0003")
        for line in found.fix:
            self.type_(line)
        self.is_(self.look(), Verdict.OK, "whole")

    async def test_a_page_that_was_overwritten(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(8192))
        found = self.is_(self.look(), Verdict.FAIL, "damaged", "mv ")
        self.assertIn("your backup", found.fix[-1])

    async def test_what_was_written_last_is_not_thrown_away_with_a_damaged_one(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        path.write_bytes(b"no database" * 1000)
        path.with_name("state.db-wal").write_bytes(b"the last changes")
        self.type_(self.look().fix[0])
        self.assertEqual(path.with_name("state.db.damaged-wal").read_bytes(), b"the last changes")
        self.assertEqual(path.with_name("state.db.damaged").read_bytes(), b"no database" * 1000)
        self.assertFalse(path.exists())

    async def test_a_newer_one_is_kept_and_the_newer_version_asked_for(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(
                "INSERT INTO schema_versions (version, name) "
                "SELECT max(version) + 1, 'later' FROM schema_versions"
            )
            connection.execute("UPDATE schema_floor SET version = (SELECT max(version) FROM schema_versions)")
        connection.close()
        found = self.is_(self.look(), Verdict.FAIL, "newer uaihost")
        self.assertEqual([line.split()[0] for line in found.fix], ["pip"])
        path.with_name("state.db.before-0003").touch()
        with patch("sys.prefix", "/opt/uaihost"):
            found = self.look()
        self.assertEqual(found.fix[0], "sudo apt-get install ./uaihost_NEWER.deb")
        # Nothing that is typed takes the good database away.
        self.assertTrue(found.fix[1].startswith("# or back to state.db.before-0003"))

    def test_a_database_of_something_else(self) -> None:
        connection = sqlite3.connect(Folders(self.folder).database)
        connection.execute("CREATE TABLE songs (name TEXT)")
        connection.close()
        self.is_(self.look(), Verdict.FAIL, "something else")
