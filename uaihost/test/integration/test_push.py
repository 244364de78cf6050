"""A task's branch to a real git server over TLS, with its owner's token, and a pull request from it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.credentials.proving import Proofs
from uaihost.credentials.sealing import Sealer
from uaihost.errors import HostError
from uaihost.paths import Folders
from uaihost.proofs import Grant
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.integration.forge import Forge
from uaihost.test.integration.test_broker import _Settings
from uaihost.test.support import short_folder
from uaihost.workspaces.workspaces import Identity, Pushed, Workspaces

reactor: Any = _reactor
SHIM = Path(__file__).parents[2] / "shim"
ADA = Identity("Ada", "ada@example.org")


class PushCase(TestCase):
    """ada may read and write o/shop; eve may not see it."""

    timeout = 90

    async def setUp(self) -> None:  # type: ignore[override]
        root = short_folder(self)
        self.forge = Forge(self, root)
        self.url = self.forge.repository("o/shop", "ada")
        self.folders = Folders(root / "data")
        threads = Threads(reactor, "test-files", 4)
        self.addCleanup(threads.stop)
        sealer = Sealer(os.urandom(32))

        async def key() -> Sealer:
            return sealer

        self.proofs = Proofs(
            reactor,
            Random(1).random,
            threads,
            threads,
            MemoryStore(),
            key,
            self.folders,
            _Settings(self.forge.ca_file, self.forge.url, self.forge.api_url),
            SHIM,
            lambda task, line: None,
        )
        await self.proofs.start()
        self.addCleanup(self.proofs.stop)
        self.workspaces = Workspaces(
            reactor,
            self.folders,
            threads,
            os.geteuid(),
            os.getegid(),
            (root,),
            self.proofs.environment(os.environ),
            self.proofs.broker,
        )
        for user in ("ada", "eve"):
            await self.proofs.tokens.connect(user, user, self.forge.model.connect(user), None)

    async def prepared(self, user: str = "ada", task: str = "t1", branch: str = "fix/x") -> Path:
        made = await self.workspaces.prepare(task, "shop", self.url, branch, ADA, lambda _: None, user)
        return Path(made.path)

    def git(self, copy: Path, *words: str) -> str:
        done = subprocess.run(["git", "-C", str(copy), *words], check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self, copy: Path, text: str = "Mend it") -> str:
        with (copy / "new.txt").open("a") as file:
            file.write(text)
        self.git(copy, "add", "-A")
        self.git(copy, "commit", "-q", "-m", text)
        return self.git(copy, "rev-parse", "HEAD").strip()

    async def push(self, task: str = "t1", user: str = "ada") -> Pushed:
        return await self.workspaces.push(task, "shop", self.url, user)

    async def fails(self, work: Any) -> str:
        try:
            await work
        except HostError as error:
            return error.message
        self.fail("it was done")


class PushTests(PushCase):
    async def test_what_is_committed_arrives_and_the_rest_is_said(self) -> None:
        copy = await self.prepared()
        self.assertEqual((await self.push()).state, "empty")
        head = self.commit(copy)
        (copy / "new.txt").write_text("not committed")
        done = await self.push()
        self.assertEqual((done.state, done.branch, done.head, done.base), ("pushed", "fix/x", head, "main"))
        self.assertEqual(done.commits, ("Mend it",))
        self.assertEqual(done.message, "uncommitted changes stay in the work copy")
        self.assertIn("fix/x", self.forge.branches("o/shop"))
        self.assertEqual((await self.push()).state, "same")
        self.assertNotIn("ghu_", self.git(copy, "config", "--list"))

    async def test_never_by_force(self) -> None:
        copy = await self.prepared()
        self.commit(copy)
        await self.push()
        self.git(copy, "commit", "-q", "--amend", "-m", "Another")
        self.assertIn("git pull --rebase origin fix/x", await self.fails(self.push()))

    async def test_the_default_branch_is_left_to_people(self) -> None:
        copy = await self.prepared(branch="main")
        self.commit(copy)
        self.assertIn("left to people", await self.fails(self.push()))

    async def test_hooks_and_settings_of_the_work_copy_play_no_part(self) -> None:
        copy = await self.prepared()
        self.commit(copy)
        for name in ("pre-push", "reference-transaction"):
            hook = copy / ".git" / "hooks" / name
            hook.parent.mkdir(exist_ok=True)
            hook.write_text(f"#!/bin/sh\ntouch {self.folders.root}/ran\n")
            hook.chmod(0o755)
        self.git(copy, "config", "url.https://localhost:1/.insteadOf", self.forge.url)
        self.git(copy, "config", "remote.origin.pushurl", "https://localhost:1/evil")
        self.git(copy, "config", "credential.helper", f"!touch {self.folders.root}/ran;")
        self.assertEqual((await self.push()).state, "pushed")
        self.assertFalse((self.folders.root / "ran").exists())

    async def test_who_may_not_gets_nothing_of_it(self) -> None:
        await self.prepared()
        self.assertIn("cannot be fetched", await self.fails(self.prepared("eve", "t2")))

    async def test_while_nobody_answers_what_was_fetched_is_for_those_who_were_given_it(self) -> None:
        await self.prepared()
        await self.forge.stop()
        self.commit(await self.prepared(task="t3"))
        for user in ("eve", "cid", ""):
            self.assertIn("not yours to see", await self.fails(self.prepared(user, "t4")))
        for askers in self.folders.mirrors.glob("*.git/uai-askers"):
            askers.unlink()
        self.assertIn("not yours to see", await self.fails(self.prepared("eve", "t4")))

    async def test_who_may_no_more_is_not_given_it_later_either(self) -> None:
        await self.prepared()
        self.forge.members["o/shop"].clear()
        self.assertIn("cannot be fetched", await self.fails(self.prepared(task="t2")))
        await self.forge.stop()
        self.assertIn("not yours to see", await self.fails(self.prepared(task="t3")))


class PullRequestTests(PushCase):
    async def open(self, user: str = "ada", head: str = "fix/x") -> Any:
        return await self.proofs.pulls.open(
            Grant(user, "t1", (self.url,)), self.url, head=head, base="main", title="T", body="B", draft=False
        )

    async def test_one_is_opened_and_then_found(self) -> None:
        self.commit(await self.prepared())
        await self.push()
        first = await self.open()
        self.assertTrue(first.created)
        self.assertIn("/o/shop/pull/", first.url)
        again = await self.open()
        self.assertEqual((again.number, again.url, again.created), (first.number, first.url, False))

    async def test_what_github_says_is_handed_on(self) -> None:
        self.assertIn("head", await self.fails(self.open(head="nowhere")))
        self.assertIn("Not Found", await self.fails(self.open("eve")))
        await self.proofs.tokens.clear("ada")
        self.assertIn("not connected", await self.fails(self.open()))
