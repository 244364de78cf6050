"""Keeping what a task made, in the vault, so that its work copies can go. Nothing kept is ever overwritten.

The names of the vault (workspaces.vault), and below refs/uai/<task>/<slug>/ whatever else a work copy has:
heads/<branch>, other branches; others/<name>, what has a name of another kind; detached, the commit of a
detached HEAD; stash, stash-2 ..., the newest first; index and unmerged, what was staged; tags/<tag>;
past/<number>, commits that only HEAD's log leads to; pending/<file>, what an interrupted merge or rebase
remembers; sub/<path>/, the same for each repository inside the work copy, with its wip.

What git cannot hold lies beside: saved/<task>/<slug>.tar, and saved/<task>/<slug>.json, which says all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.beside import Beside, Found
from uaihost.workspaces.leftovers import Inner, shown_name, survey
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.own_repository import inner_record, object_form
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.snapshot import Snapshot, Snapshots
from uaihost.workspaces.vault import Vault

log = Logger()

# Commits that are made here, in the task's own repository, by what they hold.
_MADE = "refs/made/"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
# Characters of a note.
_NOTE = 2000


@attrs.frozen
class Saved:
    """What was kept of one work copy; with an empty slug, what was kept of the task beside them.

    branch: the vault's branch that holds the task's branch, and commit, what it is on; wip: the branch with
    what was not committed, None when all was; repository: the vault's path; note: for people, what could
    not be kept as it was, mostly None; extra: the path of the tar file of what git does not keep.
    name: of its files in saved/<task>; project: its address, for people; parts: JSON of the work copy and
    each repository inside it, as workspaces.restore reads it; size: bytes that it added.
    """

    slug: str
    branch: str
    commit: str
    wip: str | None
    repository: str
    note: str | None = None
    extra: str | None = None
    name: str = ""
    project: str = ""
    parts: tuple[dict[str, Any], ...] = ()
    size: int = 0

    def value(self) -> dict[str, Any]:
        """As taskDown tells it."""
        fields = ("slug", "branch", "commit", "wip", "repository", "note", "extra")
        return {name: getattr(self, name) for name in fields}


@attrs.define
class _Wanted:
    """Names that are asked of the vault, and who is told which they became."""

    asked: list[tuple[list[str], str]] = attrs.field(factory=list)

    def add(self, names: list[str], oid: str) -> int:
        self.asked.append((names, oid))
        return len(self.asked) - 1


class Saving:
    """Moves work from work copies into the vault."""

    def __init__(
        self, git: Git, mirrors: Mirrors, vault: Vault, snapshots: Snapshots, blocking: Blocking, saved: Path
    ) -> None:
        self._git = git
        self._mirrors = mirrors
        self._vault = vault
        self._snapshots = snapshots
        self._blocking = blocking
        self._beside = Beside(git, blocking, saved)

    async def save(self, task_id: str, places: Places) -> Saved | None:
        """Keep everything of one work copy; None when it does not exist (any more).

        Raises:
            HostError: it could not all be kept; the copy must not be deleted.
        """
        if not places.copy.is_dir():
            return None
        async with self._snapshots.lock(places):
            record = Record.load(places.record)
            if record is None or not places.copy.is_dir():
                return None
            found = await self._blocking.call(survey, places.copy)
            if found.closed:
                raise HostError(
                    ErrorCode.CONFLICT,
                    f"the host may not read {shown_name(found.closed[0])!r} in {places.copy}, nor "
                    f"{len(found.closed) - 1} others; give it the right to, then send the command again",
                )
            outer = await self._snapshots.take_all(places, record)
            snapshots: list[tuple[Inner | None, Snapshot]] = [(None, outer)]
            torn: list[Inner] = []
            for one in found.inner:
                own = places.inner(_text(one.path or one.git_dir + b"/none"), _text(one.git_dir))
                try:
                    snapshot = await self._snapshots.take_all(own, inner_record(record, one.git_dir))
                except (HostError, GitFailed, OSError) as error:
                    # What an agent made of it must not keep the rest from being saved: it is kept as files.
                    log.warn("{path} is kept as files: {error}", path=one.path, error=str(error))
                    torn.append(one)
                    continue
                snapshots.append((one, snapshot))
            try:
                await self._vault.adopt(record.key)
                async with self._vault.lock(record.key):
                    return await self._keep(task_id, places, Found(found, snapshots, torn))
            except GitFailed as failed:
                why = failed.last_line
            except OSError as failed:
                why = failed.strerror or str(failed)
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the work in {places.copy.name!r} cannot be saved: {why}; nothing was deleted, it is in "
                f"{places.copy}",
            )

    async def _keep(self, task_id: str, places: Places, found: Found) -> Saved:
        outer = found.snapshots[0][1]
        record, slug = outer.record, places.copy.name
        wanted = _Wanted()
        known = await self._remote(record.key)
        parts = []
        for one, snapshot in found.snapshots:
            inner = "" if one is None else f"sub/{_encoded(one.path or one.git_dir)}/"
            below = f"refs/uai/{task_id}/{slug}/{inner}"
            parts.append(await self._part(task_id, below, snapshot, one, wanted, known))
        names = await self._vault.keep(
            record.key,
            object_form(record),
            [(snapshot.repo, snapshot.record.key) for _, snapshot in found.snapshots],
            wanted.asked,
        )
        parts = [_named(part, names, wanted.asked) for part in parts]
        name = await self._beside.name(task_id, slug, places)
        extra, notes = await self._beside.write(task_id, name, places, found)
        own = parts[0]
        saved = Saved(
            slug,
            _branch(own["branch"][0]),
            own["branch"][1],
            _branch(own["wip"][0]) if own["wip"] else None,
            str(self._vault.path(record.key)),
            "; ".join(notes)[:_NOTE] or None,
            str(extra) if extra else None,
            name,
            record.display,
            tuple(parts),
            extra.stat().st_size if extra else 0,
        )
        await self._beside.describe(task_id, places, {"key": record.key, **attrs.asdict(saved)})
        return saved

    # ---- commits -------------------------------------------------------------------------------------------

    async def _part(
        self,
        task_id: str,
        below: str,
        snapshot: Snapshot,
        inner: Inner | None,
        wanted: _Wanted,
        known: dict[str, str],
    ) -> dict[str, Any]:
        """Ask for the names of one repository; a description with places in `wanted` instead of names."""
        refs, head = snapshot.refs, snapshot.head
        branch = snapshot.record.branch
        part: dict[str, Any] = {
            "path": None if inner is None or inner.path is None else _text(inner.path),
            "gitDir": ".git" if inner is None else _text(inner.git_dir),
            "head": {"branch": refs.branch, "commit": head},
            "tree": snapshot.tree,
        }
        if inner is None:
            # A copy that has the branch no more, renamed or deleted, goes by what it has checked out.
            commit = refs.heads.get(branch) or head or snapshot.record.head
            part["branch"] = wanted.add(
                [f"refs/heads/{branch}", f"refs/heads/uai/{task_id}/{branch}"], commit
            )
        for kind, tree, message in (
            ("wip", snapshot.tree, f"Uncommitted work of task {task_id}"),
            ("index", snapshot.index, f"Staged work of task {task_id}"),
            ("unmerged", snapshot.unmerged, f"Sides of conflicts of task {task_id}"),
        ):
            made = await self._commit(snapshot, kind, tree, message)
            names = [f"refs/heads/uai/{task_id}/wip" if kind == "wip" and inner is None else f"{below}{kind}"]
            part[kind] = None if made is None else wanted.add(names, made)
        part["heads"] = {
            name: part["branch"]
            if inner is None and name == branch
            else wanted.add([f"{below}heads/{name}"], oid)
            for name, oid in refs.heads.items()
        }
        part["stashes"] = [wanted.add([f"{below}stash"], oid) for oid in refs.stashes]
        part["detached"] = None if refs.detached is None else wanted.add([f"{below}detached"], refs.detached)
        part["tags"] = {name: wanted.add([f"{below}tags/{name}"], oid) for name, oid in refs.tags.items()}
        part["others"] = {
            name: wanted.add([f"{below}others/{name}"], oid) for name, oid in refs.others.items()
        }
        lost = await self._lost(snapshot)
        part["pending"] = {
            name: wanted.add([f"{below}pending/{name}"], oid) for name, oid in refs.pending.items()
        }
        part["past"] = [wanted.add([f"{below}past/{number}"], oid) for number, oid in enumerate(lost, 1)]
        return part

    async def _commit(self, snapshot: Snapshot, kind: str, tree: str | None, message: str) -> str | None:
        """A commit of a tree on top of HEAD, in the task's repository; None when it is what HEAD holds."""
        head, made = snapshot.head, f"{_MADE}{kind}"
        if tree is None or (kind != "unmerged" and tree == await self._tree_of(snapshot, head)):
            return None
        before = await self._git.line(
            "rev-parse", "--verify", "--quiet", git_dir=snapshot.repo, operands=[made]
        )
        # Saving again after an interruption must find the same commit, not make another.
        if before and await self._is(snapshot, before, tree, head):
            return before
        # What was saved before stays part of the history, so that its branch can move on.
        parents = [word for parent in (head, before) if parent for word in ("-p", parent)]
        who = {"NAME": snapshot.record.name, "EMAIL": snapshot.record.email}
        if snapshot.fault is not None:
            message += f"\n\n{snapshot.fault}"
        finished = await self._git.run(
            "commit-tree", tree, *parents, git_dir=snapshot.repo, stdin=message.encode(),
            extra={f"GIT_{role}_{part}": who[part] for role in ("AUTHOR", "COMMITTER") for part in who},
        )  # fmt: skip
        commit = finished.out.decode("ascii").strip()
        await self._git.run("update-ref", git_dir=snapshot.repo, operands=[made, commit])
        return commit

    async def _tree_of(self, snapshot: Snapshot, head: str | None) -> str:
        if head is not None:
            return await self._git.line(
                "rev-parse", "--verify", git_dir=snapshot.repo, operands=[f"{head}^{{tree}}"]
            )
        return (await self._git.run("mktree", git_dir=snapshot.repo)).out.decode("ascii").strip()

    async def _is(self, snapshot: Snapshot, commit: str, tree: str, head: str | None) -> bool:
        """Whether `commit` is `tree` on `head`."""
        found = await self._git.line("log", "-1", "--format=%T %P", git_dir=snapshot.repo, operands=[commit])
        its, *parents = found.split()
        return its == tree and (head is None or parents[:1] == [head])

    async def _lost(self, snapshot: Snapshot) -> list[str]:
        """Of what HEAD was on, newest first, what nothing else here leads to; not what one of them leads to.

        What only the remote's branches lead to is among them: the remote may drop it any time.
        """
        refs = snapshot.refs
        if not refs.past:
            return []
        named = [*refs.heads.values(), *refs.stashes, *refs.tags.values()]
        named += [*refs.others.values(), *refs.pending.values()]
        named += [oid for oid in (refs.detached, snapshot.head) if oid]
        asked = "".join([*(f"{oid}\n" for oid in refs.past), *(f"^{oid}\n" for oid in named)])
        listed = await self._git.run(
            "rev-list", "--parents", "--stdin", git_dir=snapshot.repo, stdin=asked.encode()
        )
        lost: set[str] = set()
        inside: set[str] = set()
        for line in listed.out.decode("ascii").splitlines():
            commit, *parents = line.split(" ")
            lost.add(commit)
            inside.update(parents)
        return [oid for oid in refs.past if oid in lost and oid not in inside]

    async def _remote(self, key: str) -> dict[str, str]:
        """The mirror's refs."""
        mirror = self._mirrors.path(key)
        if not mirror.is_dir():
            return {}
        listed = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", git_dir=mirror,
            operands=["refs/remotes/origin/", "refs/tags/"],
        )  # fmt: skip
        lines = listed.out.decode("utf-8", "surrogateescape").splitlines()
        return {name: oid for oid, _, name in (line.partition(" ") for line in lines)}


def _named(
    part: dict[str, Any], names: Sequence[str], asked: Sequence[tuple[list[str], str]]
) -> dict[str, Any]:
    """The description with (name, object) in the place of numbers."""

    def pair(number: int | None) -> list[str] | None:
        return None if number is None else [names[number], asked[number][1]]

    done = dict(part)
    for field in ("branch", "wip", "index", "unmerged", "detached"):
        if field in done:
            done[field] = pair(done[field])
    for field in ("heads", "tags", "others", "pending"):
        done[field] = {name: pair(number) for name, number in done[field].items()}
    for field in ("stashes", "past"):
        done[field] = [pair(number) for number in done[field]]
    return done


def _encoded(path: bytes) -> str:
    """A path as one part of a ref's name."""
    text = _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", path.decode("latin-1"))
    return text if len(text) <= 180 else f"{text[:150]}-{hashlib.sha256(path).hexdigest()[:16]}"


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _branch(ref: str) -> str:
    return ref.removeprefix("refs/heads/")
