"""Tasks without a container: their editor and previews are ports that this machine already serves.

It knows the table, the journal and who resolves tunnels; the engine has no part in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from uaihost.commands.lifecycle import Status
from uaihost.commands.neighbours import Ports
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Address, Journal, Json, Store
from uaihost.paths import checked_task
from uaihost.state import tasks as rows
from uaihost.state.tasks import Exposure
from uaihost.wire.events import Event, PortsChanged, TaskStatus
from uaihost.wire.inputs import PreviewPort, is_label

# The name that is reached as the task's editor; every other one is a preview.
EDITOR = "editor"

LOOPBACK = "127.0.0.1"


class Exposed:
    def __init__(self, store: Store, journal: Journal, clock: IReactorTime, ports: Ports) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._ports = ports

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        """These ports, and no others, are reached as task `task_id` from now on, also after a restart.

        Raises:
            HostError: `invalid_args`; `conflict` with a task that has a container.
        """
        checked_task(task_id)
        if not ports:
            raise HostError(ErrorCode.INVALID_ARGS, "expose at least one NAME=PORT")
        for name, port in ports.items():
            if not is_label(name) or not 1 <= port <= 65535:
                raise HostError(
                    ErrorCode.INVALID_ARGS,
                    f"{name[:40]}={port}: a name has 1 to 30 of a-z, 0-9 and -, a port is 1 to 65535",
                )
        exposure = Exposure(task_id, dict(ports), self._now())

        def write(connection: sqlite3.Connection) -> None:
            record = rows.find(connection, task_id)
            if record is not None and record.status != Status.STOPPED:
                raise HostError(
                    ErrorCode.CONFLICT,
                    f"{task_id} is a task with a container, {record.status}; expose under another name",
                )
            rows.put_exposure(connection, exposure)

        await self._journal.record(*self.events(exposure), write=write)
        self._point(exposure)

    async def unexpose(self, task_id: str) -> None:
        """End that.

        Raises:
            HostError: `not_found`.
        """

        def write(connection: sqlite3.Connection) -> None:
            if not rows.drop_exposure(connection, task_id):
                raise HostError(ErrorCode.NOT_FOUND, f"no task {task_id[:64]!r} is exposed")

        at = self._now()
        gone = (TaskStatus(task_id, at, Status.STOPPED), PortsChanged(task_id, at, []))
        await self._journal.record(*gone, write=write)
        self._ports.drop_task(task_id)

    async def restore(self) -> None:
        """Point the tunnels at everything that is exposed; at start."""
        for exposure in await self._store.run(rows.exposures):
            self._point(exposure)

    def status(self, exposure: Exposure) -> Json:
        """The value of taskStatus."""
        return {
            "status": Status.RUNNING,
            "codeServerPort": exposure.ports.get(EDITOR),
            "previewPorts": _previews(exposure),
            "memoryBytes": 0,
            "startedAt": exposure.at,
            "agents": [],
        }

    def events(self, exposure: Exposure) -> list[Event]:
        """What a bridge that knows nothing must hear of it."""
        at = self._now()
        return [
            TaskStatus(exposure.task_id, at, Status.RUNNING),
            PortsChanged(exposure.task_id, at, _previews(exposure)),
        ]

    def _point(self, exposure: Exposure) -> None:
        editor = exposure.ports.get(EDITOR)
        self._ports.set_task(
            exposure.task_id,
            None if editor is None else Address(LOOPBACK, editor),
            {name: Address(LOOPBACK, port) for name, port in exposure.ports.items() if name != EDITOR},
        )

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _previews(exposure: Exposure) -> list[PreviewPort]:
    return [PreviewPort(name, port, port) for name, port in exposure.ports.items() if name != EDITOR]
