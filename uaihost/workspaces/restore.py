"""Making a folder for a person from saved work: a clone that is as the work copy was.

What was checked out is checked out, what was staged is staged, stashes are stashes. Hooks, settings and an
interrupted rebase are not put back in force: they are an agent's, and stay in the tar file.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces import archive
from uaihost.workspaces.leftovers import safe_to_unpack, shown_name
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import descended, folder

# Where commits without a branch are named in the clone.
RESTORED = "refs/restored/"
# Seconds: a large history.
_COPY = 3600.0
# Of what was under way these say it all by themselves.
_STATES = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "ORIG_HEAD")


@attrs.frozen
class Kept:
    """Saved work of one work copy, as workspaces.saving described it.

    at: seconds since the epoch; name: of its files; repository: the vault; extra: the tar file; size: its
    bytes. With an empty slug there are no parts, and the tar file is of what lay beside the work copies.
    """

    task: str
    name: str
    slug: str
    project: str
    branch: str
    commit: str
    wip: str | None
    repository: str
    note: str | None
    extra: str | None
    size: int
    at: float
    parts: tuple[dict[str, Any], ...] = attrs.field(repr=False)

    def json(self) -> dict[str, Any]:
        """For programs: all but the parts."""
        return {name: value for name, value in attrs.asdict(self).items() if name != "parts"}


def kept(saved: Path, task_id: str | None = None) -> list[Kept]:
    """What lies in the folder `saved`, the newest first. Blocking."""
    found = []
    for file in saved.glob("*/*.json"):
        if task_id is not None and file.parent.name != task_id:
            continue
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
            found.append(_read(there, file))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda one: (-one.at, one.task, one.name))


def _read(there: dict[str, Any], file: Path) -> Kept:
    # Where the data folder lies now, not where it lay then: it may come from a backup.
    vault = file.parent.parent / Path(there.get("repository", "")).name
    extra = file.with_suffix(".tar") if there.get("extra") else None
    return Kept(
        there["task"], there["name"], there["slug"], there.get("project", ""), there.get("branch", ""),
        there.get("commit", ""), there.get("wip"), str(vault) if there.get("repository") else "",
        there.get("note"), str(extra) if extra else None, extra.stat().st_size if extra else 0,
        file.stat().st_mtime, tuple(there.get("parts", ())),
    )  # fmt: skip


class Restoring:
    """Makes clones of saved work."""

    def __init__(self, git: Git, blocking: Blocking) -> None:
        self._git = git
        self._blocking = blocking

    async def restore(self, saved: Kept, target: Path, owner: tuple[int, int] | None = None) -> list[str]:
        """Make `target`, which must not exist; lines for people on what is where.

        owner: uid and gid of the person, when this runs as root for somebody else.

        Raises:
            HostError: `conflict`, there is something; `unavailable`, it cannot be read or written. Nothing
                half-made stays.
        """
        if os.path.lexists(target):
            raise HostError(ErrorCode.CONFLICT, f"{target} exists; name a folder that does not with --to")
        half = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
        notes = []
        try:
            await self._blocking.call(half.mkdir, 0o755, parents=True)
            for part in saved.parts:
                notes += await self._part(saved, part, half)
            notes += await self._blocking.call(_unpack, saved, half)
            await self._blocking.call(_finish, half, target, owner)
        except GitFailed as failed:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the work of {saved.task} cannot be read from {saved.repository}: {failed.last_line}",
            ) from None
        except OSError as error:
            raise HostError(
                ErrorCode.UNAVAILABLE, f"{target} cannot be made: {error.strerror or error}"
            ) from None
        finally:
            await self._blocking.call(shutil.rmtree, half, ignore_errors=True)
        return [*notes, *([f"When it was saved: {saved.note}"] if saved.note else [])]

    async def _part(self, saved: Kept, part: dict[str, Any], top: Path) -> list[str]:
        """One repository with its files."""
        place = top
        if part["gitDir"] != ".git" and part["path"] is None:
            place = top / ".git" / "restored" / part["gitDir"].removeprefix(".git/").replace("/", "-")
            await self._blocking.call(place.mkdir, parents=True, exist_ok=True)
        elif part["path"] is not None:
            path = os.fsencode(part["path"])
            if not await self._blocking.call(_make_folder, top, path):
                return [f"{shown_name(path)}: something else stands there; see {saved.repository}"]
            place = top / part["path"]
        git_dir = place / ".git"
        form = await self._git.line("rev-parse", "--show-object-format", git_dir=Path(saved.repository))
        await self._git.run(
            "init", "--quiet", "--template=", f"--object-format={form}", "--", operands=[str(place)]
        )
        await self._fetch(saved, part, git_dir)
        await self._check_out(part, place, git_dir)
        notes = await self._stashes(part, git_dir)
        notes += await self._blocking.call(_states, part, git_dir)
        if place == top and saved.project:
            for name, value in (
                ("remote.origin.url", saved.project),
                ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
            ):
                await self._git.run("config", name, value, git_dir=git_dir)
        where = "" if place == top else f"{place.relative_to(top)}: "
        return [where + note for note in [*_told(part), *notes]]

    async def _fetch(self, saved: Kept, part: dict[str, Any], git_dir: Path) -> None:
        wanted = {f"refs/heads/{name}": pair[1] for name, pair in part["heads"].items()}
        wanted |= {f"refs/tags/{name}": pair[1] for name, pair in part["tags"].items()}
        wanted |= {f"{RESTORED}pending/{name}": pair[1] for name, pair in part["pending"].items()}
        wanted |= {f"{RESTORED}others/{name}": pair[1] for name, pair in part.get("others", {}).items()}
        for kind in ("wip", "index", "unmerged", "detached"):
            if part[kind] is not None:
                wanted[f"{RESTORED}{kind}"] = part[kind][1]
        for kind, pairs in (("stash", part["stashes"]), ("past", part["past"])):
            wanted |= {f"{RESTORED}{kind}/{number}": pair[1] for number, pair in enumerate(pairs, 1)}
        if part["head"]["commit"] is not None:
            wanted[f"{RESTORED}head"] = part["head"]["commit"]
        if not wanted:
            return
        specs = "".join(f"+{oid}:{name}\n" for name, oid in _side_by_side(wanted))
        await self._git.run(
            "fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet",
            "--update-head-ok", "--stdin", "--", git_dir=git_dir, operands=[saved.repository],
            protocols=["file"], stdin=specs.encode("utf-8", "surrogateescape"), timeout=_COPY,
        )  # fmt: skip

    async def _check_out(self, part: dict[str, Any], place: Path, git_dir: Path) -> None:
        head, index = part["head"], git_dir / "index"
        if head["branch"] is not None:
            name = f"refs/heads/{head['branch']}"
            await self._git.run("symbolic-ref", git_dir=git_dir, operands=["HEAD", name])
        elif head["commit"] is not None:
            await self._git.run(
                "update-ref", "--no-deref", git_dir=git_dir, operands=["HEAD", head["commit"]]
            )
        await self._files(part, place, git_dir)
        staged = part["index"][1] if part["index"] is not None else head["commit"]
        if staged is None or not await self._read_tree(staged, git_dir=git_dir, index=index):
            index.unlink(missing_ok=True)
        if part["unmerged"] is not None:
            await self._conflicts(part["unmerged"][1], git_dir, index)
        await self._git.run(
            "update-index", "-q", "--refresh", "--unmerged", "--ignore-submodules",
            git_dir=git_dir, work_tree=place, index=index, fine=(0, 1),
        )  # fmt: skip
        gone = [f"delete {RESTORED}{kind}\n" for kind in ("wip", "index", "unmerged", "head")]
        await self._git.run("update-ref", "--stdin", git_dir=git_dir, stdin="".join(gone).encode())

    async def _files(self, part: dict[str, Any], place: Path, git_dir: Path) -> None:
        """What was committed as git checks it out, since that is how it came; the rest as it lay there."""
        index, attributes = git_dir / "index", git_dir / "info" / "attributes"
        if (commit := part["head"]["commit"]) is not None:
            # A commit may hold names that no folder can have; what there is of it is then in `wip`.
            await self._read_tree("-u", commit, git_dir=git_dir, index=index, work_tree=place)
        if part["wip"] is not None:
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text("* -text !eol !working-tree-encoding !ident !filter\n", encoding="ascii")
            whole = await self._read_tree(
                "-u", part["wip"][1], git_dir=git_dir, index=index, work_tree=place
            )  # fmt: skip
            attributes.unlink()
            if not whole:
                raise OSError(errno.EINVAL, "the uncommitted files cannot be written")

    async def _read_tree(
        self, *words: str, git_dir: Path, index: Path, work_tree: Path | None = None
    ) -> bool:
        """Whether git can hold that tree."""
        *options, tree = words
        try:
            await self._git.run(
                "read-tree", "--reset", *options, git_dir=git_dir, index=index, work_tree=work_tree,
                operands=[tree], timeout=_COPY,
            )  # fmt: skip
        except GitFailed as failed:
            if failed.corrupt:
                raise
            return False
        return True

    async def _conflicts(self, commit: str, git_dir: Path, index: Path) -> None:
        listed = await self._git.run("ls-tree", "-r", "-z", "--full-tree", git_dir=git_dir, operands=[commit])
        lines: list[bytes] = []
        for line in listed.out.split(b"\0"):
            if line:
                meta, _, name = line.partition(b"\t")
                mode, _, oid = meta.split(b" ")
                side, _, path = name.partition(b"/")
                lines.insert(0, b"0 " + b"0" * len(oid) + b"\t" + path)
                lines.append(mode + b" " + oid + b" " + side + b"\t" + path)
        await self._git.run(
            "update-index", "-z", "--index-info", git_dir=git_dir, index=index,
            stdin=b"".join(line + b"\0" for line in lines),
        )  # fmt: skip

    async def _stashes(self, part: dict[str, Any], git_dir: Path) -> list[str]:
        """Put them in their order, the oldest first."""
        notes = []
        who = {f"GIT_COMMITTER_{name}": value for name, value in (("NAME", "uaihost"), ("EMAIL", "-"))}
        for number, (_, oid) in reversed(list(enumerate(part["stashes"], 1))):
            message = await self._git.line("log", "-1", "--format=%s", git_dir=git_dir, operands=[oid])
            name = f"{RESTORED}stash/{number}"
            try:
                await self._git.run(
                    "stash", "store", "-q", "-m", message or "restored", git_dir=git_dir, operands=[oid],
                    extra=who,
                )  # fmt: skip
            except GitFailed:
                notes.append(f"a stash that is none by its form is {name}")
                continue
            await self._git.run("update-ref", "-d", git_dir=git_dir, operands=[name])
        return notes


def _told(part: dict[str, Any]) -> list[str]:
    head = part["head"]
    notes = []
    if head["branch"] is None and head["commit"] is not None:
        notes.append(f"HEAD is detached, as it was, at {head['commit'][:12]}")
    others = sorted(name for name in part["heads"] if name != head["branch"])
    if others:
        notes.append(f"other branches: {', '.join(others[:20])}" + (" ..." if len(others) > 20 else ""))
    if part["stashes"]:
        notes.append(f"{len(part['stashes'])} in `git stash list`")
    if part.get("others"):
        notes.append(f"names of other kinds, like notes: {RESTORED}others/")
    if part["past"]:
        count = len(part["past"])
        notes.append(f"commits that only the log of HEAD led to: {RESTORED}past/1 (the newest) to {count}")
    pending = sorted(name for name in part["pending"] if name != "ORIG_HEAD")
    if pending:
        notes.append(f"something was under way ({', '.join(pending)}): {RESTORED}pending/")
    return notes


def _states(part: dict[str, Any], git_dir: Path) -> list[str]:
    """What a merge is made of, so that it can be ended."""
    for name in _STATES:
        oids = [pair[1] for key, pair in part["pending"].items() if key == name or key.startswith(f"{name}-")]
        if oids:
            (git_dir / name).write_text("".join(f"{oid}\n" for oid in oids), encoding="ascii")
    return []


def _side_by_side(refs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The same, with another name for what would need a folder where a name is: an agent can write both."""
    taken: set[str] = set()
    for number, name in enumerate(sorted(refs, key=lambda name: name.count("/"))):
        parts = name.split("/")
        clashes = any("/".join(parts[:end]) in taken for end in range(1, len(parts)))
        taken.add(name)
        yield (f"{RESTORED}clash/{number}" if clashes else name), refs[name]


