"""What the local API serves: the running host as its owner sees it, and what the owner may ask of it.

It knows the rooms and asks them; it decides nothing and keeps nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from uaihost import __version__
from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Blocking
from uaihost.commands.disk import Space
from uaihost.config import Settings
from uaihost.counts import Counts
from uaihost.errors import ErrorCode, HostError
from uaihost.link.link import Link
from uaihost.logs.observers import ProcessLog
from uaihost.logs.recent import Recent
from uaihost.rooms import Rooms, engine_address
from uaihost.state import channel, outbox
from uaihost.state import tasks as task_rows
from uaihost.state.database import Database
from uaihost.web.lag import ReactorLag
from uaihost.web.site import Download, Verb
from uaihost.web.wellness import warnings


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
        counts: Counts,
        clock: IReactorTime,
        blocking: Blocking,
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._started = clock.seconds()
        self._settings = settings
        self._host_id = host_id
        self._rooms = rooms
        self._agents = agents
        self._link = link
        self._database = database
        self._lag = lag
        self._log = log
        self._counts = counts

    async def status(self) -> dict[str, Any]:
        """What `uaihost status` and the page show; times in milliseconds since the epoch, but `bridge`'s in
        seconds."""
        state, now = self._link.state, self._clock.seconds()
        rooms = self._rooms
        exposed, depth, oldest, queued = await self._database.run(_stored)
        traffic = rooms.egress.traffic
        found = {
            "version": __version__,
            "hostId": self._host_id,
            "startedAt": int(self._started * 1000),
            "now": int(now * 1000),
            "dataFolder": str(self._settings.data_dir),
            "bridge": {
                "url": self._settings.cloud_url,
                "state": state.name,
                "reason": state.reason,
                # Over all attempts, as the owner counts.
                "since": state.since if self._link.apart is None else self._link.apart,
                "retryAt": state.retry_at,
            },
            "engine": {"answers": rooms.engine_answers, "address": engine_address(self._settings)},
            "image": rooms.images.course.json(),
            "outbox": depth,
            "outboxOldest": oldest,
            "commands": rooms.dispatch.running,
            "draining": rooms.drain.on,
            "tunnels": rooms.tunnels.open_tunnels,
            "counts": {**self._counted(), "queued": queued},
            "tasks": [self._used(row) for row in await rooms.tasks.overview()] + exposed,
            "egress": {"mode": rooms.egress.mode, "allowed": traffic.allowed, "blocked": traffic.blocked},
            "disk": rooms.gc.disk(),
            "space": await self._space(),
            "agents": await self.accounts(),
            "github": (await rooms.verbs["github.status"]({}))["connections"],
            "reactorLag": self._lag.worst,
        }
        return {**found, "warnings": warnings(found, now)}

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
    def recent(self) -> Recent:
        """The log."""
        return self._log.recent

    def readiness(self) -> dict[str, str | None]:
        """Each part that commands need, and why it is not there."""
        state, engine = self._link.state, self._rooms.engine_answers
        return {
            "bridge": None if state.name == "connected" else f"{state.name}: {state.reason}".rstrip(": "),
            "engine": None if engine else "not looked at yet" if engine is None else "it does not answer",
        }

    def download(self, ticket: str) -> Download:
        """An export that was made."""
        return self._rooms.exports.take(ticket)

    @property
    def verbs(self) -> Mapping[str, Verb]:
        """What the owner's programs may ask for by name."""
        return self._rooms.verbs

    def _counted(self) -> dict[str, Any]:
        """What this process counted, for the metrics."""
        link, rooms = self._link, self._rooms
        traffic = rooms.tunnels.traffic
        session = link.session
        return {
            **self._counts.view(),
            "link": {
                "connects": link.connects,
                "failures": link.failures,
                "losses": dict(link.losses.values),
                "connectedAt": link.connected_at,
            },
            "tunnels": {
                "opened": traffic.opened,
                "refused": traffic.refused,
                "received": traffic.received,
                "sent": traffic.sent,
                "ended": dict(traffic.ended),
            },
            "builds": rooms.images.builds.view(),
            "renewals": rooms.proofs.exchange.renewals.view(),
            "uses": [[*key, count] for key, count in rooms.proofs.audit.uses.items()],
            "happened": {each.name.lower(): n for each, n in rooms.tasks.records.happened.items()},
            "roundTrip": session.outbound.round_trip if session is not None else None,
        }

    async def _space(self) -> dict[str, Any]:
        """The disk beside the budget, in bytes; `used` is None until it was measured."""
        # Not where the walks are: one of them takes minutes.
        found = await self._blocking.call(os.statvfs, self._settings.data_dir)
        space = Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
        level = self._rooms.gc.level(space)
        return {
            "free": space.free,
            "total": space.total,
            "used": level.used,
            "budget": level.budget,
            "low": level.low,
        }

    def _used(self, row: dict[str, Any]) -> dict[str, Any]:
        agents = [{"id": one.id, "state": one.state} for one in self._rooms.channels.states(row["id"])]
        usage = self._rooms.resources.last(row["id"])
        row = {**row, "agents": agents}
        if usage is None:
            return row
        return {**row, "usage": {"memoryBytes": usage.memory, "cpuPercent": usage.cpu_percent}}


def _stored(connection: Any) -> tuple[list[dict[str, Any]], int, int | None, int]:
    """A row for people for each exposure, how much waits to be sent, since when, and how many messages wait
    for agents."""
    rows: list[dict[str, Any]] = []
    for exposure in task_rows.exposures(connection):
        previews = [{"name": name, "hostPort": port} for name, port in exposure.ports.items()]
        rows.append({"id": exposure.task_id, "status": "exposed", "message": None, "previewPorts": previews})
    return rows, outbox.depth(connection), outbox.oldest(connection), channel.waiting(connection)
