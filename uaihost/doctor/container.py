"""A container end to end: made as a task's is, looked at from inside, reached, asked, and removed.

It carries a host id of its own, so a running host neither counts it nor clears it up, and whatever happens it
is gone afterwards: what a killed run left, the next one removes first.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from uaihost.blocking import Threads
from uaihost.commands.lanes import to_the_end
from uaihost.commands.places import TaskPlaces
from uaihost.commands.plan import Plan
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.firewall import Allowed, Firewall, FirewallState
from uaihost.containers.images import owner
from uaihost.containers.isolation import Isolation
from uaihost.containers.readiness import Readiness
from uaihost.containers.report import Report
from uaihost.doctor.model import Finding, Verdict, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient, page
from uaihost.egress.egress import Egress
from uaihost.egress.policy import Policy
from uaihost.errors import HostError
from uaihost.interfaces import Address, Launch, Step
from uaihost.offline import DataLock
from uaihost.paths import Folders
from uaihost.rooms import engine_address, limits_of, task_images
from uaihost.tunnels.relay import endpoints

TASK = "doctor"
# Seconds: measured 0.6 for a container, 1 to 2 for the standard image's editor.
READY = 20.0
REACH = 10.0
PROGRAM = 15.0
POLL = 0.2
# Where the server in the container listens: its own loopback, as development servers do.
PORT = 8123
# A server that says the word on its command line to whoever connects.
SERVER = """
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[2].encode())
    c.close()
"""
# Names of the way out, tried from inside: whether the name resolves, and whether the port answers.
OUTSIDE = ("github.com", 443)
OUTWARD = """
import json, socket, sys
said = {"name": False, "port": False, "why": ""}
try:
    found = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM)
    said["name"] = True
    socket.create_connection(found[0][4][:2], 4).close()
    said["port"] = True
except OSError as error:
    said["why"] = str(error)
print(json.dumps(said))
"""
PYTHON = ("/usr/bin/python3", "-I", "-c")


def host_id(data: Path) -> str:
    """The id under which the containers of this data folder's doctor are known to the engine."""
    return f"doctor-{hashlib.sha256(str(data).encode()).hexdigest()[:12]}"


@attrs.frozen
class _Looked:
    """The packet filter for the check of isolation: as it is; set only where no host runs that does so."""

    rules: Firewall
    lives: bool

    @property
    def allow(self) -> Sequence[Allowed]:
        return self.rules.allow

    async def apply(self) -> FirewallState:
        seen = await self.rules.seen()
        if seen.applied or seen.why or self.lives:
            return seen
        return await self.rules.apply()


async def run(patient: Patient) -> Finding:
    """Everything a task's container must do, once."""
    root = patient.folders.root
    folder = root / "doctor"
    fresh = not root.exists()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = await patient.blocking.call(DataLock, folder / "lock")
    except HostError:
        return skipped("another doctor is at it on this data folder")
    except OSError as error:
        return skipped(f"{folder} cannot be made: {error.strerror}")
    threads = Threads(patient.reactor, "doctor-engine", 4)
    try:
        return await _Trial(patient, folder, threads).run()
    finally:
        threads.stop()
        if fresh:
            # A first look leaves no data folder behind: this user may not be the host's.
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                root.rmdir()
        lock.release()


