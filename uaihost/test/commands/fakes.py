"""Neighbours in memory for the tests of commands: each records what was asked, and fails when told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from uaihost.containers.readiness import Forwarded
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Address, AgentStatus, Doing, Json, Limits, Say, Step
from uaihost.paths import Folders
from uaihost.proofs import Grant, PullRequest, Reach
from uaihost.wire.inputs import Agent, ChannelEnsure, Project, Task, TaskDown, TaskUp
from uaihost.wire.reasons import Reason
from uaihost.workspaces.workspaces import Identity, Pushed, Saved, WorkCopy


class Faulty:
    """calls: what was asked, in order. broken: the names of calls that fail, and how. slow: the names of
    calls that wait for something.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: dict[str, BaseException] = {}
        self.slow: dict[str, Deferred[None]] = {}

    async def waited(self, name: str, *details: str) -> None:
        """As `called`, for a call that may take its time."""
        self.called(name, *details)
        slow = self.slow.get(" ".join((name, *details)))
        if slow is not None:
            await slow

    def called(self, name: str, *details: str) -> None:
        self.calls.append(" ".join((name, *details)))
        error = self.broken.get(" ".join((name, *details))) or self.broken.get(name)
        if error is not None:
            raise error


class FakeWorkspaces(Faulty):
    """Work copies are real folders with nothing in them but a file that says where they came from."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.folders = folders
        self.identities: list[Identity | None] = []
        self.pushed: list[tuple[str, str, str, str]] = []
        self.push_result = Pushed("pushed", "fix", "1" * 40, "main", "forge.example/a", ("Mend it",))

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
        await self.waited("prepare", slug)
        self.identities.append(identity)
        on_progress(f"fetching {url}")
        copy = self.folders.work_copy(task_id, slug)
        copy.mkdir(parents=True, exist_ok=True)
        (copy / "origin").write_text(url)
        return WorkCopy(str(copy), "0" * 40, "1" * 40)

    async def save(self, task_id: str, slugs: list[str]) -> list[Saved]:
        self.called("save", *slugs)
        return [
            Saved(slug, "fix", "1" * 40, None, f"/mirrors/{slug}.git")
            for slug in slugs
            if self.folders.work_copy(task_id, slug).is_dir()
        ]

    async def remove(self, task_id: str) -> None:
        self.called("remove")
        shutil.rmtree(self.folders.task(task_id), ignore_errors=True)

    async def push(self, task_id: str, slug: str, url: str, user_id: str) -> Pushed:
        self.called("push", slug)
        self.pushed.append((task_id, slug, url, user_id))
        return self.push_result

    async def diff(self, task_id: str, project_id: str, slug: str) -> Json:
        self.called("diff", slug)
        return {"id": project_id, "slug": slug, "base": "", "head": "", "files": [], "truncated": False}

    async def clone(self, url: str, project_id: str, on_progress: Say) -> dict[str, str]:
        self.called("clone", url)
        on_progress("done")
        return {"path": "/mirrors/a.git", "defaultBranch": "main", "head": "1" * 40}


class FakePullRequests(Faulty):
    """opened: what was asked for, one request per branch and repository."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: dict[tuple[str, str], dict[str, Any]] = {}

    async def open(self, grant: Grant, address: str, *, head: str, **wanted: Any) -> PullRequest:
        self.called("open", address)
        created = (address, head) not in self.opened
        if created:
            self.opened[address, head] = {"user": grant.user_id, **wanted}
        number = [*self.opened].index((address, head)) + 1
        return PullRequest(number, f"https://forge.example/pull/{number}", created)


class FakeImages(Faulty):
    async def ensure(self, on_progress: Say) -> str:
        self.called("ensure")
        return "uai/task:1"


class FakeReadiness(Faulty):
    """forwarded: the ports that repositories name."""

    def __init__(self) -> None:
        super().__init__()
        self.forwarded: list[Forwarded] = []

    async def ready(self, task_id: str, on_progress: Callable[[Step], None]) -> list[Forwarded]:
        on_progress(Step("hook", "started"))
        await self.waited("ready", task_id)
        on_progress(Step("hook", "done", None, 12))
        return self.forwarded


class FakeAdmission(Faulty):
    """held: the tasks that are not let in wait on it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Deferred[None] | None = None

    async def admit(self, limits: Limits, say: Say) -> None:
        self.called("admit")
        if self.held is not None:
            say(Doing(Reason.MEMORY, "1.0 GiB are free"))
            await self.held


@attrs.frozen
class FakeCheck:
    name: str
    outcome: str = "blocked"
    required: bool = True
    detail: str = ""


@attrs.frozen
class FakeReport:
    checks: tuple[FakeCheck, ...]

    @property
    def passed(self) -> bool:
        return all(one.outcome in ("blocked", "ok") for one in self.checks if one.required)

    def text(self) -> str:
        return "\n".join(f"{one.name}: {one.outcome}" for one in self.checks)

    def json(self) -> Json:
        return {"passed": self.passed, "checks": [attrs.asdict(one) for one in self.checks]}


class FakeIsolation(Faulty):
    """report: what every look finds."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.folders = folders
        self.report = FakeReport((FakeCheck("engine socket"), FakeCheck("disk quota", "open", False)))

    async def check(self, task_id: str, *, network: str, uid: int, gid: int, limits: Limits) -> FakeReport:
        self.called("check", task_id, network, f"{uid}:{gid}")
        if (self.folders.control(task_id) / "go").exists():
            raise AssertionError("the gate is open before the report")
        return self.report


