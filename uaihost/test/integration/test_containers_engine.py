"""The real engine: the contract, limits, isolation, ports and what failures leave."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.containers import spec
from uaihost.containers.client import connect
from uaihost.containers.images import owner
from uaihost.errors import ErrorCode
from uaihost.interfaces import Container, Engine, Launch, Limits, Mount
from uaihost.test import fakes_containers as fakes
from uaihost.test.integration.engine import docker_host, real_engine, task_image


def fetched(port: int) -> bytes:
    """What a server on 127.0.0.1 answers, once it listens. Blocks."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        return bytes(answer.read())


class Places:
    """The folders of tasks, as the daemon lays them out."""

    def __init__(self, case: TestCase) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="uai-", dir="/tmp"))
        case.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.uid, self.gid = owner()

    def folder(self, *parts: str) -> Path:
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, self.uid, self.gid)
        return path

    def launch(self, task_id: str, image: str, **changes: Any) -> Launch:
        work, run, files = (self.folder(task_id, part) for part in ("work", "run", "files"))
        mounts = (
            Mount(str(work), "/workspace/web"),
            Mount(str(run), "/run/uai"),
            Mount(str(files), "/attachments", read_only=True),
        )
        made = Launch(task_id, image, self.uid, self.gid, mounts, (8000,), {"GREETING": "hello"})
        return attrs.evolve(made, **changes)


class DockerEngineTests(fakes.Contract):
    timeout = 120

    async def engine(self) -> Engine:
        return await real_engine(self)

    async def launch_of(self, task_id: str) -> Launch:
        return Places(self).launch(task_id, await task_image(self))

    async def broken(self, engine: Engine, task_id: str) -> Launch:
        launch = await self.launch_of(task_id)
        return attrs.evolve(launch, mounts=(Mount("/nowhere/at/all", "/workspace/web"),))

    async def halt(self, engine: Engine, task_id: str) -> None:
        # Again and again: a signal to an init that has no handler for it yet is dropped by the kernel.
        await engine.start_process(task_id, ["sh", "-c", "while kill -TERM 1; do sleep 0.2; done"])
        for _ in range(100):
            found = await engine.find(task_id)
            if found is not None and found.state == "exited":
                return
            await deferLater(reactor, 0.1)
        self.fail("it did not end")


