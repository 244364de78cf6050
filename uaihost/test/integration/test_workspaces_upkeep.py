"""Mirrors over time: what a killed git left, many small packs, who uses them, when they may go."""

from __future__ import annotations

import os
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from uaihost.test.integration.git_rig import WorkspacesCase, commit, git
from uaihost.workspaces import upkeep
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.safe_git import Git
from uaihost.workspaces.urls import parse


class UpkeepCase(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        self.saved = self.root / "data" / "saved"
        self.repository = parse(str(self.remote), allowed_roots=[self.root])
        self.key = self.repository.key
        self.room = self.mirrors_room()

    def mirrors_room(self) -> Mirrors:
        """As a newly started daemon would have them."""
        home = self.mirrors / ".git-home"
        return Mirrors(Git(reactor, home, {}), self.mirrors, self.threads, self.saved)

    async def fetch(self) -> str:
        async with self.room.lock(self.key):
            return (await self.room.fetch(self.repository, self.lines.append)).head

    async def many_packs(self) -> None:
        await self.fetch()
        for number in range(upkeep._MANY_PACKS + 1):
            commit(self.remote, f"{number}", a_txt=f"{number}" * 50)
            await self.fetch()

    def packs(self) -> list[Path]:
        return list((self.mirror() / "objects" / "pack").glob("*.pack"))


class LeftoverTests(UpkeepCase):
    async def test_what_a_killed_git_left_stands_in_nobodys_way(self) -> None:
        await self.fetch()
        old = time.time() - 60
        for name in ("packed-refs.lock", "HEAD.lock", "refs/remotes/origin/main.lock", "shallow.lock"):
            (self.mirror() / name).parent.mkdir(parents=True, exist_ok=True)
            (self.mirror() / name).touch()
            os.utime(self.mirror() / name, (old, old))
        second = commit(self.remote, "second", a_txt="2")
        self.room = self.mirrors_room()
        self.assertEqual(await self.fetch(), second)
        self.assertEqual(list(self.mirror().rglob("*.lock")), [])

    async def test_a_lock_of_this_moment_is_outlived(self) -> None:
        await self.fetch()
        second = commit(self.remote, "second", a_txt="2")
        self.patch(upkeep, "_DYING", 0.3)
        lock = self.mirror() / "refs" / "remotes" / "origin" / "main.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
        self.assertEqual(await self.fetch(), second)

    async def test_a_first_clone_that_was_interrupted_is_made_again(self) -> None:
        half = self.mirrors / f"{self.key}.new"
        git(self.root, "init", "-q", "--bare", str(half))
        (half / "objects" / "pack" / "tmp_pack_x").write_text("half")
        self.assertEqual(await self.fetch(), self.first)
        self.assertFalse(half.exists())


class RepackTests(UpkeepCase):
    async def test_many_packs_become_few_and_nothing_is_lost(self) -> None:
        await self.fetch()
        lost = commit(self.remote, "dropped by the remote", a_txt="unique")
        await self.fetch()
        git(self.remote, "reset", "-q", "--hard", self.first)
        await self.many_packs()
        before = git(self.mirror(), "cat-file", "--batch-all-objects", "--batch-check")
        (self.mirror() / "objects" / "pack" / "tmp_pack_old").write_text("left")
        self.assertTrue(await self.room.maintain(self.key))
        self.assertLess(len(self.packs()), upkeep._MANY_PACKS)
        self.assertEqual(git(self.mirror(), "cat-file", "--batch-all-objects", "--batch-check"), before)
        self.assertIn(lost, before)
        self.assertEqual(list((self.mirror() / "objects" / "pack").glob("tmp_*")), [])
        git(self.mirror(), "fsck", "--strict")

    async def test_at_most_once_a_day_and_only_where_it_is_worth_it(self) -> None:
        await self.fetch()
        self.assertFalse(await self.room.maintain(self.key))
        await self.many_packs()
        self.assertTrue(await self.room.maintain(self.key))
        self.patch(upkeep, "_MANY_PACKS", 0)
        self.assertFalse(await self.room.maintain(self.key))

    async def test_not_while_it_is_used_or_changed_here_or_in_another_process(self) -> None:
        await self.many_packs()
        other = self.mirrors_room()
        for hold in (self.room.lock, self.room.use, other.lock, other.use):
            async with hold(self.key):
                self.assertFalse(await self.room.maintain(self.key))
                self.assertFalse(await self.room.remove(self.key))
        self.assertTrue(await self.room.maintain(self.key))

    async def test_it_gives_way_to_a_task(self) -> None:
        await self.many_packs()
        begun: Deferred[None] = Deferred()

        async def forever(*_: object) -> None:
            begun.callback(None)
            await Deferred()

        self.patch(upkeep, "repack", forever)
        maintaining = Deferred.fromCoroutine(self.room.maintain(self.key))
        await begun
        await deferLater(reactor, 0, lambda: None)
        second = commit(self.remote, "second", a_txt="2")
        self.assertEqual(await self.fetch(), second)
        self.assertFalse(await maintaining)


class RemovalTests(UpkeepCase):
    async def test_a_mirror_that_nothing_needs_goes(self) -> None:
        before = time.time() - 1
        await self.fetch()
        (found,) = (await self.room.known()).items()
        self.assertEqual(found[0], self.key)
        self.assertGreater(found[1], before)
        self.assertTrue(await self.room.remove(self.key))
        self.assertEqual(await self.room.known(), {})

    async def test_one_that_saved_work_borrows_from_stays(self) -> None:
        await self.fetch()
        vault = self.saved / "x.git" / "objects" / "info"
        vault.mkdir(parents=True)
        (vault / "alternates").write_text(f"{self.mirror() / 'objects'}\n")
        self.assertFalse(await self.room.remove(self.key))
        self.assertTrue(self.mirror().is_dir())

    async def test_its_folder_says_what_it_is_of(self) -> None:
        await self.fetch()
        self.assertEqual((self.mirror() / "description").read_text(), f"{self.remote}\n")
