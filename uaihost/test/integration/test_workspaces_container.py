"""Work copies in a real container: git works at once, and nothing of anybody else is within reach."""

from __future__ import annotations

import os
from pathlib import Path

from uaihost.containers.daemon import DockerEngine
from uaihost.containers.images import owner
from uaihost.interfaces import Launch, Mount
from uaihost.test.integration.engine import real_engine, task_image
from uaihost.test.integration.git_rig import ANN, commit
from uaihost.test.integration.test_workspaces_submodules import SubmoduleCase


class ContainerTests(SubmoduleCase):
    timeout = 300

    uid, gid = owner()

    async def up(self, task: str = "t1") -> DockerEngine:
        """A container of the task, with no network and its work folder as tasks have it."""
        work = self.tasks / task / "work"
        work.mkdir(parents=True, exist_ok=True)
        work.chmod(0o755 if os.geteuid() == 0 else 0o555)
        mounts = (Mount(str(work), "/workspace"),)
        engine = await real_engine(self)
        await engine.launch(
            Launch(task, await task_image(self), self.uid, self.gid, mounts, (), network="none")
        )
        self.engine = engine
        return engine

    async def inside(self, *argv: str, cwd: str = "/workspace/app", status: int = 0) -> str:
        ran = await self.engine.execute("t1", argv, cwd=cwd)
        self.assertEqual(ran.status, status, (argv, ran.out, ran.err))
        return (ran.out + ran.err).decode()

    async def test_git_works_at_once_in_what_appears_while_it_runs(self) -> None:
        await self.up()
        self.make("app", {"lib": "../lib.git"})
        url = f"{self.server.url}/app.git"
        for slug in ("app", "again"):
            await self.workspaces.prepare("t1", slug, url, "fix/x", ANN, self.lines.append)
        self.assertEqual(await self.inside("git", "status", "--porcelain", "--branch"), "## fix/x\n")
        self.assertIn("submodules", await self.inside("git", "log", "--oneline"))
        await self.inside("sh", "-c", "echo changed > own.txt && git commit -qam work")
        self.assertIn(
            f"{ANN.name} <{ANN.email}>", await self.inside("git", "log", "-1", "--format=%an <%ae>")
        )
        await self.inside("git", "fetch", "-q", "/workspace/again", "fix/x")
        await self.inside("git", "stash", "list")
        await self.inside("git", "gc", "-q")
        await self.inside("git", "fsck", "--strict")
        await self.inside(
            "sh", "-c", "echo changed > own.txt && git commit -qam inner", cwd="/workspace/app/lib"
        )
        self.assertEqual(await self.inside("git", "status", "--porcelain"), " M lib\n")
        self.assertIn(
            "nothing to commit", await self.inside("git", "status", cwd="/workspace/app/lib/inner/deep")
        )

    async def test_nothing_of_others_is_within_reach(self) -> None:
        other = await self.prepared("fix/x", "t2")
        secret = commit(other, "another task's", secret_txt="s")
        await self.workspaces.save("t2", ["app"])
        await self.workspaces.remove("t2")
        await self.prepared("fix/y", "t3")
        await self.prepared("fix/z", "t1")
        await self.up()
        self.assertEqual(await self.inside("ls", "-A", "/workspace"), "app\n")
        await self.inside("git", "cat-file", "-e", secret, status=1)
        for path in (self.mirrors, self.remote, self.tasks, Path(str(other)), self.root):
            await self.inside("test", "-e", str(path), status=1)
        for argv in (["mkdir", "/workspace/new"], ["mv", "/workspace/app", "/workspace/new"]):
            ran = await self.engine.execute("t1", argv)
            self.assertNotEqual(ran.status, 0, argv)
        self.assertEqual(await self.inside("ls", "-A", "/workspace"), "app\n")
