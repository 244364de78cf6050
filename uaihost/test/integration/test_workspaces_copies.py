"""Work copies on real repositories: made, shown, saved, removed."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import ANN, WorkspacesCase, commit, git
from uaihost.workspaces.checkouts import Checkouts
from uaihost.workspaces.safe_git import Git


class PrepareTests(WorkspacesCase):
    async def test_a_copy_is_a_plain_clone_on_the_tasks_branch(self) -> None:
        git(self.remote, "tag", "v1")
        copy = await self.prepared("fix/x")
        self.assertEqual(copy, self.tasks / "t1" / "work" / "app")
        self.assertEqual(git(copy, "status", "--porcelain", "--branch"), "## fix/x")
        self.assertEqual(git(copy, "rev-parse", "HEAD", "origin/HEAD", "v1"), "\n".join([self.first] * 3))
        self.assertEqual(git(copy, "config", "remote.origin.url"), str(self.remote))
        self.assertEqual(git(copy, "log", "-1", "--format=%s", "origin/main"), "first")
        self.assertEqual((copy / "a.txt").read_text(), "one\ntwo\n")
        self.assertFalse((copy / ".git" / "hooks").exists())
        git(copy, "fsck", "--strict")

    async def test_commits_carry_the_owners_name(self) -> None:
        copy = await self.prepared()
        found = (git(copy, "config", "user.name"), git(copy, "config", "user.email"))
        self.assertEqual(found, (ANN.name, ANN.email))

    async def test_nothing_is_shared_with_the_mirror(self) -> None:
        copy = await self.prepared()
        self.assertFalse((copy / ".git/objects/info/alternates").exists())
        files = [found for found in (copy / ".git").rglob("*") if found.is_file()]
        self.assertEqual([str(found) for found in files if found.stat().st_nlink != 1], [])

    async def test_the_copy_belongs_to_the_containers_user(self) -> None:
        if os.geteuid() == 0:
            self.uid = self.gid = 1000
            self.workspaces = self.host()
        copy = await self.prepared()
        owners = {(found.lstat().st_uid, found.lstat().st_gid) for found in [copy, *copy.rglob("*")]}
        self.assertEqual(owners, {(self.uid, self.gid)})

    async def test_where_git_cannot_be_another_user_the_files_are_given_away(self) -> None:
        if os.geteuid() == 0:
            self.uid = self.gid = 1000
        self.workspaces = self.host()
        self.patch(Git, "can_be", lambda *_: False)
        copy = await self.prepared()
        owners = {(found.lstat().st_uid, found.lstat().st_gid) for found in [copy, *copy.rglob("*")]}
        self.assertEqual(owners, {(self.uid, self.gid)})
        self.assertEqual(git(copy, "diff-files"), "")

    async def test_a_work_folder_that_is_closed_is_closed_again(self) -> None:
        work = self.tasks / "t1" / "work"
        work.mkdir(parents=True)
        work.chmod(0o555)
        copy = await self.prepared()
        self.assertEqual((copy.is_dir(), work.stat().st_mode & 0o777), (True, 0o555))

    async def test_a_link_in_the_place_of_a_copy_is_a_conflict(self) -> None:
        copy = await self.prepared()
        copy.rename(copy.with_name("moved"))
        for target in (self.root / "outside", self.root / "missing"):
            copy.symlink_to(target)
            with self.assertRaises(HostError) as caught:
                await self.prepared()
            self.assertEqual(caught.exception.code, ErrorCode.CONFLICT)
            copy.unlink()

    async def test_copies_of_one_repository_do_not_wait_for_one_another(self) -> None:
        await self.prepared("x", "t0")
        inside: list[str] = []
        together: list[int] = []
        make = Checkouts.make

        async def watched(self: Checkouts, *args: Any, **words: Any) -> Any:
            inside.append("in")
            while len(inside) < 2:
                await deferLater(reactor, 0.01)
            together.append(len(inside))
            return await make(self, *args, **words)

        self.patch(Checkouts, "make", watched)
        await gatherResults([ensureDeferred(self.prepared("x", task)) for task in ("t1", "t2")])
        self.assertEqual(together, [2, 2])

    async def test_a_copy_that_exists_is_kept_as_it_is(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("changed")
        first = await self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", ANN, self.lines.append)
        self.workspaces = self.host()
        again = await self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", None, self.lines.append)
        self.assertEqual(again, first)
        self.assertEqual((copy / "a.txt").read_text(), "changed")

    async def test_a_half_made_copy_is_made_again(self) -> None:
        half = self.tasks / "t1" / "git" / "app" / "half-made"
        (half / ".git").mkdir(parents=True)
        copy = await self.prepared()
        self.assertEqual(git(copy, "status", "--porcelain"), "")
        self.assertFalse(half.exists())

    async def test_another_repository_or_branch_in_its_place_is_a_conflict(self) -> None:
        await self.prepared("one")
        with self.assertRaises(HostError) as caught:
            await self.prepared("two")
        self.assertEqual(caught.exception.code, ErrorCode.CONFLICT)
        self.assertIn("'one'", caught.exception.message)

    async def test_a_bad_branch_is_refused(self) -> None:
        with self.assertRaises(HostError) as caught:
            await self.prepared("--orphan")
        self.assertEqual(caught.exception.code, ErrorCode.INVALID_ARGS)

    async def test_a_remote_branch_is_reused_and_tracked(self) -> None:
        git(self.remote, "checkout", "-q", "-b", "feature")
        second = commit(self.remote, "second", a_txt="2")
        git(self.remote, "checkout", "-q", "main")
        copy = await self.prepared("feature")
        self.assertEqual(git(copy, "rev-parse", "HEAD"), second)
        self.assertEqual(git(copy, "rev-parse", "--abbrev-ref", "@{upstream}"), "origin/feature")

    async def test_a_saved_branch_goes_on_where_it_ended(self) -> None:
        made = commit(await self.prepared("fix/x"), "work", a_txt="2")
        await self.workspaces.save("t1", ["app"])
        await self.workspaces.remove("t1")
        self.assertEqual(git(await self.prepared("fix/x", "t2"), "rev-parse", "HEAD"), made)

    async def test_of_a_saved_and_a_newer_remote_branch_the_newer_is_taken(self) -> None:
        await self.prepared("fix/x")
        await self.workspaces.save("t1", ["app"])
        git(self.remote, "checkout", "-q", "-b", "fix/x")
        newer = commit(self.remote, "newer", a_txt="2")
        self.assertEqual(git(await self.prepared("fix/x", "t2"), "rev-parse", "HEAD"), newer)

    async def test_two_projects_at_once(self) -> None:
        found = await gatherResults([ensureDeferred(self.prepared("x", "t1", slug)) for slug in ("a", "b")])
        self.assertEqual([git(copy, "rev-parse", "HEAD") for copy in found], [self.first] * 2)

    async def test_a_branch_named_like_a_file(self) -> None:
        (self.remote / "same").write_text("x")
        commit(self.remote, "same")
        copy = await self.prepared("same")
        self.assertEqual(git(copy, "status", "--porcelain", "--branch"), "## same")

    async def test_a_damaged_object_in_the_mirror_is_healed(self) -> None:
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        (damaged,) = self.mirror().glob("objects/pack/*.pack")
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes()[:-40] + bytes(40))
        copy = await self.prepared()
        self.assertEqual((copy / "a.txt").read_text(), "one\ntwo\n")
        self.assertTrue(any("damaged" in str(line) for line in self.lines))


class DiffTests(WorkspacesCase):
    async def test_nothing_changed(self) -> None:
        await self.prepared()
        found = await self.workspaces.diff("t1", "p1", "app")
        expected = {
            "id": "p1",
            "slug": "app",
            "base": self.first,
            "head": self.first,
            "branch": "fix/x",
            "files": [],
            "fileCount": 0,
            "truncated": False,
            "truncatedBy": [],
        }
        self.assertEqual(found, expected)

    async def test_committed_staged_unstaged_and_untracked_changes_come_together(self) -> None:
        copy = await self.prepared()
        head = commit(copy, "work", committed="c\n")
        (copy / "staged").write_text("s\n")
        git(copy, "add", "staged")
        (copy / "a.txt").write_text("one\n2\n")
        (copy / "untracked").mkdir()
        (copy / "untracked" / "file").write_text("u\n")
        (copy / "debug.log").write_text("ignored")
        (copy / "d" / "b.txt").unlink()
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual((found["base"], found["head"]), (self.first, head))
        shown = [
            (file["status"], file["path"], file["additions"], file["deletions"]) for file in found["files"]
        ]
        self.assertEqual(
            shown,
            [
                ("modified", "a.txt", 1, 1),
                ("added", "committed", 1, 0),
                ("deleted", "d/b.txt", 0, 1),
                ("added", "staged", 1, 0),
                ("added", "untracked/file", 1, 0),
            ],
        )
        self.assertEqual(found["files"][0]["hunks"], "@@ -1,2 +1,2 @@\n one\n-two\n+2\n")

    async def test_the_copy_and_the_agents_index_are_left_alone(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("x")
        before = git(copy, "status", "--porcelain")
        await self.changes()
        self.assertEqual(git(copy, "status", "--porcelain"), before)

    async def test_changes_on_the_default_branch_since_are_not_the_tasks(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", mine="x\n")
        commit(self.remote, "theirs", theirs="x\n")
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        self.assertEqual(list(await self.changes()), ["mine"])

    async def test_renames_modes_links_and_binary_files(self) -> None:
        (self.remote / "long").write_text("".join(f"line {number}\n" for number in range(50)))
        (self.remote / "script").write_text("#!/bin/sh\n")
        (self.remote / "becomes-link").write_text("text\n")
        commit(self.remote, "more")
        copy = await self.prepared()
        (copy / "long").rename(copy / "moved")
        (copy / "script").chmod(0o755)
        (copy / "becomes-link").unlink()
        (copy / "becomes-link").symlink_to("/etc/passwd")
        (copy / "picture").write_bytes(b"\0\1\2")
        found = await self.changes()
        moved, script, link, picture = (
            found[name] for name in ("moved", "script", "becomes-link", "picture")
        )
        self.assertEqual((moved["status"], moved["oldPath"], moved["hunks"]), ("renamed", "long", None))
        self.assertEqual((script["oldMode"], script["newMode"]), ("100644", "100755"))
        self.assertEqual((link["status"], link["newMode"]), ("typechange", "120000"))
        self.assertIn("+/etc/passwd\n", link["hunks"])
        self.assertEqual((picture["binary"], picture["hunks"], picture["truncated"]), (True, None, False))

    async def test_odd_names_and_contents(self) -> None:
        copy = await self.prepared()
        names = ['a"b', "a\nb", "a\tb", "ü", " x", "-x", ":x", "a\\b", "[*?]", "diff --git a b", "b'\udcff'"]
        for name in names:
            (copy / os.fsdecode(os.fsencode(name))).write_bytes(b"diff --git a/x b/x\n@@ -1 +1 @@\n\xff\n")
        found = await self.changes()
        self.assertEqual(set(found), {name.replace("\udcff", "\ufffd") for name in names})
        for file in found.values():
            self.assertEqual(file["hunks"], "@@ -0,0 +1,3 @@\n+diff --git a/x b/x\n+@@ -1 +1 @@\n+\ufffd\n")

    async def test_too_large_files_and_too_many_are_truncated_and_say_so(self) -> None:
        copy = await self.prepared()
        (copy / "a-huge").write_bytes(b"x\n" * (3 << 20))
        (copy / "a-large").write_bytes(b"x\n" * (200 << 10))
        for number in range(1010):
            (copy / f"n{number:04}").write_text("x\n")
        found = await self.workspaces.diff("t1", "p1", "app")
        self.assertTrue(found["truncated"])
        self.assertEqual(len(found["files"]), 1000)
        by_path = {file["path"]: file for file in found["files"]}
        for name in ("a-huge", "a-large"):
            shown = by_path[name]
            self.assertEqual((shown["binary"], shown["hunks"], shown["truncated"]), (False, None, True))
        self.assertEqual(by_path["n0000"]["hunks"], "@@ -0,0 +1 @@\n+x\n")

    async def test_a_gigantic_file_is_named_unread_and_still_saved(self) -> None:
        copy = await self.prepared()
        for name in ("a.txt", "new"):
            with (copy / name).open("wb") as file:
                file.truncate((32 << 20) + 1)
        found = await self.workspaces.diff("t1", "p1", "app")
        shown = [(file["path"], file["status"], file["hunks"], file["truncated"]) for file in found["files"]]
        self.assertEqual(shown, [("a.txt", "modified", None, True), ("new", "added", None, True)])
        self.assertTrue(found["truncated"])
        (saved,) = await self.workspaces.save("t1", ["app"])
        for name in ("a.txt", "new"):
            self.assertEqual(git(self.vault(), "cat-file", "-s", f"{saved.wip}:{name}"), str((32 << 20) + 1))

    async def test_many_megabytes_of_hunks_stop_at_the_limit(self) -> None:
        copy = await self.prepared()
        for number in range(60):
            (copy / f"f{number:02}").write_bytes(b"line of text\n" * 15_000)
        found = await self.workspaces.diff("t1", "p1", "app")
        sizes = [len(file["hunks"] or "") for file in found["files"]]
        self.assertTrue(found["truncated"])
        self.assertLessEqual(sum(sizes), 4 << 20)
        self.assertGreater(sum(sizes), 3 << 20)
        self.assertEqual([file["truncated"] for file in found["files"]], [size == 0 for size in sizes])

    async def test_a_file_in_the_place_of_a_folder_and_the_reverse(self) -> None:
        copy = await self.prepared()
        (copy / "d" / "b.txt").unlink()
        (copy / "d").rmdir()
        (copy / "d").write_text("file\n")
        (copy / "a.txt").unlink()
        (copy / "a.txt").mkdir()
        (copy / "a.txt" / "in").write_text("x\n")
        found = await self.changes()
        self.assertEqual(
            {path: file["status"] for path, file in found.items()},
            {"a.txt": "deleted", "a.txt/in": "added", "d": "added", "d/b.txt": "deleted"},
        )

    async def test_a_file_that_is_ignored_but_committed_counts(self) -> None:
        copy = await self.prepared()
        (copy / "kept.log").write_text("x\n")
        git(copy, "add", "-f", "kept.log")
        git(copy, "commit", "-q", "-m", "kept")
        self.assertEqual(list(await self.changes()), ["kept.log"])

    async def test_a_file_that_is_ignored_but_staged_counts(self) -> None:
        copy = await self.prepared()
        (copy / "staged.log").write_text("x\n")
        (copy / "other.log").write_text("x\n")
        git(copy, "add", "-f", "staged.log")
        self.assertEqual(list(await self.changes()), ["staged.log"])

    async def test_line_ends_that_attributes_convert_are_no_change(self) -> None:
        (self.remote / ".gitattributes").write_text(
            "*.bat eol=crlf\n*.utf text working-tree-encoding=UTF-16\n"
        )
        (self.remote / "run.bat").write_bytes(b"a\r\nb\r\n")
        (self.remote / "x.utf").write_bytes("hello\n".encode("utf-16"))
        commit(self.remote, "attributes")
        copy = await self.prepared()
        self.assertEqual((copy / "run.bat").read_bytes(), b"a\r\nb\r\n")
        self.assertEqual(await self.changes(), {})
        (copy / "run.bat").write_bytes(b"a\r\nc\r\n")
        self.assertEqual((await self.changes())["run.bat"]["hunks"], "@@ -1,2 +1,2 @@\n a\n-b\n+c\n")

    async def test_a_change_in_the_second_of_a_look_is_seen(self) -> None:
        """git compares whole seconds: what was just written must be read again, whoever wrote the index."""
        copy = await self.prepared()
        page = next(path for path in copy.iterdir() if path.is_file())
        content = page.read_bytes()
        page.write_bytes(content)
        self.assertEqual(await self.changes(), {})
        page.write_bytes(content.swapcase())
        self.assertEqual(list(await self.changes()), [page.name])

    async def test_no_such_copy(self) -> None:
        with self.assertRaises(HostError) as caught:
            await self.changes()
        self.assertEqual(caught.exception.code, ErrorCode.NOT_FOUND)


class SaveTests(WorkspacesCase):
    def show(self, spec: str) -> str:
        return git(self.vault(), "show", spec)

    def ref(self, name: str) -> str:
        return git(self.vault(), "rev-parse", "--verify", "--quiet", name, check=False)

    async def test_everything_is_kept(self) -> None:
        copy = await self.prepared("fix/x")
        made = commit(copy, "work", a_txt="committed\n")
        git(copy, "checkout", "-q", "-b", "other")
        other = commit(copy, "other", o_txt="o\n")
        git(copy, "checkout", "-q", "fix/x")
        for text in ("older", "newer"):
            (copy / "a.txt").write_text(text)
            git(copy, "stash", "-q")
        git(copy, "checkout", "-q", "--detach", "HEAD")
        detached = commit(copy, "detached", x_txt="x\n")
        (copy / "a.txt").write_text("not committed\n")
        (copy / "untracked").write_text("u\n")
        (copy / "x.log").write_text("ignored")
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual(
            (saved.branch, saved.commit, saved.wip, saved.note), ("fix/x", made, "uai/t1/wip", None)
        )
        self.assertEqual(saved.repository, str(self.vault()))
        self.assertEqual(self.ref("refs/heads/fix/x"), made)
        self.assertEqual(self.ref("refs/uai/t1/app/heads/other"), other)
        self.assertEqual(self.ref("refs/uai/t1/app/detached"), detached)
        self.assertEqual(self.ref("refs/heads/uai/t1/wip^"), detached)
        self.assertEqual(self.show("refs/heads/uai/t1/wip:a.txt"), "not committed")
        self.assertEqual(self.show("refs/heads/uai/t1/wip:untracked"), "u")
        self.assertEqual(self.ref("refs/heads/uai/t1/wip:x.log"), "")
        self.assertEqual(self.show("refs/uai/t1/app/stash:a.txt"), "newer")
        self.assertEqual(self.show("refs/uai/t1/app/stash-2:a.txt"), "older")
        self.assertEqual(
            git(self.vault(), "log", "-1", "--format=%an <%ae>", "refs/heads/uai/t1/wip"),
            "Ann Ö <ann@example.org>",
        )
        self.assertEqual(git(self.vault(), "for-each-ref", "refs/incoming"), "")
        await self.workspaces.remove("t1")
        git(self.vault(), "fsck", "--strict")

    async def test_a_clean_copy_leaves_its_branch_and_no_wip(self) -> None:
        await self.prepared("fix/x")
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual((saved.branch, saved.commit, saved.wip), ("fix/x", self.first, None))

    async def test_saving_again_changes_nothing(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("x")
        first = await self.workspaces.save("t1", ["app"])
        refs = git(self.vault(), "for-each-ref")
        self.assertEqual(await self.host().save("t1", ["app"]), first)
        self.assertEqual(git(self.vault(), "for-each-ref"), refs)

    async def test_what_is_written_after_a_save_is_saved_on_top(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("earlier")
        (first,) = await self.workspaces.save("t1", ["app"])
        (copy / "new").write_text("later")
        (second,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual((first.wip, second.wip), ("uai/t1/wip", "uai/t1/wip"))
        self.assertEqual(self.show("uai/t1/wip:new"), "later")
        self.assertEqual(self.ref("uai/t1/wip^1"), self.first)
        self.assertEqual(self.show("uai/t1/wip^2:new"), "earlier")

    async def test_a_branch_that_went_another_way_overwrites_nothing(self) -> None:
        one = commit(await self.prepared("fix/x", "t1"), "one", a_txt="1")
        two = commit(await self.prepared("fix/x", "t2"), "two", a_txt="2")
        (first,) = await self.workspaces.save("t1", ["app"])
        (second,) = await self.workspaces.save("t2", ["app"])
        self.assertEqual((first.branch, second.branch), ("fix/x", "uai/t2/fix/x"))
        self.assertEqual((self.ref("refs/heads/fix/x"), self.ref("refs/heads/uai/t2/fix/x")), (one, two))

    async def test_branches_that_cannot_stand_side_by_side(self) -> None:
        await self.prepared("fix", "t1")
        await self.workspaces.save("t1", ["app"])
        made = commit(await self.prepared("fix/x", "t2"), "work", a_txt="2")
        (saved,) = await self.workspaces.save("t2", ["app"])
        self.assertEqual((saved.branch, self.ref(f"refs/heads/{saved.branch}")), ("uai/t2/fix/x", made))

    async def test_two_projects_of_one_repository_do_not_overwrite_one_another(self) -> None:
        for slug in ("a", "b"):
            copy = await self.prepared("fix/x", "t1", slug)
            commit(copy, slug, a_txt=slug)
            (copy / "new").write_text(slug)
        found = await self.workspaces.save("t1", ["a", "b"])
        self.assertEqual([saved.branch for saved in found], ["fix/x", "uai/t1/fix/x"])
        self.assertEqual([saved.wip for saved in found], ["uai/t1/wip", "uai/t1/wip-2"])
        self.assertEqual([self.show(f"refs/heads/{saved.wip}:new") for saved in found], ["a", "b"])

    async def test_work_in_a_repository_inside_the_copy_is_kept(self) -> None:
        copy = await self.prepared()
        for folder in ("lib", "lib/deeper"):
            (copy / folder).mkdir()
            git(copy / folder, "init", "-q")
            commit(copy / folder, "inner", inner_txt=folder)
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual(self.show(f"{saved.wip}:lib/inner.txt"), "lib")
        self.assertEqual(self.show(f"{saved.wip}:lib/deeper/inner.txt"), "lib/deeper")
        self.assertEqual(self.ref(f"{saved.wip}:lib/.git"), "")

    async def test_an_orphan_branch_without_commits(self) -> None:
        copy = await self.prepared()
        git(copy, "checkout", "-q", "--orphan", "fresh")
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual(
            (saved.commit, git(self.vault(), "log", "--format=%P", str(saved.wip))), (self.first, "")
        )

    async def test_a_copy_that_is_gone_is_passed_over(self) -> None:
        await self.prepared()
        await self.workspaces.remove("t1")
        self.assertEqual(await self.workspaces.save("t1", ["app", "other"]), [])

    async def test_remove_leaves_no_file_and_repeats(self) -> None:
        copy = await self.prepared()
        outside = self.root / "outside"
        outside.mkdir()
        (outside / "file").write_text("x")
        (copy / "out").symlink_to(outside)
        (copy / "closed").mkdir()
        (copy / "closed").chmod(0o500)
        for _ in range(2):
            await self.workspaces.remove("t1")
        self.assertEqual([found.name for found in self.tasks.rglob("*")], [".trash"])
        self.assertEqual((outside / "file").read_text(), "x")

    async def test_when_nothing_can_be_saved_nothing_is_lost(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", a_txt="2")
        self.saved.parent.mkdir(exist_ok=True)
        self.saved.write_text("no folder")
        with self.assertRaises(HostError):
            await self.workspaces.save("t1", ["app"])
        self.assertEqual((copy / "a.txt").read_text(), "2")

    async def test_a_copy_is_saved_without_its_mirror(self) -> None:
        copy = await self.prepared()
        made = commit(copy, "work", a_txt="2")
        self.mirror().rename(self.root / "gone")
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual((saved.commit, self.ref(f"refs/heads/{saved.branch}")), (made, made))
        git(self.vault(), "fsck", "--strict")
