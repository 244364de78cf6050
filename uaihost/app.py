"""The composition root of the host: builds every object, wires them, owns the order of start and stop.

No room imports it. Its only logic is that order:

start: lock the data folder, open the database, point tunnels at ports, attach channels, take up unfinished
commands, dial the bridge. stop: refuse new commands, wait for those in flight, let results leave, close the
link, let go of the agents, close the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from uaihost import __version__, ids
from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Threads
from uaihost.channel.channel import Channels
from uaihost.commands.adoption import Adoption
from uaihost.commands.channel import ChannelCommands
from uaihost.commands.dispatch import Dispatch
from uaihost.commands.exposed import Exposed
from uaihost.commands.files import FileCommands
from uaihost.commands.registry import registry
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.config import Settings
from uaihost.containers.base import BaseImages
from uaihost.containers.client import SYSTEM_SOCKET
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.images import Images, owner
from uaihost.containers.readiness import Readiness
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.interfaces import Limits, Say
from uaihost.link.endpoint import bridge_endpoint
from uaihost.link.link import Hooks, Link, LinkState
from uaihost.link.outbound import Outbound
from uaihost.link.session import Greeting, Inbound, Session
from uaihost.offline import DataLock
from uaihost.paths import Folders, data_files
from uaihost.staged import StagedService
from uaihost.state import outbox
from uaihost.state import tasks as task_rows
from uaihost.state.database import Database
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.web.lag import ReactorLag
from uaihost.web.listeners import LocalListeners
from uaihost.wire import frames, mux
from uaihost.workspaces.attachments import Attachments
from uaihost.workspaces.workspaces import Workspaces

log = Logger()

# Engine calls at once; the reactor's own pool, which resolves names, is another one.
ENGINE_THREADS = 4
# File trees that are copied, removed or read at once.
FILE_THREADS = 4


class Host(StagedService):
    """The whole host.

    settings: must hold a token. on_fatal: told why the host cannot go on; the process then ends.
    """

    name = "host"

    def __init__(self, reactor: Any, settings: Settings, *, on_fatal: Callable[[str], object]) -> None:
        super().__init__("the host", on_fatal)
        self._reactor = reactor
        self._settings = settings
        self._folders = Folders(settings.data_dir)
        self._connected: Deferred[None] = Deferred()
        self._lag = ReactorLag(reactor)

    async def connected(self) -> None:
        """Returns once a bridge has been reached for the first time."""
        await self._connected

    # web.site.Daemon

    async def status(self) -> dict[str, Any]:
        """What `uaihost status` shows."""
        state = self._link.state
        rows, depth = await self._database.run(_overview)
        return {
            "version": __version__,
            "hostId": self._host_id,
            "bridge": {
                "url": self._settings.cloud_url,
                "state": state.name,
                "reason": state.reason,
                "retryAt": state.retry_at,
            },
            "outbox": depth,
            "commands": self._dispatch.running,
            "tunnels": self._tunnels.open_tunnels,
            "tasks": rows,
            "reactorLag": self._lag.worst,
        }

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        """Make ports of this machine previews of a task without a container."""
        await self._exposed.expose(task_id, ports)

    async def unexpose(self, task_id: str) -> None:
        """End that."""
        await self._exposed.unexpose(task_id)

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task."""
        for row in (await self.status())["tasks"]:
            if row["id"] == task_id:
                return dict(row)
        raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id[:64]!r}")

    async def clean(self, dry_run: bool) -> dict[str, Any]:
        """Free disk in the published order."""
        raise HostError(ErrorCode.UNAVAILABLE, "nothing can be cleaned up yet")

    # start

    async def begin(self) -> None:
        settings, folders, reactor = self._settings, self._folders, self._reactor
        self.undo.append(DataLock(folders.lock).release)
        self._lag.start()
        self.undo.append(self._lag.stop)
        self._host_id = settings.host_id or _host_id(folders.root)
        engine_threads = self._threads("engine", ENGINE_THREADS)
        files = self._threads("files", FILE_THREADS)
        database_thread = self._threads("database", 1)
        self._database = await Database.open(folders.database, data_files("migrations"), database_thread)
        self.undo.append(self._database.close)
        journal = EventJournal(self._database, reactor)
        docker_host = engine_address(settings)
        engine = DockerEngine(reactor, engine_threads, docker_host, self._host_id)
        agents = AgentRegistry()
        channels = Channels(
            self._database, journal, engine, reactor, agents, files, folders.tasks, folders.transcripts
        )
        self._compose(journal, engine, channels, files)
        self.undo.append(self._tunnels.stop)
        self._link = self._make_link(agents, journal)
        self.undo.append(channels.stop)
        self.undo.append(self._adoption.stop)
        await self._exposed.restore()
        # Before any command: a word that waited at the bridge must find its channel open.
        await channels.resume(await self._database.run(_running))
        await self._dispatch.recover()
        self._adoption.start()
        self.undo.append(self._hang_up)
        self._link.startService()
        self._listen()

    def _compose(
        self, journal: EventJournal, engine: DockerEngine, channels: Channels, files: Threads
    ) -> None:
        """What commands and tunnels need."""
        settings, folders, reactor = self._settings, self._folders, self._reactor
        uid, gid = owner()
        ports = PortTable()
        workspaces = Workspaces(reactor, folders, files, uid, gid, settings.local_repositories)
        attachments = Attachments(folders.tasks, files)
        self._exposed = Exposed(self._database, journal, reactor, ports)
        around = Surroundings(
            workspaces=workspaces,
            engine=engine,
            images=task_images(reactor, self._threads("images", 1), settings),
            readiness=Readiness(reactor, folders.run, running=lambda task_id: _runs(engine, task_id)),
            channels=channels,
            ports=ports,
            folders=folders,
            uid=uid,
            gid=gid,
            limits=Limits(
                settings.task_memory,
                settings.task_cpus,
                settings.task_pids,
                swap=settings.task_swap,
                disk=settings.task_disk,
            ),
        )
        tasks = Tasks(self._database, journal, reactor, files, around, self._exposed)
        surface = registry(tasks, ChannelCommands(channels), FileCommands(workspaces, attachments, files))
        self._dispatch = Dispatch(surface, self._database, journal, reactor)
        self._adoption = Adoption(
            self._database,
            reactor,
            engine,
            tasks,
            self._exposed,
            self._dispatch.lanes,
            lambda task_id: channels.resume([task_id]),
        )
        secure = settings.cloud_url.startswith("wss:")
        self._tunnels = TunnelTable(reactor, ports, scheme="https" if secure else "http")

    def _make_link(self, agents: AgentRegistry, journal: EventJournal) -> Link:
        settings = self._settings
        runtimes: list[frames.Runtime] = []
        features = [mux.FEATURE]
        link = Link(
            self._reactor,
            bridge_endpoint(self._reactor, settings.cloud_url, ca_file=settings.ca_file),
            Greeting(
                settings.require_token(),
                self._host_id,
                lambda: frames.Capabilities(agents.capabilities(), runtimes, features),
            ),
            Inbound(
                self._handlers(), self._tunnels.deliver, self._tunnels.message, self._dispatch.bad_command
            ),
            journal=journal,
            store=self._database,
            random=SystemRandom(),
            hooks=Hooks(
                connected=self._link_up,
                lost=lambda reason: self._tunnels.link_lost(),
                fatal=self._rejected,
                changed=_log_state,
            ),
        )
        agents.on_change(link.advertise)
        return link

    def _handlers(self) -> dict[str, Callable[[Any], None]]:
        """Who takes a frame of the bridge, by its kind."""
        return {
            "command": self._dispatch.received,
            "tunnel.open": self._tunnels.open,
            "tunnel.requestEnd": self._tunnels.request_end,
            "tunnel.close": self._tunnels.close,
            "gh.connect.set": self._no_github,
            "gh.connect.clear": self._no_github,
            "ssh.key.get": self._no_ssh,
            "ssh.key.ensure": self._no_ssh,
            "ssh.key.delete": self._no_ssh,
        }

    def _no_github(self, frame: frames.GhConnectSet | frames.GhConnectClear) -> None:
        self._link.send(
            frames.GhConnectAck(frame.userId, False, "unavailable: this host has no GitHub support yet")
        )

    def _no_ssh(self, frame: frames.SshKeyGet | frames.SshKeyEnsure | frames.SshKeyDelete) -> None:
        self._link.send(frames.SshKeyFailed(frame.userId, "unavailable: this host keeps no SSH keys yet"))

    def _link_up(self, session: Session, outbound: Outbound) -> None:
        self._tunnels.link_up(outbound, session, session.broken)
        Deferred.fromCoroutine(self._announce(session)).addErrback(
            lambda failure: log.failure("the tasks could not be announced", failure)
        )
        if not self._connected.called:
            self._connected.callback(None)

    async def _announce(self, session: Session) -> None:
        """A bridge that forgot everything learns what there is (docs/protocol.md, section 6)."""
        for event in await self._adoption.snapshot():
            session.send(frames.EventFrame(event))

    def _rejected(self, reason: str) -> None:
        self.on_fatal(
            f"the bridge refused this host: {reason}; check UAI_HOST_TOKEN and the bridge's address"
        )

    def _listen(self) -> None:
        listeners = LocalListeners(
            self._reactor,
            self,
            socket=self._folders.control_socket,
            port=self._settings.ui_port,
            port_file=self._folders.root / "ui-port",
        )
        try:
            listeners.startService()
        except Exception:
            log.failure("the local status pages could not be started; the host goes on without them")
            return
        self.undo.append(listeners.stopService)

    # stop

    async def _hang_up(self) -> None:
        await self._dispatch.drain()
        await self._link.drain()
        await self._link.stopService()

    def _threads(self, name: str, limit: int) -> Threads:
        threads = Threads(self._reactor, name, limit)
        self.undo.append(threads.stop)
        return threads