class TaskTests(TestCase):
    timeout = 120

    async def start(self, **changes: Any) -> Container:
        self.engine = await real_engine(self, f"test-{os.getpid()}")
        self.places = Places(self)
        self.launch = self.places.launch("one", await task_image(self), **changes)
        return await self.engine.launch(self.launch)

    async def said(self, script: str, task_id: str = "one") -> str:
        """What a shell in the container prints, both streams."""
        ran = await self.engine.execute(task_id, ["sh", "-c", f"exec 2>&1; {script}"])
        return ran.out.decode()

    async def test_a_served_port_is_reached_on_loopback_only(self) -> None:
        made = await self.start()
        start = self.places.folder("one", "work", "site")
        (start / "index.html").write_text("served")
        await self.engine.start_process(
            "one", ["python3", "-m", "http.server", "8000"], cwd="/workspace/web/site"
        )
        body = b""
        for _ in range(50):
            try:
                body = await deferToThread(fetched, made.ports[8000])
                break
            except OSError:
                await deferLater(reactor, 0.1)
        self.assertEqual(body, b"served")
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        inspected = await deferToThread(client.inspect_container, made.id)
        bound = inspected["NetworkSettings"]["Ports"]["8000/tcp"]
        self.assertEqual([entry["HostIp"] for entry in bound], ["127.0.0.1"])

    async def test_user_environment_and_mounts_are_as_asked(self) -> None:
        await self.start()
        self.assertEqual(await self.said("id -u; id -g"), f"{self.places.uid}\n{self.places.gid}\n")
        self.assertEqual(await self.said("echo $GREETING; pwd"), "hello\n/workspace\n")
        self.assertEqual(await self.said("touch $HOME/x /workspace/web/x /run/uai/x && echo ok"), "ok\n")
        self.assertIn("Read-only file system", await self.said("touch /attachments/x"))
        stat = (self.places.root / "one" / "work" / "x").stat()
        self.assertEqual((stat.st_uid, stat.st_gid), (self.places.uid, self.places.gid))

    async def test_no_privilege_and_no_engine_inside(self) -> None:
        await self.start()
        status = await self.said("cat /proc/self/status")
        self.assertIn("CapEff:\t0000000000000000\n", status)
        self.assertIn("CapBnd:\t0000000000000000\n", status)
        self.assertIn("NoNewPrivs:\t1\n", status)
        self.assertIn("Seccomp:\t2\n", status)
        self.assertEqual(await self.said("find / -xdev -name 'docker.sock' 2>/dev/null"), "")
        self.assertIn("not permitted", await self.said("unshare -r true"))

    async def test_limits_are_in_force(self) -> None:
        limits = Limits(memory=128 << 20, cpus=0.5, pids=40)
        made = await self.start(limits=limits)
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        host = (await deferToThread(client.inspect_container, made.id))["HostConfig"]
        self.assertEqual(
            (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]),
            (128 << 20, 128 << 20, 500_000_000, 40),
        )
        eaten = await self.engine.execute("one", ["python3", "-c", "b'x' * (300 << 20)"])
        self.assertEqual(eaten.status, 137)
        forked = await self.said("for i in $(seq 60); do sleep 5 & done")
        self.assertIn("fork", forked)

    async def test_tasks_cannot_reach_one_another(self) -> None:
        await self.start()
        other = await self.engine.launch(self.places.launch("two", self.launch.image))
        for task in ("one", "two"):
            await self.engine.start_process(task, ["python3", "-m", "http.server", "8000"])
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        networks = (await deferToThread(client.inspect_container, other.id))["NetworkSettings"]["Networks"]
        (address,) = [network["IPAddress"] for network in networks.values()]
        probe = (
            "import socket, sys\n"
            "s = socket.socket(); s.settimeout(2)\n"
            "try: s.connect((sys.argv[1], 8000)); print('reached')\n"
            "except OSError: print('refused')"
        )
        for _ in range(50):
            own = await self.engine.execute("two", ["python3", "-c", probe, address])
            if own.out == b"reached\n":
                break
            await deferLater(reactor, 0.1)
        self.assertEqual(own.out, b"reached\n")
        across = await self.engine.execute("one", ["python3", "-c", probe, address])
        self.assertEqual(across.out, b"refused\n")

    async def test_a_command_gives_status_and_both_streams(self) -> None:
        await self.start()
        ran = await self.engine.execute(
            "one", ["sh", "-c", "echo $A $PWD; echo bad >&2; exit 3"], env={"A": "b"}, cwd="/tmp"
        )
        self.assertEqual((ran.status, ran.out, ran.err), (3, b"b /tmp\n", b"bad\n"))
        big = await self.engine.execute("one", ["head", "-c", "3000000", "/dev/zero"])
        self.assertEqual((big.status, len(big.out)), (0, 3_000_000))
        missing = await self.engine.execute("one", ["/no/such/program"])
        self.assertIn(missing.status, (126, 127))  # The engines differ.

    async def test_commands_do_not_wait_for_one_another(self) -> None:
        await self.start()
        waits = ["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"]
        done = gatherResults([_deferred(self.engine.execute("one", waits)) for _ in range(8)])
        # As many as the engine's threads would hold all wait for this one.
        quick = await self.engine.execute("one", ["sh", "-c", "echo first; touch /tmp/go"])
        self.assertEqual(quick.out, b"first\n")
        self.assertEqual([ran.status for ran in await done], [0] * 8)

    async def test_the_last_words_of_one_that_ended_are_kept(self) -> None:
        await self.start()
        launch = self.places.launch("two", self.launch.image)
        script = self.places.folder("two") / "init.py"
        script.write_text("import time; print('no'); time.sleep(1); raise SystemExit('cannot go on')")
        script.chmod(0o644)
        hidden = Mount(str(script), "/opt/uai/init.py", read_only=True)
        await self.engine.launch(attrs.evolve(launch, mounts=(*launch.mounts, hidden)))
        found = await self.engine.find("two")
        while found is not None and found.state == "running":
            await deferLater(reactor, 0.1)
            found = await self.engine.find("two")
        assert found is not None
        self.assertEqual((found.state, found.exit_code, found.ports), ("exited", 1, {}))
        self.assertEqual(sorted((await self.engine.log_tail("two", 5)).splitlines()), ["cannot go on", "no"])

    async def test_failure_and_removal_leave_no_network(self) -> None:
        await self.start()
        image = attrs.evolve(self.places.launch("two", "uaihost/no-such-image:1"))
        error = await fakes.refused(self, self.engine.launch(image))
        self.assertEqual(error.code, ErrorCode.NOT_FOUND)
        self.assertEqual(len(await self.networks()), 1)
        await self.engine.remove("one")
        self.assertEqual(await self.networks(), [])

    async def test_a_lost_network_is_made_again(self) -> None:
        made = await self.start()
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        name = spec.container_name(f"test-{os.getpid()}", "one")
        await deferToThread(client.stop, made.id, timeout=2)
        await deferToThread(client.remove_network, name)
        again = await self.engine.launch(self.launch)
        self.assertEqual(again.state, "running")
        self.assertEqual(await self.networks(), [name])

    async def networks(self) -> list[str]:
        client = await deferToThread(connect, await docker_host())
        try:
            found = await deferToThread(client.networks, filters=spec.filters(f"test-{os.getpid()}"))
        finally:
            client.close()
        return [network["Name"] for network in found]


def _deferred(call: Any) -> Any:
    return Deferred.fromCoroutine(call)
