"""What `--json` prints, verb by verb: the types from which docs/cli-schema.json is made.

Times are milliseconds since the epoch where nothing else is said, sizes are bytes. Later versions may add
fields, and change none.

usage: python -m uaihost.cli.answers, which prints the schemas
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import msgspec

from uaihost.cli.status_answers import Accounts, Answer, Status, Task


class Error(Answer):
    """code: of docs/protocol.md section 3, or `usage`; message: what failed and what to do."""

    code: str
    message: str


class Failed(Answer):
    """What any verb prints instead when it fails."""

    error: Error


class Stopped(Answer):
    """restore: what to type to get the work back."""

    status: str
    saved: list[dict[str, Any]]
    restore: str | None


class Exported(Answer):
    """live: of a task that is there, not of one that is gone; notes: by folder of the archive."""

    file: str
    bytes: int
    live: bool
    notes: dict[str, list[str]]


class Gc(Answer):
    """removed, kept: what, why and how to get it back, for people."""

    free_bytes: int
    budget_bytes: int
    used_bytes: int
    classes: dict[str, int]
    removed: list[dict[str, Any]]
    kept: list[dict[str, Any]]


class Image(Answer, rename=None):
    """created: 0 where the engine does not say."""

    reference: str
    kind: str
    size: int
    created: int
    current: bool
    in_use: bool


class Built(Answer):
    reference: str
    kind: str
    size: int
    seconds: float


class Base(Answer):
    reference: str
    id: str
    seconds: float


class Removed(Answer):
    removed: list[str]


class Secrets(Answer):
    where: str
    sealed: int
    others: int
    problem: str | None


class Setting(Answer):
    name: str
    value: str
    source: str
    env: str


class Config(Answer):
    file: str | None
    settings: list[Setting]


class ConfigProblems(Answer):
    problems: list[str]


class ConfigPath(Answer):
    file: str
    exists: bool


class Drained(Answer):
    """turns, commands: under way."""

    draining: bool
    turns: int
    commands: int
    stopping: bool = False


class Version(Answer):
    uaihost: str
    python: str
    system: str
    machine: str
    libraries: dict[str, str]


class Record(Answer):
    """One a line. time: RFC 3339."""

    time: str
    level: Literal["debug", "info", "warn", "error", "critical"]
    logger: str
    message: str
    trace: str | None = None
    task: str | None = None
    command: str | None = None
    fields: dict[str, Any] = {}


class Use(Answer):
    """One a line: docs/broker.md."""

    at: int
    user: str
    task: str
    what: Literal["api", "git", "sign"]
    host: str
    path: str
    outcome: str


class ServiceStep(Answer):
    action: str
    target: str
    changed: bool


class Service(Answer):
    manager: str
    kind: str
    services: list[str]
    dry_run: bool
    changed: bool
    steps: list[ServiceStep]
    notes: list[str]


class CheckResult(Answer):
    """verdict: ok, warn, fail, skipped; fix: lines to type."""

    name: str
    title: str
    verdict: Literal["ok", "warn", "fail", "skipped"]
    text: str
    fix: list[str]
    seconds: float
    facts: dict[str, Any]


class Doctor(Answer):
    schema: int
    version: str
    at: int
    seconds: float
    ok: bool
    checks: list[CheckResult]


class BackedUp(Answer, rename=None):
    """size: of the members together; bytes, problems: where it was created."""

    file: str
    version: str
    at: int
    keys: bool
    members: int
    size: int
    left_out: list[str]
    bytes: int | None = None
    problems: list[str] = []


class Saved(Answer):
    """at: seconds since the epoch; path, notes: once it was restored."""

    task: str
    name: str
    slug: str
    project: str
    branch: str
    commit: str
    wip: str | None
    repository: str
    note: str | None
    extra: str | None
    size: int
    at: float
    path: str | None = None
    notes: list[str] = []


class Rotated(Answer):
    where: str
    sealed: int


class Forgotten(Answer):
    forgotten: int


class Exposed(Answer):
    task: str
    ports: dict[str, int]


class Unexposed(Answer):
    task: str


class SignedIn(Answer):
    provider: str
    form: str


class SignedOut(Answer):
    provider: str


class SshKey(Answer):
    """public_key, fingerprint: None when the user has none."""

    public_key: str | None
    fingerprint: str | None
    user: str | None = None


class User(Answer):
    """login, said: where the verb has them."""

    user: str
    login: str | None = None
    said: str | None = None


class Connections(Answer):
    """Each: user, form, login, host, problem (docs/github.md)."""

    connections: list[dict[str, Any]]


class Push(Answer):
    """Each project: slug and pushed, and where, the pull request, or the error (docs/pull-requests.md)."""

    projects: list[dict[str, Any]]


# The verb's words to what it prints; the records of `logs` and `audit` one a line.
ANSWERS: dict[str, Any] = {
    "status": Status,
    "tasks": list[Task],
    "task show": Task,
    "task stop": Stopped,
    "task export": Exported,
    "logs": Record,
    "doctor": Doctor,
    "audit": Use,
    "version": Version,
    "push": Push,
    "restore": list[Saved],
    "accounts": Accounts,
    "login": SignedIn,
    "logout": SignedOut,
    "github login": User,
    "github logout": User,
    "github retry": User,
    "github status": Connections,
    "ssh-key show": SshKey,
    "ssh-key ensure": SshKey,
    "ssh-key delete": User,
    "expose": Exposed,
    "unexpose": Unexposed,
    "install": Service,
    "uninstall": Service,
    "start": Service,
    "stop": Service,
    "restart": Service,
    "drain": Drained,
    "config show": Config,
    "config check": ConfigProblems,
    "config path": ConfigPath,
    "image ls": list[Image],
    "image build": Built,
    "image base": Base,
    "image rm": Removed,
    "gc": Gc,
    "backup create": BackedUp,
    "backup verify": BackedUp,
    "backup restore": BackedUp,
    "secrets status": Secrets,
    "secrets rotate": Rotated,
    "secrets forget": Forgotten,
}


def schemas() -> str:
    """JSON Schema (2020-12) of every answer, and of what a failure prints, as `failed`."""
    wanted = {**ANSWERS, "failed": Failed}
    shown, definitions = msgspec.json.schema_components(list(wanted.values()), ref_template="#/$defs/{name}")
    for definition in definitions.values():
        # More may come: who reads this must not refuse it.
        definition.pop("additionalProperties", None)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What uaihost VERB --json prints",
        "properties": dict(zip(wanted, shown, strict=True)),
        "$defs": definitions,
    }
    return json.dumps(whole, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schemas())
