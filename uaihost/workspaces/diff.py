"""What a task changed in a work copy, against the merge base with the default branch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.checkouts import all_of
from uaihost.workspaces.comparing import COPIES, KEPT, LARGE, MAX_FILES, OPTIONS, TOTAL_LIMIT, Comparisons
from uaihost.workspaces.conflicts import sides
from uaihost.workspaces.diff_parser import File, clip
from uaihost.workspaces.looks import Look
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.snapshot import Snapshots
from uaihost.workspaces.staging import Staging

# Bytes: what a person can read and a page can show of one file.
FILE_LIMIT = 256 << 10
# Bytes: a changed file larger than this is named and not even read; saving reads it.
UNREAD = 32 << 20
# The mode of a repository inside another.
GITLINK = "160000"


@attrs.frozen
class _Answer:
    """What was told last of a work copy. key: of all that it depends on; size: bytes of its hunks."""

    key: tuple[Any, ...]
    value: dict[str, Any]
    size: int


class Diffs:
    """Shows what work copies hold.

    Who asks while a copy is looked at is answered by the next look, together with all who ask meanwhile:
    nobody is told what was true before the question. A look that finds what the last one found costs the
    look alone.
    """

    def __init__(self, git: Git, mirrors: Mirrors, snapshots: Snapshots, blocking: Blocking) -> None:
        self._git = git
        self._mirrors = mirrors
        self._snapshots = snapshots
        self._blocking = blocking
        self._asking: dict[Path, list[Deferred[dict[str, Any]]]] = {}
        self._comparisons = Comparisons(git, blocking)
        self._answers: OrderedDict[Path, _Answer] = OrderedDict()
        self._bases: dict[Path, tuple[tuple[str, ...], str]] = {}

    async def diff(self, places: Places, project_id: str) -> dict[str, Any]:
        """Committed, staged, unstaged and untracked changes together, one project of taskDiff's result.

        Raises:
            HostError: `not_found`, no such work copy; `conflict`, it cannot be read; `too_large`.
        """
        self._snapshots.check(places)
        mine: Deferred[dict[str, Any]] = Deferred()
        if places.own in self._asking:
            self._asking[places.own].append(mine)
        else:
            self._asking[places.own] = waiting = [mine]
            Deferred.fromCoroutine(self._ask(places, waiting))
        return {"id": project_id, **await mine}

    def forget(self, task: Path) -> None:
        """The task's work copies are gone."""
        self._comparisons.forget(task)
        known: MutableMapping[Path, Any]
        for known in (self._answers, self._bases):
            for own in [own for own in known if own.is_relative_to(task)]:
                del known[own]

    async def _ask(self, places: Places, waiting: list[Deferred[dict[str, Any]]]) -> None:
        value: dict[str, Any] | None = None
        error: Exception | None = None
        try:
            async with self._snapshots.lock(places):
                # Who asks from now on may mean what changes from now on.
                del self._asking[places.own]
                value = await self._answer(places)
        except GitFailed as failed:
            error = _incomparable(places, failed.last_line)
        except ValueError as odd:
            error = _incomparable(places, str(odd))
        except Exception as raised:
            error = raised
        if self._asking.get(places.own) is waiting:
            del self._asking[places.own]
        for one in waiting:
            if error is not None:
                one.errback(Failure(error))
            elif value is not None:
                one.callback(value)

    async def _answer(self, places: Places) -> dict[str, Any]:
        snapshot, default = await all_of(self._snapshots.take(places, largest=UNREAD), self._default(places))
        base = await self._base(places, snapshot, default)
        key = (
            base, snapshot.head, snapshot.refs.branch, snapshot.tree, snapshot.index_digest,
            tuple(sorted(snapshot.large.items())), tuple(sorted(snapshot.links)), *snapshot.links.values(),
        )  # fmt: skip
        last = self._answers.pop(places.own, None)
        if last is None or last.key != key:
            found = await self._compared(places, snapshot, base)
            value = {
                "slug": places.copy.name,
                "base": base,
                "head": snapshot.head,
                "branch": snapshot.refs.branch,
                **await self._blocking.call(found.as_json),
            }
            last = _Answer(key, value, sum(len(file.hunks or b"") for file in found.files))
        self._answers[places.own] = last
        while len(self._answers) > COPIES or sum(one.size for one in self._answers.values()) > KEPT:
            self._answers.popitem(last=False)
        return last.value

    async def _default(self, places: Places) -> str | None:
        record = Record.load(places.record)
        return None if record is None else await self._mirrors.default(self._mirrors.path(record.key))

    async def _base(self, places: Places, snapshot: Look, default: str | None) -> str:
        """Where the work left the default branch, or the start of the task if it is nearer; the default
        branch itself when the work has nothing in common with either.

        The default branch is the mirror's: the copy's own is the agent's to move. When it was rewritten, what
        the task started from is no change of the task's.
        """
        start = snapshot.record.base
        default = default or start
        if snapshot.head is None:
            return default
        asked = (snapshot.head, default, start)
        last = self._bases.get(places.own)
        if last is None or last[0] != asked:
            last = asked, await self._fork(snapshot.repo, asked) or default
            self._bases[places.own] = last
        return last[1]

    async def _fork(self, repo: Path, commits: tuple[str, ...]) -> str:
        try:
            return await self._git.line("merge-base", git_dir=repo, operands=commits)
        except GitFailed:
            # The start is no longer anywhere.
            return await self._git.line("merge-base", git_dir=repo, operands=commits[:2])

    # ---- comparing -------------------------------------------------------------------------------------

    async def _compared(self, places: Places, snapshot: Look, base: str) -> _Changes:
        told, committed = await all_of(
            self._comparisons.told(places, snapshot, base),
            self._comparisons.committed(places, snapshot, base),
        )
        # Limits and sizes are written into them.
        changes = _Changes([attrs.evolve(file) for file in told.files], told.count)
        await self._measure(snapshot, changes.files)
        for name, tracked in sorted(snapshot.large.items()):
            # What was committed before is in the list with its content of then.
            changes.files = [file for file in changes.files if file.path != name]
            status = "modified" if tracked else "added"
            changes.files.append(File(name, None, status, None, None, "", "", why="unread"))
            changes.count += not tracked
        _show_links(changes, snapshot)
        if snapshot.staging is not None and snapshot.staging.conflicts:
            await self._show_conflicts(places, snapshot, changes)
        for file in changes.files:
            file.where = _where(file, committed, snapshot.staging, told.unstaged)
        changes.limit()
        return changes

    async def _show_conflicts(self, places: Places, snapshot: Look, changes: _Changes) -> None:
        async with self._snapshots.view(places, snapshot.record) as view:
            found = await sides(self._git, view, OPTIONS)
        listed = {file.path: file for file in changes.files}
        for name in sorted(found):
            if name not in listed:
                # As at the base, or gone: still, somebody has to decide.
                listed[name] = File(name, None, "unmerged", None, None, "", "")
                changes.files.append(listed[name])
                changes.count += 1
            listed[name].conflict = found[name]

    async def _measure(self, snapshot: Look, files: list[File]) -> None:
        """git calls a file above the threshold binary; it may be text that is too large to show."""
        doubtful = [file for file in files if file.binary]
        if not doubtful:
            return
        ids = [oid for file in doubtful for oid in (file.old, file.new)]
        finished = await self._git.run(
            "cat-file", "--batch-check=%(objectsize)",
            git_dir=snapshot.repo, stdin="".join(f"{oid}\n" for oid in ids).encode(),
        )  # fmt: skip
        sizes = [int(line) if line.isdigit() else None for line in finished.out.decode("ascii").splitlines()]
        for number, file in enumerate(doubtful):
            file.old_size, file.new_size = sizes[2 * number : 2 * number + 2]
            if max(file.old_size or 0, file.new_size or 0) >= LARGE:
                file.binary, file.why = False, "large"


