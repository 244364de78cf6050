"""Builds the rooms that tasks need and joins them: engine, images, workspaces, egress, channels, commands.

It decides who is given whom; `app` decides when each begins and ends.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from uaihost.agents import kinds
from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Threads
from uaihost.channel.channel import Channels, Rules
from uaihost.channel.governor import Budgets
from uaihost.commands.adoption import Adoption
from uaihost.commands.approvals import Approvals
from uaihost.commands.channel import ChannelCommands
from uaihost.commands.disk import Disk
from uaihost.commands.disk_limits import DiskLimits
from uaihost.commands.dispatch import Dispatch
from uaihost.commands.drain import Drain
from uaihost.commands.exposed import Exposed
from uaihost.commands.files import FileCommands
from uaihost.commands.gc import Gc
from uaihost.commands.lanes import Lanes
from uaihost.commands.owner import OwnerCommands
from uaihost.commands.push import PushCommands
from uaihost.commands.registry import registry
from uaihost.commands.resources import Resources
from uaihost.commands.stock import Stock
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.commands.waking import Waking
from uaihost.config import Settings
from uaihost.containers.admission import Admission
from uaihost.containers.base import BaseImages
from uaihost.containers.client import SYSTEM_SOCKET
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.firewall import Firewall
from uaihost.containers.images import Images, owner
from uaihost.containers.isolation import Isolation
from uaihost.containers.ports import PortWatch
from uaihost.containers.readiness import Readiness
from uaihost.containers.tools import Tools
from uaihost.containers.watch import EngineEvent, EngineEvents
from uaihost.counts import Counts
from uaihost.credentials import codex
from uaihost.credentials.accounts import OwnerAccounts
from uaihost.credentials.key_sources import source as key_source
from uaihost.credentials.keys import Keys, key_verbs
from uaihost.credentials.proving import Proofs
from uaihost.egress.egress import Egress
from uaihost.egress.names import Destination
from uaihost.egress.policy import Policy
from uaihost.events import EventJournal
from uaihost.interfaces import Limits
from uaihost.paths import Folders, data_files
from uaihost.state.database import Database
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.workspaces.attachments import Attachments
from uaihost.workspaces.exports import Exports
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.workspaces import Workspaces

log = Logger()

# Engine calls at once; the reactor's own pool, which resolves names, is another one.
ENGINE_THREADS = 4
# File trees that are copied, removed or read at once.
FILE_THREADS = 4
# Small files about what users may reach.
PROOF_THREADS = 2
# Where the standard image's editor listens inside its container.
EDITOR_PORT = 8100
# Seconds between two looks at the mirrors; each is put in order at most once a day.
UPKEEP = 3600.0
# Programs that run in containers.
SHIM = Path(__file__).parent / "shim"
NO_TOOLS = "UAI_EGRESS is `deny`: the image's own tools are used"


@attrs.frozen
class Ground:
    """What everything stands on. threads: makes a pool of threads, which ends with the host. counts: of this
    process."""

    reactor: Any
    settings: Settings
    folders: Folders
    host_id: str
    database: Database
    journal: EventJournal
    threads: Callable[[str, int], Threads]
    counts: Counts


class Rooms:
    """The task side of a host.

    agents: the kinds on offer. services: ports of this machine that tasks must not reach, by name. seen: told
    each stored secret that is read or written.
    """

    def __init__(
        self,
        ground: Ground,
        agents: AgentRegistry,
        services: Callable[[], dict[str, int]],
        seen: Callable[[bytes], object],
    ) -> None:
        reactor, settings, folders = ground.reactor, ground.settings, ground.folders
        # What the owner's programs ask for by name: arguments and answers are JSON objects.
        self.verbs: dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]] = {}
        database, journal = ground.database, ground.journal
        self._ground = ground
        # What was heard of the engine last; None before anything was.
        self.engine_answers: bool | None = None
        files = ground.threads("files", FILE_THREADS)
        docker_host = engine_address(settings)
        self.engine = DockerEngine(
            reactor, ground.threads("engine", ENGINE_THREADS), docker_host, ground.host_id
        )
        self.firewall = Firewall(reactor, files, docker_host, allow=settings.reachable)
        self.images = task_images(reactor, ground.threads("images", 1), settings, settings.task_image)
        uid, gid = owner()
        self.keys = Keys(
            files,
            database,
            lambda: key_source(settings.secrets_source, folders.secrets_key, os.environ),
            seen=seen,
        )
        self.verbs |= key_verbs(self.keys)
        self.accounts = OwnerAccounts(
            reactor,
            database,
            self.keys,
            gateways={"claude": settings.claude_base_url, "codex": settings.codex_base_url},
            exchanges={"codex": codex.CodexExchange(self.engine, self.images.ensure, uid, gid)},
        )
        self.proofs = Proofs(
            reactor,
            SystemRandom().random,
            # Threads of their own: nobody's sign-in waits until trees are copied, or requests are read.
            ground.threads("proofs", PROOF_THREADS),
            ground.threads("requests", 1),
            database,
            self.keys.sealer,
            folders,
            settings,
            SHIM,
            self._note,
        )
        self.verbs |= self.proofs.ssh.verbs() | self.proofs.github.verbs() | self.proofs.audit.verbs()
        self.offer = kinds.Offer(agents, kinds.table(settings.acp_agents), self.accounts, self.images.agents)
        workspaces = Workspaces(
            reactor,
            folders,
            files,
            uid,
            gid,
            settings.local_repositories,
            self.proofs.environment(os.environ),
            self.proofs.broker,
        )
        self.channels = Channels(
            database,
            journal,
            self.engine,
            reactor,
            agents,
            files,
            folders.tasks,
            folders.transcripts,
            self.accounts,
            workspaces,
            rules_of(settings),
            self.proofs,
            ground.counts.turns,
        )
        policy = Policy(settings.egress, settings.reachable)
        self.egress = Egress(reactor, folders, policy, self._blocked)
        self.ports = PortTable()
        self.exposed = Exposed(database, journal, reactor, self.ports)
        self._workspaces = workspaces
        self._upkeep = LoopingCall(lambda: Deferred.fromCoroutine(self._look_after()))
        self._upkeep.clock = reactor
        self.tools = Tools(
            files,
            self.engine,
            folders,
            self.images.ensure,
            uid=uid,
            gid=gid,
            limits=limits_of(settings),
            closed=NO_TOOLS if settings.egress == "deny" else "",
        )
        self.watch = PortWatch(reactor, folders.run, lambda task, ports: self.tasks.on_ports(task, ports))
        around = Surroundings(
            workspaces=workspaces,
            engine=self.engine,
            images=self.images,
            readiness=Readiness(reactor, folders.run, running=self._runs),
            channels=self.channels,
            ports=self.ports,
            folders=folders,
            uid=uid,
            gid=gid,
            limits=limits_of(settings),
            editor_port=EDITOR_PORT if settings.task_image == "standard" else None,
            admission=Admission(reactor, files, folders.root),
            isolation=Isolation(self.engine, self.firewall, reactor, ground.host_id, services=services),
            egress=self.egress,
            # The small image has nothing that could read what a repository names.
            tools=self.tools if settings.task_image == "standard" else None,
            watch=self.watch,
            broker=self.proofs.broker,
        )
        self.tasks = Tasks(database, journal, reactor, files, around, self.exposed)
        lanes = Lanes()
        self.waking = Waking(self.tasks, lanes)
        self.ports.on_missing = self.waking.on_missing
        pushes = PushCommands(self.tasks.records, workspaces, self.proofs.pulls, database)
        self.verbs["task.push"] = pushes.asked
        trash = Trash(folders.tasks / ".trash")
        self.exports = Exports(reactor, ground.threads("exports", 1), workspaces, folders.exports, trash)
        owners = OwnerCommands(self.tasks, lanes, workspaces, self.exports)
        self.verbs |= {"task.stop": owners.stop, "task.export": owners.export, "task.keep": owners.keep}
        surface = registry(
            self.tasks,
            ChannelCommands(self.channels, self.waking),
            FileCommands(workspaces, Attachments(folders.tasks, files), self.channels, files),
            pushes,
        )
        self.dispatch = Dispatch(
            surface, database, journal, reactor, lanes, self.tasks.records.waits, ground.counts.commands
        )
        self.drain = Drain(self.channels, self.dispatch.refused, lambda: self.dispatch.running)
        self.verbs |= self.drain.verbs()
        self.approvals = Approvals(journal, self.channels, self.tasks.records.waits)
        self.adoption = Adoption(
            database,
            reactor,
            self.engine,
            self.tasks,
            self.exposed,
            lanes,
            self._running_again,
            others=lambda: {*self.tools.busy, codex.NAME},
        )
        self.events = EngineEvents(reactor, docker_host, ground.host_id, self)
        self.resources = Resources(reactor, journal, self.engine, self.running)
        # One thread of its own: a walk over everything takes minutes, and nobody waits for it.
        walks = ground.threads("disk", 1)
        self.disk = Disk(reactor, walks, folders)
        self.disk_limits = DiskLimits(
            reactor, self.disk, self.running, self.channels.note, settings.task_disk
        )
        stock = Stock(
            reactor,
            walks,
            folders,
            self.disk,
            self.tasks,
            lanes,
            self.engine,
            self.images,
            self.tools,
            workspaces,
        )
        self.gc = Gc(reactor, database, self.disk, stock, settings.disk_budget)
        secure = settings.cloud_url.startswith("wss:")
        self.tunnels = TunnelTable(reactor, self.ports, scheme="https" if secure else "http")

    # containers.watch.Listener

    def engine_heard(self, event: EngineEvent) -> None:
        self.adoption.engine_heard(event)

    def engine_found(self) -> None:
        self.engine_answers = True
        looked = Deferred.fromCoroutine(self.images.list())
        looked.addErrback(
            lambda failure: log.debug("the images were not seen: {why}", why=str(failure.value))
        )
        # A host without an engine, which only exposes ports, has nothing to filter.
        self.firewall.keep()
        self.adoption.engine_found()
        recovered = Deferred.fromCoroutine(self.accounts.recover())
        recovered.addErrback(
            lambda failure: log.failure("what a login's exchange left was not read", failure)
        )

    def engine_lost(self) -> None:
        self.engine_answers = False
        self.adoption.engine_lost()

    def start_upkeep(self) -> None:
        """Look after the mirrors now and then; until `stop_upkeep`."""
        self._upkeep.start(UPKEEP, now=False)

    def stop_upkeep(self) -> None:
        if self._upkeep.running:
            self._upkeep.stop()

    async def _look_after(self) -> None:
        try:
            await self._workspaces.maintain()
        except Exception:
            log.failure("the mirrors could not be looked after")

    async def running(self) -> list[str]:
        """The tasks whose containers should run now."""
        return [row["id"] for row in await self.tasks.overview() if row["status"] == "running"]

    async def _runs(self, task_id: str) -> bool:
        found = await self.engine.find(task_id)
        return found is not None and found.state == "running"

    async def _running_again(self, task_id: str) -> None:
        await self.channels.resume([task_id])
        self.approvals.look(task_id)

    def _blocked(self, task_id: str, destination: Destination, why: str) -> None:
        self._note(task_id, why)

    def _note(self, task_id: str, line: str) -> None:
        noted = Deferred.fromCoroutine(self.channels.note(task_id, line))
        noted.addErrback(
            lambda failure: log.failure("{task} was not told: {line}", failure, task=task_id, line=line)
        )


def limits_of(settings: Settings) -> Limits:
    """What one task may use under these settings."""
    return Limits(
        memory=settings.task_memory,
        cpus=settings.task_cpus,
        pids=settings.task_pids,
        swap=settings.task_swap,
        disk=settings.task_disk,
    )


def rules_of(settings: Settings) -> Rules:
    """What keeps crews in bounds under these settings."""
    budgets = Budgets(
        settings.budget_hops, settings.budget_turns, settings.budget_tokens, settings.budget_minutes
    )
    return Rules(budgets, settings.permission_expiry, settings.co_author)


def engine_address(settings: Settings) -> str:
    """The engine to use: the one that is set, else the machine's, else the one that `uaihost up` started."""
    if settings.docker_host:
        return settings.docker_host
    own = Folders(settings.data_dir).engine / "docker.sock"
    if own.exists() and not Path(SYSTEM_SOCKET.removeprefix("unix://")).exists():
        return f"unix://{own}"
    return SYSTEM_SOCKET


def task_images(reactor: Any, blocking: Threads, settings: Settings, kind: str) -> Images:
    """Who builds the task image of this kind, a folder of `images`, under these settings."""
    docker_host = engine_address(settings)
    uid, gid = owner()
    return Images(
        reactor,
        blocking,
        docker_host,
        BaseImages(reactor, blocking, docker_host, settings.data_dir / "images", settings.base_image),
        image=data_files("images") / kind,
        shim=SHIM,
        uid=uid,
        gid=gid,
    )
