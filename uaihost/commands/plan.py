"""What a taskUp asks for, checked and put in order before anything is touched. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import attrs
import msgspec

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Mount
from uaihost.paths import Folders, checked, checked_task
from uaihost.proofs import Grant
from uaihost.state.tasks import TaskRecord
from uaihost.wire import inputs
from uaihost.wire.inputs import BadArgs, Port, Project, TaskUp
from uaihost.workspaces import branches
from uaihost.workspaces.workspaces import Identity

# Where the container sees its work copies, its home, the sockets that it shares with the host, what the host
# tells it, attached files, and the tool versions that all tasks share.
WORKSPACE = "/workspace"
HOME = "/home/dev"
SCRATCH = "/tmp"
RUN = "/run/uai"
CONTROL = "/run/host"
ATTACHMENTS = "/attachments"
TOOLS = "/opt/uai-tools"


@attrs.frozen
class Plan:
    """projects: by position; previews: names distinct in the task; env: for every process in the container;
    hidden: sentences about variables that two projects give differently; owner: the id of whose task it is.
    """

    task_id: str
    slug: str
    branch: str
    projects: tuple[Project, ...]
    previews: tuple[Port, ...]
    env: Mapping[str, str]
    identity: Identity | None
    hidden: tuple[str, ...]
    owner: str = ""
    name: str = ""

    @property
    def grant(self) -> Grant:
        """What the owner's credentials may be used for."""
        return Grant(self.owner, self.task_id, tuple(project.repoUrl for project in self.projects))

    @property
    def container_ports(self) -> set[int]:
        return {preview.port for preview in self.previews}

    def mounts(self, folders: Folders) -> tuple[Mount, ...]:
        """Everything of the host that the container sees."""
        task = self.task_id
        return (
            # One mount for all: what appears in it later is seen by a container that already runs.
            Mount(str(folders.work(task)), WORKSPACE),
            Mount(str(folders.home(task)), HOME),
            Mount(str(folders.scratch(task)), SCRATCH),
            Mount(str(folders.run(task)), RUN),
            Mount(str(folders.control(task)), CONTROL, read_only=True),
            Mount(str(folders.attachments(task)), ATTACHMENTS, read_only=True),
            Mount(str(folders.tools), TOOLS, read_only=True),
        )


def plan_of(wanted: TaskUp) -> Plan:
    """
    Raises:
        HostError: `invalid_args`; the sentence names the project and the field.
    """
    task = wanted.task
    checked_task(task.id)
    branches.checked(task.branch)
    projects = tuple(sorted(wanted.projects, key=lambda project: (project.position, project.slug)))
    slugs = Counter(checked(project.slug, "project slug") for project in projects)
    for slug, count in slugs.items():
        if count > 1:
            raise _bad(f"two projects have the slug {slug!r}; give each its own")
    env, hidden = _env(projects)
    identity = None
    if wanted.ownerName and wanted.ownerEmail:
        identity = Identity(wanted.ownerName, wanted.ownerEmail)
    return Plan(
        task.id,
        task.slug,
        task.branch,
        projects,
        _previews(projects),
        env,
        identity,
        hidden,
        owner=task.ownerUserId,
        name=task.name,
    )


def plan_in(record: TaskRecord) -> Plan:
    """The plan by which the task was brought up.

    Raises:
        HostError: `conflict`, it is not known any more.
    """
    if record.input is None:
        raise HostError(
            ErrorCode.CONFLICT,
            f"how task {record.id} was brought up is not known any more; send taskUp again",
        )
    return plan_of(msgspec.json.decode(record.input, type=TaskUp))


def _previews(projects: tuple[Project, ...]) -> tuple[Port, ...]:
    """A name that two projects use becomes `<slug>-<name>` in each."""
    found = [(project, port) for project in projects for port in _ports(project)]
    counts = Counter(port.name for _, port in found)
    named = [
        Port(port.name if counts[port.name] == 1 else f"{project.slug}-{port.name}".lower(), port.port)
        for project, port in found
    ]
    for name, count in Counter(port.name for port in named).items():
        if count > 1 or not inputs.is_label(name):
            raise _bad(
                f"previewPorts: two projects name a preview alike, and {name[:60]!r} cannot tell them apart "
                "(1 to 30 of a-z, 0-9 and -, each once); rename one"
            )
    return tuple(named)


def _ports(project: Project) -> list[Port]:
    try:
        return inputs.ports(project.previewPorts)
    except BadArgs as error:
        raise _bad(f"project {project.slug!r}: {error}") from None


def _env(projects: tuple[Project, ...]) -> tuple[dict[str, str], tuple[str, ...]]:
    """One container has one environment: the first project in order wins, and what it hides is said."""
    env: dict[str, str] = {}
    owner: dict[str, str] = {}
    hidden = []
    for project in projects:
        try:
            found = inputs.env_of(project.env)
        except BadArgs as error:
            raise _bad(f"project {project.slug!r}: {error}") from None
        for name, value in found.items():
            if env.setdefault(name, value) != value:
                hidden.append(f"{name} of {project.slug} is not set: {owner[name]} gives it another value")
            owner.setdefault(name, project.slug)
    return env, tuple(hidden)


def _bad(sentence: str) -> HostError:
    return HostError(ErrorCode.INVALID_ARGS, sentence)
