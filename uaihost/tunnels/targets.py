"""Where the tasks' editors and previews listen, kept in memory so that a tunnel's opening never waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import attrs

from uaihost.interfaces import Address

# Seconds between two words about one missing task: a page that waits for it asks all the time.
MISSING_PAUSE = 3.0
# Missing tasks that are remembered: their names come from outside.
MISSING_LIMIT = 1000


@attrs.frozen
class _Ports:
    editor: Address | None
    previews: Mapping[str, Address]


class PortTable:
    """interfaces.Targets, filled by whoever brings tasks up and down.

    on_missing: told of a task that a tunnel asked for and of which nothing is reachable, at most once in
    MISSING_PAUSE seconds for each.
    """

    def __init__(
        self,
        on_missing: Callable[[str], None] = lambda task_id: None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.on_missing = on_missing
        self._seconds = seconds
        self._tasks: dict[str, _Ports] = {}
        # When each was told of, the oldest first.
        self._told: dict[str, float] = {}

    def set_task(self, task_id: str, editor: Address | None, previews: Mapping[str, Address]) -> None:
        """All that is reachable of a task from now on; replaces what was."""
        self._tasks[task_id] = _Ports(editor, dict(previews))
        self._told.pop(task_id, None)

    def drop_task(self, task_id: str) -> None:
        """Nothing of it is reachable any more. Tunnels that are open live on until their upstream ends."""
        self._tasks.pop(task_id, None)

    def resolve(self, task_id: str, target: str, name: str | None) -> Address | None:
        """The address of the task's editor or of its preview `name`; None when there is none."""
        ports = self._tasks.get(task_id)
        if ports is None:
            self._missing(task_id)
            return None
        if target == "editor":
            return ports.editor
        if target == "preview" and name is not None:
            return ports.previews.get(name)
        return None

    def _missing(self, task_id: str) -> None:
        now = self._seconds()
        if now - self._told.get(task_id, -MISSING_PAUSE) < MISSING_PAUSE:
            return
        self._told.pop(task_id, None)
        self._told[task_id] = now
        if len(self._told) > MISSING_LIMIT:
            del self._told[next(iter(self._told))]
        self.on_missing(task_id)
