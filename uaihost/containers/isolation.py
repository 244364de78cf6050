"""Whether a task's container is shut in: looked at from inside, before anything of a repository runs.

The packet filter's rules are put in force, the host opens ports of its own to be attacked, a program of the
image tries them and everything else that it must not reach, and says what it sees of itself. What is not
answered counts as failed. It must not know tasks' states.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as Connection
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.containers import spec
from uaihost.containers.firewall import Allowed, FirewallState, host_allows
from uaihost.containers.judgement import (
    DAEMON,
    HOST,
    LAN,
    LOOPBACK,
    METADATA,
    TASKS,
    Asked,
    Target,
    judged,
    parsed,
)
from uaihost.containers.report import Check, Report, failed
from uaihost.containers.surroundings import Surroundings, look
from uaihost.errors import HostError
from uaihost.interfaces import Engine, Limits

__all__ = ["Check", "Isolation", "Report"]

log = Logger()

# Words that start the probe: absolute and isolated, since a task's home is on PATH and in Python's own path.
PROBE = ("/usr/bin/python3", "-I", "-S", "/opt/uai/probe.py")
# Variables of the task must not lead the probe's interpreter elsewhere.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LD_PRELOAD": "", "LD_LIBRARY_PATH": "", "LD_AUDIT": ""}
# Seconds that the probe waits for answers: those of this machine come in less than one thousandth.
ANSWER = 0.12
# Seconds for the whole probe: starting a program in a container of a busy machine takes one or two.
PROBE_LIMIT = 20.0
# Seconds for the host's own ports to answer the host.
CANARY_LIMIT = 2.0
# Addresses of each sort that are tried: the kernel passes on only a few refusals at once.
OWN_ADDRESSES = 6
NEIGHBOURS = 2
GATEWAYS = 2
# A port that gateways of home and company networks listen on; a refusal shows the way as well.
LAN_PORT = 80
# Instance metadata of Amazon, Google, Azure and others, of Alibaba, and of Amazon by IPv6.
METADATA_ADDRESSES = (("169.254.169.254", 80), ("100.100.100.200", 80), ("fd00:ec2::254", 80))


class _Firewall(Protocol):
    @property
    def allow(self) -> Sequence[Allowed]: ...

    async def apply(self) -> FirewallState: ...


class Bait(Protocol):
    """Two ports of the host that exist to be attacked: `wide` on all addresses, `loopback` on one."""

    wide: int
    loopback: int

    async def answers(self, address: str, port: int) -> bool:
        """Whether one is reached there from the host itself."""

    def close(self) -> None:
        """Listen no more."""


class _Greeting(Connection):
    """What a canary says to whoever reaches it."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.word)
        self.transport.loseConnection()


class _Listener(Connection):
    """Collects what a canary says, until it ends."""

    def __init__(self) -> None:
        self.said = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.said += data

    def connectionLost(self, reason: Failure = Failure(TimeoutError())) -> None:  # noqa: B008
        if not self.done.called:
            self.done.callback(self.said)


