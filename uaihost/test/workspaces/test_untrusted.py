"""Reading files of a folder that an agent owns."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces.untrusted import stage_files

A, B, C = "a" * 40, "b" * 40, "c" * 40


class UntrustedCase(TestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.copy = self.root / "copy"
        self.git = self.copy / ".git"
        self.secret = self.root / "secret"
        self.secret.mkdir()
        (self.secret / "file").write_text("secret")
        for name in ("refs/heads", "objects/pack", "objects/info", "logs/refs"):
            (self.git / name).mkdir(parents=True)
        (self.git / "HEAD").write_text("ref: refs/heads/main\n")
        (self.git / "refs/heads/main").write_text(f"{A}\n")


class StageTests(UntrustedCase):
    def stage(self, *names: bytes) -> dict[str, str]:
        stage = self.root / "stage"
        stage.mkdir(exist_ok=True)
        stage_files(self.copy, names, stage)
        return {
            str(found.relative_to(stage)): f"-> {found.readlink()}"
            if found.is_symlink()
            else found.read_text()
            for found in sorted(stage.rglob("*"))
            if found.is_symlink() or not found.is_dir()
        }

    def test_files_and_links_are_staged_at_their_places(self) -> None:
        (self.copy / "d/e").mkdir(parents=True)
        (self.copy / "d/e/f").write_text("deep")
        (self.copy / "top").write_text("top")
        (self.copy / "link").symlink_to(self.secret / "file")
        found = self.stage(b"top", b"link", b"d/e/f", b"gone", b"d/gone/x")
        self.assertEqual(found, {"d/e/f": "deep", "link": f"-> {self.secret}/file", "top": "top"})

    def test_nothing_behind_a_link_is_staged(self) -> None:
        (self.copy / "out").symlink_to(self.secret)
        (self.copy / "d").mkdir()
        (self.copy / "d/out").symlink_to(self.secret)
        os.mkfifo(self.copy / "pipe")
        self.assertEqual(self.stage(b"out/file", b"d/out/file", b"pipe", b"../secret/file"), {})

    def test_nothing_is_written_through_a_link_that_was_staged_before(self) -> None:
        (self.copy / "d").symlink_to(self.secret)
        self.stage(b"d")
        (self.copy / "d").unlink()
        (self.copy / "d").mkdir()
        (self.copy / "d/planted").write_text("x")
        self.stage(b"d/planted")
        self.assertEqual([found.name for found in self.secret.iterdir()], ["file"])

    def test_a_name_cannot_lead_up_or_into_git(self) -> None:
        (self.root / "beside").write_text("secret")
        (self.copy / "d").mkdir()
        names = [
            b"../beside",
            b"d/../../beside",
            b"/" + os.fsencode(self.root) + b"/beside",
            b"",
            b".",
            b"d/",
        ]
        before = sorted(self.root.iterdir())
        self.assertEqual(self.stage(*names, b".git/HEAD", b"d/.GIT/HEAD", b".git"), {})
        self.assertEqual(sorted(self.root.iterdir()), sorted([*before, self.root / "stage"]))
        self.assertEqual((self.root / "beside").stat().st_nlink, 1)

    def test_large_files_are_named_and_left_out(self) -> None:
        (self.copy / "small").write_text("123")
        (self.copy / "large").write_text("1234")
        stage = self.root / "stage"
        stage.mkdir()
        found = stage_files(self.copy, [b"large", b"small", b"gone"], stage, 3)
        self.assertEqual((found.names, found.large), ([b"small"], [b"large"]))
        self.assertEqual([file.name for file in stage.iterdir()], ["small"])

    def test_an_unreadable_file_is_made_readable(self) -> None:
        (self.copy / "closed").write_text("x")
        (self.copy / "closed").chmod(0o000)
        self.assertEqual(self.stage(b"closed"), {"closed": "x"})
        self.assertEqual((self.copy / "closed").stat().st_mode & 0o777, 0o400)

    def test_a_name_that_is_both_file_and_folder_is_one_of_them(self) -> None:
        (self.copy / "a").write_text("file")
        self.assertEqual(self.stage(b"a", b"a/b"), {"a": "file"})

    def test_a_full_disk_is_not_passed_over(self) -> None:
        (self.copy / "a").write_text("x")

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(os, "link", full)
        self.assertRaises(OSError, self.stage, b"a")


class PlaceTests(TestCase):
    def test_slugs_and_tasks_cannot_lead_elsewhere(self) -> None:
        from uaihost.workspaces.places import Places

        for task, slug in (
            ("t", ".."),
            ("t", "a/b"),
            ("t", ".git"),
            ("t", ""),
            ("..", "a"),
            ("t", "a..b"),
            ("t", "a.lock"),
        ):
            error = self.assertRaises(HostError, Places.of, Path("/x"), task, slug)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        self.assertEqual(Places.of(Path("/x"), "t", "web-1").copy, Path("/x/t/work/web-1"))
