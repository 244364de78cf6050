"""Making a view of a repository that an agent owns, without git."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces import git_view
from uaihost.workspaces.git_view import Refs, take_git

A, B, C = "a" * 40, "b" * 40, "c" * 40


class ViewCase(TestCase):
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


class RefTests(ViewCase):
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
        self.patch(git_view, "MAX_REFS", 2)
        (self.git / "packed-refs").write_text("".join(f"{A} refs/heads/{name}\n" for name in "abc"))
        self.assertIn("more than 2 branches", self.refused())


class ObjectTests(ViewCase):
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
        self.patch(git_view, "MAX_OBJECTS", 1)
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


class WholeTests(ViewCase):
    """What only saving asks for."""

    def whole(self) -> Refs:
        view = self.root / "view"
        (view / "objects").mkdir(parents=True, exist_ok=True)
        return take_git(self.copy, view, whole=True)

    def test_tags_loose_and_packed(self) -> None:
        (self.git / "refs" / "tags").mkdir()
        (self.git / "refs" / "tags" / "v2").write_text(f"{B}\n")
        (self.git / "packed-refs").write_text(f"{C} refs/tags/v1\n{A} refs/tags/v2\n^{A}\n")
        self.assertEqual(self.whole().tags, {"v1": C, "v2": B})
        self.assertEqual(self.take().tags, {})

    def test_refs_of_further_kinds_loose_packed_and_without_a_folder(self) -> None:
        (self.git / "refs" / "notes").mkdir()
        (self.git / "refs" / "notes" / "commits").write_text(f"{A}\n")
        (self.git / "refs" / "alone").write_text(f"{B}\n")
        (self.git / "refs" / "remotes" / "origin").mkdir(parents=True)
        (self.git / "refs" / "remotes" / "origin" / "x").write_text(f"{B}\n")
        (self.git / "packed-refs").write_text(
            f"{C} refs/original/refs/heads/x\n{C} refs/packed\n{C} refs/stash\n"
        )
        (self.git / "worktrees" / "wt").mkdir(parents=True)
        (self.git / "worktrees" / "wt" / "HEAD").write_text(f"{C}\n")
        found = self.whole()
        self.assertEqual(
            found.others,
            {
                "notes/commits": A, "alone": B, "original/refs/heads/x": C, "packed": C, "worktrees/wt": C
            },
        )  # fmt: skip
        self.assertEqual((found.heads, found.stashes, self.take().others), ({"main": A}, (C,), {}))

    def test_refs_that_cannot_be_read_are_not_taken_for_none(self) -> None:
        self.patch(git_view, "_PACKED_REFS", 10)
        (self.git / "packed-refs").write_text(f"{C} refs/heads/x\n")
        self.assertIn("packed-refs", self.refused())

    def test_the_log_of_head_newest_first_and_no_more_than_some(self) -> None:
        self.patch(git_view, "MAX_PAST", 2)
        (self.git / "logs" / "HEAD").write_text(
            f"{'0' * 40} {A} x <x> 1 +0000\tclone\n{A} {B} x <x> 2 +0000\tcommit\n"
            f"nonsense\n{B} {C} x <x> 3 +0000\tc\n"
        )
        self.assertEqual(self.whole().past, (C, B))

    def test_only_the_end_of_a_long_log_is_read(self) -> None:
        self.patch(git_view, "_STASH_LOG", 200)
        lines = [f"{A} {A} x <x> 1 +0000\tx\n"] * 10 + [f"{B} {C} x <x> 1 +0000\tx\n"]
        (self.git / "logs" / "HEAD").write_text("".join(lines))
        self.assertEqual(self.whole().past[:2], (C, B))

    def test_what_is_under_way(self) -> None:
        (self.git / "MERGE_HEAD").write_text(f"{A}\n{B}\n")
        (self.git / "rebase-merge").mkdir()
        (self.git / "rebase-merge" / "orig-head").write_text(f"{C}\n")
        (self.git / "ORIG_HEAD").write_text("ref: refs/heads/main\n")
        (self.git / "CHERRY_PICK_HEAD").symlink_to(self.git / "MERGE_HEAD")
        self.assertEqual(
            self.whole().pending, {"MERGE_HEAD": A, "MERGE_HEAD-2": B, "rebase-merge/orig-head": C}
        )

    def test_a_log_that_is_a_link_or_a_pipe_is_not_read(self) -> None:
        (self.secret / "log").write_text(f"{A} {B} x <x> 1 +0000\tx\n")
        (self.git / "logs" / "HEAD").symlink_to(self.secret / "log")
        self.assertEqual(self.whole().past, ())
        (self.git / "logs" / "HEAD").unlink()
        os.mkfifo(self.git / "logs" / "HEAD")
        self.assertEqual(self.whole().past, ())

    def test_a_repository_elsewhere_in_the_copy(self) -> None:
        target = self.copy / "lib" / ".git"
        target.parent.mkdir()
        self.git.rename(target)
        view = self.root / "view"
        (view / "objects").mkdir(parents=True)
        self.assertEqual(take_git(self.copy, view, "lib/.git").heads, {"main": A})
        (self.copy / "out").symlink_to(target.parent)
        error = self.assertRaises(HostError, take_git, self.copy, view, "out/.git")
        self.assertIn("not a plain folder", error.message)
