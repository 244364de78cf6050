"""The doctor's container on a real engine: everything once, and nothing of it left, whatever happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.client import connect
from uaihost.doctor import container
from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import Finding, Verdict
from uaihost.doctor.patient import Patient
from uaihost.doctor.run import Examination, chosen
from uaihost.interfaces import Launch, Limits
from uaihost.offline import DataLock
from uaihost.paths import Folders
from uaihost.test.doctor.patients import patient
from uaihost.test.integration.engine import docker_host, real_engine, task_image
from uaihost.test.integration.service import BIN
from uaihost.test.support import short_folder

reactor: Any = global_reactor


def begun(words: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL)


class Rig(TestCase):
    timeout = 120

    async def prepare(self) -> Patient:
        self.folder = short_folder(self)
        self.folder.chmod(0o700)
        self.address = await docker_host()
        self.image = await task_image(self)
        self.threads = Threads(reactor, "doctor-test", 8)
        self.addCleanup(self.threads.stop)
        return self.patient(DOCKER_HOST=self.address)

    def patient(self, **settings: Any) -> Patient:
        return patient(
            self.folder, reactor=reactor, blocking=self.threads, UAI_TASK_IMAGE="small", **settings
        )

    async def examine(self, who: Patient, *only: str) -> dict[str, Finding]:
        report = await Examination(who, chosen(CHECKS, only, False)).run()
        return {result.name: result.finding for result in report.results}

    async def left(self) -> list[str]:
        """What the engine still has of this data folder's doctor, containers and networks."""

        def look() -> list[str]:
            client = connect(self.address)
            try:
                ours = {"label": [f"uaihost.host={container.host_id(self.folder)}"]}
                found = client.containers(all=True, filters=ours) + client.networks(filters=ours)
                return [str(one["Id"]) for one in found]
            finally:
                client.close()

        return await self.threads.call(look)

    async def until(self, there: bool) -> None:
        while bool(await self.left()) is not there:
            await deferLater(reactor, 0.02)


