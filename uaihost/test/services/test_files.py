"""Files and folders of an installation: whole or not at all, and only where something differs."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import HostError
from uaihost.services.files import File, Folder
from uaihost.services.given import read_variables, variables_text
from uaihost.test.support import given


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"

    def test_what_differs_is_written_and_what_does_not_is_not(self) -> None:
        file = File(self.path, b"one\n", 0o600)
        self.assertTrue(file.differs())
        file.write()
        self.assertEqual((self.path.read_bytes(), self.path.stat().st_mode & 0o777), (b"one\n", 0o600))
        self.assertFalse(file.differs())
        self.path.chmod(0o644)
        self.assertTrue(file.differs())
        file.write()
        self.assertFalse(file.differs())
        self.assertTrue(File(self.path, b"two\n", 0o600).differs())

    def test_what_the_owner_wrote_is_kept_and_its_mode_put_right(self) -> None:
        self.path.write_bytes(b"the owner's\n")
        self.path.chmod(0o666)
        file = File(self.path, b"a sample\n", 0o640, kept=True)
        self.assertTrue(file.differs())
        file.write()
        self.assertEqual(
            (self.path.read_bytes(), self.path.stat().st_mode & 0o777), (b"the owner's\n", 0o640)
        )
        self.assertFalse(file.differs())

    def test_a_write_that_fails_leaves_the_one_before_and_nothing_else(self) -> None:
        self.path.write_bytes(b"before\n")
        with patch("os.fsync", side_effect=OSError("the disk is full")):
            self.assertRaises(OSError, File(self.path, b"after\n").write)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["file"])
        self.assertEqual(self.path.read_bytes(), b"before\n")

    def test_nobody_reads_a_secret_while_it_is_written(self) -> None:
        modes: list[int] = []
        synced = os.fsync

        def look(descriptor: int) -> None:
            modes.append(os.fstat(descriptor).st_mode & 0o777)
            synced(descriptor)

        with patch("os.fsync", side_effect=look):
            File(self.path, b"secret\n", 0o600).write()
        self.assertEqual(modes, [0o600])

    def test_another_owner_is_a_difference(self) -> None:
        self.path.write_bytes(b"x")
        self.path.chmod(0o644)
        mine = self.path.stat()
        self.assertFalse(File(self.path, b"x", owner=(mine.st_uid, mine.st_gid)).differs())
        self.assertTrue(File(self.path, b"x", owner=(mine.st_uid, mine.st_gid + 1)).differs())

    def test_a_folder_of_ours_gets_its_mode_and_a_shared_one_keeps_its_own(self) -> None:
        for shared, mode in ((False, 0o700), (True, 0o755)):
            path = self.folder / str(shared)
            path.mkdir()
            path.chmod(0o755)
            folder = Folder(path, 0o700, shared=shared)
            self.assertEqual(folder.differs(), not shared)
            folder.write()
            self.assertEqual(path.stat().st_mode & 0o777, mode)
            self.assertFalse(folder.differs())
        deep = Folder(self.folder / "a/b/c")
        self.assertTrue(deep.differs())
        deep.write()
        self.assertFalse(deep.differs())


class VariablesTests(SynchronousTestCase):
    @given(
        st.dictionaries(
            st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True),
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"])),
            max_size=4,
        )
    )
    def test_values_survive_the_quoting(self, variables: dict[str, str]) -> None:
        path = Path(self.mktemp())
        path.write_text(variables_text(variables), encoding="utf-8")
        self.assertEqual(read_variables(path), variables)

    def test_what_an_owner_wrote_by_hand_is_read_or_told(self) -> None:
        path = Path(self.mktemp())
        path.write_text("# a word\nA=1\nB='x y'\n\n")
        self.assertEqual(read_variables(path), {"A": "1", "B": "x y"})
        path.write_text('A="open\n')
        self.assertIn("no closing quote", self.assertRaises(HostError, read_variables, path).message)
        self.assertEqual(read_variables(path.with_name("none")), {})
