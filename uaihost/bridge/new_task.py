"""What a person asks for when opening a task, checked, and the arguments of taskUp and channelEnsure. Pure.

The host judges repository and branch; here is only judged what the bridge itself makes of the words.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from uaihost.errors import ErrorCode, HostError
from uaihost.wire.inputs import Agent, BadArgs, Port, Project, Task, TaskUp, ports

# A bridge with accounts will put the person here.
OWNER = "owner"

# Where every task's container has its work copies.
WORKSPACE = "/workspace"

# The preview that a task gets when nothing is said.
DEFAULT_PORTS = [Port("web", 3000)]

# Characters of a name and of a repository's address (URLs: RFC 9110, section 4.1, has 8,000 octets).
MAX_NAME = 80
MAX_URL = 2048

# Agents of one crew: more than anybody can follow, and each is a process.
MAX_AGENTS = 16

# Characters of a label, and of a prompt: a prompt longer than this belongs into a file of the repository.
MAX_LABEL = 40
MAX_PROMPT = 50_000

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}\Z")
_UNSAFE = re.compile(r"[^a-z0-9]+")


class NewAgent(msgspec.Struct, frozen=True):
    """defaultPrompt: its standing instructions; initialPrompt: the word that opens its first turn."""

    kind: str
    id: str = ""
    label: str = ""
    model: str | None = None
    defaultPrompt: str | None = None
    initialPrompt: str | None = None


class NewTask(msgspec.Struct, frozen=True):
    """The body of `POST /api/tasks`.

    agents: kinds, or objects. prompt: the first message. globalContext: what every agent is told.
    reviewerOrder: agents' ids, in the order in which they are asked to review what the first agent changed.
    hostId: needed when several are connected.
    """

    repoUrl: str
    name: str = ""
    branch: str = ""
    previewPorts: list[Port] | None = None
    agents: list[str | NewAgent] | None = None
    prompt: str = ""
    globalContext: str = ""
    reviewerOrder: list[str] | None = None
    hostId: str = ""


def task_up(new: NewTask, task_id: str, host_id: str, kinds: list[str]) -> TaskUp:
    """The argument of taskUp.

    kinds: what the host offers; the first one is taken when no agent is asked for.

    Raises:
        HostError: `invalid_args`.
    """
    url = new.repoUrl.strip()
    if not url or len(url) > MAX_URL or any(ord(letter) < 32 for letter in url):
        raise _bad(f"repoUrl: give a repository's URL or path, of at most {MAX_URL} characters")
    project_slug = (
        slug(url.rstrip("/").removesuffix(".git").replace(":", "/").rsplit("/", 1)[-1]) or "project"
    )
    name = " ".join(new.name.split()) or project_slug
    if len(name) > MAX_NAME:
        raise _bad(f"name: at most {MAX_NAME} characters")
    task_slug = slug(name) or "task"
    crew = _crew(new.agents, kinds)
    _prompt("prompt", new.prompt)
    return TaskUp(
        task=Task(
            id=task_id,
            ownerUserId=OWNER,
            hostId=host_id,
            name=name,
            slug=task_slug,
            # The end of the id keeps two tasks of one name apart.
            branch=new.branch.strip() or f"uai/{task_slug}-{task_id[-6:]}",
            status="pending",
            agents=crew,
            globalContext=_prompt("globalContext", new.globalContext),
            reviewerOrder=_reviewers(new.reviewerOrder, crew),
        ),
        projects=[
            Project(
                id=f"{task_id}-{project_slug}"[:64],
                ownerUserId=OWNER,
                name=project_slug,
                slug=project_slug,
                repoUrl=url,
                defaultPrompt="",
                previewPorts=_ports(new.previewPorts),
                env="{}",
            )
        ],
    )


def channel_of(spec: dict[str, Any], status: str) -> dict[str, Any]:
    """The argument of channelEnsure for the task that `spec`, the argument of its taskUp, brought up."""
    task = spec["task"]
    context = {"globalContext": task["globalContext"]} if task.get("globalContext") else {}
    return {
        **context,
        "taskId": task["id"],
        "agents": task["agents"],
        "projects": [{key: one[key] for key in ("slug", "defaultPrompt")} for one in spec["projects"]],
        "branch": task["branch"],
        "workspacePath": WORKSPACE,
        "status": status,
    }


def slug(text: str) -> str:
    """`text` as a short name for paths and branches: lower case letters, digits and single dashes."""
    return _UNSAFE.sub("-", text.lower()).strip("-")[:40].strip("-")


def _ports(wanted: list[Port] | None) -> str:
    """As the protocol writes them, after its own check."""
    found = DEFAULT_PORTS if wanted is None else wanted
    text = json.dumps([{"name": port.name, "port": port.port} for port in found])
    try:
        ports(text)
    except BadArgs as error:
        raise _bad(str(error)) from None
    return text


def _crew(wanted: list[str | NewAgent] | None, kinds: list[str]) -> list[Agent]:
    if wanted is None:
        wanted = list(kinds[:1])
    if len(wanted) > MAX_AGENTS:
        raise _bad(f"agents: at most {MAX_AGENTS}")
    crew: list[Agent] = []
    for item in wanted:
        new = NewAgent(item) if isinstance(item, str) else item
        if kinds and new.kind not in kinds:
            raise _bad(f"agents: this host has no kind {new.kind[:40]!r}; it has {', '.join(kinds)}")
        taken = {agent.id for agent in crew}
        agent_id = new.id or _free(new.kind, taken)
        if not _AGENT_ID.match(agent_id) or agent_id in taken:
            raise _bad(f"agents: the id {agent_id[:40]!r} must be 1 to 32 of A-Z a-z 0-9 _ -, each once")
        crew.append(
            Agent(
                id=agent_id,
                label=_label(new.label) or agent_id,
                kind=new.kind,
                model=new.model,
                defaultPrompt=_prompt(f"agents: the instructions of {agent_id}", new.defaultPrompt),
                initialPrompt=_prompt(f"agents: the first word to {agent_id}", new.initialPrompt),
            )
        )
    return crew


def _label(text: str) -> str:
    label = " ".join(text.split())
    if len(label) > MAX_LABEL or not label.isprintable():
        raise _bad(f"agents: the label {label[:MAX_LABEL]!r} must be at most {MAX_LABEL} letters that show")
    return label


def _prompt(name: str, text: str | None) -> str | None:
    """None when it says nothing."""
    if text is not None and len(text) > MAX_PROMPT:
        raise _bad(f"{name}: at most {MAX_PROMPT} characters; put the rest into a file of the repository")
    return text if text is not None and text.strip() else None


def _reviewers(wanted: list[str] | None, crew: list[Agent]) -> list[str] | None:
    """None when nobody reviews."""
    known = [agent.id for agent in crew]
    names = ", ".join(known) or "empty"
    for number, reviewer in enumerate(wanted or []):
        if reviewer not in known:
            raise _bad(f"reviewerOrder: no agent {reviewer[:40]!r}; the crew is {names}")
        if reviewer == known[0]:
            raise _bad(f"reviewerOrder: {reviewer} is the first agent, whose work the others review")
        if reviewer in (wanted or [])[:number]:
            raise _bad(f"reviewerOrder: {reviewer} stands twice")
    return wanted or None


def _free(kind: str, taken: set[str]) -> str:
    """The kind as an id, numbered when it is taken."""
    base = slug(kind)[:28] or "agent"
    number = 1
    while (name := base if number == 1 else f"{base}-{number}") in taken:
        number += 1
    return name


def _bad(message: str) -> HostError:
    return HostError(ErrorCode.INVALID_ARGS, message)
