"""The composition root of the host: the rooms of tasks (uaihost.rooms), the link, the local API, in order.

No room imports it. Its only logic is that order:

start: lock the data folder, open the database, point tunnels at ports, park what the machine's restart ended,
attach channels, take up unfinished commands, look at the engine, dial the bridge. stop: refuse new commands,
wait for those in flight, let results leave, close the link, let go of the agents, close the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from uaihost import ids
from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Threads
from uaihost.config import Settings
from uaihost.counts import Counts
from uaihost.daemon import Daemon
from uaihost.descriptors import raise_limit
from uaihost.errors import ErrorCode, HostError
from uaihost.events import EventJournal
from uaihost.interfaces import Say
from uaihost.link.endpoint import bridge_endpoint
from uaihost.link.link import Hooks, Link, LinkState
from uaihost.link.outbound import Outbound
from uaihost.link.session import Greeting, Inbound, Session
from uaihost.logs.observers import ProcessLog
from uaihost.offline import DataLock
from uaihost.paths import Folders, data_files
from uaihost.proxy import Proxies
from uaihost.rooms import Ground, Rooms
from uaihost.staged import StagedService
from uaihost.state.database import Database
from uaihost.web.lag import ReactorLag
from uaihost.web.listeners import LocalListeners
from uaihost.wire import frames, mux

log = Logger()


class Host(StagedService):
    """The whole host.

    settings: must hold a token. on_fatal: told why the host cannot go on; the process then ends. on_refused:
    the same when only the owner can put it right, as when the bridge refuses this host. process_log: what
    this process logs; it also goes to a file in the data folder while the host runs.
    """

    name = "host"

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        *,
        on_fatal: Callable[[str], object],
        on_refused: Callable[[str], object] | None = None,
        process_log: ProcessLog | None = None,
    ) -> None:
        super().__init__("the host", on_fatal, on_refused)
        self._log = process_log or ProcessLog(settings.log_level)
        for secret in (settings.token, settings.github_client_secret):
            if secret is not None:
                self._log.redactor.learn(secret)
        self._reactor = reactor
        self._settings = settings
        self._folders = Folders(settings.data_dir)
        self._connected: Deferred[None] = Deferred()
        self._listeners: LocalListeners | None = None
        self._counts = Counts()
        self._lag = ReactorLag(reactor, self._counts.lateness)

    async def connected(self) -> None:
        """Returns once a bridge has been reached for the first time."""
        await self._connected

    async def prepare(self, say: Say) -> str:
        """Build the task image if it is missing; its reference. Tasks that need it meanwhile wait for it."""
        return await self._rooms.images.ensure(say)

    @property
    def page(self) -> str | None:
        """The link of the local page, which holds its token; None without one."""
        return self._listeners.link if self._listeners is not None else None

    async def summary(self) -> str:
        """One line on how it is, for whoever runs it as a service."""
        if not self.running:
            return f"stopping; {self._rooms.dispatch.running} commands in flight"
        link, tasks = self._link.state, len(await self._rooms.running())
        reason = f" ({link.reason})" if link.reason else ""
        return f"bridge {link.name}{reason}; {tasks} {'task runs' if tasks == 1 else 'tasks run'}"

    # start

    async def begin(self) -> None:
        settings, folders, reactor = self._settings, self._folders, self._reactor
        self.undo.append(DataLock(folders.lock).release)
        self._log.open_file(folders.log)
        self.undo.append(self._log.close)
        raise_limit()
        # Two lines for each of thousands of connections would hide every other one.
        Factory.noisy = False
        self._lag.start()
        self.undo.append(self._lag.stop)
        self._host_id = settings.host_id or _host_id(folders.root)
        database_thread = self._threads("database", 1)
        self._database = await Database.open(folders.database, data_files("migrations"), database_thread)
        self.undo.append(self._database.close)
        journal = EventJournal(self._database, reactor)
        agents = AgentRegistry()
        ground = Ground(
            reactor, settings, folders, self._host_id, self._database, journal, self._threads, self._counts
        )
        seen = self._log.redactor.learn_stored
        rooms = self._rooms = Rooms(ground, agents, self._services, seen)
        self.undo.append(rooms.tunnels.stop)
        self._agents = agents
        await rooms.keys.start()
        await rooms.accounts.load()
        self.undo.append(rooms.proofs.stop)
        await rooms.proofs.start()
        rooms.offer.start()
        self._link = self._make_link(agents, journal)
        for part in (
            rooms.offer,
            rooms.channels,
            rooms.egress,
            rooms.tools,
            rooms.adoption,
            rooms.events,
            rooms.resources,
            rooms.disk_limits,
            rooms.gc,
            rooms.exports,
        ):
            self.undo.append(part.stop)
        self.undo.append(rooms.watch.stop_all)
        await rooms.tools.sweep()
        await rooms.exports.sweep()
        await rooms.exposed.restore()
        # Before any command: what ran before the machine was restarted does not run now.
        await rooms.adoption.restore()
        rooms.approvals.start()
        self.undo.append(rooms.approvals.stop)
        self.undo.append(rooms.firewall.release)
        # Before any command: a word that waited at the bridge must find its channel open.
        await rooms.channels.resume(await rooms.running())
        await rooms.dispatch.recover()
        rooms.adoption.start()
        rooms.events.start()
        rooms.resources.start()
        rooms.disk_limits.start()
        rooms.gc.start()
        rooms.start_upkeep()
        self.undo.append(rooms.stop_upkeep)
        self.undo.append(self._hang_up)
        self._link.startService()
        self._listen()

    def _services(self) -> dict[str, int]:
        """Ports of this machine's own that no task may reach, by name."""
        page = self._listeners.port if self._listeners is not None else None
        return {"bridge": self._settings.bridge_port, "local page": page or self._settings.ui_port}

    def _make_link(self, agents: AgentRegistry, journal: EventJournal) -> Link:
        settings = self._settings
        rooms = self._rooms
        features = [mux.FEATURE]
        link = Link(
            self._reactor,
            bridge_endpoint(
                self._reactor, settings.cloud_url, ca_file=settings.ca_file, proxies=Proxies(os.environ)
            ),
            Greeting(
                settings.require_token(),
                self._host_id,
                lambda: frames.Capabilities(agents.capabilities(), list(rooms.images.runtimes()), features),
            ),
            Inbound(
                self._handlers(),
                self._rooms.tunnels.deliver,
                self._rooms.tunnels.message,
                self._rooms.dispatch.bad_command,
            ),
            journal=journal,
            store=self._database,
            random=SystemRandom(),
            hooks=Hooks(
                connected=self._link_up,
                lost=lambda reason: self._rooms.tunnels.link_lost(),
                fatal=self._rejected,
                changed=_log_state,
            ),
        )
        agents.on_change(link.advertise)
        return link

    def _handlers(self) -> dict[str, Callable[[Any], None]]:
        """Who takes a frame of the bridge, by its kind."""
        return {
            "command": self._rooms.dispatch.received,
            "tunnel.open": self._rooms.tunnels.open,
            "tunnel.requestEnd": self._rooms.tunnels.request_end,
            "tunnel.close": self._rooms.tunnels.close,
            "gh.connect.set": self._github,
            "gh.connect.clear": self._github,
            "ssh.key.get": self._ssh,
            "ssh.key.ensure": self._ssh,
            "ssh.key.delete": self._ssh,
        }

    def _github(self, frame: frames.GhConnectSet | frames.GhConnectClear) -> None:
        Deferred.fromCoroutine(self._rooms.proofs.github.answer(frame)).addCallback(self._link.send)

    def _ssh(self, frame: frames.SshKeyGet | frames.SshKeyEnsure | frames.SshKeyDelete) -> None:
        Deferred.fromCoroutine(self._rooms.proofs.ssh.answer(frame)).addCallback(self._link.send)

    def _link_up(self, session: Session, outbound: Outbound) -> None:
        self._rooms.tunnels.link_up(outbound, session, session.broken)
        Deferred.fromCoroutine(self._announce(session)).addErrback(
            lambda failure: log.failure("the tasks could not be announced", failure)
        )
        if not self._connected.called:
            self._connected.callback(None)

    async def _announce(self, session: Session) -> None:
        """A bridge that forgot everything learns what there is (docs/protocol.md, section 6)."""
        for event in await self._rooms.adoption.snapshot():
            session.send(frames.EventFrame(event))

    def _rejected(self, reason: str) -> None:
        self.on_refused(
            f"the bridge refused this host: {reason}; check UAI_HOST_TOKEN and the bridge's address"
        )

    def _listen(self) -> None:
        daemon = Daemon(
            self._settings,
            self._host_id,
            self._rooms,
            self._agents,
            self._link,
            self._database,
            self._lag,
            self._log,
            self._counts,
            self._reactor,
            self._threads("status", 1),
        )
        listeners = LocalListeners(
            self._reactor,
            daemon,
            socket=self._folders.control_socket,
            port=self._settings.ui_port,
            port_file=self._folders.ui_port,
            token_file=self._folders.ui_token,
            learn=self._log.redactor.learn,
        )
        try:
            listeners.startService()
        except Exception:
            log.failure("the local page could not be started; the host goes on without it")
            return
        self._listeners = listeners
        self.undo.append(listeners.stopService)

    # stop

    async def _hang_up(self) -> None:
        await self._rooms.dispatch.drain()
        await self._link.drain()
        await self._link.stopService()

    def _threads(self, name: str, limit: int) -> Threads:
        threads = Threads(self._reactor, name, limit, self._counts.pool(name))
        self.undo.append(threads.stop)
        return threads


def _log_state(state: LinkState) -> None:
    log.info("link {name} {reason}", name=state.name, reason=state.reason)


def _host_id(root: Path) -> str:
    try:
        return ids.host_id(root)
    except ValueError as error:
        raise HostError(ErrorCode.CONFLICT, str(error)) from None
