"""What the local API serves: the running host as its owner sees it, and what the owner may ask of it.

It knows the rooms and asks them; it decides nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from uaihost import __version__
from uaihost.agents.registry import AgentRegistry
from uaihost.config import Settings
from uaihost.errors import ErrorCode, HostError
from uaihost.link.link import Link
from uaihost.logs.observers import ProcessLog
from uaihost.rooms import Rooms
from uaihost.state import outbox
from uaihost.state import tasks as task_rows
from uaihost.state.database import Database
from uaihost.web.lag import ReactorLag
from uaihost.web.site import Verb


class Daemon:
    """Implements web.site.Daemon."""

    def __init__(
        self,
        settings: Settings,
        host_id: str,
        rooms: Rooms,
        agents: AgentRegistry,
        link: Link,
        database: Database,
        lag: ReactorLag,
        log: ProcessLog,
    ) -> None:
        self._settings = settings
        self._host_id = host_id
        self._rooms = rooms
        self._agents = agents
        self._link = link
        self._database = database
        self._lag = lag
        self.log = log

    async def status(self) -> dict[str, Any]:
        """What `uaihost status` shows."""
        state = self._link.state
        rooms = self._rooms
        exposed, depth = await self._database.run(_exposed)
        traffic = rooms.egress.traffic
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
            "commands": rooms.dispatch.running,
            "tunnels": rooms.tunnels.open_tunnels,
            "tasks": [self._used(row) for row in await rooms.tasks.overview()] + exposed,
            "egress": {"mode": rooms.egress.mode, "allowed": traffic.allowed, "blocked": traffic.blocked},
            "disk": rooms.gc.disk(),
            "reactorLag": self._lag.worst,
        }

    async def task(self, task_id: str) -> dict[str, Any]:
        """Everything about one task."""
        for row in await self._rooms.tasks.overview(task_id):
            return self._used(row)
        raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id[:64]!r}")

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        """Make ports of this machine previews of a task without a container."""
        await self._rooms.exposed.expose(task_id, ports)

    async def unexpose(self, task_id: str) -> None:
        """End that."""
        await self._rooms.exposed.unexpose(task_id)

    async def clean(self, dry_run: bool) -> dict[str, Any]:
        """Free disk in the published order."""
        return await self._rooms.gc.run(dry_run)

    async def accounts(self) -> dict[str, Any]:
        """How the owner is signed in, and which kinds of agents work."""
        return {"accounts": self._rooms.accounts.status(), "kinds": self._agents.overview()}

    async def sign_in(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        """Sign in to an agents' provider."""
        await self._rooms.accounts.put(provider, form, secrets)

    async def sign_out(self, provider: str) -> None:
        """Forget a sign-in."""
        await self._rooms.accounts.remove(provider)

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What the owner's programs may ask for by name."""
        return self._rooms.verbs

    def _used(self, row: dict[str, Any]) -> dict[str, Any]:
        usage = self._rooms.resources.last(row["id"])
        if usage is None:
            return row
        return {**row, "usage": {"memoryBytes": usage.memory, "cpuPercent": usage.cpu_percent}}


def _exposed(connection: Any) -> tuple[list[dict[str, Any]], int]:
    """A row for people for each exposure, and how much waits to be sent."""
    rows: list[dict[str, Any]] = []
    for exposure in task_rows.exposures(connection):
        previews = [{"name": name, "hostPort": port} for name, port in exposure.ports.items()]
        rows.append({"id": exposure.task_id, "status": "exposed", "message": None, "previewPorts": previews})
    return rows, outbox.depth(connection)
