"""The typed arguments of every command and the shapes of their values (docs/protocol.md, section 4).

`parse` reads a command's `args` list against a tuple of types and says in one sentence what is wrong.
Optional fields of a wrong type count as absent, as in the reference.
"""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")

TASK_STATUSES = ("pending", "preparing", "starting", "running", "stopping", "stopped", "failed")


class BadArgs(ValueError):
    """The arguments do not fit; the text says which and what was expected."""


class Agent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member of a task's crew; `id` is chosen by the user and unique in the task."""

    id: str
    label: str
    kind: str
    model: Any = None
    defaultPrompt: Any = None
    initialPrompt: Any = None

    def __post_init__(self) -> None:
        for name in ("model", "defaultPrompt", "initialPrompt"):
            if not isinstance(getattr(self, name), str):
                msgspec.structs.force_setattr(self, name, None)


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    ownerUserId: str
    hostId: str
    name: str
    slug: str
    branch: str
    status: str
    agents: list[Agent]
    globalContext: Any = None
    # Agent ids, in the order in which they review; absent unless it is a list.
    reviewerOrder: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.globalContext, str):
            msgspec.structs.force_setattr(self, "globalContext", None)
        if not isinstance(self.reviewerOrder, list):
            msgspec.structs.force_setattr(self, "reviewerOrder", None)
        elif not all(isinstance(item, str) for item in self.reviewerOrder):
            raise ValueError("reviewerOrder: expected a list of strings")


class Project(msgspec.Struct, frozen=True, omit_defaults=True):
    """One repository of a task. `previewPorts` and `env` are strings that hold JSON: `ports`, `env_of`."""

    id: str
    ownerUserId: str
    name: str
    slug: str
    repoUrl: str
    defaultPrompt: str
    previewPorts: str
    env: str
    position: Any = 0
    toolVersions: Any = None
    extra: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.position, int) or isinstance(self.position, bool):
            msgspec.structs.force_setattr(self, "position", 0)
        for name in ("toolVersions", "extra"):
            if not isinstance(getattr(self, name), str):
                msgspec.structs.force_setattr(self, name, None)


class Port(msgspec.Struct, frozen=True):
    """A port that a project wants previewed: its name and its number inside the container."""

    name: str
    port: int


class PreviewPort(msgspec.Struct, frozen=True):
    """A preview that is up: `hostPort` is where it is reached on 127.0.0.1 of the host."""

    name: str
    containerPort: int
    hostPort: int


class TaskUp(msgspec.Struct, frozen=True, omit_defaults=True):
    task: Task
    projects: list[Project]
    ownerEmail: Any = None
    ownerName: Any = None

    def __post_init__(self) -> None:
        for name in ("ownerEmail", "ownerName"):
            if not isinstance(getattr(self, name), str):
                msgspec.structs.force_setattr(self, name, None)


class TaskDown(msgspec.Struct, frozen=True):
    taskId: str
    task: Task
    projects: list[Project]


class ChannelProject(msgspec.Struct, frozen=True):
    slug: str
    defaultPrompt: str


class ChannelEnsure(msgspec.Struct, frozen=True, omit_defaults=True):
    taskId: str
    agents: list[Agent]
    projects: list[ChannelProject]
    branch: str
    workspacePath: str
    status: str
    globalContext: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.globalContext, str):
            msgspec.structs.force_setattr(self, "globalContext", None)


class Decision(msgspec.Struct, frozen=True, omit_defaults=True):
    """scope `task`: the tool is accepted from now on without asking, in this task. answers: a question's text
    to the answer. Ill-typed ones count as absent."""

    kind: Literal["accept", "decline"]
    scope: Any = "once"
    answers: Any = None

    def __post_init__(self) -> None:
        if self.scope != "task":
            msgspec.structs.force_setattr(self, "scope", "once")
        given = self.answers
        if not isinstance(given, dict) or not all(isinstance(text, str) for text in given.values()):
            msgspec.structs.force_setattr(self, "answers", None)