class Canaries:
    """Real ones (provides Bait). Each says a word that nobody else knows."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._word = secrets.token_hex(8).encode()
        factory = Factory.forProtocol(_Greeting)
        factory.word = self._word  # type: ignore[attr-defined]
        self._wide: IListeningPort = reactor.listenTCP(0, factory, interface="0.0.0.0")
        try:
            self._loopback: IListeningPort = reactor.listenTCP(0, factory, interface="127.0.0.1")
        except Exception:
            self._wide.stopListening()
            raise
        self.wide = int(self._wide.getHost().port)
        self.loopback = int(self._loopback.getHost().port)

    async def answers(self, address: str, port: int) -> bool:
        listener = _Listener()
        endpoint = TCP4ClientEndpoint(self._reactor, address, port, timeout=CANARY_LIMIT)
        try:
            await connectProtocol(endpoint, listener)
            listener.done.addTimeout(CANARY_LIMIT, self._reactor)
            return bool(await listener.done == self._word)
        except Exception as error:
            log.debug("the canary at {address}:{port}: {error}", address=address, port=port, error=error)
            return False

    def close(self) -> None:
        for port in (self._wide, self._loopback):
            port.stopListening()


class Isolation:
    """Checks containers of one host.

    host_id: as the engine's; services: what else listens on loopback for the daemon and its owner, name to
    port; look: what is around; canaries: makes the host's ports.
    """

    def __init__(
        self,
        engine: Engine,
        firewall: _Firewall,
        reactor: Any,
        host_id: str,
        *,
        services: Callable[[], Mapping[str, int]] = dict,
        look: Callable[[], Surroundings] = look,
        canaries: Callable[[Any], Bait] = Canaries,
    ) -> None:
        self._engine = engine
        self._firewall = firewall
        self._reactor = reactor
        self._host_id = host_id
        self._services = services
        self._look = look
        self._canaries = canaries

    async def check(
        self, task_id: str, *, network: str, uid: int, gid: int, limits: Limits | None = None
    ) -> Report:
        """Look at the task's running container from inside.

        uid, gid, network (`own` or `none`), limits: what it was launched with. Never raises: what cannot be
        found out is a failed check.
        """
        try:
            return await self._check(task_id, network, uid, gid, limits)
        except TimeoutError:
            said = f"no answer in {PROBE_LIMIT:.0f} s"
        except (HostError, ValueError, OSError) as error:
            said = error.message if isinstance(error, HostError) else str(error)
        return failed(f"the container could not be looked at: {said}", self._now())

    async def _check(self, task_id: str, network: str, uid: int, gid: int, limits: Limits | None) -> Report:
        state = await self._filter(task_id, network)
        around = self._look()
        canaries = self._canaries(self._reactor)
        try:
            targets = self._targets(task_id, around, canaries)
            proven = await self._proven(around, canaries)
            answer = await self._probe(task_id, targets)
        finally:
            canaries.close()
        asked = Asked(
            uid=uid,
            gid=gid,
            network=network,
            namespaces=around.namespaces,
            targets=targets,
            proven=proven,
            filtered=state.applied,
            why=state.why,
            limits=limits,
        )
        return judged(parsed(answer), asked, self._now())

    async def _filter(self, task_id: str, network: str) -> FirewallState:
        if network == "none":
            return FirewallState(True)  # There is nothing to filter.
        state = await self._firewall.apply()
        if state.applied and not self._look().has(spec.bridge_name(self._host_id, task_id)):
            return FirewallState(
                False,
                "the task's network is not one of this machine: its engine runs in a machine of its own",
            )
        return state

    def _targets(self, task_id: str, around: Surroundings, canaries: Bait) -> list[Target]:
        """What the probe tries; what the owner lets through is marked."""
        bridge = spec.bridge_name(self._host_id, task_id)
        own = ["gateway", *around.own()[:OWN_ADDRESSES]]
        targets = [Target(TASKS, address, LAN_PORT) for address in around.neighbours(bridge)[:NEIGHBOURS]]
        targets += [Target(LAN, address, LAN_PORT) for address in around.around()[:GATEWAYS]]
        targets += [Target(METADATA, address, port) for address, port in METADATA_ADDRESSES]
        targets += [Target(HOST, address, canaries.wide) for address in own]
        for address in ("127.0.0.1", *own):
            targets.append(Target(LOOPBACK, address, canaries.loopback))
            targets += [Target(DAEMON, address, port) for port in self._services().values()]
        return [self._marked(target) for target in targets]

    def _marked(self, target: Target) -> Target:
        if target.address == "gateway" or target.kind in (TASKS, LOOPBACK, DAEMON):
            return target
        allow = self._firewall.allow
        entries = host_allows(allow) if target.kind == HOST else allow
        through = any(entry.covers(target.address, target.port) for entry in entries)
        return attrs.evolve(target, permitted=through)

    async def _proven(self, around: Surroundings, canaries: Bait) -> frozenset[str]:
        """The kinds of targets that really are there to be reached, tried from the host."""
        wide = [canaries.answers(address, canaries.wide) for address in ("127.0.0.1", *around.own()[:1])]
        tried = [*wide, canaries.answers("127.0.0.1", canaries.loopback)]
        *answered, loopback = await gatherResults([Deferred.fromCoroutine(each) for each in tried])
        found = {HOST: all(answered), LOOPBACK: loopback}
        return frozenset(kind for kind, there in found.items() if there)

    async def _probe(self, task_id: str, targets: Sequence[Target]) -> bytes:
        request = {"targets": [[target.address, target.port] for target in targets], "timeout": ANSWER}
        running = Deferred.fromCoroutine(
            self._engine.execute(task_id, [*PROBE, json.dumps(request)], env=ENVIRONMENT, cwd="/")
        )
        ran = await running.addTimeout(PROBE_LIMIT, self._reactor)
        if ran.status != 0:
            said = ran.err.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise ValueError(f"the probe ended with status {ran.status} {' '.join(said)[:200]}".strip())
        return ran.out

    def _now(self) -> int:
        return int(self._reactor.seconds() * 1000)
