"""What a running host says of itself, as `uaihost status --json` and the verbs about tasks print it.

Times are milliseconds since the epoch where nothing else is said, sizes are bytes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class Answer(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Field names are those of the JSON in snake_case."""


class Bridge(Answer):
    """state: connected, connecting, waiting, stopped, fatal. since, retry_at: seconds since the epoch."""

    url: str
    state: Literal["connected", "connecting", "waiting", "stopped", "fatal"]
    reason: str
    since: float
    retry_at: float | None


class EngineState(Answer):
    """answers: None before the first look."""

    answers: bool | None
    address: str


class ImageState(Answer):
    """The task image; lines: the newest of its build."""

    state: str
    reference: str | None
    message: str | None
    doing: str | None
    percent: int | None
    since: int | None
    lines: list[str]


class Usage(Answer):
    memory_bytes: int
    cpu_percent: float


class Step(Answer):
    """One step of the last attempt; elapsed_ms: None while it runs."""

    step: str
    state: str
    message: str | None
    started_at: int | None
    elapsed_ms: int | None


class Waiting(Answer):
    """reason: docs/tasks.md has them; deadline: when the wait ends as a failure."""

    reason: str
    text: str
    since: int
    percent: int | None = None
    deadline: int | None = None
    cause: str | None = None


class AgentState(Answer):
    id: str
    state: str


class PreviewPort(Answer):
    name: str
    host_port: int
    container_port: int | None = None


class Task(Answer):
    """A task; of one that is only exposed there are id, status, message and ports."""

    id: str
    status: str
    message: str | None
    preview_ports: list[PreviewPort]
    slug: str | None = None
    branch: str | None = None
    waiting: Waiting | None = None
    steps: list[Step] = []
    report: dict[str, Any] | None = None
    ended: dict[str, Any] | None = None
    code_server_port: int | None = None
    memory_limit: int | None = None
    updated_at: int | None = None
    agents: list[AgentState] = []
    usage: Usage | None = None


class Warning(Answer):
    """level: bad or note; about: the part; fix: what to do."""

    level: Literal["bad", "note"]
    about: str
    text: str
    fix: str


class Space(Answer):
    """used: None before it was measured."""

    free: int
    total: int
    used: int | None
    budget: int
    low: bool


class Account(Answer):
    provider: str
    form: str
    since: int | None
    expires: int | None
    gateway: str | None
    problem: str | None


class AgentKind(Answer):
    """problem: why it does not work; None when it does."""

    kind: str
    title: str
    problem: str | None


class Accounts(Answer):
    accounts: list[Account]
    kinds: list[AgentKind]


class Egress(Answer):
    mode: str
    allowed: int
    blocked: int


class Status(Answer):
    """outbox: messages that the bridge has not confirmed; draining: no task and no turn begins; counts: what
    `/metrics` is made of."""

    version: str
    host_id: str
    started_at: int
    now: int
    data_folder: str
    bridge: Bridge
    engine: EngineState
    image: ImageState
    outbox: int
    outbox_oldest: int | None
    commands: int
    draining: bool
    tunnels: int
    counts: dict[str, Any]
    tasks: list[Task]
    egress: Egress
    disk: dict[str, int] | None
    space: Space
    agents: Accounts
    github: list[dict[str, Any]]
    reactor_lag: float
    warnings: list[Warning]
    page: str | None = None
