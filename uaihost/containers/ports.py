"""Hears which ports servers in containers listen on: the host's side of the relay's `watch`.

What the relay says (uaihost/shim/relay.py) can be the agent's own words: it is read at most twice a second,
and believed only as far as it is a list of ports. It knows neither previews nor tunnels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.errors import HostError
from uaihost.unix import hostile_socket_endpoint

log = Logger()

SOCKET = "relay.sock"
# The editor's, which has an address of its own, and the way out to the proxy.
OWN_PORTS = (8100, 3128)
# From here on the kernel gives ports to whoever asks for any: debuggers, test runners, file watchers.
EPHEMERAL = 32768
# Ports of one task that are told.
PORT_LIMIT = 64
# Seconds between two reads of what a relay says: a change is an announcement, and a row on the disk.
PAUSE = 0.5
# Bytes of one line: the relay's longest has 1,024 ports.
LINE_LIMIT = 1 << 16
# Seconds before the next attempts to reach a relay; the last goes on. It is started again after 0.25 s.
BACK_OFF = (0.5, 0.5, 1.0, 2.0, 5.0, 10.0)

OnPorts = Callable[[str, list[int]], None]


class PortWatch:
    """Watches containers from `start` to `stop`.

    folder: a task's run folder on the host. on_ports: told of a task's ports, ascending, at first and when
    they change; it must not raise. excluded: ports that are never told.
    """

    def __init__(
        self,
        reactor: Any,
        folder: Callable[[str], Path],
        on_ports: OnPorts,
        excluded: Collection[int] = OWN_PORTS,
    ) -> None:
        self._reactor = reactor
        self._folder = folder
        self._on_ports = on_ports
        self._excluded = frozenset(excluded)
        self._watched: dict[str, _Watched] = {}

    def start(self, task_id: str, declared: Collection[int] = (), excluded: Collection[int] = ()) -> None:
        """Watch a container that runs; one that is watched is watched anew.

        Args:
            declared: ports that are told wherever they lie; others only below EPHEMERAL.
            excluded: ports of this task that are not told.
        """
        self.stop(task_id)
        left_out = self._excluded | frozenset(excluded)

        self._watched[task_id] = _Watched(
            self._reactor,
            self._folder(task_id) / SOCKET,
            lambda ports: counted(ports, declared, left_out),
            lambda ports: self._on_ports(task_id, ports),
        )

    def stop(self, task_id: str) -> None:
        """Watch it no more; none is no error."""
        watched = self._watched.pop(task_id, None)
        if watched is not None:
            watched.stop()

    def stop_all(self) -> None:
        """The host ends."""
        for task_id in list(self._watched):
            self.stop(task_id)


def counted(ports: Iterable[int], declared: Collection[int], excluded: Collection[int]) -> list[int]:
    """The ports that are worth telling."""
    wanted = {port for port in ports if port < EPHEMERAL or port in declared}
    return sorted(wanted.difference(excluded))[:PORT_LIMIT]


def parse(line: bytes) -> list[int] | None:
    """The ports of a relay's line; None when it is no such line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    listed = entry.get("ports") if isinstance(entry, dict) else None
    if not isinstance(listed, list):
        return None
    found = [each.get("port") if isinstance(each, dict) else None for each in listed]
    ports = [port for port in found if type(port) is int and 0 < port < 65536]
    return ports if len(ports) == len(found) else None


class _Watched:
    """One relay, reached again and again.

    count: which of its ports are worth telling; heard: told of them, at first and when they change.
    """

    def __init__(
        self,
        reactor: Any,
        path: Path,
        count: Callable[[list[int]], list[int]],
        heard: Callable[[list[int]], None],
    ) -> None:
        self._reactor = reactor
        self._path = path
        self._count = count
        self._heard = heard
        self._last: list[int] | None = None
        self._failures = 0
        self._connecting: Deferred[Any] | None = None
        self._connection: _Connection | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._connect()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.end()

    def _connect(self) -> None:
        endpoint = hostile_socket_endpoint(self._reactor, self._path)
        factory = Factory.forProtocol(lambda: _Connection(self._reactor, self._said, self._lost))
        factory.noisy = False
        self._connecting = endpoint.connect(factory)
        self._connecting.addCallbacks(self._connected, self._not_connected)

    def _connected(self, connection: _Connection) -> None:
        self._connecting = None
        self._connection = connection

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if not self._stopped and failure.check(ConnectError, HostError) is None:
            log.failure("the relay at {path} cannot be reached", failure, path=self._path)
        self._lost()

    def _said(self, ports: list[int]) -> None:
        self._failures = 0
        found = self._count(ports)
        if found != self._last:
            self._last = found
            self._heard(found)

    def _lost(self) -> None:
        self._connection = None
        if not self._stopped:
            wait = BACK_OFF[min(self._failures, len(BACK_OFF) - 1)]
            self._failures += 1
            self._timer = self._reactor.callLater(wait, self._connect)


class _Connection(Protocol):
    """said: given the ports of the newest line, at most once in PAUSE; lost: called once, at the end."""

    transport: Any

    def __init__(self, reactor: Any, said: Callable[[list[int]], None], lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._said = said
        self._lost = lost
        self._rest = b""
        self._pause: IDelayedCall | None = None

    def end(self) -> None:
        self._let_pause()
        self.transport.abortConnection()

    def connectionMade(self) -> None:
        self.transport.write(b"watch\n")

    def dataReceived(self, data: bytes) -> None:
        lines, end, self._rest = (self._rest + data).rpartition(b"\n")
        newest = lines.rpartition(b"\n")[2]
        ports = parse(newest) if end else None
        if (end and ports is None) or max(len(newest), len(self._rest)) > LINE_LIMIT:
            self.end()
        elif ports is not None:
            self.transport.pauseProducing()
            self._pause = self._reactor.callLater(PAUSE, self.transport.resumeProducing)
            self._said(ports)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._let_pause()
        self._lost()

    def _let_pause(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