class FakeEgress(Faulty):
    """opened: the tasks whose sockets are served."""

    def __init__(self, mode: str = "open") -> None:
        super().__init__()
        self.mode = mode
        self.opened: set[str] = set()

    def environment(self) -> dict[str, str]:
        return {} if self.mode == "open" else {"UAI_EGRESS": "proxy"}

    async def open(self, task_id: str) -> None:
        self.called("open", task_id)
        self.opened.add(task_id)

    def close(self, task_id: str) -> None:
        self.opened.discard(task_id)


class FakeBroker(Faulty):
    """opened: what the tasks that have sockets may use. variables: for containers."""

    def __init__(self, **variables: str) -> None:
        super().__init__()
        self.opened: dict[str, Grant] = {}
        self.variables = variables

    def environment(self, own: Collection[str]) -> dict[str, str]:
        return {} if "GH_TOKEN" in own else self.variables

    async def open(self, grant: Grant) -> None:
        self.called("open", grant.task_id)
        self.opened[grant.task_id] = grant

    def close(self, task_id: str) -> None:
        self.opened.pop(task_id, None)

    def reach(self, user_id: str, url: str) -> AbstractAsyncContextManager[Reach]:
        return nullcontext(Reach())


class FakeTools(Faulty):
    async def ensure(self, task_id: str, projects: Sequence[Path], say: Say) -> None:
        self.called("ensure", task_id, *(path.name for path in projects))
        for path in projects:
            if not path.is_dir():
                raise AssertionError(f"{path} is not there yet")


class FakeWatch:
    """watched: the tasks whose ports are watched."""

    def __init__(self) -> None:
        self.watched: set[str] = set()

    def start(self, task_id: str) -> None:
        self.watched.add(task_id)

    def stop(self, task_id: str) -> None:
        self.watched.discard(task_id)


class FakeChannels(Faulty):
    """notes: every system note, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.agents: list[AgentStatus] = []

    async def ensure(self, input: ChannelEnsure) -> list[AgentStatus]:
        self.called("ensure", input.taskId)
        self.agents = [AgentStatus(agent.id, "starting") for agent in input.agents]
        return self.agents

    async def deliver(self, task_id: str, author: str, text: str, message_id: str) -> tuple[str, list[str]]:
        self.called("deliver", task_id, author, text, message_id)
        return message_id, ["ada"]

    async def append(self, task_id: str, author: str, text: str, message_id: str) -> int:
        self.called("append", task_id, author, text, message_id)
        return 7

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
        self.called("resolve", task_id, agent_id, request_id, decision, by, scope, str(answers))

    async def attached(self, task_id: str, path: str, size: int) -> None:
        self.called("attached", task_id, path, str(size))

    async def set_reviewers(self, task_id: str, reviewers: Sequence[str], crew: Sequence[str]) -> None:
        self.called("reviewers", task_id, *reviewers)

    async def interrupt(self, task_id: str, agent_id: str) -> None:
        self.called("interrupt", task_id, agent_id)

    async def teardown(self, task_id: str) -> None:
        self.called("teardown", task_id)

    async def resume(self, task_ids: Iterable[str]) -> None:
        self.called("resume", *task_ids)

    async def note(self, task_id: str, text: str) -> None:
        self.called("note", task_id)
        self.notes.append(text)

    def states(self, task_id: str) -> list[AgentStatus]:
        return self.agents


class FakeAttachments:
    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}

    async def write(self, task_id: str, filename: str, data: bytes) -> str:
        self.files[task_id, filename] = data
        return f"/attachments/{filename}"

    async def read(self, task_id: str, filename: str) -> bytes:
        found = self.files.get((task_id, filename))
        if found is None:
            raise HostError(ErrorCode.NOT_FOUND, f"no file {filename}")
        return found


class FakePorts:
    def __init__(self) -> None:
        self.tasks: dict[str, tuple[Address | None, dict[str, Address]]] = {}

    def set_task(self, task_id: str, editor: Address | None, previews: Mapping[str, Address]) -> None:
        self.tasks[task_id] = (editor, dict(previews))

    def drop_task(self, task_id: str) -> None:
        self.tasks.pop(task_id, None)


def task(task_id: str = "t1", branch: str = "fix") -> Task:
    return Task(task_id, "u1", "h1", "A task", "a-task", branch, "pending", [Agent("ada", "Ada", "mock")])


def project(slug: str = "shop", **changes: Any) -> Project:
    values: dict[str, Any] = {
        "id": f"p-{slug}",
        "ownerUserId": "u1",
        "name": slug,
        "slug": slug,
        "repoUrl": f"https://git.example/{slug}.git",
        "defaultPrompt": "",
        "previewPorts": '[{"name": "web", "port": 3000}]',
        "env": "",
    }
    return Project(**{**values, **changes})


def task_up(*projects: Project, task_id: str = "t1", branch: str = "fix") -> TaskUp:
    return TaskUp(task(task_id, branch), list(projects or [project()]), "ada@example.org", "Ada")


def task_down(*projects: Project, task_id: str = "t1") -> TaskDown:
    return TaskDown(task_id, task(task_id), list(projects or [project()]))


def files_below(folder: Path) -> list[str]:
    """Every file and folder, without the place where deleted ones go."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith(".")
    )