class _Trial:
    def __init__(self, patient: Patient, folder: Path, threads: Threads) -> None:
        settings, reactor = patient.settings, patient.reactor
        self._patient = patient
        self._reactor = reactor
        self._folder = folder
        self._folders = Folders(folder)
        self._threads = threads
        self._uid, self._gid = owner()
        address = engine_address(settings)
        self._host_id = host_id(settings.data_dir)
        self._engine = DockerEngine(reactor, threads, address, self._host_id)
        self._images = task_images(reactor, threads, settings, settings.task_image)
        rules = Firewall(reactor, threads, address, allow=settings.reachable)
        self._filter = _Looked(rules, patient.lives)
        policy = Policy(settings.egress, settings.reachable)
        self._egress = Egress(reactor, self._folders, policy, lambda task, where, why: None)
        self._took: dict[str, float] = {}

    async def run(self) -> Finding:
        reference = next((info.reference for info in await self._images.list() if info.current), None)
        if reference is None:
            return skipped("the task image is not built: uaihost image build")
        await to_the_end(self._engine.sweep(set()))
        try:
            findings = await self._findings(reference)
        finally:
            cleared = await self._clear()
        total = sum(self._took.values())
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._took.items())
        facts = {"seconds": {name: round(took, 3) for name, took in self._took.items()}, "image": reference}
        found = together([ok(f"{total:.1f} s: {steps}, removed", **facts), *findings, *cleared])
        if found.verdict is Verdict.WARN:
            return attrs.evolve(found, text=f"it works, in {total:.1f} s; but {found.text}")
        return found

    async def _findings(self, reference: str) -> list[Finding]:
        launch = await self._launch(reference)
        await self._timed("start", to_the_end(self._engine.launch(launch)))
        report = await self._timed("look from inside", self._look(launch.network))
        findings = [_judged(report)]
        await TaskPlaces(self._folders, self._threads, self._uid, self._gid).open_gate(TASK)
        findings.append(await self._timed("set-up", self._ready()))
        findings.append(await self._timed("a port through the relay", self._relayed()))
        findings += await self._timed("programs", self._programs())
        if launch.network == "own":
            findings.append(await self._timed("the way out", self._outward()))
        return findings

    async def _launch(self, reference: str) -> Launch:
        """As commands.startup makes it, for a task without a project."""
        places = TaskPlaces(self._folders, self._threads, self._uid, self._gid)
        await places.make(TASK, fresh=True)
        await self._egress.open(TASK)
        plan = Plan(TASK, TASK, "main", (), (), {}, None, ())
        return Launch(
            task_id=TASK,
            image=reference,
            uid=self._uid,
            gid=self._gid,
            mounts=plan.mounts(self._folders),
            ports=(),
            env=dict(self._egress.environment()),
            limits=limits_of(self._patient.settings),
            network=self._egress.network,
            read_only=True,
        )

    async def _look(self, network: str) -> Report:
        settings = self._patient.settings
        port = await self._threads.call(page, self._patient.folders)
        services = {"bridge": settings.bridge_port, "local status": port}
        isolation = Isolation(
            self._engine, self._filter, self._reactor, self._host_id, services=lambda: services
        )
        return await isolation.check(
            TASK, network=network, uid=self._uid, gid=self._gid, limits=limits_of(settings)
        )

    async def _ready(self) -> Finding:
        failed: list[str] = []

        def heard(step: Step) -> None:
            if step.state == "failed":
                failed.append(f"{step.step}: {(step.message or '').splitlines()[-1:]}")

        try:
            await Readiness(self._reactor, self._folders.run).ready(TASK, heard, READY)
        except HostError as error:
            return fail(
                f"the container did not become ready: {error.message}", "uaihost image build --no-cache"
            )
        if failed:
            return warn(f"its set-up went wrong: {'; '.join(failed)}", "uaihost image build --no-cache")
        return ok("ready")

    async def _relayed(self) -> Finding:
        word = secrets.token_hex(8)
        await self._engine.start_process(TASK, [*PYTHON, SERVER, str(PORT), word])
        address = Address("127.0.0.1", 0, str(self._folders.run(TASK) / "relay.sock"), PORT)
        end = self._reactor.seconds() + REACH
        why = ""
        while self._reactor.seconds() < end:
            hearing = _Hearing()
            factory = Factory.forProtocol(partial(_same, hearing))
            factory.noisy = False
            try:
                await endpoints(self._reactor)(address).connect(factory)
                if (await hearing.done.addTimeout(REACH, self._reactor)).decode("ascii", "replace") == word:
                    return ok("reached")
                why = "it answered something else"
            except CancelledError:
                raise
            except Exception as error:
                why = str(error)
            await deferLater(self._reactor, POLL)
        return fail(
            f"a server in the container is not reached through its relay ({why}); nor will previews be",
            "uaihost image build --no-cache",
            "docker info | grep -i operating   # Docker Desktop lets no sockets through: use Docker Engine",
        )

    async def _programs(self) -> list[Finding]:
        """Each agent's program answers its version in the image."""
        names = sorted(self._images.agents())
        asked = [Deferred.fromCoroutine(self._version(name)) for name in names]
        return list(await gatherResults(asked)) if asked else []

    async def _version(self, name: str) -> Finding:
        asking = Deferred.fromCoroutine(self._engine.execute(TASK, [name, "--version"], cwd="/"))
        try:
            ran = await asking.addTimeout(PROGRAM, self._reactor)
        except CancelledError:
            raise
        except Exception as error:
            return warn(f"{name} does not answer in the image: {error}", "uaihost image build --no-cache")
        said = (ran.out or ran.err).decode("utf-8", "replace").strip().splitlines()[:1]
        if ran.status != 0:
            return warn(
                f"{name} --version ends with status {ran.status} in the image: {' '.join(said)[:120]}",
                "uaihost image build --no-cache",
            )
        return ok("", **{name: " ".join(said)[:80]})

    async def _outward(self) -> Finding:
        host, port = OUTSIDE
        ran = await self._engine.execute(TASK, [*PYTHON, OUTWARD, host, str(port)])
        try:
            said = json.loads(ran.out)
        except ValueError:
            said = {"name": False, "port": False, "why": "the program said nothing"}
        facts = {"outside": bool(said["port"])}
        if said["port"]:
            return ok("", **facts)
        if said["name"]:
            return warn(
                f"from a container {host} is not reached ({said['why']}): a firewall of this machine or its "
                "network, unless there is no internet",
                "sysctl net.ipv4.ip_forward   # must be 1",
                f"curl -sI https://{host}   # does this machine itself reach it?",
                **facts,
            )
        return warn(
            f"in a container the name {host} does not resolve ({said['why']})",
            f"getent ahosts {host}   # does it resolve on this machine?",
            "cat /etc/docker/daemon.json   # `dns` there is what containers ask; a loopback resolver is not",
            **facts,
        )

    async def _clear(self) -> list[Finding]:
        """Remove everything, also when the check was stopped half-way."""
        self._egress.stop()
        findings = []
        try:
            await to_the_end(self._engine.remove(TASK))
        except HostError as error:
            findings.append(
                warn(
                    f"the container of this check is still there: {error.message}",
                    f"docker rm -f $(docker ps -aq --filter label=uaihost.host={self._host_id})",
                )
            )
        await self._threads.call(shutil.rmtree, self._folder / "tasks", True)
        await self._threads.call(shutil.rmtree, self._folder / "tools", True)
        return findings

    async def _timed(self, name: str, work: Any) -> Any:
        began = self._reactor.seconds()
        try:
            return await work
        finally:
            self._took[name] = self._reactor.seconds() - began


def _same(hearing: _Hearing) -> _Hearing:
    return hearing


class _Hearing(Protocol):
    """Collects what is said until the end."""

    def __init__(self) -> None:
        self._said = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._said += data[:64]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(self._said)


def _judged(report: Report) -> Finding:
    """What a task's card of isolation would say."""
    facts = {"isolation": report.json()}
    open_ones = [one for one in report.checks if not one.good]
    limits = next((one.detail for one in report.checks if one.name == "limits"), "")
    if not report.passed:
        bad = [one for one in open_ones if one.required]
        return fail(
            "the container is not closed, and no task would start: "
            + "; ".join(f"{one.name}: {one.detail}" for one in bad),
            "uaihost doctor --only packet-filter",
            "docker info 2>&1 | grep -i -A3 'security options'",
            **facts,
        )
    if open_ones:
        return warn(
            "tasks start, and this is not closed: "
            + "; ".join(f"{one.name}: {one.detail}" for one in open_ones),
            "uaihost doctor --only packet-filter",
            **facts,
        )
    return ok(f"isolation {len(report.checks)} of {len(report.checks)}; {limits}", **facts)
