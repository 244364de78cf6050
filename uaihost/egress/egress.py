"""The way out of each task: its socket, and what the programs in its container are told.

Where the policy is not `open`, a task's container has no network. The one thing that leads out is a Unix
socket in its control folder, behind which this process decides. The container sees the folder read-only, so
it can use the socket and not replace it.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IHostnameResolver, IListeningPort

from uaihost.egress.dial import Dialler
from uaihost.egress.policy import Policy
from uaihost.egress.proxy import Door, Doors
from uaihost.egress.refusals import OnBlocked, Refusals, Traffic
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import SOCKET_LIMIT, Folders
from uaihost.unix import Listen, listener

SOCKET_NAME = "egress.sock"
# Where the relay in the container takes connections for the socket (shim/relay.py).
PROXY_HOST, PROXY_PORT = "127.0.0.1", 3128
# Not through the proxy: a task's own servers.
_INSIDE = "localhost,127.0.0.1,::1"

# The daemon's user is not always the container's, and connecting takes the right to write (unix(7)). The
# folders around the socket are open to the daemon's user alone; into the container leads only the mount.
_MODE = 0o666


class Egress:
    """What tasks reach outside.

    policy: for all tasks. on_blocked: told of refused destinations, as egress.refusals says. resolver: looks
    names up, listen: makes sockets; on the reactor when None.
    """

    def __init__(
        self,
        reactor: Any,
        folders: Folders,
        policy: Policy,
        on_blocked: OnBlocked,
        *,
        resolver: IHostnameResolver | None = None,
        listen: Listen | None = None,
    ) -> None:
        self._folders = folders
        self._policy = policy
        self._refusals = Refusals(reactor, on_blocked)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._doors = Doors(reactor, Dialler(reactor, policy, resolver), self._refusals, descriptors)
        self._listen = listen or listener(reactor)
        self._open: dict[str, tuple[IListeningPort, Door]] = {}

    @property
    def mode(self) -> str:
        """One of policy.MODES."""
        return self._policy.mode

    @property
    def network(self) -> Literal["own", "none"]:
        """What a task's container is to be launched with (interfaces.Launch)."""
        return "own" if self.mode == "open" else "none"

    @property
    def traffic(self) -> Traffic:
        """Counters since the start; do not change them."""
        return self._doors.traffic

    @property
    def connections(self) -> int:
        """Connections of all tasks that are open now."""
        return self._doors.open

    def environment(self) -> dict[str, str]:
        """Variables for every process in a container; empty when it needs no proxy."""
        if self.mode == "open":
            return {}
        url = f"http://{PROXY_HOST}:{PROXY_PORT}"
        found = {"UAI_EGRESS": "proxy"}
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            # curl and what is built on it read http_proxy in lower case only; others in upper case only.
            found[name] = found[name.lower()] = url
        found["NO_PROXY"] = found["no_proxy"] = _INSIDE
        # Node's fetch and http look at the variables only if asked to (Node 22.21 and 24.5).
        found["NODE_USE_ENV_PROXY"] = "1"
        # The JVM looks at none of them.
        found["JAVA_TOOL_OPTIONS"] = " ".join(_java_options())
        return found

    async def open(self, task_id: str) -> None:
        """Let the task out, from now on until `close`; once it is open, nothing changes.

        What a daemon before this one left at the socket's place is replaced. Programs in the container dial
        for each connection, so they go on with the new socket.

        Raises:
            HostError: `unavailable`, the socket cannot be made.
        """
        if self.mode == "open":
            return
        path = self._socket(task_id)
        if task_id in self._open:
            if path.is_socket():
                return
            self.close(task_id)
        door = Door(task_id, self._doors)
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            port = self._listen(path, door, _MODE)
        except (OSError, CannotListenError) as error:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the task's way out cannot be opened: {error}; look at free disk space and at the owner "
                f"of {path.parent}",
            ) from None
        self._open[task_id] = (port, door)

    def close(self, task_id: str) -> None:
        """Cut the task off: no new connections, and the end of those that are open."""
        port, door = self._open.pop(task_id, (None, None))
        self._refusals.forget(task_id)
        if port is not None and door is not None:
            port.stopListening()
            door.close()

    def stop(self) -> None:
        """Close all."""
        for task_id in list(self._open):
            self.close(task_id)

    def _socket(self, task_id: str) -> Path:
        path = self._folders.control(task_id) / SOCKET_NAME
        if len(str(path).encode()) > SOCKET_LIMIT:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"{path} is too long for a Unix socket's name; set UAI_DATA_DIR to a shorter path",
            )
        return path


def _java_options() -> Sequence[str]:
    options = [f"-D{scheme}.proxyHost={PROXY_HOST}" for scheme in ("http", "https")]
    options += [f"-D{scheme}.proxyPort={PROXY_PORT}" for scheme in ("http", "https")]
    return [*options, "-Dhttp.nonProxyHosts=localhost|127.*|[::1]"]
