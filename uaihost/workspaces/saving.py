"""Keeping what a task made, in the mirror, so that its work copies can go. Nothing kept is ever overwritten.

refs/heads/<branch>                     the task's branch, moved only forward
refs/heads/uai/<task>/<branch>          the same, when it cannot be moved forward
refs/heads/uai/<task>/wip               what was not committed, on top of the commit it was made on
refs/uai/<task>/<slug>/...              other branches (heads/), a detached HEAD (detached), stashes (stash)

A name that is taken by other work gets a number: `wip-2`.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Places
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.snapshot import TAKEN, Snapshot, Snapshots

# The commit of uncommitted work, in the task's repository.
_WIP = "refs/wip"
# How many names are tried before giving up.
_NAMES = 1000


@attrs.frozen
class Saved:
    """What was kept of one work copy.

    branch: the mirror's branch that holds the task's branch, and commit, what it is on; wip: the branch with
    what was not committed, None when all was; repository: the mirror's path; note: for people, why commits
    of a damaged work copy could not be kept as they were, mostly None.
    """

    slug: str
    branch: str
    commit: str
    wip: str | None
    repository: str
    note: str | None = None


class Saving:
    """Moves work from work copies into mirrors."""

    def __init__(self, git: Git, mirrors: Mirrors, snapshots: Snapshots) -> None:
        self._git = git
        self._mirrors = mirrors
        self._snapshots = snapshots

    async def save(self, task_id: str, places: Places) -> Saved | None:
        """Keep everything of one work copy; None when it does not exist (any more).

        Raises:
            HostError: it could not all be kept; the copy must not be deleted.
        """
        async with self._snapshots.lock(places):
            if not places.copy.is_dir():
                return None
            snapshot = await self._snapshots.take(places, despite_faults=True)
            async with self._mirrors.lock(snapshot.record.key):
                try:
                    return await self._keep(task_id, places.copy.name, snapshot)
                except GitFailed as failed:
                    raise HostError(
                        ErrorCode.UNAVAILABLE,
                        f"the work in {places.copy.name!r} cannot be saved; git says: {failed.last_line}; "
                        f"nothing was deleted, it is in {places.copy}",
                    ) from None

    async def _keep(self, task_id: str, slug: str, snapshot: Snapshot) -> Saved:
        mirror = self._mirrors.path(snapshot.record.key)
        incoming = f"refs/incoming/{task_id}/{slug}/"
        wip = await self._commit_rest(task_id, snapshot)
        specs = [f"+{TAKEN}*:{incoming}copy/*"]
        if wip is not None:
            specs.append(f"+{_WIP}:{incoming}wip")
        await self._git.run(
            "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet", "--",
            git_dir=mirror, operands=[str(snapshot.repo), *specs], protocols=["file"],
        )  # fmt: skip
        branch = snapshot.record.branch
        # A copy that has the branch no more, renamed or deleted, goes by what it has checked out.
        commit = snapshot.refs.heads.get(branch) or snapshot.head or snapshot.record.head
        kept = await self._place(
            [f"refs/heads/{branch}", f"refs/heads/uai/{task_id}/{branch}"], commit, snapshot
        )
        apart = f"refs/uai/{task_id}/{slug}/"
        for name, oid in snapshot.refs.heads.items():
            if name != branch:
                await self._place([f"{apart}heads/{name}"], oid, snapshot)
        for oid in snapshot.refs.stashes:
            await self._place([f"{apart}stash"], oid, snapshot)
        if snapshot.refs.detached is not None:
            await self._place([f"{apart}detached"], snapshot.refs.detached, snapshot)
        kept_wip = None
        if wip is not None:
            kept_wip = _branch(await self._place([f"refs/heads/uai/{task_id}/wip"], wip, snapshot))
        await self._drop(mirror, incoming)
        return Saved(slug, _branch(kept), commit, kept_wip, str(mirror), snapshot.fault)

    async def _commit_rest(self, task_id: str, snapshot: Snapshot) -> str | None:
        """A commit of the working tree on top of HEAD, in the task's repository; None when they are equal."""
        head = snapshot.head
        if head is not None:
            same = await self._git.line(
                "rev-parse", "--verify", git_dir=snapshot.repo, operands=[f"{head}^{{tree}}"]
            )
        else:
            finished = await self._git.run("mktree", git_dir=snapshot.repo)
            same = finished.out.decode("ascii").strip()
        if same == snapshot.tree:
            return None
        before = await self._git.line(
            "rev-parse", "--verify", "--quiet", git_dir=snapshot.repo, operands=[_WIP]
        )
        # Saving again after an interruption must find the same commit, not make another.
        if before and await self._is(snapshot, before, head):
            return before
        # What was saved before stays part of the history, so that its branch can move on.
        parents = [word for parent in (head, before) if parent for word in ("-p", parent)]
        who = {"NAME": snapshot.record.name, "EMAIL": snapshot.record.email}
        message = f"Uncommitted work of task {task_id}"
        if snapshot.fault is not None:
            message += f"\n\n{snapshot.fault}"
        finished = await self._git.run(
            "commit-tree", snapshot.tree, *parents, git_dir=snapshot.repo, stdin=message.encode(),
            extra={f"GIT_{role}_{part}": who[part] for role in ("AUTHOR", "COMMITTER") for part in who},
        )  # fmt: skip
        commit = finished.out.decode("ascii").strip()
        await self._git.run("update-ref", git_dir=snapshot.repo, operands=[_WIP, commit])
        return commit

    async def _is(self, snapshot: Snapshot, commit: str, head: str | None) -> bool:
        """Whether `commit` is the snapshot's tree on `head`."""
        found = await self._git.line("log", "-1", "--format=%T %P", git_dir=snapshot.repo, operands=[commit])
        tree, *parents = found.split()
        return tree == snapshot.tree and (head is None or parents[:1] == [head])

    async def _place(self, names: list[str], commit: str, snapshot: Snapshot) -> str:
        """Let the first of `names` that may be there point at `commit`, else the last one with a number."""
        mirror = self._mirrors.path(snapshot.record.key)
        for name in [*names, *(f"{names[-1]}-{number}" for number in range(2, _NAMES))]:
            there = await self._mirrors.commit(mirror, name)
            if there == commit:
                return name
            if there is None or await self._mirrors.is_ancestor(mirror, there, commit):
                try:
                    await self._git.run(
                        "update-ref", git_dir=mirror, operands=[name, commit, there or "0" * len(commit)]
                    )
                except GitFailed as failed:
                    # A branch named like a folder of branches, or the reverse.
                    if "cannot lock ref" in failed.text:
                        continue
                    raise
                return name
        raise HostError(
            ErrorCode.CONFLICT,
            f"no free name for {names[-1]!r} in {mirror}; delete some of its saved branches",
        )

    async def _drop(self, mirror: Path, incoming: str) -> None:
        listed = await self._git.run(
            "for-each-ref", "--format=delete %(refname)", git_dir=mirror, operands=[incoming]
        )
        await self._git.run("update-ref", "--stdin", git_dir=mirror, stdin=listed.out)


def _branch(ref: str) -> str:
    return ref.removeprefix("refs/heads/")
