"""A backup is whole or refused, takes no more than it should, and putting it back loses nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from hypothesis import strategies
from twisted.trial.unittest import TestCase

from uaihost import backup
from uaihost.blocking import Inline
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import DataLock
from uaihost.paths import Folders, data_files
from uaihost.state.database import Database
from uaihost.test.support import given, settings, short_folder


def quiet(name: str, size: int) -> None:
    """Nobody looks."""


class Case(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.root = short_folder(self)
        self.folders = Folders(self.root / "data")
        self.folders.root.mkdir()
        database = await Database.open(self.folders.database, data_files("migrations"), Inline())
        await database.run(
            lambda db: db.execute("INSERT INTO outbox (kind, payload, at) VALUES ('event', 'x', 1)")
        )
        await database.close()
        for name, text in {
            "saved/shop.git/refs/heads/shop": "1234",
            "saved/shop.git/objects/12/34": "object",
            "transcripts/t1.jsonl": "{}\n",
            "tasks/t1/attachments/a.png": "png",
            "tasks/t1/work/shop/secret.env": "not kept",
            "mirrors/m.git/HEAD": "not kept",
            "host-id": "H\n",
            "secrets.key": "the key",
            "bridge.key": "another",
        }.items():
            path = self.folders.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.file = self.root / "kept.tar.gz"
        self.other = Folders(self.root / "other")

    def create(self, **more: Any) -> backup.Contents:
        given = {"keys": False, "replace": False, "progress": quiet, **more}
        return backup.create(self.folders, self.file, **given)

    def refused(self, code: ErrorCode, work: Any) -> str:
        failure: Any = self.assertRaises(HostError, work)
        self.assertEqual(failure.code, code)
        return str(failure.message)


class CreateTests(Case):
    def test_what_is_in_it(self) -> None:
        found = self.create()
        with tarfile.open(self.file) as archive:
            names = archive.getnames()
        self.assertEqual(
            sorted(names),
            [
                "host-id",
                "manifest.json",
                "saved/shop.git/objects/12/34",
                "saved/shop.git/refs/heads/shop",
                "state.db",
                "tasks/t1/attachments/a.png",
                "transcripts/t1.jsonl",
            ],
        )
        self.assertEqual((found.members, found.keys, found.left_out), (6, False, ()))
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        # What a ref names is read after it, so that it is there.
        self.assertLess(
            names.index("saved/shop.git/refs/heads/shop"), names.index("saved/shop.git/objects/12/34")
        )

    def test_keys_only_when_they_are_asked_for(self) -> None:
        self.assertTrue(self.create(keys=True).keys)
        with tarfile.open(self.file) as archive:
            self.assertTrue({"secrets.key", "bridge.key"} <= set(archive.getnames()))

    def test_a_database_in_the_middle_of_a_write_is_kept_as_it_was_before(self) -> None:
        live = sqlite3.connect(self.folders.database, isolation_level=None)
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO outbox (kind, payload, at) VALUES ('event', 'half', 2)")
        self.create()
        live.execute("ROLLBACK")
        live.close()
        backup.restore(self.other, self.file)
        with sqlite3.connect(self.other.database) as database:
            self.assertEqual(database.execute("SELECT payload FROM outbox").fetchall(), [("x",)])

    def test_links_and_pipes_are_named_and_not_followed(self) -> None:
        (self.folders.root / "saved" / "link").symlink_to("/etc/passwd")
        os.mkfifo(self.folders.root / "saved" / "pipe")
        left_out = self.create().left_out
        self.assertEqual([each.partition(":")[0] for each in left_out], ["saved/link", "saved/pipe"])

    def test_a_file_that_exists_stays_unless_it_may_go(self) -> None:
        self.file.write_text("mine")
        self.assertIn("--force", self.refused(ErrorCode.CONFLICT, self.create))
        self.assertEqual(self.file.read_text(), "mine")
        self.create(replace=True)
        self.assertGreater(self.file.stat().st_size, 100)

    def test_one_that_breaks_off_leaves_nothing(self) -> None:
        def full(name: str, size: int) -> None:
            raise OSError(28, "No space left on device")

        said = self.refused(ErrorCode.UNAVAILABLE, lambda: self.create(progress=full))
        self.assertIn("No space left on device", said)
        self.assertEqual([path.name for path in self.root.iterdir()], ["data"])

    def test_a_file_that_was_laid_ready_by_somebody_else_is_not_written_to(self) -> None:
        partial = self.root / "kept.tar.gz.partial"
        partial.write_text("")
        partial.chmod(0o666)
        with partial.open("rb") as theirs:
            self.create(keys=True)
            self.assertEqual(theirs.read(), b"")
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)

    def test_a_place_that_cannot_be_written_is_a_sentence(self) -> None:
        self.file = self.root / "nowhere" / "kept.tar.gz"
        self.assertIn("cannot be written", self.refused(ErrorCode.UNAVAILABLE, self.create))

    def test_a_folder_without_a_host_is_refused(self) -> None:
        self.folders = self.other
        self.assertIn("holds no host's data", self.refused(ErrorCode.NOT_FOUND, self.create))


class VerifyTests(Case):
    def test_a_whole_one(self) -> None:
        self.create()
        self.assertEqual(backup.verify(self.file).members, 6)

    @settings(max_examples=200)
    @given(strategies.floats(0, 0.999), strategies.integers(1, 255))
    def test_no_changed_byte_is_taken(self, where: float, flip: int) -> None:
        if not self.file.exists():
            self.create()
        data = bytearray(self.file.read_bytes())
        place = int(where * len(data))
        data[place] ^= flip
        broken = self.root / "broken"
        broken.write_bytes(data)
        try:
            backup.verify(broken)
        except HostError as error:
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        else:
            # gzip has bits of no meaning: in its header, and behind the end of the compressed bytes.
            self.assertEqual(gzip.decompress(bytes(data)), gzip.decompress(self.file.read_bytes()), place)

    def test_one_that_was_cut_off_is_refused(self) -> None:
        self.create()
        data = self.file.read_bytes()
        for size in (0, 20, len(data) // 2, len(data) - 40):
            self.file.write_bytes(data[:size])
            self.assertIn(
                "no whole backup", self.refused(ErrorCode.INVALID_ARGS, lambda: backup.verify(self.file))
            )

    def foreign(self, *members: tuple[str, bytes], **more: Any) -> None:
        """A whole file with these members, and a manifest that agrees with them."""
        files = {
            name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in members
        }
        told = {"version": "1", "at": 1, "keys": False, "members": len(files), "size": 1, "left_out": []}
        manifest = json.dumps({"format": 1, **told, "files": files, **more}).encode()
        with tarfile.open(self.file, "w:gz") as archive:
            for name, data in (*members, ("manifest.json", manifest)):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))

    def damaged(self) -> str:
        said = self.refused(ErrorCode.INVALID_ARGS, lambda: backup.restore(self.other, self.file))
        self.assertEqual([path.name for path in self.other.root.iterdir()], ["lock"])
        return said

    def test_only_what_a_backup_has_comes_into_a_data_folder(self) -> None:
        state = ("state.db", self.folders.database.read_bytes())
        for name in (
            "lock",
            "control.sock",
            "state.db-wal",
            "tools/node/bin/node",
            "tasks/t1/control/x",
            "tasks/t1/attachments",
            "saved",
            "host-id/x",
        ):
            self.foreign(state, (name, b"x"))
            self.assertIn("no file of a host's data", self.damaged())

    def test_a_name_that_comes_twice_is_refused(self) -> None:
        self.foreign(("transcripts/a", b"1"), ("transcripts/a", b"1"))
        self.refused(ErrorCode.INVALID_ARGS, lambda: backup.verify(self.file))

    def test_one_without_a_host_is_refused(self) -> None:
        self.foreign(("transcripts/a", b"1"))
        self.assertIn("holds no state.db", self.damaged())

    def test_a_database_that_is_none_is_refused(self) -> None:
        self.foreign(("state.db", b"this is not a database, and long enough to be read as one" * 40))
        self.assertIn("state.db", self.damaged())

    def test_a_manifest_that_is_none_is_refused(self) -> None:
        for wrong in ({"files": None}, {"files": {"x": 1}}, {"left_out": None}, {"format": "1"}):
            self.foreign(**wrong)
            self.assertIn("manifest.json is none", self.damaged())

    def test_a_database_that_only_a_later_version_can_open_is_refused(self) -> None:
        with sqlite3.connect(self.folders.database) as database:
            database.executemany(
                "INSERT INTO schema_versions (version, name) VALUES (?, 'later')",
                [(each,) for each in range(90, 99)],
            )
            database.execute("UPDATE schema_floor SET version = 98")
        self.create()
        self.assertIn("newer uaihost", self.damaged())

    def hostile(self, *entries: tarfile.TarInfo, manifest: dict[str, Any] | None = None) -> None:
        with tarfile.open(self.file, "w:gz") as archive:
            for entry in entries:
                entry.size = 4 if entry.isreg() else 0
                archive.addfile(entry, io.BytesIO(b"evil") if entry.isreg() else None)
            if manifest is not None:
                text = json.dumps(manifest).encode()
                last = tarfile.TarInfo("manifest.json")
                last.size = len(text)
                archive.addfile(last, io.BytesIO(text))

    def test_names_and_kinds_that_lead_elsewhere_are_refused_and_write_nothing(self) -> None:
        link = tarfile.TarInfo("saved/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        device = tarfile.TarInfo("saved/device")
        device.type = tarfile.CHRTYPE
        for entry in (
            tarfile.TarInfo("../out"),
            tarfile.TarInfo("/out"),
            tarfile.TarInfo("a/../../out"),
            link,
            device,
        ):
            self.hostile(entry)
            said = self.refused(ErrorCode.INVALID_ARGS, lambda: backup.restore(self.other, self.file))
            self.assertIn("no file of a host's data", said)
            self.assertEqual([path.name for path in self.other.root.iterdir()], ["lock"])
        self.assertEqual(sorted(path.name for path in self.root.iterdir()), ["data", "kept.tar.gz", "other"])

    def test_what_a_later_version_wrote_says_so(self) -> None:
        self.hostile(manifest={"format": 2, "version": "9.0", "files": {}})
        self.assertIn(
            "of uaihost 9.0", self.refused(ErrorCode.INVALID_ARGS, lambda: backup.verify(self.file))
        )


class RepositoryTests(Case):
    """Saved work is whole when saves go on meanwhile, and git can use it."""

    def repository_at(self, name: str) -> None:
        self.repository = self.folders.root / "saved" / name
        shutil.rmtree(self.repository.parent)
        self.repository.mkdir(parents=True)
        self.git("init", "-q", "--bare", "--template=")
        self.tree = self.git("mktree")

    def git(self, *words: str, of: Path | None = None) -> str:
        who = {f"GIT_{each}_{part}": "a@b" for each in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        done = subprocess.run(
            ["git", "-C", str(of or self.repository), *words],
            env={**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            input="",
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def save(self, branch: str, text: str) -> None:
        commit = self.git("commit-tree", self.tree, "-m", text)
        self.git("update-ref", f"refs/heads/{branch}", commit)

    def back(self) -> Path:
        backup.restore(self.other, self.file)
        return self.other.root / "saved" / self.repository.name

    def test_work_that_is_saved_while_it_is_read_is_there_with_its_name(self) -> None:
        # A branch may be called like the folder of objects.
        for branch in ("x", "objects/y"):
            self.repository_at("shop.git")
            self.save(branch, "one")
            seen: list[str] = []

            def meanwhile(name: str, size: int, branch: str = branch, seen: list[str] = seen) -> None:
                if name.endswith("shop.git/HEAD"):
                    seen.append(name)
                    self.save(branch, "two")

            self.create(progress=meanwhile, replace=True)
            self.assertEqual(len(seen), 1)
            restored = self.back()
            self.git("fsck", "--full", "--strict", of=restored)
            self.assertEqual(self.git("log", "-1", "--format=%s", branch, of=restored), "two")
            self.other = Folders(self.root / "another")

    def test_one_whose_names_are_all_in_one_file_is_a_repository_again(self) -> None:
        self.repository_at("shop.git")
        self.save("x", "one")
        self.git("pack-refs", "--all", "--prune")
        shutil.rmtree(self.repository / "refs")
        (self.repository / "refs").mkdir()
        self.create()
        self.assertEqual(self.git("log", "-1", "--format=%s", "x", of=self.back()), "one")


class RestoreTests(Case):
    def test_everything_comes_back(self) -> None:
        self.create(keys=True)
        backup.restore(self.other, self.file)
        for name in (
            "saved/shop.git/objects/12/34",
            "transcripts/t1.jsonl",
            "tasks/t1/attachments/a.png",
            "secrets.key",
        ):
            self.assertEqual((self.other.root / name).read_bytes(), (self.folders.root / name).read_bytes())
        self.assertEqual(self.other.secrets_key.stat().st_mode & 0o777, 0o600)
        self.assertFalse((self.other.root / "restoring").exists())

    def test_a_folder_in_use_is_refused(self) -> None:
        self.create()
        self.assertIn(
            "move it away", self.refused(ErrorCode.CONFLICT, lambda: backup.restore(self.folders, self.file))
        )
        lock = DataLock(self.other.lock)
        self.addCleanup(lock.release)
        said = self.refused(ErrorCode.CONFLICT, lambda: backup.restore(self.other, self.file))
        self.assertIn("another uaihost uses", said)

    def test_what_was_in_the_way_is_kept(self) -> None:
        self.create()
        (self.other.root / "saved").mkdir(parents=True)
        (self.other.root / "saved" / "mine").write_text("mine")
        backup.restore(self.other, self.file)
        (aside,) = self.other.root.glob("before-restore-*")
        self.assertEqual((aside / "saved" / "mine").read_text(), "mine")

    def test_cut_off_at_any_step_it_can_be_done_again_and_loses_nothing(self) -> None:
        self.create(keys=True)
        (self.other.root / "transcripts").mkdir(parents=True)
        (self.other.root / "transcripts" / "mine").write_text("mine")
        rename, left = Path.rename, 0

        def cut(path: Path, target: Any) -> Path:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return rename(path, target)

        self.patch(Path, "rename", cut)
        for steps in range(30):
            left = steps
            try:
                backup.restore(self.other, self.file)
            except KeyboardInterrupt:
                # Without its database nothing takes the folder for a host's.
                self.assertFalse(self.other.database.exists(), steps)
                continue
            break
        else:
            self.fail("it was never done")
        self.assertGreater(steps, 3)
        self.assertEqual([path.read_text() for path in self.other.root.glob("*/transcripts/mine")], ["mine"])
        self.assertTrue((self.other.root / "transcripts" / "t1.jsonl").exists())
        self.assertTrue((self.other.root / "saved/shop.git/objects/12/34").exists())
