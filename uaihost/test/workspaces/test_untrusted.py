"""Reading a folder that an agent owns, without git."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces import untrusted
from uaihost.workspaces.untrusted import Refs, stage_files, take_git

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

    def take(self) -> Refs:
        view = self.root / "view"
        (view / "objects").mkdir(parents=True, exist_ok=True)
        return take_git(self.copy, view)

    def linked(self) -> list[str]:
        top = self.root / "view" / "objects"
        return sorted(str(found.relative_to(top)) for found in top.rglob("*") if not found.is_dir())

    def refused(self) -> str:
        error = self.assertRaises(HostError, self.take)
        self.assertEqual(error.code, ErrorCode.CONFLICT)
        return str(error)


class RefTests(UntrustedCase):
    def test_loose_refs_win_over_packed_ones(self) -> None:
        (self.git / "packed-refs").write_text(
            f"# pack-refs with: peeled\n{B} refs/heads/main\n{C} refs/heads/x/y\n{C} refs/tags/t\n^{A}\n"
        )
        found = self.take()
        self.assertEqual((found.branch, found.head), ("main", A))
        self.assertEqual(found.heads, {"main": A, "x/y": C})

    def test_a_detached_head_and_an_unborn_branch(self) -> None:
        (self.git / "HEAD").write_text(f"{B}\n")
        found = self.take()
        self.assertEqual((found.branch, found.detached, found.head), (None, B, B))
        (self.git / "HEAD").write_text("ref: refs/heads/new\n")
        found = self.take()
        self.assertEqual((found.branch, found.head), ("new", None))

    def test_every_stash_is_found(self) -> None:
        (self.git / "refs/stash").write_text(f"{C}\n")
        (self.git / "logs/refs/stash").write_text(
            f"{'0' * 40} {B} A <a> 1 +0\tx\n{B} {C} A <a> 2 +0\ty\njunk\n"
        )
        self.assertEqual(self.take().stashes, (C, B))

    def test_names_and_values_that_are_none_are_passed_over(self) -> None:
        (self.git / "refs/heads/a.lock").write_text(f"{A}\n")
        (self.git / "refs/heads/symbolic").write_text("ref: refs/heads/main\n")
        (self.git / "refs/heads/huge").write_text(A + " " * 5000)
        (self.git / "packed-refs").write_text(
            f"{A} refs/heads/../../x\n{A} refs/heads/-x\nnonsense\n{A} refs/heads/\n"
        )
        self.assertEqual(self.take().heads, {"main": A})

    def test_links_and_pipes_are_not_read(self) -> None:
        (self.secret / "oid").write_text(f"{B}\n")
        (self.git / "refs/heads/link").symlink_to(self.secret / "oid")
        (self.git / "refs/heads/folder").symlink_to(self.secret)
        os.mkfifo(self.git / "refs/heads/pipe")
        (self.git / "HEAD").unlink()
        (self.git / "HEAD").symlink_to(self.secret / "oid")
        found = self.take()
        self.assertEqual((found.heads, found.detached), ({"main": A}, None))

    def test_too_many_branches_are_refused(self) -> None:
        self.patch(untrusted, "MAX_REFS", 2)
        (self.git / "packed-refs").write_text("".join(f"{A} refs/heads/{name}\n" for name in "abc"))
        self.assertIn("more than 2 branches", self.refused())


class ObjectTests(UntrustedCase):
    def test_objects_are_linked_and_nothing_else(self) -> None:
        loose, pack = "ab/" + "c" * 38, f"pack/pack-{A}.pack"
        for name in (
            loose,
            pack,
            f"pack/pack-{A}.idx",
            "pack/multi-pack-index",
            "pack/tmp_pack_x",
            "ab/junk",
            "zz/" + "c" * 38,
        ):
            (self.git / "objects" / name).parent.mkdir(exist_ok=True)
            (self.git / "objects" / name).write_text("x")
        (self.git / "index").write_text("x")
        self.take()
        self.assertTrue((self.root / "view/index").samefile(self.git / "index"))
        self.assertEqual(self.linked(), [loose, f"pack/pack-{A}.idx", pack])
        self.assertTrue((self.root / "view/objects" / pack).samefile(self.git / "objects" / pack))

    def test_links_among_the_objects_are_left_out(self) -> None:
        (self.git / "objects/ab").mkdir()
        (self.git / "objects/ab" / ("c" * 38)).symlink_to(self.secret / "file")
        os.mkfifo(self.git / "objects/ab" / ("d" * 38))
        (self.secret / ("e" * 38)).write_text("secret")
        (self.git / "objects/cd").symlink_to(self.secret)
        self.take()
        self.assertEqual(self.linked(), [])

    def test_too_many_objects_are_refused(self) -> None:
        self.patch(untrusted, "MAX_OBJECTS", 1)
        (self.git / "objects/ab").mkdir()
        for letter in "cd":
            (self.git / "objects/ab" / (letter * 38)).write_text("x")
        self.assertIn("more than 1 object files", self.refused())

    def test_what_borrows_is_refused(self) -> None:
        (self.git / "objects/info/alternates").write_text(f"{self.secret}\n")
        self.assertIn("objects/info/alternates", self.refused())
        (self.git / "objects/info/alternates").unlink()
        (self.git / "commondir").symlink_to("/nowhere")
        self.assertIn("commondir", self.refused())

    def test_a_git_that_is_no_plain_folder_is_refused(self) -> None:
        self.git.rename(self.root / "moved")
        self.assertIn("missing", self.refused())
        self.git.symlink_to(self.root / "moved")
        self.assertIn("not a plain folder", self.refused())
        self.git.unlink()
        self.git.write_text(f"gitdir: {self.root}/moved\n")
        self.assertIn("not a plain folder", self.refused())


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