def _make_folder(top: Path, path: bytes) -> bool:
    """Make a folder below `top`, through no link; whether it is there."""
    if not safe_to_unpack(path):
        return False
    try:
        with folder(top) as opened, descended(opened, path.split(b"/"), make=True):
            return True
    except OSError:
        return False


def _unpack(saved: Kept, half: Path) -> list[str]:
    if saved.extra is None:
        return []
    if not Path(saved.extra).is_file():
        return [f"{saved.extra} is missing: files that git does not keep are not there"]
    if not saved.parts:
        left = archive.unpack(Path(saved.extra), half, b"")
    else:
        left = archive.unpack(Path(saved.extra), half)
    notes = [f"not unpacked from {saved.extra}: {', '.join(left[:10])}"] if left else []
    if saved.parts and any(name.startswith(archive.GIT) for name in archive.names(Path(saved.extra))):
        notes.append(f"hooks, settings and what was under way in its repositories: git/ in {saved.extra}")
    return notes


def _finish(half: Path, target: Path, owner: tuple[int, int] | None) -> None:
    if owner is not None:
        for directory, folders, files in os.walk(half):
            for name in (*folders, *files):
                os.lchown(Path(directory, name), *owner)
        os.lchown(half, *owner)
    with suppress(FileNotFoundError):
        (half / ".git" / "index.lock").unlink()
    if os.path.lexists(target):
        raise FileExistsError(f"{target} was made meanwhile")
    half.rename(target)
