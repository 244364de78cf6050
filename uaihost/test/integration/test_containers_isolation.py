"""Isolation on the real engine: what a container is and reaches, by the check and by a hostile program."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.commands.places import TaskPlaces
from uaihost.commands.plan import Plan
from uaihost.containers import spec
from uaihost.containers.client import connect
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.firewall import Firewall, FirewallState
from uaihost.containers.images import owner
from uaihost.containers.isolation import Isolation
from uaihost.containers.judgement import DAEMON, HOST, LAN, LOOPBACK, METADATA, TASKS
from uaihost.containers.report import Report
from uaihost.containers.surroundings import look
from uaihost.interfaces import Container, Launch, Limits, Ran
from uaihost.paths import Folders
from uaihost.test.integration.engine import docker_host, real_engine, task_image
from uaihost.test.support import short_folder

# Typed loosely: the reactor's own type knows neither its ports' numbers nor its clock.
MACHINE: Any = reactor
LIMITS = Limits(memory=256 << 20, cpus=0.5, pids=128)
# Connects to each address on its command line; prints a word for each.
CONNECT = """
import json, socket, sys
def word(address, port):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.settimeout(2)
    try:
        made.connect((address, port))
        return made.recv(9).decode() or "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "blocked"
print(json.dumps([word(*target) for target in json.loads(sys.argv[1])]))
"""

# Sends a datagram and says what comes of it.
DATAGRAM = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.settimeout(2)
made.connect((sys.argv[1], int(sys.argv[2])))
try:
    made.send(b"?")
    print(made.recv(9))
except OSError as error:
    print(type(error).__name__)
"""


