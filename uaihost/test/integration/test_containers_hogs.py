"""One task takes all it can; another one answers, and so does the machine."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.containers.daemon import DockerEngine
from uaihost.interfaces import Container, Launch, Limits
from uaihost.test.integration.engine import real_engine, task_image
from uaihost.test.integration.test_containers_engine import Places, fetched
from uaihost.web.lag import ReactorLag

reactor: Any = _reactor

# It forks until it may not, and holds on to every child.
FORK_BOMB = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
# It takes memory a piece at a time, touching each page.
MEMORY_HOG = "held = []\nwhile True:\n    held.append(bytearray(b'x' * (16 << 20)))\n"
# The same in a child, whose parent goes on.
CHILD_HOG = (
    f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', {MEMORY_HOG!r}]).returncode)\n"
)
BUSY = "import os\nfor _ in range(8):\n    os.fork()\nwhile True:\n    pass\n"

LIMITS = Limits(memory=256 << 20, cpus=1.0, pids=64)


class HogTests(TestCase):
    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        self.engine: DockerEngine = await real_engine(self)
        self.places = Places(self)
        self.image = await task_image(self)
        self.lag = ReactorLag(reactor)
        self.lag.start()
        self.addCleanup(self.lag.stop)

    async def launch(self, task_id: str, limits: Limits = LIMITS) -> Container:
        launch: Launch = self.places.launch(task_id, self.image, limits=limits)
        return await self.engine.launch(launch)

    async def serve(self) -> int:
        """The host port of a web server in a task of its own."""
        container = await self.launch("quiet")
        await self.engine.start_process("quiet", ["python3", "-m", "http.server", "8000"])
        await self.until(lambda: deferToThread(listens, container.ports[8000]), "the quiet task's server")
        return container.ports[8000]

    async def until(self, look: Any, what: str) -> None:
        limit = reactor.seconds() + 30
        while not await look():
            self.assertLess(reactor.seconds(), limit, what)
            await deferLater(reactor, 0.1)

    async def still_well(self, port: int) -> None:
        """The neighbour answers, commands run in it, and this process was not held up."""
        for _ in range(5):
            self.assertIn(b"Directory listing", await deferToThread(fetched, port))
            ran = await self.engine.execute("quiet", ["echo", "here"])
            self.assertEqual((ran.status, ran.out), (0, b"here\n"))
        self.assertLess(self.lag.worst, 2.0)

    async def test_a_fork_bomb_stops_at_its_own_limit(self) -> None:
        port = await self.serve()
        # Room for all that may be forked, so that memory is not what stops it.
        await self.launch("bomb", attrs.evolve(LIMITS, memory=1 << 30))
        await self.engine.start_process("bomb", ["python3", "-c", FORK_BOMB])

        async def full() -> bool:
            # Nothing can be started in it any more, not even to count.
            return len(threads_of(await self.pid("bomb"))) >= LIMITS.pids - 8

        await self.until(full, "the fork bomb at its limit")
        await self.still_well(port)
        self.assertLessEqual(len(threads_of(await self.pid("bomb"))), LIMITS.pids)
        # And it can be got rid of.
        await self.engine.remove("bomb")
        self.assertIsNone(await self.engine.find("bomb"))

    async def test_a_memory_hog_is_ended_and_its_neighbour_is_not(self) -> None:
        port = await self.serve()
        await self.launch("hog")
        ran = await self.engine.execute("hog", ["python3", "-c", CHILD_HOG])
        # The kernel ended the child; the rest of the container goes on and the engine knows why.
        self.assertEqual(ran.out, b"-9\n")
        found = await self.engine.find("hog")
        assert found is not None
        self.assertEqual(found.state, "running")
        self.assertTrue((await self.engine.usage("hog")).memory < LIMITS.memory)
        await self.still_well(port)

    async def test_all_cores_busy_in_one_task_leave_turns_to_another(self) -> None:
        port = await self.serve()
        await self.launch("busy")
        await self.engine.start_process("busy", ["python3", "-c", BUSY])
        await self.still_well(port)
        usage = await self.engine.usage("busy")
        # Percent of one core; the kernel hands out its share in slices of 100 ms.
        self.assertLess(usage.cpu_percent, 100 * LIMITS.cpus * 1.3)

    async def pid(self, task_id: str) -> int:
        """The container's first process, seen from here."""
        found = await self.engine.find(task_id)
        assert found is not None
        cgroups = [path for path in Path("/proc").glob("[0-9]*/cgroup") if found.id in text(path)]
        return min(int(path.parent.name) for path in cgroups)


def threads_of(pid: int) -> list[str]:
    """The processes in the cgroup of `pid`, seen from here."""
    own = text(Path(f"/proc/{pid}/cgroup"))
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/cgroup") if own and text(path) == own]


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", port)):
            return False
        # The engine's proxy accepts before the server listens.
        probe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        try:
            return probe.recv(4) == b"HTTP"
        except OSError:
            return False
