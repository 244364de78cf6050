"""The real daemon, engine and bridge: SIGKILL while a task goes up and down, and containers that end."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli import demo
from uaihost.cli.client import wait_for
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons
from uaihost.test.support import short_folder

# Seconds between two looks at the bridge: steps take some hundredths.
LOOK = 0.005


class CrashTests(TestCase):
    # The first run on a machine makes the base and the task image.
    timeout = 900

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.repository = self.folder / "repositories" / "shop"
        self.repository.parent.mkdir()
        await deferToThread(demo.make_sample, self.repository)
        self.engine = await docker_host()
        self.daemons = Daemons(self.folder, self.engine, [self.repository.parent])
        self.addCleanup(deferToThread, self.clean)
        self.bridge = await deferToThread(self.daemons.start_bridge)
        self.started: list[str] = []
        self.daemons.start_host()
        self.host = await deferToThread(self.daemons.wait_connected, self.bridge)

    async def test_the_way_up(self) -> None:
        await deferToThread(self.warm)
        for step in ("image", "clone shop", "container", "setup"):
            task_id = await deferToThread(self.new_task)
            await deferToThread(self.kill_at, task_id, step)
            await deferToThread(self.back, task_id)
            await deferToThread(self.check_one, task_id, step)
            await deferToThread(self.down, task_id)
        self.assertEqual(await deferToThread(self.left), [])

    async def test_the_way_down(self) -> None:
        for step in ("save", "container", "remove"):
            task_id = await deferToThread(self.warm_task)
            copy = self.daemons.host_data / "tasks" / task_id / "work" / "shop"
            (copy / "unsaved.txt").write_text(f"until {step}\n")
            before = len(await deferToThread(self.events, task_id))
            call = deferToThread(self.down, task_id)
            await deferToThread(self.kill_at, task_id, step, before)
            self.daemons.start_host()
            await deferToThread(self.daemons.wait_connected, self.bridge)
            await call
            await deferToThread(self.wait_down, task_id)
            self.assertIn(f"until {step}", await deferToThread(self.saved, "unsaved.txt"))
        self.assertEqual(await deferToThread(self.left), [])

    async def test_a_container_that_ends_is_started_again_at_once(self) -> None:
        task_id = await deferToThread(self.warm_task)
        await deferToThread(demo.seen, self.bridge, task_id, demo.BEFORE)
        first = await deferToThread(self.containers, task_id)
        await deferToThread(self.docker, "kill", *first)
        await deferToThread(self.wait_event, task_id, "channel.message", "ended with status 137")
        await deferToThread(demo.seen, self.bridge, task_id, demo.BEFORE)
        second = await deferToThread(self.containers, task_id)
        self.assertEqual((len(second), set(first) & set(second)), (1, set()))
        await deferToThread(self.docker, "rm", "-f", *second)
        await deferToThread(demo.seen, self.bridge, task_id, demo.BEFORE)
        await deferToThread(self.check_one, task_id, "rm")
        await deferToThread(self.down, task_id)
        self.assertEqual(await deferToThread(self.left), [])

    # ---- blocking ------------------------------------------------------------------------------------------

    def new_task(self) -> str:
        new = {
            "name": "Shop",
            "repoUrl": str(self.repository),
            "branch": "shop",
            "previewPorts": [{"name": "web", "port": 3000}],
        }
        task_id: str = self.bridge.call("POST", "/api/tasks", new)["id"]
        self.started.append(task_id)
        return task_id

    def warm_task(self) -> str:
        task_id = self.new_task()
        self.wait_running(task_id)
        return task_id

    def warm(self) -> None:
        """Image and mirror are there from now on."""
        self.down(self.warm_task())

    def down(self, task_id: str) -> None:
        try:
            self.bridge.call("POST", f"/api/tasks/{task_id}/down", {}, 120)
        except Exception:
            # The host died meanwhile; the command is answered when it is back.
            self.wait_down(task_id)

    def wait_running(self, task_id: str) -> None:
        wait_for("the task", lambda: demo.running(self.bridge, task_id, lambda text: None), 600)

    def wait_down(self, task_id: str) -> None:
        def look() -> bool | None:
            return self.bridge.call("GET", f"/api/tasks/{task_id}")["status"] == "stopped" or None

        wait_for("the end of the task", look, 60)

    def events(self, task_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.bridge.call("GET", f"/api/tasks/{task_id}")["events"]
        return found

    def wait_event(self, task_id: str, kind: str, text: str) -> None:
        def look() -> bool | None:
            return any(one["type"] == kind and text in str(one) for one in self.events(task_id)) or None

        wait_for(text, look, 30)

    def kill_at(self, task_id: str, step: str, after: int = 0) -> None:
        """SIGKILL as soon as the step is told, in an event that follows the first `after` ones."""

        def told() -> bool:
            fresh = self.events(task_id)[after:]
            return any(one["type"] == "task.progress" and one["step"] == step for one in fresh)

        until(told, step)
        self.daemons.kill("uaihost", signal.SIGKILL)

    def back(self, task_id: str) -> None:
        self.daemons.start_host()
        self.daemons.wait_connected(self.bridge)
        self.wait_running(task_id)
        demo.seen(self.bridge, task_id, demo.BEFORE)

    def check_one(self, task_id: str, at: str) -> None:
        """Exactly one container, which runs, and one network of it."""
        self.assertEqual(len(self.containers(task_id)), 1, at)
        label = f"label=uaihost.task={task_id}"
        running = self.docker("ps", "-q", "--filter", label).split()
        self.assertEqual(len(running), 1, at)
        self.assertEqual(len(self.docker("network", "ls", "-q", "--filter", label).split()), 1, at)

    def containers(self, task_id: str) -> list[str]:
        return self.docker("ps", "-aq", "--filter", f"label=uaihost.task={task_id}").split()

    def saved(self, name: str) -> str:
        """The content of the file in whatever was put away, wherever it lies in the data folder."""
        found = []
        for repository in self.daemons.host_data.glob("*/*.git"):
            refs = subprocess.run(
                ["git", "-C", str(repository), "for-each-ref", "--format=%(objectname)"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for ref in refs:
                shown = subprocess.run(
                    ["git", "-C", str(repository), "show", f"{ref}:{name}"],
                    capture_output=True,
                    text=True,
                    check=False,
                )
                found.append(shown.stdout)
        return "".join(found)

    def left(self) -> list[str]:
        """What is left at the engine and in the data folder of the tasks of this test."""
        found: list[str] = []
        for task_id in self.started:
            label = f"label=uaihost.task={task_id}"
            found += self.docker("ps", "-aq", "--filter", label).split()
            found += self.docker("network", "ls", "-q", "--filter", label).split()
            found += [str(path) for path in (self.daemons.host_data / "tasks").glob(f"{task_id}*")]
        return found

    def docker(self, *words: str) -> str:
        command = ["docker", "-H", self.engine, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def clean(self) -> None:
        self.daemons.stop()
        for task_id in self.started:
            label = f"label=uaihost.task={task_id}"
            for container in self.docker("ps", "-aq", "--filter", label).split():
                self.docker("rm", "-f", container)
            for network in self.docker("network", "ls", "-q", "--filter", label).split():
                self.docker("network", "rm", network)


def until(look: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait for it with as little delay as can be."""
    limit = time.monotonic() + seconds
    while not look():
        if time.monotonic() > limit:
            raise AssertionError(f"{what} did not come in {seconds:.0f} s")
        time.sleep(LOOK)
