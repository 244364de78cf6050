"""Where a task's editor and previews are reached: its rows, its tunnels, and ports that appear while it runs.

What is declared keeps its name for the task's life; a port that a server in the container opens by itself is
`port-<number>` for as long as it is open. It knows no engine: containers are given to it.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from uaihost.commands.exposed import LOOPBACK
from uaihost.commands.lifecycle import Status
from uaihost.commands.neighbours import Forwarded
from uaihost.commands.plan import Plan, plan_in
from uaihost.commands.surroundings import Surroundings
from uaihost.errors import HostError
from uaihost.interfaces import Address, Container, Journal, Json, Store
from uaihost.state import tasks as rows
from uaihost.state.tasks import PortRecord
from uaihost.wire.events import PortsChanged
from uaihost.wire.inputs import PreviewPort, is_label

log = Logger()

# Ports of one task that are announced unasked: a program may open thousands.
FOUND_LIMIT = 64
# Seconds between two announcements of one task: each is a row on the disk.
PAUSE = 1.0
RELAY = "relay.sock"
# Prefix of the names of ports that nobody declared.
FOUND = "port-"


class Previews:
    def __init__(self, store: Store, journal: Journal, clock: IReactorTime, around: Surroundings) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._around = around
        self._heard: dict[str, list[int]] = {}
        self._due: dict[str, IDelayedCall] = {}
        self._said: dict[str, float] = {}

    def declared(
        self, plan: Plan, container: Container, forwarded: Iterable[Forwarded] = ()
    ) -> list[PortRecord]:
        """The task's editor and previews; the host's port is 0 where none is published.

        forwarded: ports that repositories name. One without a name that can be a preview's is left out: it is
        found as soon as something listens there.
        """
        found = [
            PortRecord("preview", one.name, one.port, container.ports.get(one.port, 0))
            for one in plan.previews
        ]
        for one in forwarded:
            name = re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-")
            ports = {known.container_port for known in found} | {self._around.editor_port}
            names = {known.name for known in found}
            free = one.port not in ports and name not in names and not name.startswith(FOUND)
            if free and is_label(name):
                found.append(PortRecord("preview", name, one.port, 0))
        if self._around.editor_port is not None:
            found.append(PortRecord("editor", "", self._around.editor_port, 0))
        return found

    async def refresh(self, task_id: str, plan: Plan, container: Container) -> list[PortRecord]:
        """The ports of a task that runs, read anew: each start of a container moves those of the host."""
        stored = await self._store.run(lambda db: rows.ports(db, task_id))
        names = {one.name for one in plan.previews}
        kept = (one for one in stored if one.target == "preview" and one.name not in names)
        found = [*self.declared(plan, container), *kept]
        if found != stored:
            changed = PortsChanged(task_id, self._now(), shown(found))
            await self._journal.record(changed, write=lambda db: rows.put_ports(db, task_id, found))
        self.point(task_id, found)
        return found

    def point(self, task_id: str, found: Iterable[PortRecord]) -> None:
        """Lead the task's tunnels to these ports: through its relay, else to the host's port."""
        editor: Address | None = None
        previews: dict[str, Address] = {}
        for one in found:
            address = Address(LOOPBACK, one.host_port, relay=self._relay(task_id), inner=one.container_port)
            if one.target == "editor":
                editor = address
            else:
                previews[one.name] = address
        self._around.ports.set_task(task_id, editor, previews)

    def drop(self, task_id: str) -> None:
        """Nothing of the task is reached any more, and what it was heard of is forgotten."""
        self._around.ports.drop_task(task_id)
        self._heard.pop(task_id, None)
        self._said.pop(task_id, None)
        due = self._due.pop(task_id, None)
        if due is not None:
            due.cancel()

    def heard(self, task_id: str, ports: Collection[int]) -> None:
        """The ports that servers in the container listen on now."""
        self._heard[task_id] = sorted(set(ports))[: FOUND_LIMIT * 2]
        if task_id not in self._due:
            wait = self._said.get(task_id, -PAUSE) + PAUSE - self._clock.seconds()
            self._due[task_id] = self._clock.callLater(max(0.0, wait), self._announce_later, task_id)

    def _announce_later(self, task_id: str) -> None:
        del self._due[task_id]
        self._said[task_id] = self._clock.seconds()
        told = Deferred.fromCoroutine(self._announce(task_id))
        told.addErrback(
            lambda failure: log.failure("the ports of {task} were not told", failure, task=task_id)
        )

    async def _announce(self, task_id: str) -> None:
        listening = self._heard.get(task_id, [])
        at = self._now()

        def changed(connection: sqlite3.Connection) -> list[PortRecord] | None:
            record = rows.find(connection, task_id)
            if record is None or record.status != Status.RUNNING or record.input is None:
                return None  # What was heard of a task that does not run any more is of no interest.
            stored = rows.ports(connection, task_id)
            found = self._with(plan_in(record), stored, listening)
            return None if found == stored else found

        found = await self._store.run(changed)
        if found is None or task_id not in self._heard:
            return
        event = PortsChanged(task_id, at, shown(found))
        await self._journal.record(event, write=lambda db: rows.put_ports(db, task_id, found))
        if task_id in self._heard:
            self.point(task_id, found)

    def _with(self, plan: Plan, stored: list[PortRecord], listening: list[int]) -> list[PortRecord]:
        declared = [one for one in stored if not _is_found(one, plan)]
        known = {one.container_port for one in declared} | {self._around.editor_port}
        names = {one.name for one in declared}
        fresh = [port for port in listening if port not in known and f"{FOUND}{port}" not in names]
        return [
            *declared,
            *(PortRecord("preview", f"{FOUND}{port}", port, 0) for port in fresh[:FOUND_LIMIT]),
        ]

    def _relay(self, task_id: str) -> str | None:
        try:
            return str(self._around.folders.run_socket(task_id, RELAY))
        except HostError:
            return None  # The data folder's path is too long for a socket; published ports are left.

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _is_found(one: PortRecord, plan: Plan) -> bool:
    """Whether it was heard of, not named by the plan or by a repository."""
    named = one.name in {preview.name for preview in plan.previews}
    return one.target == "preview" and one.name.startswith(FOUND) and not named


def shown(found: Iterable[PortRecord]) -> list[PreviewPort]:
    """The previews as events and answers give them."""
    return [
        PreviewPort(one.name, one.container_port, one.host_port) for one in found if one.target == "preview"
    ]


def value(status: str, found: Iterable[PortRecord]) -> Json:
    """A task's state and ports as taskUp and taskStatus give them."""
    found = list(found)
    editors = [one.host_port for one in found if one.target == "editor"]
    return {
        "status": status,
        "codeServerPort": editors[0] if editors else None,
        "previewPorts": shown(found),
    }
