"""`uaihost restore` as a person runs it, on a data folder whose daemon is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from uaihost.test.integration.git_rig import WorkspacesCase, commit, git


class CommandTests(WorkspacesCase):
    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        def run() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "uaihost.cli", "restore", *words],
                cwd=self.person,
                env={
                    **os.environ,
                    "UAI_DATA_DIR": str(self.data),
                    "PYTHONPATH": str(Path(__file__).parents[3]),
                },
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        return await deferToThread(run)

    async def answer(self, *words: str) -> Any:
        done = await self.command(*words, "--json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout)

    def setUp(self) -> None:
        super().setUp()
        self.data = self.root / "data"
        self.data.mkdir(exist_ok=True)
        self.person = self.root / "person"
        self.person.mkdir()

    async def down(self) -> Path:
        """A task with two projects and an agent's session, its work saved and its folder removed."""
        copy = await self.prepared("fix/x", "t1")
        await self.prepared("fix/x", "t1", "two")
        commit(copy, "made", committed="c\n")
        (copy / "a.txt").write_text("changed\n")
        (copy / "secret.log").write_text("ignored\n")
        session = self.tasks / "t1" / "home" / ".claude" / "projects" / "p"
        session.mkdir(parents=True)
        (session / "s.jsonl").write_text("{}\n")
        await self.workspaces.save("t1", ["app", "two"])
        await self.workspaces.remove("t1")
        return copy

    async def test_everything_of_a_task_comes_back_beside_one_another(self) -> None:
        copy = await self.down()
        self.assertFalse(copy.exists())
        listed = await self.answer()
        self.assertEqual(
            sorted((one["task"], one["slug"]) for one in listed), [("t1", ""), ("t1", "app"), ("t1", "two")]
        )
        made = {one["slug"]: Path(one["path"]) for one in await self.answer("t1")}
        app = self.person / made["app"]
        self.assertEqual(app, self.person / "app-t1")
        self.assertEqual(git(app, "status", "--porcelain", "--branch"), "## fix/x\n M a.txt")
        self.assertEqual((app / "secret.log").read_text(), "ignored\n")
        self.assertEqual(git(app, "log", "-1", "--format=%s"), "made")
        self.assertEqual(git(app, "config", "remote.origin.url"), str(self.remote))
        self.assertFalse((app / ".git" / "objects" / "info" / "alternates").exists())
        self.assertEqual(git(self.person / made["two"], "status", "--porcelain"), "")
        session = self.person / made[""] / "home" / ".claude" / "projects" / "p" / "s.jsonl"
        self.assertEqual(session.read_text(), "{}\n")
        self.assertEqual(list(self.person.glob(".*")), [])

    async def test_nothing_is_written_over(self) -> None:
        await self.down()
        (self.person / "mine").mkdir()
        done = await self.command("t1", "--project", "app", "--to", "mine")
        self.assertEqual(done.returncode, 1)
        self.assertIn("exists", done.stderr)
        self.assertEqual(list((self.person / "mine").iterdir()), [])

    async def test_what_is_not_there_is_said(self) -> None:
        done = await self.command("t9")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("nothing of t9 was kept", done.stderr)
        done = await self.command("t9", "--live")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no work copies", done.stderr)

    async def test_of_a_task_that_is_there_what_it_holds_now(self) -> None:
        copy = await self.prepared()
        # What an agent defines must not run on the host.
        trap = self.root / "trapped"
        git(copy, "config", "core.fsmonitor", f"touch {trap}")
        git(copy, "config", "filter.x.clean", f"touch {trap}")
        (copy / ".gitattributes").write_text("* filter=x\n")
        (copy / "new").write_text("n\n")
        await self.answer("t1", "--live", "--to", "now")
        self.assertEqual((self.person / "now" / "new").read_text(), "n\n")
        self.assertFalse(trap.exists())
        self.assertTrue((copy / "new").exists())

    async def test_a_data_folder_from_a_backup_may_lie_elsewhere(self) -> None:
        await self.down()
        self.data = self.data.rename(self.root / "backup")
        await self.answer("t1", "--project", "app", "--to", "app")
        self.assertEqual((self.person / "app" / "a.txt").read_text(), "changed\n")
        self.assertEqual((self.person / "app" / "secret.log").read_text(), "ignored\n")
