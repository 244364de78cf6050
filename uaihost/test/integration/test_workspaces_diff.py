"""taskDiff over real repositories: where each change is, and that no answer is older than its question."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.test.integration.git_rig import WorkspacesCase, commit, git
from uaihost.workspaces import file_marks, seen_tree


def where(found: dict[str, Any]) -> dict[str, list[str]]:
    return {path: file["where"] for path, file in found.items()}


class WhereTests(WorkspacesCase):
    async def test_each_change_says_where_it_is(self) -> None:
        (self.remote / "d" / "kept").write_text("k\n")
        commit(self.remote, "more", moved="moved\n" * 9, both="1\n", gone="g\n")
        copy = await self.prepared()
        commit(copy, "work", committed="c\n", both="2\n")
        (copy / "staged").write_text("s\n")
        (copy / "both").write_text("3\n")
        git(copy, "add", "staged", "both")
        (copy / "both").write_text("4\n")
        (copy / "a.txt").write_text("one\n2\n")
        (copy / "new").write_text("n\n")
        (copy / "moved").rename(copy / "renamed")
        git(copy, "rm", "-q", "--cached", "gone")
        (copy / "d" / "b.txt").unlink()
        (copy / "later").write_text("l\n")
        git(copy, "add", "-N", "later")
        found = await self.changes()
        self.assertEqual(
            where(found),
            {
                "a.txt": ["unstaged"],
                "both": ["committed", "staged", "unstaged"],
                "committed": ["committed"],
                "d/b.txt": ["unstaged"],
                "later": ["unstaged"],
                "new": ["untracked"],
                "renamed": ["unstaged", "untracked"],
                "staged": ["staged"],
            },
        )
        self.assertEqual((found["renamed"]["status"], found["renamed"]["similarity"]), ("renamed", 100))

    async def test_a_staged_rename_and_a_file_that_only_left_the_index(self) -> None:
        copy = await self.prepared()
        git(copy, "mv", "a.txt", "b.txt")
        git(copy, "rm", "-q", "--cached", "d/b.txt")
        (copy / "d" / "b.txt").write_text("changed\n")
        self.assertEqual(
            where(await self.changes()), {"b.txt": ["staged"], "d/b.txt": ["staged", "untracked"]}
        )

    async def test_without_an_index_all_is_untracked_or_committed(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", committed="c\n")
        (copy / "new").write_text("n\n")
        (copy / ".git" / "index").unlink()
        self.assertEqual(where(await self.changes()), {"committed": ["committed"], "new": []})

    async def test_names_that_are_no_utf8_come_along_exactly(self) -> None:
        copy = await self.prepared()
        (copy / os.fsdecode(b"b\xff\n")).write_text("x\n")
        (file,) = (await self.changes()).values()
        self.assertEqual((file["path"], file["pathBase64"]), ("b\ufffd\n", "Yv8K"))

    async def test_binary_files_tell_their_sizes(self) -> None:
        (self.remote / "picture").write_bytes(b"\0" * 100)
        commit(self.remote, "more")
        copy = await self.prepared()
        (copy / "picture").write_bytes(b"\0" * 70)
        (copy / "other").write_bytes(b"\0" * 3)
        found = await self.changes()
        self.assertEqual((found["picture"]["oldSize"], found["picture"]["newSize"]), (100, 70))
        self.assertEqual((found["other"].get("oldSize"), found["other"]["newSize"]), (None, 3))

    async def test_what_is_left_out_says_why(self) -> None:
        copy = await self.prepared()
        (copy / "a-file").write_bytes(b"x\n" * (200 << 10))
        (copy / "b-large").write_bytes(b"x\n" * (600 << 10))
        with (copy / "c-unread").open("wb") as file:
            file.truncate((32 << 20) + 1)
        for number in range(1000):
            (copy / f"n{number:04}").write_text("x\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(found["truncatedBy"], ["file", "files", "large", "unread"])
        self.assertEqual((found["fileCount"], len(found["files"])), (1003, 1000))
        self.assertEqual({tuple(file["where"]) for file in found["files"]}, {("untracked",)})
        by_path = {file["path"]: file.get("truncatedBy") for file in found["files"][:4]}
        self.assertEqual(by_path, {"a-file": "file", "b-large": "large", "c-unread": "unread", "n0000": None})


class BaseTests(WorkspacesCase):
    async def test_a_detached_head(self) -> None:
        copy = await self.prepared()
        git(copy, "checkout", "-q", "--detach")
        made = commit(copy, "work", mine="x\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual((found["branch"], found["head"], found["base"]), (None, made, self.first))
        self.assertEqual([file["path"] for file in found["files"]], ["mine"])

    async def test_an_unborn_branch(self) -> None:
        copy = await self.prepared()
        git(copy, "checkout", "-q", "--orphan", "fresh")
        git(copy, "rm", "-q", "--cached", "a.txt")
        (copy / "new").write_text("n\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual((found["branch"], found["head"], found["base"]), ("fresh", None, self.first))
        self.assertEqual([(file["path"], file["where"]) for file in found["files"]], [("new", ["untracked"])])

    async def test_nothing_in_common_with_the_default_branch(self) -> None:
        copy = await self.prepared()
        git(copy, "checkout", "-q", "--orphan", "fresh")
        made = commit(copy, "alone", alone="x\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual((found["head"], found["base"]), (made, self.first))
        self.assertEqual([file["path"] for file in found["files"]], ["alone"])

    async def test_a_rewritten_default_branch_does_not_become_the_tasks_work(self) -> None:
        second = commit(self.remote, "second", second="2\n")
        copy = await self.prepared()
        commit(copy, "work", mine="x\n")
        git(self.remote, "reset", "-q", "--hard", self.first)
        commit(self.remote, "instead", instead="i\n")
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(found["base"], second)
        self.assertEqual([file["path"] for file in found["files"]], ["mine"])

    async def test_work_on_top_of_a_newer_default_branch(self) -> None:
        copy = await self.prepared()
        newer = commit(self.remote, "newer", newer="n\n")
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        git(copy, "fetch", "-q", str(self.remote), "main")
        git(copy, "reset", "-q", "--hard", "FETCH_HEAD")
        commit(copy, "work", mine="x\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(found["base"], newer)
        self.assertEqual([file["path"] for file in found["files"]], ["mine"])


class ConflictTests(WorkspacesCase):
    async def conflicted(self) -> Path:
        copy = await self.prepared()
        git(copy, "checkout", "-q", "-b", "theirs")
        commit(copy, "theirs", a_txt="one\ntheirs\n", added="t\n", d__b_txt="theirs\n")
        git(copy, "checkout", "-q", "fix/x")
        git(copy, "rm", "-q", "d/b.txt")
        commit(copy, "ours", a_txt="one\nours\n", added="o\n")
        git(copy, "merge", "-q", "theirs", check=False)
        return copy

    async def test_both_sides_are_shown(self) -> None:
        await self.conflicted()
        found = await self.changes()
        shown = found["a.txt"]["conflict"]
        self.assertEqual(shown["kind"], "both modified")
        self.assertEqual(shown["ours"]["hunks"], "@@ -1,2 +1,2 @@\n one\n-two\n+ours\n")
        self.assertEqual(shown["theirs"]["hunks"], "@@ -1,2 +1,2 @@\n one\n-two\n+theirs\n")
        self.assertIn("<<<<<<< HEAD", found["a.txt"]["hunks"])
        self.assertEqual(found["a.txt"]["where"], ["committed", "conflict"])
        self.assertEqual(found["added"]["conflict"]["kind"], "both added")
        self.assertEqual(found["added"]["conflict"]["ours"]["hunks"], "@@ -0,0 +1 @@\n+o\n")
        gone = found["d/b.txt"]["conflict"]
        self.assertEqual((gone["kind"], gone["ours"]), ("deleted by us", None))
        self.assertEqual(gone["theirs"]["hunks"], "@@ -1 +1 @@\n-b\n+theirs\n")

    async def test_a_conflict_whose_file_is_as_at_the_base_is_listed(self) -> None:
        copy = await self.conflicted()
        (copy / "a.txt").write_text("one\ntwo\n")
        file = (await self.changes())["a.txt"]
        self.assertEqual((file["status"], file["conflict"]["kind"]), ("unmerged", "both modified"))

    async def test_a_resolved_conflict_is_none(self) -> None:
        copy = await self.conflicted()
        await self.changes()
        git(copy, "add", "-A")
        self.assertEqual([file for file in (await self.changes()).values() if "conflict" in file], [])


class SubmoduleTests(WorkspacesCase):
    async def with_submodule(self) -> tuple[Path, str]:
        """A work copy with a committed submodule, made by the agent's git."""
        library = self.root / "code" / "library"
        library.mkdir()
        git(library, "init", "-q", "-b", "main")
        inner = commit(library, "inner", inside="1\n")
        copy = await self.prepared()
        git(copy, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
        git(copy, "commit", "-q", "-m", "sub")
        return copy, inner

    async def test_a_new_one(self) -> None:
        _, inner = await self.with_submodule()
        file = (await self.changes())["sub"]
        self.assertEqual(file["submodule"], {"from": None, "to": inner, "dirty": False})
        self.assertEqual((file["status"], file["newMode"], file["where"]), ("added", "160000", ["committed"]))
        self.assertEqual(file["hunks"], f"@@ -0,0 +1 @@\n+Subproject commit {inner}\n")

    async def test_one_that_moved_and_one_with_changes_inside(self) -> None:
        copy, inner = await self.with_submodule()
        (copy / "sub" / "inside").write_text("2\n")
        file = (await self.changes())["sub"]
        self.assertEqual(file["submodule"], {"from": None, "to": inner, "dirty": True})
        self.assertEqual(file["where"], ["committed", "unstaged"])
        moved = commit(copy / "sub", "moved")
        file = (await self.changes())["sub"]
        self.assertEqual(file["submodule"], {"from": None, "to": moved, "dirty": False})
        self.assertEqual(file["where"], ["committed", "unstaged"])

    async def test_one_that_is_only_staged_is_no_heap_of_files(self) -> None:
        copy, inner = await self.with_submodule()
        git(copy, "reset", "-q", "--soft", "HEAD~1")
        found = await self.changes()
        self.assertEqual(sorted(found), [".gitmodules", "sub"])
        self.assertEqual(found["sub"]["submodule"]["to"], inner)
        self.assertEqual(found["sub"]["where"], ["staged"])

    async def test_one_whose_files_alone_differ_from_the_base(self) -> None:
        copy, inner = await self.with_submodule()
        git(copy, "push", "-q", str(self.remote), "HEAD:refs/heads/next")
        git(self.remote, "merge", "-q", "next")
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        self.assertEqual(await self.changes(), {})
        (copy / "sub" / "new").write_text("x\n")
        (file,) = (await self.changes()).values()
        self.assertEqual(
            (file["path"], file["submodule"]["from"], file["where"]), ("sub", inner, ["unstaged"])
        )
        self.assertTrue(file["submodule"]["dirty"])


class FreshTests(WorkspacesCase):
    """No answer is older than its question, and nothing is read twice for nothing."""

    async def test_changes_of_the_same_size_in_the_same_second(self) -> None:
        copy = await self.prepared()
        for number in range(6):
            (copy / "a.txt").write_text(f"one\nt{number}o\n")
            file = (await self.changes())["a.txt"]
            self.assertIn(f"+t{number}o\n", file["hunks"])

    async def test_a_change_with_the_old_time_put_back(self) -> None:
        """A committed file that git would take for unchanged: size, times in whole seconds and place are the
        same."""
        copy = await self.prepared()
        path = copy / "a.txt"
        self.assertEqual(await self.changes(), {})
        before = path.stat()
        path.write_text("one\nTWO\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertIn("+TWO\n", (await self.changes())["a.txt"]["hunks"])
        path.write_text("one\nTWo\n")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertIn("+TWo\n", (await self.changes())["a.txt"]["hunks"])

    async def test_settled_files_are_not_read_again(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("changed\n")
        (copy / "new").write_text("n\n")
        read: list[int] = []
        original = file_marks._read

        def reading(descriptor: int, size: int) -> bytes:
            read.append(size)
            return original(descriptor, size)

        self.patch(file_marks, "YOUNG", 0)
        await self.changes()
        self.patch(file_marks, "_read", reading)
        first = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(read, [])
        (copy / "new").write_text("m")
        second = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(read, [1])
        self.assertNotEqual(first, second)

    async def test_a_clock_that_was_set_back(self) -> None:
        """What an index of earlier tells may be from the future: all is compared again."""
        copy = await self.prepared()
        drift = 0.0
        trees = self.workspaces._snapshots.looks.trees
        trees._drift = lambda: drift
        await self.changes()
        (index,) = self.tasks.glob("*/git/*/seen.git/index")
        first = index.stat().st_ctime_ns
        await self.changes()
        self.assertEqual(index.stat().st_ctime_ns, first)
        drift = -3600.0
        (copy / "a.txt").write_text("changed\n")
        self.assertEqual(list(await self.changes()), ["a.txt"])
        self.assertNotEqual(index.stat().st_ctime_ns, first)

    async def test_who_asks_at_once_is_answered_together_and_never_too_early(self) -> None:
        copy = await self.prepared()
        looks = 0
        snapshots = self.workspaces._snapshots
        take = snapshots.take

        async def counted(*words: Any, **named: Any) -> Any:
            nonlocal looks
            looks += 1
            return await take(*words, **named)

        snapshots.take = counted  # type: ignore[method-assign]
        first = Deferred.fromCoroutine(self.workspaces.diff("t1", "p1", "app"))
        self.assertEqual(looks, 1)
        (copy / "new").write_text("n\n")
        others = [Deferred.fromCoroutine(self.workspaces.diff("t1", f"p{n}", "app")) for n in range(5)]
        for number, one in enumerate(others):
            answer = await one
            self.assertEqual(answer["id"], f"p{number}")
            self.assertEqual([file["path"] for file in answer["files"]], ["new"])
        await first
        self.assertEqual(looks, 2)

    async def test_what_another_process_did_to_the_index_is_not_trusted(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("changed\n")
        await self.changes()
        (index,) = self.tasks.glob("*/git/*/seen.git/index")
        index.write_bytes(b"")
        self.assertEqual(list(await self.changes()), ["a.txt"])
        shutil.rmtree(index.parent)
        self.assertEqual(list(await self.changes()), ["a.txt"])

    async def test_a_repository_of_ours_that_was_lost_is_filled_again(self) -> None:
        """Also when the file system gives the new one the number of the old one."""
        copy = await self.prepared()
        made = commit(copy, "work", mine="x\n")
        self.assertEqual(list(await self.changes()), ["mine"])
        (repo,) = self.tasks.glob("*/git/*/repo.git")
        for number in range(4):
            shutil.rmtree(repo)
            (copy / "mine").write_text(f"{number}\n")
            found = await self.workspaces.diff("t1", "p1", "app")
            self.assertEqual((found["head"], found["files"][0]["path"]), (made, "mine"))
            self.assertEqual(git(repo, "cat-file", "-t", made), "commit")

    async def test_a_restarted_daemon_finds_the_same(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("changed\n")
        (copy / "new").write_text("n\n")
        before = await self.workspaces.diff("t1", "p1", "app")
        self.workspaces = self.host()
        self.assertEqual(await self.workspaces.diff("t1", "p1", "app"), before)

    async def test_edits_between_two_looks_are_told_as_a_first_look_tells_them(self) -> None:
        text = "".join(f"line {number}\n" for number in range(40))
        commit(self.remote, "more", first=text, second=text + "2\n", third=text + "3\n", gone=text + "4\n")
        copy = await self.prepared()
        (copy / "first").rename(copy / "moved")
        (copy / "gone").unlink()
        (copy / "new").write_text("n\n")
        git(copy, "add", "second")
        steps: list[tuple[str, str | None]] = [
            ("second", text + "changed\n"), ("third", "all new\n"), ("third", text + "3\n"),
            ("new", text + "4\n"), ("second", "\0binary"), ("second", text), ("moved", text + "more\n"),
            ("third", "3\n"), ("gone", "back\n"), ("third", None), ("first", text), ("new", "n\n"),
        ]  # fmt: skip
        for name, content in steps:
            if content is None:
                (copy / name).unlink()
            else:
                (copy / name).write_text(content)
            await self.workspaces.diff("t1", "p1", "app")
            git(copy, "add", "third", check=False)
            warm = await self.workspaces.diff("t1", "p1", "app")
            self.assertEqual(warm, await self.host().diff("t1", "p1", "app"), (name, content))

    async def test_commits_resets_and_ignores_between_two_looks(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("n\n")
        (copy / "a.txt").write_text("changed\n")
        self.assertEqual(sorted(await self.changes()), ["a.txt", "new"])
        git(copy, "commit", "-q", "-am", "work")
        self.assertEqual(where(await self.changes()), {"a.txt": ["committed"], "new": ["untracked"]})
        (copy / ".gitignore").write_text("*.log\nnew\n")
        self.assertEqual(sorted(await self.changes()), [".gitignore", "a.txt"])
        git(copy, "checkout", "-q", "HEAD", "--", ".gitignore")
        git(copy, "reset", "-q", "--hard", "HEAD~1")
        self.assertEqual(sorted(await self.changes()), ["new"])
        (copy / "new").unlink()
        self.assertEqual(await self.changes(), {})

    async def test_attributes_that_change_change_how_files_are_read(self) -> None:
        copy = await self.prepared()
        (copy / "new.bat").write_bytes(b"a\r\nb\r\n")
        self.assertIn("\r", (await self.changes())["new.bat"]["hunks"])
        (copy / ".gitattributes").write_text("*.bat text\n")
        self.assertNotIn("\r", (await self.changes())["new.bat"]["hunks"])
        (copy / ".gitattributes").write_text("*.bat -text\n")
        self.assertIn("\r", (await self.changes())["new.bat"]["hunks"])

    async def test_folders_and_files_that_trade_places_again_and_again(self) -> None:
        copy = await self.prepared()
        for number in range(3):
            (copy / "d" / "b.txt").unlink()
            (copy / "d").rmdir()
            (copy / "d").write_text(f"file {number}\n")
            (copy / "a.txt").unlink()
            (copy / "a.txt").mkdir()
            (copy / "a.txt" / "in").write_text("x\n")
            found = {path: file["status"] for path, file in (await self.changes()).items()}
            self.assertEqual(
                found, {"a.txt": "deleted", "a.txt/in": "added", "d": "added", "d/b.txt": "deleted"}
            )
            (copy / "d").write_text(f"again {number}\n")
            self.assertIn("a.txt/in", await self.changes())
            (copy / "d").unlink()
            shutil.rmtree(copy / "a.txt")
            git(copy, "checkout", "-q", "--", ".")
            self.assertEqual(await self.changes(), {})

    async def test_many_looks_leave_a_bounded_number_of_files(self) -> None:
        copy = await self.prepared()
        self.patch(seen_tree, "_LOOKS", 5)
        for number in range(15):
            (copy / "a.txt").write_text(f"{number}\n")
            self.assertIn(f"+{number}\n", (await self.changes())["a.txt"]["hunks"])
        (seen,) = self.tasks.glob("*/git/*/seen.git")
        self.assertLess(len(list(seen.glob("objects/pack/*.pack"))), 8)