@attrs.define
class _Changes:
    """files: those that are told; count: how many there are."""

    files: list[File]
    count: int

    def limit(self) -> None:
        """Leave out what does not fit."""
        self.files.sort(key=lambda file: file.path)
        del self.files[MAX_FILES:]
        left = TOTAL_LIMIT
        for file in self.files:
            if file.hunks is not None:
                kept = clip(file.hunks, min(FILE_LIMIT, left))
                if kept != file.hunks:
                    file.why = "file" if len(file.hunks) > FILE_LIMIT else "total"
                    file.hunks = kept
                left -= len(kept or b"")

    def as_json(self) -> dict[str, Any]:
        reasons = {file.why for file in self.files if file.why is not None}
        if self.count > len(self.files):
            reasons.add("files")
        return {
            "files": [file.as_json() for file in self.files],
            "fileCount": self.count,
            "truncated": bool(reasons),
            "truncatedBy": sorted(reasons),
        }


def _show_links(changes: _Changes, snapshot: Look) -> None:
    """What git tells of repositories inside: the commits, and whether their files are as committed."""
    dirty = {name for name, link in snapshot.links.items() if link.dirty}
    for file in changes.files:
        if GITLINK in (file.old_mode, file.new_mode):
            file.submodule = {
                "from": file.old if file.old_mode == GITLINK else None,
                "to": file.new if file.new_mode == GITLINK else None,
                "dirty": file.path in dirty,
            }
    for name in sorted(dirty.difference(file.path for file in changes.files)):
        commit = snapshot.links[name].commit
        told = {"from": commit, "to": commit, "dirty": True}
        changes.files.append(File(name, None, "modified", GITLINK, GITLINK, commit, commit, submodule=told))
        changes.count += 1


def _where(
    file: File, committed: frozenset[bytes], staged: Staging | None, unstaged: Staging | None
) -> list[str]:
    """Some of `diff_parser.PLACES`: a file can be changed in several."""
    names = {file.path, *([file.old_path] if file.old_path is not None else ())}
    found = ["committed"] if names & committed else []
    if staged is None or unstaged is None:
        return found
    if names & (staged.added - staged.intended | staged.changed | staged.missing):
        found.append("staged")
    unread = file.status if file.why == "unread" else None
    inside = file.submodule is not None and file.submodule["dirty"]
    if inside or unread == "modified" or names & (unstaged.added | unstaged.changed):
        found.append("unstaged")
    if names & unstaged.missing or unread == "added":
        found.append("untracked")
    if names & (staged.conflicts | unstaged.conflicts):
        found.append("conflict")
    return found


def _incomparable(places: Places, why: str) -> HostError:
    return HostError(ErrorCode.CONFLICT, f"the changes in {places.copy.name!r} cannot be compared: {why}")
