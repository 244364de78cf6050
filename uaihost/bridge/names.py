"""Host names to places: the app, a tunnel, or nothing of ours. Pure; it knows no sockets.

Every request that reaches the bridge is judged by its Host header first: a page that made a foreign name
resolve to this machine (DNS rebinding) gets no further than here.
"""

from __future__ import annotations

import re
from typing import Literal, Protocol

import attrs

from uaihost.wire.inputs import is_label

Target = Literal["editor", "preview"]

_PREVIEW = ".preview.localhost"
_EDITOR = ".editor.localhost"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?\Z")
# The port that a browser leaves out of `Host` (RFC 9110, section 4.2.1).
_DEFAULT_PORT = 80


@attrs.frozen
class App:
    """The bridge's own pages and API."""


@attrs.frozen
class Destination:
    """Where a tunnel leads: a task's editor, or its preview `name`."""

    host_id: str
    task_id: str
    target: Target
    name: str | None


@attrs.frozen
class NoTask:
    """A tunnel's name, but no task of that name is known."""

    label: str


@attrs.frozen
class Foreign:
    """A name that is not ours, or another port: to be refused as misdirected (RFC 9110, section 15.5.20)."""


Place = App | Destination | NoTask | Foreign


@attrs.frozen
class KnownTask:
    """What routing needs of a task. previews: names of the previews it is known to have."""

    id: str
    host_id: str
    previews: frozenset[str]


class KnownTasks(Protocol):
    """The tasks that can be reached, answered at once from memory."""

    def by_label(self, label: str) -> KnownTask | None:
        """The task whose id, in lower case, is `label`."""


@attrs.frozen
class Names:
    """The names of one bridge.

    port: where it listens. own: host names of the app beside the loopback ones, in lower case.
    """

    port: int
    tasks: KnownTasks
    own: frozenset[str] = frozenset()

    def find(self, host: str) -> Place:
        """What the value of a Host header means."""
        match = _HOST.match(host)
        if match is None or int(match[2] or _DEFAULT_PORT) != self.port:
            return Foreign()
        name = match[1].lower()
        if name in _LOOPBACK or name in self.own:
            return App()
        if name.endswith(_EDITOR):
            return self._editor(name.removesuffix(_EDITOR))
        if name.endswith(_PREVIEW):
            return self._preview(name.removesuffix(_PREVIEW))
        return Foreign()

    def _editor(self, label: str) -> Place:
        task = self.tasks.by_label(label)
        return NoTask(label) if task is None else Destination(task.host_id, task.id, "editor", None)

    def _preview(self, label: str) -> Place:
        """Both a task id and a preview's name may hold '-', so every split is tried.

        A task that has the preview wins, then the longest task id.
        """
        found = [(task, name) for id, name in splits(label) if (task := self.tasks.by_label(id)) is not None]
        if not found:
            return NoTask(label)
        task, name = max(found, key=lambda pair: (pair[1] in pair[0].previews, len(pair[0].id)))
        return Destination(task.host_id, task.id, "preview", name)


def splits(label: str) -> list[tuple[str, str]]:
    """Every reading of `<task>-<name>`: pairs of a task id and a legal preview name."""
    cuts = [i for i, letter in enumerate(label) if letter == "-"]
    return [(label[:i], label[i + 1 :]) for i in cuts if i and is_label(label[i + 1 :])]


def preview_host(task_id: str, name: str, port: int) -> str:
    """The authority of a preview's address."""
    return f"{task_id.lower()}-{name}{_PREVIEW}:{port}"


def editor_host(task_id: str, port: int) -> str:
    """The authority of an editor's address."""
    return f"{task_id.lower()}{_EDITOR}:{port}"