def engine_address(settings: Settings) -> str:
    """The engine to use: the one that is set, else the machine's, else the one that `uaihost up` started."""
    if settings.docker_host:
        return settings.docker_host
    own = Folders(settings.data_dir).engine / "docker.sock"
    if own.exists() and not Path(SYSTEM_SOCKET.removeprefix("unix://")).exists():
        return f"unix://{own}"
    return SYSTEM_SOCKET


def task_images(reactor: Any, blocking: Threads, settings: Settings, kind: str = "small") -> Images:
    """Who builds the task image of that kind under these settings."""
    docker_host = engine_address(settings)
    uid, gid = owner()
    return Images(
        reactor,
        blocking,
        docker_host,
        BaseImages(reactor, blocking, docker_host, settings.data_dir / "images", settings.base_image),
        image=data_files("images") / kind,
        shim=Path(__file__).parent / "shim",
        uid=uid,
        gid=gid,
    )


async def prepare_images(reactor: Any, settings: Settings, on_progress: Say) -> str:
    """Build the task image if it is missing; its reference."""
    threads = Threads(reactor, "images", 1)
    try:
        return await task_images(reactor, threads, settings).ensure(on_progress)
    finally:
        threads.stop()


def _overview(connection: Any) -> tuple[list[dict[str, Any]], int]:
    """Rows for people: every task and exposure, and how much waits to be sent."""
    rows: list[dict[str, Any]] = []
    for record in task_rows.every(connection):
        found = task_rows.ports(connection, record.id)
        previews = [
            {"name": port.name, "hostPort": port.host_port} for port in found if port.target == "preview"
        ]
        rows.append(
            {"id": record.id, "status": record.status, "message": record.message, "previewPorts": previews}
        )
    for exposure in task_rows.exposures(connection):
        previews = [{"name": name, "hostPort": port} for name, port in exposure.ports.items()]
        rows.append({"id": exposure.task_id, "status": "exposed", "message": None, "previewPorts": previews})
    return rows, outbox.depth(connection)


async def _runs(engine: DockerEngine, task_id: str) -> bool:
    found = await engine.find(task_id)
    return found is not None and found.state == "running"


def _running(connection: Any) -> list[str]:
    return [record.id for record in task_rows.every(connection) if record.status == "running"]


def _log_state(state: LinkState) -> None:
    log.info("link {name} {reason}", name=state.name, reason=state.reason)


def _host_id(root: Path) -> str:
    try:
        return ids.host_id(root)
    except ValueError as error:
        raise HostError(ErrorCode.CONFLICT, str(error)) from None
