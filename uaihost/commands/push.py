"""The command taskPush: a task's branches to their remotes, and pull requests from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from uaihost.commands import summary
from uaihost.commands.lanes import together
from uaihost.commands.neighbours import Pushed, Workspaces
from uaihost.commands.plan import Plan, plan_in
from uaihost.commands.records import Records
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Json, Store
from uaihost.proofs import PullRequests
from uaihost.state import channel as channel_rows
from uaihost.wire.inputs import BadArgs, Project, PullRequestWanted, TaskPush, parse

# Messages that a summary is made of: far more than it shows.
MESSAGES = 400


class PushCommands:
    """store: has the transcripts' rows."""

    def __init__(self, records: Records, workspaces: Workspaces, pulls: PullRequests, store: Store) -> None:
        self._records = records
        self._workspaces = workspaces
        self._pulls = pulls
        self._store = store

    async def push(self, command_id: str, wanted: TaskPush) -> Json:
        """Each project by itself: what fails in one says so in its place and hinders no other."""
        record = await self._records.find(wanted.taskId)
        if record is None:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {wanted.taskId[:64]!r}")
        plan = plan_in(record)
        projects = _chosen(plan, [project.slug for project in wanted.projects])
        name = plan.name or plan.slug
        done = await together(self._one(plan, name, project, wanted.pullRequest) for project in projects)
        return {"projects": done}

    async def asked(self, words: dict[str, Any]) -> dict[str, Any]:
        """The same for the owner's command line; `words` are the command's argument."""
        try:
            (wanted,) = parse([words], (TaskPush,))
        except BadArgs as error:
            raise HostError(ErrorCode.INVALID_ARGS, str(error)) from None
        return dict(await self.push("", wanted))

    async def _one(
        self, plan: Plan, name: str, project: Project, pull: PullRequestWanted | None
    ) -> dict[str, Any]:
        shown: dict[str, Any] = {"id": project.id, "slug": project.slug, "pushed": False}
        try:
            pushed = await self._workspaces.push(plan.task_id, project.slug, project.repoUrl, plan.owner)
            shown |= {
                "pushed": pushed.state != "empty",
                "branch": pushed.branch,
                "head": pushed.head,
                "base": pushed.base,
                "remote": pushed.remote,
                "message": pushed.message,
                "url": pushed.link,
            }
            if pull is not None and pushed.state != "empty":
                shown["pullRequest"] = await self._pull(plan, name, project, pull, pushed)
        except HostError as error:
            shown["error"] = {"code": error.code.value, "message": error.message}
        return {key: value for key, value in shown.items() if value is not None}

    async def _pull(
        self, plan: Plan, name: str, project: Project, wanted: PullRequestWanted, pushed: Pushed
    ) -> dict[str, Any]:
        body = wanted.body
        if body is None:
            rows = await self._store.run(lambda db: channel_rows.last_messages(db, plan.task_id, MESSAGES))
            body = summary.body(rows, pushed.commits)
        opened = await self._pulls.open(
            plan.grant,
            project.repoUrl,
            head=pushed.branch,
            base=wanted.base or pushed.base,
            title=wanted.title or summary.title(name),
            body=body,
            draft=wanted.draft,
        )
        return {"number": opened.number, "url": opened.url, "created": opened.created}


def _chosen(plan: Plan, slugs: Sequence[str]) -> list[Project]:
    """The projects of these slugs; all of them when none is named."""
    known = {project.slug: project for project in plan.projects}
    for slug in slugs:
        if slug not in known:
            raise HostError(
                ErrorCode.INVALID_ARGS, f"the task has no project {slug[:64]!r}; it has: {', '.join(known)}"
            )
    return [known[slug] for slug in slugs] or list(plan.projects)
