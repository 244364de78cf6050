"""The engine's set-up, the task image and its first process, for real."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from uaihost import children
from uaihost.containers.client import answers, connect
from uaihost.containers.images import LABEL, owner
from uaihost.containers.readiness import Readiness
from uaihost.containers.setup import find_or_start_engine
from uaihost.interfaces import Container, Doing, Launch, Mount, Step
from uaihost.test.integration.engine import (
    CHECKOUT,
    ENGINE_FOLDER,
    docker_host,
    make_images,
    real_engine,
    task_image,
)
from uaihost.test.support import short_folder


class EngineTests(TestCase):
    timeout = 180

    async def test_one_that_answers_is_used(self) -> None:
        said: list[str] = []
        address = await docker_host()
        handle = await find_or_start_engine(reactor, ENGINE_FOLDER, said.append)
        self.assertEqual((handle.docker_host, handle.started_by_us), (address, False))
        self.assertEqual(said[-1], f"using the engine at {address}")
        self.assertTrue(answers(address))

    async def test_our_own_is_started_found_started_after_a_kill_and_stopped(self) -> None:
        """In a network namespace apart, which root alone can make; others are told what to do."""
        await docker_host()  # It is installed now.
        folder = short_folder(self) / "e"
        program = [sys.executable, "-m", "uaihost.test.integration.own_engine", str(folder)]
        argv = ["unshare", "--net", *program] if os.geteuid() == 0 else program
        done = await children.run(
            reactor, argv, env={"PATH": os.environ["PATH"]}, cwd=str(CHECKOUT), timeout=120
        )
        if os.geteuid() != 0:
            self.assertIn(b"no container engine answers", done.err)
            return
        self.assertEqual(done.status, 0, done.err.decode())
        seen = json.loads(done.out)
        self.assertEqual(
            seen,
            {
                "first": [True, True, True],
                "session": True,
                "descriptors": ["/dev/null", True, True],
                "again": [True, False],
                "left": [True, True],
                "second": [True, True],
                "stopped": [False, False],
                "mounts": [],
                "said": [
                    "starting the engine",
                    f"using the engine at unix://{folder}/docker.sock",
                    "starting the engine",
                ],
            },
        )


class ImageTests(TestCase):
    timeout = 300

    async def test_built_once_and_labelled(self) -> None:
        address = await docker_host()
        first = await make_images(self, address).ensure(lambda _: None)
        lines: list[str | Doing] = []
        self.assertEqual(await make_images(self, address).ensure(lines.append), first)
        self.assertEqual(lines, [])
        client = connect(address)
        self.addCleanup(client.close)
        image = client.inspect_image(first)
        self.assertEqual(image["Config"]["Labels"][LABEL], "small")
        self.assertEqual(image["Config"]["User"], "dev")
        self.assertLess(image["Size"], 350 << 20)

    async def test_another_owner_is_another_image_with_that_user(self) -> None:
        address = await docker_host()
        lines: list[str | Doing] = []
        tag = await make_images(self, address, 4321, 4322).ensure(lines.append)
        client = connect(address)
        self.addCleanup(client.close)
        self.addCleanup(client.remove_image, tag)
        self.assertNotEqual(tag, await task_image(self))
        self.assertIn("Successfully tagged", lines[-1])
        engine = await real_engine(self)
        await engine.launch(Launch("one", tag, 4321, 4322, (), ()))
        ran = await engine.execute("one", ["sh", "-c", "whoami; id -g; touch ~/x; stat -c %U ~"])
        self.assertEqual(ran.out, b"dev\n4322\ndev\n")


class FirstProcessTests(TestCase):
    timeout = 120

    async def prepare(self, uid: int | None = None) -> None:
        self.root = short_folder(self)
        self.uid, self.gid = (uid, uid) if uid is not None else owner()
        self.steps: list[Step] = []
        self.engine = await real_engine(self)
        for name in ("work/web/.uai", "work/api", "run"):
            (self.root / name).mkdir(parents=True)

    async def ready(self) -> Container:
        for path in [self.root, *self.root.rglob("*")]:
            if not path.is_socket():
                os.chown(path, self.uid, self.gid)
        mounts = [Mount(str(self.root / "work" / slug), f"/workspace/{slug}") for slug in ("web", "api")]
        launch = Launch(
            "one",
            await task_image(self),
            self.uid,
            self.gid,
            (*mounts, Mount(str(self.root / "run"), "/run/uai")),
            (8000,),
        )
        made = await self.engine.launch(launch)

        async def running(task_id: str) -> bool:
            found = await self.engine.find(task_id)
            return found is not None and found.state == "running"

        await Readiness(reactor, lambda _: self.root / "run", running).ready("one", self.steps.append, 60)
        return made

    def script(self, name: str, text: str) -> Path:
        path = self.root / "work" / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def told(self) -> list[tuple[str, str]]:
        return sorted((step.step, step.state) for step in self.steps)

    async def test_hooks_run_and_a_restart_repeats_only_what_it_should(self) -> None:
        await self.prepare()
        self.script("web/.uai/setup", "#!/bin/sh\necho made >> made\n")
        self.script("web/.uai/start", "#!/bin/sh\nexec python3 -m http.server 8000\n")
        (self.root / "work" / "api" / ".devcontainer.json").write_text(
            '{"postCreateCommand": "exit 3", /* comment */ "postStartCommand": ["touch", "started"]}'
        )
        await self.ready()
        self.assertEqual(
            self.told(),
            [
                ("post-create api", "failed"),
                ("post-create api", "started"),
                ("post-start api", "done"),
                ("post-start api", "started"),
                ("setup web", "done"),
                ("setup web", "started"),
                ("start web", "done"),
            ],
        )
        (problem,) = [step for step in self.steps if step.state == "failed"]
        self.assertEqual(problem.message, "ended with status 3")
        started = self.root / "work" / "api" / "started"
        self.assertTrue(started.exists())
        started.unlink()
        self.steps.clear()
        client = connect(await docker_host())
        self.addCleanup(client.close)
        before = await self.engine.find("one")
        assert before is not None
        took = reactor.seconds()
        client.stop(before.id, timeout=10)
        self.assertLess(reactor.seconds() - took, 5)
        again = await self.ready()
        self.assertEqual(again.id, before.id)
        self.assertEqual((self.root / "work" / "web" / "made").read_text(), "made\n")
        self.assertTrue(started.exists())
        self.assertNotIn(("setup web", "started"), self.told())
        self.assertIn(("post-create api", "failed"), self.told())

    async def test_another_user_than_the_image_s_can_work(self) -> None:
        await self.prepare(uid=4321)
        self.script("web/.uai/setup", "#!/bin/sh\ngit init -q . && git status --short && touch ~/here\n")
        await self.ready()
        self.assertEqual(self.told(), [("setup web", "done"), ("setup web", "started")])
        identity = {
            f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        ran = await self.engine.execute(
            "one", ["git", "commit", "-q", "--allow-empty", "-m", "x"], env=identity, cwd="/workspace/web"
        )
        self.assertEqual((ran.status, ran.err), (0, b""))
