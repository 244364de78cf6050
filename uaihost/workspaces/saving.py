"""Keeping what a task made, in the vault, so that its work copies can go. Nothing kept is ever overwritten.

The names of the vault (workspaces.vault), and below refs/uai/<task>/<slug>/ whatever else a work copy holds:
heads/<branch>, other branches; detached, the commit of a detached HEAD; stash, stash-2 ..., the newest first;
index and unmerged, what was staged; tags/<tag>; past/<number>, commits that only HEAD's log leads to;
pending/<file>, what an interrupted merge or rebase remembers; sub/<path>/, the same for each repository
inside the work copy, with its wip.

What git cannot hold lies beside: saved/<task>/<slug>.tar, and saved/<task>/<slug>.json, which says all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces import archive
from uaihost.workspaces.leftovers import Inner, Survey, choose, shown_name, survey
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.repository_files import damaged, remembered
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.snapshot import Snapshot, Snapshots
from uaihost.workspaces.vault import Vault, remote_tags

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
        self._saved = saved

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
            snapshots = [await self._snapshots.take_all(places, record)]
            inner = []
            for one in found.inner:
                # What is inside is a stranger to the record, and may name its objects in another way.
                own = places.inner(_text(one.path or one.git_dir + b"/none"), _text(one.git_dir))
                snapshots.append(await self._snapshots.take_all(own, _inner_record(record, one)))
                inner.append(one)
            try:
                await self._vault.adopt(record.key)
                async with self._vault.lock(record.key):
                    return await self._keep(task_id, places, found, snapshots, inner)
            except GitFailed as failed:
                error = failed.last_line
            except OSError as failed:
                error = failed.strerror or str(failed)
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the work in {places.copy.name!r} cannot be saved: {error}; nothing was deleted, it is in "
                f"{places.copy}",
            )

    async def _keep(
        self,
        task_id: str,
        places: Places,
        found: Survey,
        snapshots: Sequence[Snapshot],
        inner: Sequence[Inner],
    ) -> Saved:
        outer = snapshots[0]
        record, slug = outer.record, places.copy.name
        wanted = _Wanted()
        known = await self._remote(record.key)
        parts = []
        for snapshot, one in zip(snapshots, [None, *inner], strict=True):
            below = "" if one is None else f"sub/{_encoded(one.path or one.git_dir)}/"
            parts.append(
                await self._part(task_id, f"refs/uai/{task_id}/{slug}/{below}", snapshot, one, wanted, known)
            )
        names = await self._vault.keep(
            record.key,
            "sha256" if len(record.base) == 64 else "sha1",
            [(snapshot.repo, snapshot.record.key) for snapshot in snapshots],
            wanted.asked,
        )
        parts = [_named(part, names, wanted.asked) for part in parts]
        name = await self._blocking.call(self._name, task_id, slug, places)
        extra, notes = await self._beside(task_id, name, places, found, snapshots, inner)
        notes = [snapshot.fault for snapshot in snapshots if snapshot.fault] + notes
        notes += [f"commits that only its log leads to: {one.missed}" for one in snapshots if one.missed]
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
        await self._blocking.call(self._describe, task_id, saved, record, places)
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
        tags = remote_tags(known)
        part["tags"] = {
            name: wanted.add([f"{below}tags/{name}"], oid)
            for name, oid in refs.tags.items()
            if tags.get(name) != oid
        }
        lost = await self._lost(snapshot, known)
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

    async def _lost(self, snapshot: Snapshot, known: dict[str, str]) -> list[str]:
        """Of what HEAD was on, newest first, what nothing else leads to; not what one of them leads to."""
        refs = snapshot.refs
        if not refs.past:
            return []
        named = [*refs.heads.values(), *refs.stashes, *refs.tags.values(), *refs.pending.values()]
        named += [oid for oid in (refs.detached, snapshot.head) if oid]
        there = await self._git.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", git_dir=snapshot.repo,
            stdin="".join(f"{oid}\n" for oid in dict.fromkeys(known.values())).encode(),
        )  # fmt: skip
        for line in there.out.decode("ascii", "replace").splitlines():
            oid, _, kind = line.partition(" ")
            if kind in ("commit", "tag"):
                named.append(oid)
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

    # ---- beside --------------------------------------------------------------------------------------------

    async def _beside(
        self,
        task_id: str,
        name: str,
        places: Places,
        found: Survey,
        snapshots: Sequence[Snapshot],
        inner: Sequence[Inner],
    ) -> tuple[Path | None, list[str]]:
        """Write the tar file of what git does not keep; its path if there is anything, and notes."""
        kept: set[bytes] = set()
        raw: list[bytes] = []
        git_dirs = [b".git", *(one.git_dir for one in inner)]
        for snapshot, one, git_dir in zip(snapshots, [None, *inner], git_dirs, strict=True):
            if snapshot.fault is not None:
                raw.append(git_dir)
            if one is None or one.path is not None:
                above = b"" if one is None or one.path is None else one.path + b"/"
                listed = await self._git.run(
                    "ls-tree", "-r", "-z", "--name-only", "--full-tree", git_dir=snapshot.repo,
                    operands=[snapshot.tree], limit=256 << 20,
                )  # fmt: skip
                converted = set(snapshot.converted)
                names = (text for text in listed.out.split(b"\0") if text)
                kept.update(above + text for text in names if text not in converted)
        chosen = await self._blocking.call(choose, found, kept)
        files = await self._blocking.call(remembered, places.copy, git_dirs, bool(chosen.files))
        files += await self._blocking.call(damaged, places.copy, raw)
        items = [archive.Item(archive.WORK + name, name) for name in chosen.files]
        items += [archive.Item(archive.WORK + name + b"/", name + b"/") for name in chosen.folders]
        items += [archive.Item(archive.GIT + name, name) for name in files]
        notes = [f"left out: {', '.join(chosen.left)}"] if chosen.left else []
        if not items:
            return None, notes
        target = self._saved / task_id / f"{name}.tar"
        unread = await self._blocking.call(archive.write, target, places.copy, sorted(items, key=_by_name))
        if unread:
            shown = ", ".join(shown_name(path) for path in unread[:5])
            notes.append(f"{len(unread)} files could not be read: {shown}")
        return target, notes

    def _name(self, task_id: str, slug: str, places: Places) -> str:
        """Of its files in saved/<task>: those of another work copy that had the slug are not touched."""
        made = places.record.stat().st_mtime_ns
        for number in range(1, 1 << 20):
            name = slug if number == 1 else f"{slug}-{number}"
            try:
                there = json.loads((self._saved / task_id / f"{name}.json").read_text(encoding="utf-8"))
            except FileNotFoundError:
                return name
            except ValueError:
                continue
            if there.get("made") == made:
                return name
        raise AssertionError("a slug was used too often")

    def _describe(self, task_id: str, saved: Saved, record: Record, places: Places) -> None:
        description = {
            "version": 1,
            "task": task_id,
            "key": record.key,
            "made": places.record.stat().st_mtime_ns,
            "identity": {"name": record.name, "email": record.email},
            **attrs.asdict(saved),
        }
        write_json(self._saved / task_id / f"{saved.name}.json", description)


def write_json(target: Path, value: Any) -> None:
    """Put JSON into a file, whole and on the disk or not at all."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.new")
    with beside.open("w", encoding="ascii") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(target)
    archive.flush(target.parent)
    archive.flush(target.parent.parent)


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
    for field in ("heads", "tags", "pending"):
        done[field] = {name: pair(number) for name, number in done[field].items()}
    for field in ("stashes", "past"):
        done[field] = [pair(number) for number in done[field]]
    return done


def _inner_record(record: Record, inner: Inner) -> Record:
    """What is known of a repository inside: of a submodule, the mirror it came from."""
    for one in record.submodules:
        if inner.git_dir == os.fsencode(one.git_dir):
            return attrs.evolve(record, key=one.key, display=one.display, branch="", head="")
    return attrs.evolve(record, key="", branch="", head="")


def _encoded(path: bytes) -> str:
    """A path as one part of a ref's name."""
    text = _UNSAFE.sub(lambda found: f"%{ord(found.group()):02X}", path.decode("latin-1"))
    return text if len(text) <= 180 else f"{text[:150]}-{hashlib.sha256(path).hexdigest()[:16]}"


def _by_name(item: archive.Item) -> bytes:
    return item.name


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _branch(ref: str) -> str:
    return ref.removeprefix("refs/heads/")
