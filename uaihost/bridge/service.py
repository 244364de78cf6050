"""The bridge as a service: builds every object, wires them, and owns the order of start and stop."""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from uaihost.blocking import Threads
from uaihost.bridge.api import Api, site_of
from uaihost.bridge.calls import Calls
from uaihost.bridge.feed import Feed
from uaihost.bridge.front import Front, Kinds
from uaihost.bridge.guard import Guard
from uaihost.bridge.hosts import Hosts
from uaihost.bridge.names import Names
from uaihost.bridge.proxy import BrowserConnection
from uaihost.bridge.tasks import Tasks
from uaihost.errors import ErrorCode, HostError
from uaihost.link.protocol import ServerSocketFactory
from uaihost.paths import Folders, data_files
from uaihost.staged import StagedService
from uaihost.state.database import Database

log = Logger()

# Seconds that hosts get to close their connections when the bridge stops.
GOODBYE = 2.0


@attrs.frozen
class BridgeSettings:
    """port: 0 takes any free one. data: folder of the database and of the files `bridge.port`, `bridge.key`.

    tokens: a host that shows one of them is let in. key: what people and programs show.
    """

    port: int
    bind: str
    data: Path
    tokens: tuple[str, ...] = attrs.field(repr=False)
    key: str = attrs.field(repr=False)


class Bridge(StagedService):
    """A self-hosted bridge on one port.

    on_fatal, on_refused: as of StagedService. port: known once `started()` returned.
    """

    name = "bridge"

    def __init__(
        self,
        reactor: Any,
        settings: BridgeSettings,
        on_fatal: Callable[[str], object] | None = None,
        on_refused: Callable[[str], object] | None = None,
    ) -> None:
        super().__init__("the bridge", on_fatal or _log, on_refused)
        self._reactor = reactor
        self._settings = settings
        self._folders = Folders(settings.data)
        self.port = 0

    async def begin(self) -> None:
        settings, clock = self._settings, self._reactor
        front = Front(clock)
        # Before anything else, so that of two bridges on one folder the second leaves its files alone.
        listening = self._listen(front)
        self.undo.append(listening.stopListening)
        # Whoever connects waits in the kernel's queue until everything is there.
        listening.stopReading()
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        threads = Threads(clock, "bridge-database", 1)
        self.undo.append(threads.stop)
        database = await Database.open(
            self._folders.bridge_database, data_files("migrations") / "bridge", threads
        )
        self.undo.append(database.close)
        self.port = listening.getHost().port
        front.kinds = await self._compose(database)
        self.undo.append(lambda: front.drop().addTimeout(GOODBYE, clock, lambda *_: None))
        self.undo.append(lambda: self._hosts.shut(1001, "bridge shutting down"))
        _write(self._folders.bridge_port, f"{self.port}\n")
        self.undo.append(lambda: self._folders.bridge_port.unlink(missing_ok=True))
        self.undo.append(listening.stopReading)
        listening.startReading()
        log.info("the bridge listens on {bind}:{port}", bind=settings.bind, port=self.port)

    async def _compose(self, database: Database) -> Kinds:
        settings, clock = self._settings, self._reactor
        feed = Feed(database)
        calls = Calls(database, clock)
        hosts = self._hosts = Hosts(settings.tokens, database, feed, calls, clock)
        tasks = Tasks(database, feed, hosts, calls, clock, self.port)
        feed.on_task = tasks.changed
        feed.on_failure = lambda: hosts.shut(1011, "the bridge cannot store events")
        for part in (hosts, calls, tasks):
            await part.load()
        names = Names(self.port, tasks, own_names(settings.bind))
        api = Api(database, feed, hosts, tasks, calls, clock)
        api.wellness.start()
        self.undo.append(api.wellness.stop)
        return Kinds(
            names,
            app=site_of(api, Guard(names, settings.key), clock).buildProtocol,
            host=ServerSocketFactory(clock, hosts.opened, hosts.lost).buildProtocol,
            tunnel=lambda _: BrowserConnection(names, hosts, clock),
        )

    async def summary(self) -> str:
        """One line on how it is, for whoever runs it as a service."""
        hosts = len(self._hosts.connected_ids())
        return f"port {self.port}; {hosts} {'host' if hosts == 1 else 'hosts'} connected"

    def _listen(self, front: Front) -> Any:
        settings = self._settings
        try:
            return self._reactor.listenTCP(settings.port, front, interface=settings.bind)
        except CannotListenError as error:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"it cannot listen on {settings.bind}:{settings.port}: {error.socketError}; end what "
                "uses that port, or choose another one with UAI_HOST_BRIDGE_PORT",
            ) from None


def make_bridge(
    reactor: Any,
    settings: BridgeSettings,
    on_fatal: Callable[[str], object] | None = None,
    on_refused: Callable[[str], object] | None = None,
) -> Bridge:
    """The bridge as a service; nothing is opened before it is started."""
    return Bridge(reactor, settings, on_fatal, on_refused)


def bridge_settings(data: Path, port: int, token: str, bind: str = "127.0.0.1") -> BridgeSettings:
    """Settings with the key that lies in `<data>/bridge.key`, which is made on first use (mode 0600)."""
    folders = Folders(data)
    try:
        key = folders.bridge_key.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        key = ""
    if not key:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        # 256 bits, as text that stands in a URL.
        key = secrets.token_urlsafe(32)
        _write(folders.bridge_key, key + "\n")
    return BridgeSettings(port, bind, data, (token,), key)


def own_names(bind: str) -> frozenset[str]:
    """The names under which the app answers beside the loopback ones: the one address that is bound."""
    address = ipaddress.ip_address(bind)
    if address.is_unspecified or address.is_loopback:
        return frozenset()
    return frozenset({f"[{address}]" if address.version == 6 else str(address)})


def _log(reason: str) -> None:
    log.error("{reason}", reason=reason)


def _write(path: Path, text: str) -> None:
    """A file of mode 0600, whole at every moment."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    beside.rename(path)
