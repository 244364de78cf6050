"""What the vault keeps of the commits, the index and the logs of work copies, on real repositories."""

from __future__ import annotations

import json
from pathlib import Path

from uaihost.errors import HostError
from uaihost.test.integration.git_rig import commit, git
from uaihost.test.integration.vault_rig import VaultCase
from uaihost.workspaces import vault


class IndexTests(VaultCase):
    async def test_what_is_staged_is_kept_apart_from_the_files(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("staged\n")
        (copy / "new").write_text("staged\n")
        git(copy, "add", "a.txt", "new")
        git(copy, "rm", "-q", "--cached", "d/b.txt")
        (copy / "a.txt").write_text("not staged\n")
        saved = await self.save()
        self.assertEqual(self.show("refs/uai/t1/app/index:a.txt"), "staged")
        self.assertEqual(self.show("refs/uai/t1/app/index:new"), "staged")
        self.assertEqual(self.ref("refs/uai/t1/app/index:d/b.txt"), "")
        self.assertEqual(self.show(f"{saved.wip}:a.txt"), "not staged")
        self.assertEqual(self.show(f"{saved.wip}:d/b.txt"), "b")

    async def test_what_is_staged_and_gone_from_the_files_is_kept(self) -> None:
        copy = await self.prepared()
        (copy / "a.txt").write_text("staged\n")
        git(copy, "add", "a.txt")
        git(copy, "show", "HEAD:a.txt")
        (copy / "a.txt").write_text("one\ntwo\n")
        saved = await self.save()
        self.assertIsNone(saved.wip)
        self.assertEqual(self.show("refs/uai/t1/app/index:a.txt"), "staged")

    async def test_every_side_of_a_conflict_is_kept(self) -> None:
        copy = await self.prepared("mine")
        base = git(copy, "rev-parse", "HEAD")
        mine = commit(copy, "mine", a_txt="mine\n")
        git(copy, "checkout", "-q", "-b", "theirs", base)
        theirs = commit(copy, "theirs", a_txt="theirs\n")
        git(copy, "checkout", "-q", "mine")
        git(copy, "merge", "theirs", check=False)
        saved = await self.save()
        sides = [self.show(f"refs/uai/t1/app/unmerged:{side}/a.txt") for side in "123"]
        self.assertEqual(sides, ["one\ntwo", "mine", "theirs"])
        self.assertIn("<<<<<<<", self.show(f"{saved.wip}:a.txt"))
        self.assertEqual(self.ref("refs/uai/t1/app/pending/MERGE_HEAD"), theirs)
        self.assertEqual(saved.commit, mine)
        self.assertIn("git/.git/MERGE_MSG", self.beside(saved))

    async def test_a_damaged_index_blocks_nothing(self) -> None:
        copy = await self.prepared()
        (copy / ".git" / "index").write_bytes(b"garbage")
        (copy / "new").write_text("x\n")
        saved = await self.save()
        self.assertEqual(self.show(f"{saved.wip}:new"), "x")
        self.assertIsNone(self.part(saved)["index"])

    async def test_line_ends_that_git_would_not_write_back_are_kept_as_they_are(self) -> None:
        (self.remote / ".gitattributes").write_text("*.txt text=auto\n")
        commit(self.remote, "attributes")
        copy = await self.prepared()
        (copy / "mixed.txt").write_bytes(b"a\r\nb\nc\r\n")
        saved = await self.save()
        self.assertEqual(self.beside(saved)["work/mixed.txt"], b"a\r\nb\nc\r\n")


class HistoryTests(VaultCase):
    async def test_commits_that_reset_left_behind(self) -> None:
        copy = await self.prepared()
        commit(copy, "one", a_txt="1")
        lost = commit(copy, "two", a_txt="2")
        git(copy, "reset", "-q", "--hard", self.first)
        again = commit(copy, "three", a_txt="3")
        (copy / ".git" / "ORIG_HEAD").unlink()
        saved = await self.save()
        self.assertEqual(self.refs("refs/uai/t1/app/past"), {"refs/uai/t1/app/past/1": lost})
        self.assertEqual(saved.commit, again)

    async def test_a_log_that_names_what_is_gone_blocks_nothing(self) -> None:
        copy = await self.prepared()
        lost = commit(copy, "lost", a_txt="1")
        git(copy, "reset", "-q", "--hard", self.first)
        (copy / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
        made = commit(copy, "made", a_txt="2")
        saved = await self.save()
        self.assertEqual((saved.commit, saved.note, self.refs("refs/uai/t1/app/past")), (made, None, {}))

    async def test_of_a_log_whose_commits_are_torn_what_has_a_name_is_kept_and_it_is_told(self) -> None:
        copy = await self.prepared()
        torn = commit(copy, "torn", a_txt="1")
        commit(copy, "on top", a_txt="2")
        git(copy, "reset", "-q", "--hard", self.first)
        (copy / ".git" / "objects" / torn[:2] / torn[2:]).unlink()
        made = commit(copy, "made", a_txt="3")
        saved = await self.save()
        self.assertEqual(saved.commit, made)
        self.assertIn("its log", str(saved.note))

    async def test_tags_of_the_task_and_not_the_remotes(self) -> None:
        git(self.remote, "tag", "v1")
        copy = await self.prepared()
        made = commit(copy, "work", a_txt="1")
        git(copy, "tag", "-a", "-m", "mine", "mine")
        await self.save()
        self.assertEqual(list(self.refs("refs/uai/t1/app/tags")), ["refs/uai/t1/app/tags/mine"])
        self.assertEqual(self.ref("refs/uai/t1/app/tags/mine^{commit}"), made)

    async def test_refs_of_other_kinds_and_worktrees(self) -> None:
        copy = await self.prepared()
        git(copy, "notes", "add", "-m", "a note", "HEAD")
        apart = commit(copy, "apart", a_txt="1")
        git(copy, "update-ref", "refs/original/x", apart)
        git(copy, "reset", "-q", "--hard", self.first)
        git(copy, "worktree", "add", "-q", "--detach", "wt")
        away = commit(copy / "wt", "away", a_txt="2")
        (copy / ".git" / "ORIG_HEAD").unlink()
        git(copy, "pack-refs", "--all")
        saved = await self.save()
        found = self.refs("refs/uai/t1/app/others")
        self.assertEqual(found["refs/uai/t1/app/others/original/x"], apart)
        self.assertEqual(found["refs/uai/t1/app/others/worktrees/wt"], away)
        self.assertEqual(
            git(copy, "rev-parse", "refs/notes/commits"), found["refs/uai/t1/app/others/notes/commits"]
        )
        self.assertEqual(self.part(saved)["past"], [])
        self.assertEqual(self.show(f"{saved.wip}:wt/a.txt"), "2")

    async def test_a_rebase_that_stopped(self) -> None:
        copy = await self.prepared("mine")
        commit(copy, "one", a_txt="1\n")
        mine = commit(copy, "two", b_txt="2\n")
        git(copy, "checkout", "-q", "-b", "onto", self.first)
        onto = commit(copy, "onto", a_txt="3\n")
        git(copy, "checkout", "-q", "mine")
        git(copy, "rebase", "onto", check=False)
        saved = await self.save()
        self.assertEqual(self.ref("refs/uai/t1/app/pending/rebase-merge/orig-head"), mine)
        self.assertEqual(self.ref("refs/uai/t1/app/pending/rebase-merge/onto"), onto)
        self.assertEqual((saved.commit, self.part(saved)["head"]["branch"]), (mine, None))
        self.assertEqual(self.beside(saved)["git/.git/rebase-merge/head-name"], b"refs/heads/mine\n")


class PlaceTests(VaultCase):
    async def test_saved_work_needs_no_mirror_any_more(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("x\n")
        saved = await self.save()
        await self.workspaces.remove("t1")
        self.mirror().rename(self.root / "gone")
        git(self.vault(), "fsck", "--strict")
        self.assertEqual(self.show(f"{saved.wip}:new"), "x")
        self.assertEqual(git(self.vault(), "log", "--format=%s", str(saved.branch)), "first")
        self.assertFalse((self.vault() / "objects" / "info" / "alternates").exists())

    async def test_what_an_earlier_version_kept_in_mirrors_moves_here_once(self) -> None:
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        other = commit(self.remote, "kept earlier", a_txt="kept")
        git(self.mirror(), "fetch", "-q", str(self.remote), f"{other}:refs/heads/fix/x")
        git(self.mirror(), "update-ref", "refs/uai/t0/app/stash", other)
        git(self.remote, "reset", "-q", "--hard", self.first)
        copy = await self.prepared("fix/x", "t2")
        self.assertEqual(git(copy, "rev-parse", "HEAD"), other)
        self.assertEqual((self.ref("refs/heads/fix/x"), self.ref("refs/uai/t0/app/stash")), (other, other))
        self.assertEqual(git(self.mirror(), "for-each-ref", "refs/heads", "refs/uai"), "")
        git(self.vault(), "fsck", "--strict")

    async def test_a_mirror_goes_only_once_that_is_in_the_vault(self) -> None:
        await self.workspaces.clone(str(self.remote), "p1", self.lines.append)
        other = commit(self.remote, "kept earlier", a_txt="kept")
        git(self.mirror(), "fetch", "-q", str(self.remote), f"{other}:refs/heads/uai/t0/wip")
        self.assertTrue(await self.workspaces.remove_mirror(self.mirror().name.removesuffix(".git")))
        self.assertEqual(self.show("uai/t0/wip:a.txt"), "kept")
        self.assertEqual(list(self.mirrors.glob("*.git")), [])

    async def test_work_that_does_not_arrive_whole_is_not_called_saved(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", a_txt="2")
        link = vault._link

        def torn(file: Path, target: Path) -> None:
            if file.suffix != ".pack" or "mirrors" in str(file):
                link(file, target)

        self.patch(vault, "_link", torn)
        with self.assertRaises(HostError) as caught:
            await self.save()
        self.assertIn("cannot be", caught.exception.message)
        self.assertEqual(git(self.vault(), "for-each-ref"), "")
        self.assertEqual((copy / "a.txt").read_text(), "2")

    async def test_the_description_says_all(self) -> None:
        await self.prepared()
        saved = await self.save()
        there = json.loads((self.saved / "t1" / "app.json").read_text())
        self.assertEqual((there["task"], there["slug"], there["commit"]), ("t1", "app", saved.commit))
        self.assertEqual(there["parts"][0]["branch"], ["refs/heads/fix/x", self.first])

    async def test_many_references_are_few_steps(self) -> None:
        copy = await self.prepared()
        lines = "".join(f"{self.first} refs/heads/b{number}\n" for number in range(2000))
        with (copy / ".git" / "packed-refs").open("a") as file:
            file.write(lines)
        await self.save()
        self.assertEqual(len(self.refs("refs/uai/t1/app/heads")), 2000)