class Service(Protocol):
    """A service of the machine that everybody may use who reaches it."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"welcome")
        self.transport.loseConnection()


class NoFilter:
    """A daemon without the right to set rules."""

    allow = ()

    async def apply(self) -> FirewallState:
        return FirewallState(False, "the daemon may not set firewall rules: run it as root")


class Rig(TestCase):
    """Tasks of one host, and services of the machine to be attacked."""

    timeout = 120

    async def prepare(self) -> None:
        self.host_id = f"test-{os.getpid()}-{secrets.token_hex(3)}"
        self.engine: DockerEngine = await real_engine(self, self.host_id)
        self.firewall = Firewall(reactor, Inline(), await docker_host())
        self.folders = Folders(short_folder(self))
        self.uid, self.gid = owner()
        self.places = TaskPlaces(self.folders, Inline(), self.uid, self.gid)
        self.image = await task_image(self)

    async def launch(self, task_id: str, network: Any = "own") -> Launch:
        """A launch as taskUp makes it, with one published port; its folders are there."""
        await self.places.make(task_id, fresh=True)
        plan = Plan(task_id, task_id, "branch", (), (), {}, None, ())
        return Launch(
            task_id=task_id,
            image=self.image,
            uid=self.uid,
            gid=self.gid,
            mounts=plan.mounts(self.folders),
            ports=(8000,),
            limits=LIMITS,
            network=network,
            read_only=True,
        )

    async def start(self, task_id: str, network: Any = "own") -> Container:
        return await self.engine.launch(await self.launch(task_id, network))

    async def check(self, task_id: str, network: Any = "own", firewall: Any = None) -> Report:
        isolation = Isolation(
            self.engine,
            firewall or self.firewall,
            reactor,
            self.host_id,
            services=lambda: {"status page": self.listen("127.0.0.1")},
        )
        return await isolation.check(task_id, network=network, uid=self.uid, gid=self.gid, limits=LIMITS)

    def listen(self, interface: str) -> int:
        port: Any = MACHINE.listenTCP(0, Factory.forProtocol(Service), interface=interface)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def tried(self, task_id: str, *targets: tuple[str, int]) -> list[str]:
        """What a hostile program in the container reaches."""
        ran = await self.engine.execute(task_id, ["python3", "-c", CONNECT, json.dumps(targets)])
        self.assertEqual(ran.status, 0, ran.err)
        words: list[str] = json.loads(ran.out)
        return words

    def faults(self, report: Report) -> set[str]:
        return {check.name for check in report.checks if check.required and not check.good}

    def gateway(self, task_id: str) -> str:
        """The address of the task's bridge."""
        bridge = spec.bridge_name(self.host_id, task_id)
        [route] = [route for route in look().routes if route.interface == bridge]
        return str(route.network.network_address + 1)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds`, which blocks and may raise OSError, is true."""
        for _ in range(100):
            try:
                if await deferToThread(holds):
                    return
            except OSError:
                pass
            await deferLater(reactor, 0.1)
        self.fail("it does not come to be")

    def datagrams(self) -> int:
        """The port of a service that takes datagrams on all addresses."""
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind(("0.0.0.0", 0))
        return int(made.getsockname()[1])


class TaskTests(Rig):
    async def test_a_task_passes_every_check(self) -> None:
        await self.prepare()
        await gatherResults([Deferred.fromCoroutine(self.start(task_id)) for task_id in ("one", "two")])
        report = await self.check("one")
        self.assertEqual([check for check in report.checks if not check.good], [], report.text())
        self.assertTrue(report.passed)
        self.assertIn("limits: 0.25 GiB memory, 0.5 cores, 128 processes", report.text())
        self.assertEqual(
            {check.outcome for check in report.checks if check.name in (TASKS, HOST, LAN, METADATA)},
            {"blocked"},
        )
        ran = []
        execute = self.engine.execute

        async def counted(task_id: str, argv: Sequence[str], **given: Any) -> Ran:
            ran.append(argv)
            return await execute(task_id, argv, **given)

        self.patch(self.engine, "execute", counted)
        self.assertTrue((await self.check("one")).passed)
        # It stands in the way of every start, and each command costs a start of a process in a container.
        self.assertIn(len(ran), (1, 2), ran)

    async def test_a_hostile_program_reaches_nothing_of_the_machine(self) -> None:
        await self.prepare()
        for task_id in ("one", "two"):
            await self.start(task_id)
        self.assertTrue((await self.firewall.apply()).applied)
        wide, loopback = self.listen("0.0.0.0"), self.listen("127.0.0.1")
        gateway, other = self.gateway("one"), self.gateway("two")
        outside = look().own()[0]
        for address in (gateway, outside, "127.0.0.1"):
            self.assertEqual(await deferToThread(said, address, wide), b"welcome")
        await self.engine.start_process("two", ["python3", "-m", "http.server", "8000"])
        theirs = other.rpartition(".")[0] + f".{int(other.rpartition('.')[2]) + 1}"
        await self.until(partial(serves, theirs, 8000))
        targets = [(address, wide) for address in (gateway, other, outside, "127.0.0.1")]
        targets += [(address, loopback) for address in (gateway, outside, "127.0.0.1")]
        self.assertEqual(await self.tried("one", *targets), ["refused"] * len(targets))
        around = [(address, 80) for address in look().around()]
        closed = [(theirs, 8000), ("169.254.169.254", 80), *around]
        self.assertEqual(await self.tried("one", *closed), ["blocked"] * len(closed))
        ran = await self.engine.execute("one", ["python3", "-c", DATAGRAM, gateway, str(self.datagrams())])
        self.assertEqual(ran.out, b"ConnectionRefusedError\n", ran.err)

    async def test_rules_concern_our_bridges_alone(self) -> None:
        await self.prepare()
        await self.start("one")
        # As the owner would run one of their own, beside ours.
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        name = f"owner-{self.host_id}"
        config = {"Image": self.image, "Entrypoint": ["sleep", "60"], "Labels": {}}
        made = await deferToThread(client.create_container_from_config, config, name)
        self.addCleanup(deferToThread, client.remove_container, made["Id"], force=True)
        await deferToThread(client.start, made["Id"])
        self.assertTrue((await self.firewall.apply()).applied)
        wide = self.listen("0.0.0.0")
        outside = look().own()[0]

        def theirs() -> bytes:
            argv = ["python3", "-c", CONNECT, json.dumps([(outside, wide)])]
            return bytes(client.exec_start(client.exec_create(made["Id"], argv)["Id"]))

        self.assertEqual(json.loads(await deferToThread(theirs)), ["welcome"])
        self.assertEqual(await self.tried("one", (outside, wide)), ["refused"])

    async def test_published_ports_and_names_go_on(self) -> None:
        await self.prepare()
        made = await self.start("one")
        self.assertTrue((await self.firewall.apply()).applied)
        await self.engine.start_process("one", ["python3", "-m", "http.server", "8000"])
        gateway = self.gateway("one")
        inside = gateway.rpartition(".")[0] + f".{int(gateway.rpartition('.')[2]) + 1}"
        for address, port in (("127.0.0.1", made.ports[8000]), (inside, 8000)):
            await self.until(partial(serves, address, port))
        name = "debian.org"
        ran = await self.engine.execute("one", ["getent", "ahostsv4", name])
        self.assertEqual(ran.status == 0, await deferToThread(resolves, name))

    async def test_without_a_network_nothing_is_reached(self) -> None:
        await self.prepare()
        await self.start("one", network="none")
        # Nothing of this needs a right to filter.
        report = await self.check("one", network="none", firewall=NoFilter())
        self.assertEqual([check for check in report.checks if not check.good], [], report.text())
        wide = self.listen("0.0.0.0")
        targets = [(look().own()[0], wide), ("169.254.169.254", 80)]
        self.assertEqual(await self.tried("one", *targets), ["blocked", "blocked"])
        self.assertEqual(await self.tried("one", ("127.0.0.1", wide)), ["refused"])

    async def test_without_the_right_to_filter_it_passes_and_says_what_is_open(self) -> None:
        await self.prepare()
        await self.start("one")
        # The machine's rules are there for every bridge of ours: what is said must still be true.
        report = await self.check("one", firewall=NoFilter())
        self.assertTrue(report.passed)
        for check in report.checks:
            self.assertTrue(check.good or "may not set firewall rules" in check.detail)


class BadContainerTests(Rig):
    """Containers as this daemon never makes them: each must be seen for what it is."""

    async def made(self, task_id: str, change: Callable[[dict[str, Any]], object]) -> Report:
        """The report on a container whose parameters were changed behind the daemon's back."""
        launch = await self.launch(task_id)
        config = spec.container_config(launch, self.host_id)
        client = await deferToThread(connect, await docker_host())
        self.addCleanup(client.close)
        # The engine makes the task's network, which the changed container may use.
        await self.engine.launch(launch)
        name = spec.container_name(self.host_id, task_id)
        await deferToThread(client.remove_container, name, force=True)
        config.update(Entrypoint=["sleep", "60"])
        change(config)
        made = await deferToThread(client.create_container_from_config, config, name)
        await deferToThread(client.start, made["Id"])
        return await self.check(task_id)

    async def test_each_is_refused(self) -> None:
        await self.prepare()
        address = (await docker_host()).removeprefix("unix://")

        def bind(source: str, target: str, read_only: bool = True) -> Callable[[dict[str, Any]], object]:
            entry = {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
            return lambda config: config["HostConfig"]["Mounts"].append(entry)

        def host(**changes: Any) -> Callable[[dict[str, Any]], object]:
            return lambda config: config["HostConfig"].update(changes)

        device = {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"}
        cases: list[tuple[str, Callable[[dict[str, Any]], object], set[str]]] = [
            ("socket", bind(address, "/run/docker.sock"), {"no engine socket", "mounts"}),
            ("hidden-socket", bind(address, "/run/uai/harmless"), {"no engine socket"}),
            ("folder", bind("/etc", "/mnt"), {"mounts"}),
            ("capability", host(CapAdd=["NET_RAW"]), {"capabilities"}),
            ("device", host(Devices=[device]), {"not privileged"}),
            ("unfiltered", host(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]), {"seccomp"}),
            ("gains", host(SecurityOpt=[]), {"no new privileges"}),
            ("processes", host(PidMode="host"), {"own namespaces"}),
            ("memory", host(IpcMode="host"), {"own namespaces"}),
            ("unlimited", host(Memory=0, MemorySwap=0, NanoCpus=0, PidsLimit=-1), {"limits"}),
            ("root", lambda config: config.update(User="0:0"), {"ordinary user"}),
            ("group", host(GroupAdd=["999"]), {"ordinary user"}),
        ]
        for task_id, change, expected in cases:
            report = await self.made(task_id, change)
            self.assertFalse(report.passed, task_id)
            self.assertEqual(self.faults(report), expected, f"{task_id}: {report.text()}")
            self.assertTrue(report.text().splitlines()[1].startswith("The task was not started"))
            await self.engine.remove(task_id)

    async def test_a_privileged_one_is_refused(self) -> None:
        await self.prepare()
        report = await self.made("one", lambda config: config["HostConfig"].update(Privileged=True))
        self.assertEqual(
            self.faults(report), {"not privileged", "seccomp", "mounts", "capabilities"}, report.text()
        )

    async def test_one_on_the_machine_s_network_is_refused(self) -> None:
        await self.prepare()

        def change(config: dict[str, Any]) -> None:
            config["HostConfig"].update(NetworkMode="host", PortBindings={})
            config.update(ExposedPorts={})
            del config["Hostname"]

        await self.start("two")
        report = await self.made("one", change)
        # What else it reaches depends on what is around the machine.
        missed = {"own network", LOOPBACK, DAEMON, HOST, TASKS} - self.faults(report)
        self.assertEqual(missed, set(), report.text())

    async def test_an_image_without_the_probe_is_refused(self) -> None:
        await self.prepare()

        def change(config: dict[str, Any]) -> None:
            # The folder of the programs is empty.
            config["HostConfig"]["Tmpfs"] = {**spec.TMPFS, "/opt/uai": "ro"}
            config.update(Entrypoint=["sleep", "60"])

        report = await self.made("one", change)
        self.assertEqual(self.faults(report), {"probe"})
        self.assertIn("status 2", report.text())


def said(address: str, port: int, request: bytes = b"") -> bytes:
    """What a service says first. Blocks."""
    with socket.create_connection((address, port), timeout=5) as made:
        made.sendall(request)
        return made.recv(99)


def serves(address: str, port: int) -> bool:
    """Whether a web server answers there. Blocks; OSError while nothing does."""
    return said(address, port, b"HEAD / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


def resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 80, socket.AF_INET))
    except OSError:
        return False
