"""The tar file of what git cannot hold."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.test.support import short_folder
from uaihost.workspaces import archive
from uaihost.workspaces.archive import Item, names, unpack, write


class ArchiveTests(TestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.copy, self.out, self.file = (
            self.root / "copy",
            self.root / "out",
            self.root / "s" / "t" / "x.tar",
        )
        self.copy.mkdir()
        self.out.mkdir()

    def items(self, *paths: bytes) -> list[Item]:
        return [Item(archive.WORK + path, path) for path in paths]

    def test_files_links_and_folders_come_back_as_they_were(self) -> None:
        odd = b"n\xff\n-"
        Path(os.fsdecode(os.fsencode(self.copy) + b"/" + odd)).write_bytes(b"odd")
        (self.copy / "d").mkdir()
        (self.copy / "d" / "run").write_bytes(b"x" * 3_000_000)
        (self.copy / "d" / "run").chmod(0o750)
        (self.copy / "link").symlink_to("/nowhere/at all")
        (self.copy / "empty").mkdir()
        left = write(self.file, self.copy, self.items(odd, b"d/run", b"link", b"empty/", b"gone"))
        self.assertEqual((left, unpack(self.file, self.out)), ([], []))
        self.assertEqual(Path(os.fsdecode(os.fsencode(self.out) + b"/" + odd)).read_bytes(), b"odd")
        run = self.out / "d" / "run"
        self.assertEqual((run.stat().st_size, run.stat().st_mode & 0o777), (3_000_000, 0o750))
        self.assertEqual(str((self.out / "link").readlink()), "/nowhere/at all")
        self.assertTrue((self.out / "empty").is_dir())
        self.assertEqual(list(self.file.parent.iterdir()), [self.file])

    def test_nothing_behind_a_link_is_read(self) -> None:
        (self.root / "secret").write_text("top-secret")
        (self.copy / "above").symlink_to(self.root)
        left = write(self.file, self.copy, self.items(b"above/secret"))
        self.assertEqual(left, [b"above/secret"])
        self.assertNotIn(b"top-secret", self.file.read_bytes())

    def test_a_pipe_holds_nobody(self) -> None:
        os.mkfifo(self.copy / "pipe")
        self.assertEqual(write(self.file, self.copy, self.items(b"pipe")), [b"pipe"])

    def test_a_file_that_shrinks_while_it_is_read_spoils_nothing_else(self) -> None:
        reads, top = archive._Exactly.read, self.copy

        def shrunk(self: archive._Exactly, size: int = -1) -> bytes:
            os.truncate(top / "a", 5)
            return reads(self, size)

        (self.copy / "a").write_bytes(b"x" * 100_000)
        (self.copy / "b").write_bytes(b"whole")
        self.patch(archive._Exactly, "read", shrunk)
        write(self.file, self.copy, self.items(b"a", b"b"))
        self.assertEqual(unpack(self.file, self.out), [])
        self.assertEqual((self.out / "a").stat().st_size, 100_000)
        self.assertEqual((self.out / "b").read_bytes(), b"whole")

    def test_unpacking_never_writes_through_a_link_or_into_git(self) -> None:
        (self.root / "elsewhere").mkdir()
        for name in ("d/x", "e", ".GIT/hooks/y", "ok"):
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            (self.copy / name).write_text("new")
        write(self.file, self.copy, self.items(b"d/x", b"e", b".GIT/hooks/y", b"ok"))
        (self.out / "d").symlink_to(self.root / "elsewhere")
        (self.out / "e").symlink_to(self.root / "elsewhere" / "e")
        self.assertEqual(unpack(self.file, self.out), ["d/x", ".GIT/hooks/y"])
        self.assertEqual(list((self.root / "elsewhere").iterdir()), [])
        self.assertEqual((self.out / "e").read_text(), "new")
        self.assertFalse((self.out / ".GIT").exists())

    def test_only_the_work_copys_files_unless_all_is_asked_for(self) -> None:
        (self.copy / "x").write_text("x")
        write(self.file, self.copy, [Item(b"git/.git/hooks/x", b"x"), Item(b"work/x", b"x")])
        self.assertEqual(list(names(self.file)), [b"git/.git/hooks/x", b"work/x"])
        unpack(self.file, self.out)
        self.assertEqual([path.name for path in self.out.iterdir()], ["x"])
        (self.root / "all").mkdir()
        unpack(self.file, self.root / "all", b"")
        self.assertTrue((self.root / "all" / "work" / "x").is_file())

    def test_an_interrupted_write_leaves_the_earlier_file(self) -> None:
        (self.copy / "x").write_text("first")
        write(self.file, self.copy, self.items(b"x"))
        before = self.file.read_bytes()

        def broken(*_: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(archive, "_add", broken)
        self.assertRaises(OSError, write, self.file, self.copy, self.items(b"x"))
        self.assertEqual(self.file.read_bytes(), before)
