"""Pushing a task's branch: what was committed, from a repository of the daemon's own, never by force.

What is pushed was fetched from the work copy and verified on the way (workspaces.snapshot); git never runs in
the work copy, and no hook of it runs. It knows nothing of pull requests.
"""

from __future__ import annotations

import re
from typing import Literal

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.diff import UNREAD
from uaihost.workspaces.faults import GitFailed, reason, scrubbed
from uaihost.workspaces.looks import Look
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Places
from uaihost.workspaces.safe_git import NETWORK, Git
from uaihost.workspaces.snapshot import Snapshots
from uaihost.workspaces.urls import Repository

# Commits that are named in a summary.
COMMITS = 50

# What a forge offers after a push, like `remote:   https://github.com/o/r/pull/new/b`.
_LINK = re.compile(r"^remote:\s+(https://[^\s\x00-\x1f<>\"']{1,500})\s*$", re.M)
# git-push(1), "Output", of --porcelain: flag, names, and why in brackets.
_STATUS = re.compile(r"^(.)\t[^\t]*\t(.*)$", re.M)

State = Literal["pushed", "same", "empty"]


@attrs.frozen
class Pushed:
    """state: `pushed`; `same`, the remote had it already; `empty`, nothing is committed. head: the commit;
    base: the remote's default branch; commits: first lines, the oldest first, since that branch; link: where
    the forge says to open a pull request; message: what people should know beside, like work that is not
    committed."""

    state: State
    branch: str
    head: str
    base: str
    remote: str
    commits: tuple[str, ...] = ()
    link: str | None = None
    message: str | None = None


class Pushing:
    """One branch of one work copy to its own remote."""

    def __init__(self, git: Git, mirrors: Mirrors, snapshots: Snapshots) -> None:
        self._git = git
        self._mirrors = mirrors
        self._snapshots = snapshots

    async def push(self, places: Places, repository: Repository) -> Pushed:
        """Push the task's branch to the repository it came from.

        Raises:
            HostError: `conflict`: the repository is a folder of this machine, the branch is its default one,
                or the remote has other commits; `unavailable`: the remote cannot be reached or refuses.
        """
        if repository.kind == "local":
            raise HostError(
                ErrorCode.CONFLICT,
                f"{repository.display} is a folder of this machine, which no task changes; when the task is "
                "taken down its branch is kept, and `uaihost restore` makes a folder of it to fetch from",
            )
        async with self._snapshots.lock(places):
            snapshot = await self._snapshots.take(places, largest=UNREAD)
            async with self._mirrors.fetched(repository, lambda _: None) as mirror:
                base, theirs = mirror.default_branch, mirror.head
            branch = snapshot.record.branch
            if branch == base:
                raise HostError(
                    ErrorCode.CONFLICT,
                    f"the task works on {branch}, the default branch of {repository.display}, which is left "
                    "to people; let the agent commit on another branch",
                )
            head = snapshot.refs.heads.get(branch)
            if head is None:
                raise HostError(
                    ErrorCode.CONFLICT,
                    f"the work copy has no branch {branch} any more; let the agent make it again: git branch "
                    f"{branch}",
                )
            commits = await self._commits(snapshot, head, theirs)
            message = await self._beside(snapshot, branch, head)
            done = Pushed("empty", branch, head, base, repository.display, commits, None, message)
            if not commits:
                return attrs.evolve(done, message=message or "nothing is committed yet")
            return await self._send(snapshot, repository, done)

    async def _send(self, snapshot: Look, repository: Repository, done: Pushed) -> Pushed:
        try:
            finished = await self._git.run(
                "push", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--",
                git_dir=snapshot.repo, operands=[repository.url, f"{done.head}:refs/heads/{done.branch}"],
                protocols=[repository.protocol], timeout=NETWORK,
                settings=repository.reach.settings, extra=repository.reach.env,
            )  # fmt: skip
        except GitFailed as failed:
            raise _refused(failed, repository, done.branch) from None
        said = scrubbed(finished.err.decode("utf-8", "replace"))
        link = _LINK.search(said)
        flag = _STATUS.search(finished.out.decode("utf-8", "replace"))
        return attrs.evolve(
            done, state="same" if flag and flag[1] == "=" else "pushed", link=link[1] if link else None
        )

    async def _commits(self, snapshot: Look, head: str, theirs: str) -> tuple[str, ...]:
        """First lines of what the branch has beyond the remote's default branch, as far as it goes."""
        listed = await self._git.run(
            "log", f"--max-count={COMMITS}", "--format=%s", "-z",
            git_dir=snapshot.repo, operands=[f"{theirs}..{head}"],
        )  # fmt: skip
        lines = listed.out.decode("utf-8", "replace").split("\0")
        return tuple(line[:200] for line in reversed(lines) if line)

    async def _beside(self, snapshot: Look, branch: str, head: str) -> str | None:
        """What of the work copy is not pushed."""
        notes = []
        if snapshot.refs.branch != branch:
            notes.append(f"the work copy is on {snapshot.refs.branch or 'no branch'}, not on {branch}")
        if snapshot.head == head:
            tree = await self._git.line(
                "rev-parse", "--verify", git_dir=snapshot.repo, operands=[f"{head}^{{tree}}"]
            )
            if tree != snapshot.tree or snapshot.large:
                notes.append("uncommitted changes stay in the work copy")
        return "; ".join(notes) or None


def _refused(failed: GitFailed, repository: Repository, branch: str) -> HostError:
    """What to tell people about a push that failed."""
    out = failed.finished.out.decode("utf-8", "replace")
    status = next((found[2] for found in _STATUS.finditer(out) if found[1] == "!"), "")
    if "fetch first" in status or "non-fast-forward" in status:
        return HostError(
            ErrorCode.CONFLICT,
            f"{branch} of {repository.display} has commits that the task's has not; let the agent bring them "
            f"in (git pull --rebase origin {branch}) and push again",
        )
    if status:
        said = re.findall(r"^remote:\s*(.+)$", failed.text, re.M)
        why = "; ".join(line.strip() for line in said[-4:]) or status
        return HostError(ErrorCode.CONFLICT, f"{repository.display} refused {branch}: {why[:500]}")
    return HostError(ErrorCode.UNAVAILABLE, f"{repository.display} cannot be pushed to: {reason(failed)}")