class CloneRepo(msgspec.Struct, frozen=True):
    url: str
    projectId: str


class DiffProject(msgspec.Struct, frozen=True):
    id: str
    slug: str


class TaskDiff(msgspec.Struct, frozen=True):
    taskId: str
    projects: list[DiffProject]


class PullRequestWanted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What it is to say; what is absent is made of the task."""

    title: str | None = None
    body: str | None = None
    base: str | None = None
    draft: bool = False

    def __post_init__(self) -> None:
        for name, most in (("title", 256), ("body", 60_000), ("base", 250)):
            value = getattr(self, name)
            if value is not None and (not value.strip() or len(value) > most):
                raise ValueError(f"{name}: expected 1 to {most} characters")


class TaskPush(msgspec.Struct, frozen=True, omit_defaults=True):
    taskId: str
    projects: list[DiffProject] = []
    pullRequest: PullRequestWanted | None = None


class AttachmentWrite(msgspec.Struct, frozen=True):
    taskId: str
    filename: str
    dataBase64: str


class AttachmentRead(msgspec.Struct, frozen=True):
    taskId: str
    filename: str


def parse(args: list[Any], types: tuple[type, ...]) -> tuple[Any, ...]:
    """The first `len(types)` arguments, converted; further ones are ignored, as in the reference.

    Raises:
        BadArgs: one is missing or ill-typed.
    """
    if len(args) < len(types):
        raise BadArgs(f"expected {len(types)} argument(s), got {len(args)}")
    return tuple(_convert(args[i], kind, f"argument {i}") for i, kind in enumerate(types))


def ports(text: str) -> list[Port]:
    """The preview ports of a project: `[{"name": "web", "port": 3000}]`; an empty text means none.

    Raises:
        BadArgs: not that shape, a name that cannot stand in a host name, a port outside 1 to 65535,
            or a name twice.
    """
    found = _json(text, list[Port], "previewPorts", "[]")
    names = set()
    for port in found:
        if not is_label(port.name):
            raise BadArgs(
                f"previewPorts: the name {port.name[:40]!r} must be 1 to 30 of a-z, 0-9 and - "
                "(it becomes part of a host name)"
            )
        if not 1 <= port.port <= 65535:
            raise BadArgs(f"previewPorts: port {port.port} of {port.name!r} must be 1 to 65535")
        if port.name in names:
            raise BadArgs(f"previewPorts: the name {port.name!r} stands twice")
        names.add(port.name)
    return found


def env_of(text: str) -> dict[str, str]:
    """The environment of a project: `{"NAME": "value"}`; an empty text means none.

    Raises:
        BadArgs: not an object of strings, or a name that no environment can hold.
    """
    found = _json(text, dict[str, str], "env", "{}")
    for name, value in found.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise BadArgs("env: a name must not be empty or hold '=', and nothing may hold NUL")
    return found


def is_label(name: str) -> bool:
    """Whether `name` can stand in a host name beside a task id (RFC 1123 label, 1 to 30 characters)."""
    return (
        0 < len(name) <= 30
        and name.isascii()
        and name.replace("-", "").isalnum()
        and name == name.lower()
        and not name.startswith("-")
        and not name.endswith("-")
    )


def _json(text: str, kind: type[T], label: str, empty: str) -> T:
    try:
        return msgspec.convert(json.loads(text.strip() or empty), kind)
    except (ValueError, RecursionError) as error:
        raise BadArgs(f"{label}: {_sentence(error)}; expected JSON like {_EXAMPLES[label]}") from None


def _convert(value: Any, kind: type, label: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BadArgs(f"{label}: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at character {error.pos})"
    return str(error).replace(" - at `$", " at `")


_EXAMPLES = {"previewPorts": '[{"name": "web", "port": 3000}]', "env": '{"NAME": "value"}'}
