"""What the real engine tells of containers that end; tasks that come back with an engine that was away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost import children
from uaihost.containers.watch import EngineEvent, EngineEvents
from uaihost.interfaces import Launch, Limits
from uaihost.test.integration.engine import CHECKOUT, docker_host, real_engine, task_image
from uaihost.test.support import short_folder

reactor: Any = _reactor


class Heard:
    """containers.watch.Listener: what was heard, and a wait for more."""

    def __init__(self) -> None:
        self.events: list[EngineEvent] = []
        self.found: Deferred[None] = Deferred()
        self._wanted: list[tuple[str, Deferred[EngineEvent]]] = []

    def next(self, action: str) -> Deferred[EngineEvent]:
        """The next event of this kind."""
        came: Deferred[EngineEvent] = Deferred()
        self._wanted.append((action, came))
        return came.addTimeout(30, reactor)

    def engine_heard(self, event: EngineEvent) -> None:
        self.events.append(event)
        for action, came in self._wanted[:]:
            if action == event.action:
                self._wanted.remove((action, came))
                came.callback(event)

    def engine_found(self) -> None:
        self.found.callback(None)

    def engine_lost(self) -> None:
        self.events.clear()


class EventsTests(TestCase):
    timeout = 300

    async def test_ends_and_memory_that_runs_out(self) -> None:
        image, address = await task_image(self), await docker_host()
        host_id = f"test-events-{os.getpid()}"
        engine = await real_engine(self, host_id)
        heard = Heard()
        events = EngineEvents(reactor, address, host_id, heard)
        events.start()
        self.addCleanup(events.stop)
        await heard.found
        launch = Launch("one", image, 1000, 1000, (), (), limits=Limits(memory=64 << 20))
        started = heard.next("start")
        container = await engine.launch(launch)
        self.assertEqual((await started).task_id, "one")
        hog = "x = bytearray(200 << 20)"
        out_of_memory = heard.next("oom")
        ran = await engine.execute("one", ["python3", "-c", hog])
        self.assertEqual(((await out_of_memory).task_id, ran.status), ("one", 137))
        found = await engine.find("one")
        assert found is not None
        self.assertEqual(found.state, "running")
        ended = heard.next("die")
        await deferToThread(
            subprocess.run, ["docker", "-H", address, "kill", container.id], check=True, capture_output=True
        )
        self.assertEqual(attrs.evolve(await ended, at=0), EngineEvent("one", "die", 137, 0))

    async def test_an_engine_that_restarts_has_its_tasks_back(self) -> None:
        """With an engine of its own, in a network namespace apart, which root alone can make."""
        if os.geteuid() != 0:
            # Without the right to, no engine is started: what stays is that this is told.
            done = await children.run(
                reactor, ["unshare", "--net", "true"], env=dict(os.environ), cwd="/", timeout=60
            )
            self.assertNotEqual(done.status, 0)
            return
        image, address = await task_image(self), await docker_host()
        folder = short_folder(self) / "e"
        program = [
            sys.executable,
            "-m",
            "uaihost.test.integration.engine_restart",
            str(folder),
            address,
            image,
        ]
        done = await children.run(
            reactor,
            ["unshare", "--net", *program],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
            cwd=str(CHECKOUT),
            timeout=240,
        )
        self.assertEqual(done.status, 0, done.err.decode()[-4000:])
        seen = json.loads(done.out.splitlines()[-1])
        self.assertEqual(
            seen,
            {
                "up": "running",
                "away": ["running", "engine-unreachable"],
                "back": ["running", None, "running"],
                "another": True,
                "work": "of days",
                "swept": [],
            },
        )
