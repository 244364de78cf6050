"""Where the tasks' editors and previews listen, kept in memory so that a tunnel's opening never waits."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from uaihost.interfaces import Address


@attrs.frozen
class _Ports:
    editor: Address | None
    previews: Mapping[str, Address]


class PortTable:
    """interfaces.Targets, filled by whoever brings tasks up and down."""

    def __init__(self) -> None:
        self._tasks: dict[str, _Ports] = {}

    def set_task(self, task_id: str, editor: Address | None, previews: Mapping[str, Address]) -> None:
        """All that is reachable of a task from now on; replaces what was."""
        self._tasks[task_id] = _Ports(editor, dict(previews))

    def drop_task(self, task_id: str) -> None:
        """Nothing of it is reachable any more. Tunnels that are open live on until their upstream ends."""
        self._tasks.pop(task_id, None)

    def resolve(self, task_id: str, target: str, name: str | None) -> Address | None:
        """The address of the task's editor or of its preview `name`; None when there is none."""
        ports = self._tasks.get(task_id)
        if ports is None:
            return None
        if target == "editor":
            return ports.editor
        if target == "preview" and name is not None:
            return ports.previews.get(name)
        return None
