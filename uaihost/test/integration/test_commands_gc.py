"""Freeing disk for real: work copies and mirrors of git, measured, saved, removed and made again."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.paths import Folders
from uaihost.test.integration.service import BIN, Service
from uaihost.test.support import short_folder
from uaihost.workspaces.workspaces import Workspaces

MONTH = 31 * 86_400


def git(*words: str, at: Path) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=at, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


class MirrorTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.origin = short_folder(self) / "shop"
        self.origin.mkdir()
        git("init", "-q", "-b", "main", at=self.origin)
        (self.origin / "file").write_text("one\n")
        git("add", ".", at=self.origin)
        git("commit", "-qm", "one", at=self.origin)
        threads = Threads(reactor, "files", 2)  # type: ignore[arg-type]
        self.addCleanup(threads.stop)
        for folder in (self.folders.mirrors, self.folders.tasks, self.folders.saved):
            folder.mkdir()
        self.workspaces = Workspaces(
            reactor, self.folders, threads, os.geteuid(), os.getegid(), (self.origin.parent,)
        )

    async def prepared(self, task_id: str) -> None:
        await self.workspaces.prepare(task_id, "shop", str(self.origin), "fix", None, lambda said: None)

    async def test_a_mirror_is_idle_when_no_task_was_made_from_it(self) -> None:
        await self.prepared("t1")
        [mirror] = self.folders.mirrors.glob("*.git")
        self.assertEqual(await self.workspaces.idle_mirrors(), {})
        await self.workspaces.save("t1", ["shop"])
        await self.workspaces.remove("t1")
        [(key, at)] = (await self.workspaces.idle_mirrors()).items()
        self.assertEqual(f"{key}.git", mirror.name)
        self.assertLess(abs(time.time() - at), MONTH)

    async def test_a_mirror_that_went_is_made_again_and_saved_work_is_whole(self) -> None:
        await self.prepared("t1")
        (self.folders.work_copy("t1", "shop") / "new").write_text("mine\n")
        await self.workspaces.save("t1", ["shop"])
        await self.workspaces.remove("t1")
        [key] = await self.workspaces.idle_mirrors()
        self.assertTrue(await self.workspaces.remove_mirror(key))
        self.assertEqual(list(self.folders.mirrors.glob("*.git")), [])
        [kept] = await self.workspaces.kept("t1")
        target = self.folders.root / "back"
        await self.workspaces.restore(kept, target)
        self.assertEqual((target / "new").read_text(), "mine\n")
        self.assertEqual((target / "file").read_text(), "one\n")
        await self.prepared("t2")
        self.assertEqual((self.folders.work_copy("t2", "shop") / "file").read_text(), "one\n")

    async def test_a_mirror_that_saved_work_borrows_from_stays(self) -> None:
        await self.prepared("t1")
        await self.workspaces.remove("t1")
        [mirror] = self.folders.mirrors.glob("*.git")
        lent = self.folders.saved / "old.git" / "objects" / "info" / "alternates"
        lent.parent.mkdir(parents=True)
        lent.write_text(f"{mirror}/objects\n")
        self.assertEqual(await self.workspaces.idle_mirrors(), {})
        self.assertFalse(await self.workspaces.remove_mirror(mirror.name.removesuffix(".git")))
        self.assertTrue(mirror.exists())


class VerbTests(TestCase):
    timeout = 60

    async def test_the_command_line_asks_the_running_host(self) -> None:
        data = short_folder(self)
        mirror = Folders(data).mirror("shop")
        mirror.mkdir(parents=True)
        (mirror / "pack").write_bytes(b"x" * 1_000_000)
        # Nobody listens there: the host serves its own command line all the same.
        service = Service(reactor, "ws://127.0.0.1:9/host", data)
        self.addCleanup(service.stop)
        service.start()
        answer = None
        for _ in range(100):
            out, err, status = await getProcessOutputAndValue(
                str(BIN / "uaihost"), ["gc", "--dry-run", "--json"], env=service.env, reactor=reactor
            )
            if status == 0:
                answer = json.loads(out)
                break
            self.assertIn(b"no host is running here", err)
            await deferLater(reactor, 0.2)
        assert answer is not None
        self.assertGreaterEqual(answer["classes"]["mirrors"], 1_000_000)
        self.assertGreater(answer["classes"]["database"], 0)
        self.assertEqual(answer["budgetBytes"], 50 << 30)
        self.assertEqual(answer["removed"], [])
        self.assertTrue((mirror / "pack").exists())
        service.signal()
        self.assertEqual(await service.exit(), 0)
