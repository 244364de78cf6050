"""Neighbours in memory for the tests of commands: each records what was asked, and fails when told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Address, AgentStatus, Json, Step
from uaihost.paths import Folders
from uaihost.wire.inputs import Agent, ChannelEnsure, Project, Task, TaskDown, TaskUp
from uaihost.workspaces.workspaces import Identity, Saved, WorkCopy


class Faulty:
    """calls: what was asked, in order. broken: the names of calls that fail, and how."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.broken: dict[str, BaseException] = {}

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

    async def prepare(
        self,
        task_id: str,
        slug: str,
        url: str,
        branch: str,
        identity: Identity | None,
        on_progress: Callable[[str], None],
    ) -> WorkCopy:
        self.called("prepare", slug)
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

    async def diff(self, task_id: str, project_id: str, slug: str) -> Json:
        self.called("diff", slug)
        return {"id": project_id, "slug": slug, "base": "", "head": "", "files": [], "truncated": False}

    async def clone(self, url: str, project_id: str, on_progress: Callable[[str], None]) -> dict[str, str]:
        self.called("clone", url)
        on_progress("done")
        return {"path": "/mirrors/a.git", "defaultBranch": "main", "head": "1" * 40}


class FakeImages(Faulty):
    async def ensure(self, on_progress: Callable[[str], None]) -> str:
        self.called("ensure")
        return "uai/task:1"


class FakeReadiness(Faulty):
    async def ready(self, task_id: str, on_progress: Callable[[Step], None]) -> None:
        on_progress(Step("hook", "started"))
        self.called("ready", task_id)
        on_progress(Step("hook", "done", None, 12))


class FakeChannels(Faulty):
    def __init__(self) -> None:
        super().__init__()
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

    async def resolve(self, task_id: str, agent_id: str, request_id: str, decision: str, by: str) -> None:
        self.called("resolve", task_id, agent_id, request_id, decision, by)

    async def interrupt(self, task_id: str, agent_id: str) -> None:
        self.called("interrupt", task_id, agent_id)

    async def teardown(self, task_id: str) -> None:
        self.called("teardown", task_id)

    async def note(self, task_id: str, text: str) -> None:
        self.called("note", task_id, text)

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
