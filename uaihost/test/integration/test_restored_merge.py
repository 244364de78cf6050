"""What was under way in a work copy can be ended in the clone that is restored of it."""

from __future__ import annotations

from pathlib import Path

from uaihost.test.integration.git_rig import WorkspacesCase, git
from uaihost.test.integration.work_states import take


class MergeTests(WorkspacesCase):
    async def restored(self, *steps: tuple[str, ...]) -> Path:
        copy = await self.prepared()
        take(copy, list(steps), self.root)
        self.assertTrue(git(copy, "ls-files", "--unmerged"))
        await self.workspaces.save("t1", ["app"])
        await self.workspaces.remove("t1")
        (kept,) = await self.workspaces.kept("t1")
        target = self.root / "clone"
        await self.workspaces.restore(kept, target)
        return target

    async def test_a_merge_is_ended(self) -> None:
        clone = await self.restored(("merge", "other"))
        self.assertEqual(git(clone, "status", "--porcelain"), "UU a.txt")
        (clone / "a.txt").write_text("both\n")
        git(clone, "add", "a.txt")
        git(clone, "commit", "-q", "-m", "merged")
        self.assertEqual(git(clone, "rev-parse", "HEAD^2"), git(clone, "rev-parse", "other"))

    async def test_a_merge_is_given_up(self) -> None:
        clone = await self.restored(("merge", "other"))
        git(clone, "merge", "--abort")
        self.assertEqual((git(clone, "status", "--porcelain"), (clone / "a.txt").read_text()), ("", "ours\n"))

    async def test_the_commit_that_a_rebase_was_at_has_a_name(self) -> None:
        clone = await self.restored(("rebase", "other"))
        named = git(clone, "for-each-ref", "--format=%(refname) %(subject)", "refs/restored/pending/")
        self.assertIn("refs/restored/pending/REBASE_HEAD ours", named.splitlines())
        self.assertIn("refs/restored/pending/rebase-merge/orig-head ours", named.splitlines())
