"""What the commands need of the rooms beside them. Each protocol is provided by one room and given by `app`.

Every call may raise HostError; its sentence then reaches the caller of the command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

from uaihost.interfaces import Address, AgentStatus, Json, Limits, Say, Step
from uaihost.wire.inputs import ChannelEnsure
from uaihost.workspaces.workspaces import Identity, Saved, WorkCopy


class Pushed(Protocol):
    """What became of a push (workspaces.pushing)."""

    @property
    def state(self) -> str: ...

    @property
    def branch(self) -> str: ...

    @property
    def head(self) -> str: ...

    @property
    def base(self) -> str: ...

    @property
    def remote(self) -> str: ...

    @property
    def commits(self) -> Sequence[str]: ...

    @property
    def link(self) -> str | None: ...

    @property
    def message(self) -> str | None: ...


class Workspaces(Protocol):
    """Work copies and mirrors (workspaces)."""

    async def prepare(
        self,
        task_id: str,
        slug: str,
        url: str,
        branch: str,
        identity: Identity | None,
        on_progress: Say,
        user_id: str,
    ) -> WorkCopy:
        """The project's work copy on `branch`; one that exists is kept as it is. user_id: whose credentials
        git may use."""

    async def save(self, task_id: str, slugs: list[str]) -> list[Saved]:
        """Bring the work into the daemon's own repositories. A slug without a work copy is left out."""

    async def remove(self, task_id: str) -> None:
        """Remove the task's whole folder; none is no error."""

    async def diff(self, task_id: str, project_id: str, slug: str) -> Json:
        """`{id, slug, base, head, files, truncated}` (docs/protocol.md, section 4)."""

    async def push(self, task_id: str, slug: str, url: str, user_id: str) -> Pushed:
        """Push the project's branch as that user, never by force; HostError with what to do."""

    async def clone(self, url: str, project_id: str, on_progress: Say) -> Json:
        """`{path, defaultBranch, head}` of the mirror, made or brought up to date."""


class Images(Protocol):
    """The task image (containers.images)."""

    async def ensure(self, on_progress: Say) -> str:
        """The image's reference; it is built when it is missing."""


class Admission(Protocol):
    """Whether the machine can carry one more task (containers.admission)."""

    async def admit(self, limits: Limits, say: Say) -> None:
        """Return once a task of these limits fits; what is waited for is said."""


class Check(Protocol):
    """One thing that was tried from inside a container."""

    @property
    def name(self) -> str: ...

    @property
    def outcome(self) -> str: ...

    @property
    def required(self) -> bool: ...


class Report(Protocol):
    """What a container can reach and do, as it was seen from inside (containers.isolation)."""

    @property
    def checks(self) -> Sequence[Check]: ...

    @property
    def passed(self) -> bool:
        """Whether everything that is required is so."""

    def text(self) -> str:
        """Plain lines for people."""

    def json(self) -> Json: ...


class Isolation(Protocol):
    """The look from inside a container (containers.isolation)."""

    async def check(
        self, task_id: str, *, network: Literal["own", "none"], uid: int, gid: int, limits: Limits
    ) -> Report:
        """Look now; nothing of a repository runs there yet."""


class Egress(Protocol):
    """What containers may reach outside (egress)."""

    @property
    def mode(self) -> str:
        """`open`: a network of its own; anything else: none, but for a socket in the control folder."""

    def environment(self) -> Mapping[str, str]:
        """Variables for every process in a container."""

    async def open(self, task_id: str) -> None:
        """Serve the task's socket, in its control folder; one that is served is served anew."""

    def close(self, task_id: str) -> None:
        """Serve it no more; none is no error."""


class Tools(Protocol):
    """Tool versions that tasks share (containers.tools)."""

    async def ensure(self, task_id: str, projects: Sequence[Path], say: Say) -> object:
        """Install what the work copies at `projects` name and is missing."""


class PortWatch(Protocol):
    """The ports that servers in containers listen on (containers.ports); told to `Tasks.on_ports`."""

    def start(self, task_id: str) -> None:
        """Watch a container that runs; one that is watched is watched anew."""

    def stop(self, task_id: str) -> None:
        """Watch it no more; none is no error."""


class Forwarded(Protocol):
    """A port inside the container that a repository names (devcontainer.json, forwardPorts)."""

    @property
    def port(self) -> int: ...

    @property
    def name(self) -> str:
        """What people call it, as the repository says; anything at all."""


class Readiness(Protocol):
    """The set-up inside a container (containers)."""

    async def ready(self, task_id: str, on_progress: Callable[[Step], None]) -> Sequence[Forwarded]:
        """Wait until the first process reports ready; the ports that its repositories name.

        HostError with a failed command's last lines.
        """


class Channels(Protocol):
    """Every task's channel (channel)."""

    async def ensure(self, input: ChannelEnsure) -> list[AgentStatus]:
        """The task's channel exists and its agents run or are starting; each of them."""

    async def deliver(self, task_id: str, author: str, text: str, message_id: str) -> tuple[str, list[str]]:
        """A person's word: (its id, the ids of the agents it went to). A known id is not delivered again."""

    async def append(self, task_id: str, author: str, text: str, message_id: str) -> int:
        """A line of the transcript that goes to no agent; its number. A known `message_id` adds none."""

    async def resolve(
        self,
        task_id: str,
        agent_id: str,
        request_id: str,
        decision: str,
        by: str,
        scope: str,
        answers: Mapping[str, str] | None,
    ) -> None:
        """Answer an agent's question for permission: `decision` is accept or decline. scope: with `task` an
        accept counts for all later uses of the tool; answers: to the questions it asked."""

    async def attached(self, task_id: str, path: str, size: int) -> None:
        """A person gave the task a file: the next word of a person names it."""

    async def set_reviewers(self, task_id: str, reviewers: Sequence[str], crew: Sequence[str]) -> None:
        """Who of the crew reviews what its first member changes, in order."""

    async def interrupt(self, task_id: str, agent_id: str) -> None:
        """Stop the agent's turn and keep its session."""

    async def teardown(self, task_id: str) -> None:
        """Stop the task's agents and forget the channel; none is no error. The transcript stays."""

    async def resume(self, task_ids: Iterable[str]) -> None:
        """Go on with the channels of these tasks that were open."""

    async def note(self, task_id: str, text: str) -> None:
        """A system note in the channel."""

    def states(self, task_id: str) -> list[AgentStatus]:
        """Each agent and what it does now."""


class Attachments(Protocol):
    """The files of a task's channel (workspaces.attachments)."""

    async def write(self, task_id: str, filename: str, data: bytes) -> str:
        """Store the file, in place of one of the same name; its path inside the container."""

    async def read(self, task_id: str, filename: str) -> bytes:
        """The file's content; HostError `not_found`."""


class Ports(Protocol):
    """From tasks to addresses (tunnels.targets)."""

    def set_task(self, task_id: str, editor: Address | None, previews: Mapping[str, Address]) -> None:
        """What the tunnels of this task reach from now on."""

    def drop_task(self, task_id: str) -> None:
        """Its tunnels reach nothing any more."""
