"""Mirrors on real repositories: made, fetched, refused with a reason, rebuilt when damaged."""

from __future__ import annotations

import string
import subprocess

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.test.integration.git_rig import GitServer, WorkspacesCase, commit, git
from uaihost.test.support import given, settings, strategies
from uaihost.wire.reasons import Reason
from uaihost.workspaces.branches import fault

# What the rules are about, and every other printable character.
PIECES = [
    *string.printable,
    *("a", "b", "/", ".", "..", "@", "{", "@{", "-", "~", "é", "\x7f", ".lock", "HEAD") * 8,
]


class MirrorTests(WorkspacesCase):
    async def clone(self, url: str) -> dict[str, str]:
        return await self.workspaces.clone(url, "p1", self.lines.append)

    async def refused(self, url: str) -> HostError:
        try:
            await self.clone(url)
        except HostError as error:
            return error
        raise AssertionError(f"{url} was not refused")

    def refs(self) -> set[str]:
        return set(git(self.mirror(), "for-each-ref", "--format=%(refname)").split("\n"))

    async def test_a_clone_has_the_remotes_branches_tags_and_default(self) -> None:
        git(self.remote, "branch", "feature")
        git(self.remote, "tag", "v1")
        found = await self.clone(str(self.remote))
        self.assertEqual(found, {"path": str(self.mirror()), "defaultBranch": "main", "head": self.first})
        origin = "refs/remotes/origin/"
        self.assertEqual(self.refs(), {f"{origin}HEAD", f"{origin}main", f"{origin}feature", "refs/tags/v1"})
        self.assertIn(Doing(Reason.CLONING, "Receiving objects", 100), self.lines)

    async def test_a_second_clone_fetches_what_is_new_and_drops_what_is_gone(self) -> None:
        git(self.remote, "branch", "old")
        git(self.remote, "tag", "v1")
        await self.clone(str(self.remote))
        second = commit(self.remote, "second", a_txt="2")
        git(self.remote, "branch", "-D", "old")
        git(self.remote, "tag", "-f", "v1")
        found = await self.clone(f"file://{self.remote}")
        self.assertEqual(found["head"], second)
        self.assertNotIn("refs/remotes/origin/old", self.refs())
        self.assertEqual(git(self.mirror(), "rev-parse", "v1"), second)

    async def test_the_default_branch_follows_the_remote(self) -> None:
        await self.clone(str(self.remote))
        git(self.remote, "checkout", "-q", "-b", "trunk")
        self.assertEqual((await self.clone(str(self.remote)))["defaultBranch"], "trunk")
        git(self.remote, "checkout", "-q", "--detach")
        self.assertEqual((await self.clone(str(self.remote)))["defaultBranch"], "main")

    async def test_clones_of_one_repository_at_once_make_one_mirror(self) -> None:
        from twisted.internet.defer import ensureDeferred, gatherResults

        found = await gatherResults([ensureDeferred(self.clone(str(self.remote))) for _ in range(3)])
        self.assertEqual(len({one["path"] for one in found}), 1)

    async def test_an_empty_repository_says_so(self) -> None:
        empty = self.root / "code" / "empty"
        empty.mkdir()
        git(empty, "init", "-q")
        error = await self.refused(str(empty))
        self.assertEqual(error.code, ErrorCode.CLONE_FAILED)
        self.assertIn("push a first commit", error.message)

    async def test_what_is_missing_or_no_repository_says_so_and_leaves_nothing(self) -> None:
        (self.root / "code" / "plain").mkdir()
        for name in ("missing", "plain"):
            error = await self.refused(str(self.root / "code" / name))
            self.assertEqual(error.code, ErrorCode.CLONE_FAILED)
            self.assertIn("no git repository", error.message)
        self.assertEqual(list(self.mirrors.glob("*.git")), [])

    async def test_addresses_that_run_programs_or_lie_outside_are_refused(self) -> None:
        mark = self.root / "mark"
        for url in (
            f"ext::touch {mark}",
            f"--upload-pack=touch {mark}",
            "file:///etc",
            "/etc",
            f"{self.root}/data",
        ):
            self.assertEqual((await self.refused(url)).code, ErrorCode.INVALID_ARGS)
        self.assertFalse(mark.exists())

    async def test_a_damaged_mirror_is_made_anew(self) -> None:
        await self.clone(str(self.remote))
        self.damage()
        second = commit(self.remote, "second", a_txt="2")
        self.assertEqual((await self.clone(str(self.remote)))["head"], second)
        git(self.mirror(), "fsck", "--strict")
        self.assertEqual(list(self.mirrors.glob("*.damaged-*")), [])

    async def test_what_saved_work_borrows_outlives_a_damaged_mirror(self) -> None:
        dropped = commit(self.remote, "dropped", a_txt="2")
        await self.clone(str(self.remote))
        vault = self.root / "data" / "saved" / "one.git"
        git(self.root, "init", "-q", "--bare", str(vault))
        (vault / "objects/info/alternates").write_text(f"{self.mirror() / 'objects'}\n")
        git(vault, "update-ref", "refs/heads/saved", dropped)
        git(self.remote, "reset", "-q", "--hard", self.first)
        git(self.remote, "reflog", "expire", "--expire=now", "--all")
        git(self.remote, "gc", "-q", "--prune=now")
        self.damage()
        await self.clone(str(self.remote))
        (aside,) = self.mirrors.glob("*.damaged-1")
        self.assertTrue(any(str(aside) in str(line) for line in self.lines), self.lines)
        git(vault, "fsck", "--strict")
        self.assertEqual(git(vault, "show", "saved:a.txt"), "2")

    def damage(self) -> None:
        (self.mirror() / "HEAD").write_text("garbage")


class HttpTests(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        served = self.root / "served"
        (served / "private").mkdir(parents=True)
        (served / "config").write_text("[safe]\n directory = *\n")
        for name in ("app.git", "private/app.git"):
            git(self.root, "clone", "-q", "--bare", str(self.remote), str(served / name))
        self.server = GitServer(served)
        self.addCleanup(self.server.stop)

    async def test_a_repository_over_http_is_cloned_and_fetched(self) -> None:
        for _ in range(2):
            found = await self.workspaces.clone(f"{self.server.url}/app.git", "p1", self.lines.append)
            self.assertEqual((found["defaultBranch"], found["head"]), ("main", self.first))

    async def test_each_failure_says_what_to_do(self) -> None:
        gone = GitServer(self.root / "served")
        gone.stop()
        cases = {
            f"{self.server.url}/missing.git": "no such repository",
            f"{self.server.url}/private/app.git": "needs a sign-in",
            f"{self.server.url}/page/app": "no git repository",
            f"{gone.url}/app.git": "cannot be reached",
        }
        for url, why in cases.items():
            with self.assertRaises(HostError) as caught:
                await self.workspaces.clone(url, "p1", self.lines.append)
            self.assertEqual(caught.exception.code, ErrorCode.CLONE_FAILED)
            self.assertIn(why, caught.exception.message, url)


class BranchRuleTests(WorkspacesCase):
    @settings(max_examples=200)
    @given(strategies.lists(strategies.sampled_from(PIECES), max_size=5).map("".join))
    def test_our_rules_for_branches_are_gits(self, name: str) -> None:
        done = subprocess.run(
            ["git", "check-ref-format", "--branch", name], cwd=self.remote, capture_output=True, check=False
        )
        # git's manual forbids the name "@" and this command lets it pass; we keep to the manual.
        self.assertEqual(fault(name) is None, done.returncode == 0 and name != "@", name)