class ContainerTests(Rig):
    async def test_everything_once_and_nothing_left(self) -> None:
        who = await self.prepare()
        found = await self.examine(who, "engine", "engines", "image", "packet-filter", "container")
        self.assertEqual(found["engine"].verdict, Verdict.OK, found["engine"])
        self.assertEqual(found["image"].facts["reference"], self.image)
        self.assertIn(found["packet-filter"].verdict, (Verdict.OK, Verdict.WARN))
        trial = found["container"]
        # A machine without a way to the internet is told, and no failure.
        self.assertIn(trial.verdict, (Verdict.OK, Verdict.WARN), trial)
        self.assertTrue(trial.facts["isolation"]["passed"], trial)
        steps = ["start", "look from inside", "set-up", "a port through the relay", "programs", "the way out"]
        self.assertEqual(list(trial.facts["seconds"]), steps)
        self.assertIn("outside", trial.facts)
        limits = [one for one in trial.facts["isolation"]["checks"] if one["name"] == "limits"]
        self.assertIn("4 GiB memory, 2 cores, 1024 processes", limits[0]["detail"])
        self.assertEqual(await self.left(), [])
        self.assertEqual(sorted(path.name for path in (self.folder / "doctor").iterdir()), ["lock"])

    async def test_tasks_without_a_network_are_tried_as_such(self) -> None:
        await self.prepare()
        found = await self.examine(self.patient(DOCKER_HOST=self.address, UAI_EGRESS="deny"), "container")
        self.assertEqual(found["container"].verdict, Verdict.OK, found["container"])
        self.assertNotIn("the way out", found["container"].facts["seconds"])
        self.assertEqual(await self.left(), [])

    async def test_stopped_half_way_it_is_removed_all_the_same(self) -> None:
        who = await self.prepare()
        running = Deferred.fromCoroutine(self.examine(who, "container"))
        await self.until(there=True)
        running.cancel()
        try:
            await running
        except CancelledError:
            pass
        else:
            self.fail("it was not cancelled")
        self.assertEqual(await self.left(), [])

    async def test_what_a_killed_run_left_is_removed_first(self) -> None:
        who = await self.prepare()
        engine = await real_engine(self, container.host_id(self.folder))
        left = Launch(task_id="left", image=self.image, uid=1000, gid=1000, mounts=(), ports=())
        await engine.launch(left)
        self.assertEqual(len(await self.left()), 2)
        found = await self.examine(who, "container")
        self.assertNotEqual(found["container"].verdict, Verdict.FAIL, found["container"])
        self.assertEqual(await self.left(), [])

    async def test_ctrl_c_and_an_end_by_the_system_leave_nothing(self) -> None:
        await self.prepare()
        environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "UAI_DATA_DIR": str(self.folder),
            "UAI_TASK_IMAGE": "small",
            "DOCKER_HOST": self.address,
        }
        for number in (signal.SIGINT, signal.SIGTERM):
            words = [str(BIN / "uaihost"), "doctor", "--only", "container"]
            child = await self.threads.call(begun, words, environ)
            await self.until(there=True)
            child.send_signal(number)
            self.assertEqual(await self.threads.call(child.wait, 30), 130)
            self.assertEqual(await self.left(), [])

    async def test_a_second_doctor_waits_for_nobody(self) -> None:
        who = await self.prepare()
        lock = DataLock(self.folder / "doctor" / "lock")
        self.addCleanup(lock.release)
        found = await self.examine(who, "container")
        self.assertEqual(found["container"].verdict, Verdict.SKIPPED)
        self.assertIn("another doctor", found["container"].text)

    async def test_a_container_that_is_not_closed_is_a_failure(self) -> None:
        who = await self.prepare()
        # The second is what the container should have been launched with.
        limits = [Limits(memory=256 << 20), Limits(memory=128 << 20)]
        with patch.object(container, "limits_of", side_effect=limits):
            found = await self.examine(who, "container")
        self.assertEqual(found["container"].verdict, Verdict.FAIL, found["container"])
        self.assertIn("limits: more than was set", found["container"].text)
        self.assertEqual(found["container"].fix[0], "uaihost doctor --only packet-filter")
        self.assertEqual(await self.left(), [])


class EngineTests(Rig):
    async def test_a_dead_socket_until_the_fix_is_typed(self) -> None:
        await self.prepare()
        dead = self.folder / "dead.sock"
        found = await self.examine(self.patient(DOCKER_HOST=f"unix://{dead}"), "container")
        self.assertEqual(found["engine"].verdict, Verdict.FAIL)
        self.assertTrue(found["engine"].fix[0].startswith("unset DOCKER_HOST"), found["engine"])
        for name in ("image", "container"):
            self.assertEqual(found[name].verdict, Verdict.SKIPPED)
        # Without it the engine of this machine is found, or the one that `uaihost up` keeps for this folder.
        own = Folders(self.folder).engine
        own.mkdir()
        (own / "docker.sock").symlink_to(self.address.removeprefix("unix://"))
        found = await self.examine(self.patient(), "engine")
        self.assertEqual(found["engine"].verdict, Verdict.OK, found["engine"])

    async def test_a_socket_that_nobody_serves(self) -> None:
        await self.prepare()
        path = self.folder / "old.sock"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
        found = await self.examine(self.patient(DOCKER_HOST=f"unix://{path}"), "engine")
        self.assertEqual(found["engine"].verdict, Verdict.FAIL)
        self.assertIn("does not run any more", found["engine"].text)

    async def test_an_image_that_is_not_built(self) -> None:
        await self.prepare()
        changed = self.patient(DOCKER_HOST=self.address, UAI_BASE_IMAGE="uaihost/no-such-base:0")
        found = await self.examine(changed, "container")
        self.assertEqual(found["image"].verdict, Verdict.WARN)
        self.assertEqual(found["image"].fix, ("uaihost image build",))
        self.assertEqual(found["container"].verdict, Verdict.SKIPPED)
        self.assertFalse((Path(self.folder) / "doctor" / "tasks").exists())
