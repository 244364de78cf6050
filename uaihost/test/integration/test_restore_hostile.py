"""What an agent made to hinder or misuse a restore."""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import WorkspacesCase, commit, git


def tree(folder: Path, lines: str) -> str:
    """A tree as nobody's git would make it."""
    done = subprocess.run(
        ["git", "mktree"], cwd=folder, input=lines.encode(), capture_output=True, check=True
    )
    return done.stdout.decode("ascii").strip()


class HostileTests(WorkspacesCase):
    async def restored(self) -> tuple[Path, list[str]]:
        await self.workspaces.save("t1", ["app"])
        await self.workspaces.remove("t1")
        (kept,) = await self.workspaces.kept("t1")
        target = self.root / "clone"
        return target, await self.workspaces.restore(kept, target)

    async def test_a_commit_with_names_that_no_folder_can_have(self) -> None:
        copy = await self.prepared()
        blob = git(copy, "rev-parse", "HEAD:a.txt")
        made = tree(copy, f"100644 blob {blob}\tGIT~1\n100644 blob {blob}\tplain\n")
        bad = git(copy, "commit-tree", made, "-p", "HEAD", "-m", "bad")
        git(copy, "update-ref", "HEAD", bad)
        (copy / "a.txt").write_text("work\n")
        clone, _ = await self.restored()
        self.assertEqual(git(clone, "rev-parse", "HEAD"), bad)
        self.assertEqual((clone / "a.txt").read_text(), "work\n")
        self.assertFalse((clone / "GIT~1").exists())

    async def test_a_branch_named_like_a_folder_of_branches(self) -> None:
        copy = await self.prepared("fix")
        one, two = commit(copy, "one", a_txt="1\n"), commit(copy, "two", a_txt="2\n")
        with (copy / ".git" / "packed-refs").open("a") as file:
            file.write(f"{one} refs/heads/both\n{two} refs/heads/both/of/them\n")
        clone, _ = await self.restored()
        names = git(clone, "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/restored")
        self.assertLessEqual({one, two}, set(names.splitlines()))

    async def test_an_inner_repository_behind_a_link(self) -> None:
        outside = self.root / "outside"
        outside.mkdir()
        copy = await self.prepared()
        (copy / "inner").mkdir()
        git(copy / "inner", "init", "-q")
        commit(copy / "inner", "in it", own="1\n")
        await self.workspaces.save("t1", ["app"])
        (kept,) = await self.workspaces.kept("t1")
        # As if it had become a link between two looks.
        (copy / "inner").rename(self.root / "moved")
        (copy / "inner").symlink_to(outside)
        await self.workspaces.save("t1", ["app"])
        (linked,) = await self.workspaces.kept("t1")
        parts = (linked.parts[0], *kept.parts[1:])
        target = self.root / "clone"
        notes = await self.workspaces.restore(attrs.evolve(linked, parts=parts), target)
        self.assertEqual(list(outside.iterdir()), [])
        self.assertTrue((target / "inner").is_symlink())
        self.assertTrue(any("something else stands there" in note for note in notes), notes)

    async def test_nothing_half_made_stays_when_the_vault_is_damaged(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", a_txt="work\n")
        await self.workspaces.save("t1", ["app"])
        for file in (self.vault() / "objects").rglob("*"):
            if file.is_file():
                file.unlink()
        (kept,) = await self.workspaces.kept("t1")
        with self.assertRaises(HostError) as caught:
            await self.workspaces.restore(kept, self.root / "there" / "clone")
        self.assertEqual(caught.exception.code, ErrorCode.UNAVAILABLE)
        self.assertIn(str(self.vault()), caught.exception.message)
        self.assertEqual(list((self.root / "there").iterdir()), [])
        self.assertEqual((copy / "a.txt").read_text(), "work\n")

    async def test_hooks_and_settings_are_not_in_force(self) -> None:
        copy = await self.prepared()
        hook = copy / ".git" / "hooks" / "post-checkout"
        hook.parent.mkdir()
        hook.write_text("#!/bin/sh\ntouch ran\n")
        hook.chmod(0o755)
        git(copy, "config", "core.pager", "touch ran")
        clone, notes = await self.restored()
        self.assertEqual(list((clone / ".git").glob("hooks/*")), [])
        self.assertEqual(git(clone, "config", "--local", "--get", "core.pager", check=False), "")
        self.assertTrue(any("hooks" in note for note in notes), notes)
