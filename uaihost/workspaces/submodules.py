"""Submodules of a work copy: fetched through mirrors of their own and checked out at the recorded commit.

Each is a repository of its own in the copy's .git/modules, as `git submodule update --init` makes it, so that
git works in it inside the container at once. What cannot or may not be fetched stays empty, and a note says
why; that never keeps the work copy from being one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import attrs
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import HostError
from uaihost.interfaces import Say
from uaihost.workspaces.checkouts import FILE, GITLINK, PROGRAM, Checkouts, Item, together
from uaihost.workspaces.faults import reason
from uaihost.workspaces.git_folder import Contents, configure
from uaihost.workspaces.mirrors import Mirror, Mirrors
from uaihost.workspaces.modules import Module, Refused, checked, parse_modules, source
from uaihost.workspaces.places import Submodule
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.urls import Repository

log = Logger()

# Beyond any honest project: each is a repository that is fetched and copied.
MOST = 50
DEEPEST = 3
# Notes of one work copy; the rest is counted.
_NOTES = 12
# Bytes of .gitmodules.
_LARGEST = 256 << 10


@attrs.define
class _Work:
    """A work copy whose submodules are being made: what was made, and what is to be told. outermost: what the
    work copy itself is of."""

    top: Path
    outermost: Repository
    identity: Contents
    say: Say
    made: list[Submodule] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    left: int = attrs.field(factory=lambda: MOST)


@attrs.frozen
class _Outer:
    """A repository that submodules are in. path, git_dir: relative to the work copy, with slashes; address:
    what relative addresses start at."""

    path: str
    git_dir: str
    address: str | None
    depth: int


class Submodules:
    """Makes submodules."""

    def __init__(
        self, git: Git, mirrors: Mirrors, checkouts: Checkouts, trash: Trash, blocking: Blocking
    ) -> None:
        self._git = git
        self._mirrors = mirrors
        self._checkouts = checkouts
        self._trash = trash
        self._blocking = blocking

    async def fill(
        self, top: Path, repository: Repository, items: Sequence[Item], contents: Contents, say: Say
    ) -> tuple[list[Submodule], list[str]]:
        """Make the submodules of the work copy `top`, whose commit holds `items`; and notes for people."""
        if not any(item.mode == GITLINK for item in items):
            return [], []
        work = _Work(top, repository, contents, say)
        try:
            address: str | None = repository.url
            if repository.kind == "local":
                address = await self._origin(Path(repository.url))
            await self._level(work, _Outer("", ".git", address, 0), items)
        except (GitFailed, HostError, OSError) as error:
            log.warn("submodules of {url}: {error}", url=repository.display, error=str(error))
            work.notes.append(f"Submodules were left empty: {error}")
        if len(work.notes) > _NOTES:
            rest = len(work.notes) - _NOTES
            work.notes[_NOTES:] = [f"{rest} more submodules were left empty"]
        return sorted(work.made, key=lambda made: made.path), work.notes

    async def _origin(self, path: Path) -> str | None:
        """The address that the owner's checkout was itself cloned from."""
        for config in (path / ".git" / "config", path / "config"):
            if await self._blocking.call(config.is_file):
                found = await self._git.run(
                    "config", "--no-includes", "--file", str(config), "--get", "remote.origin.url",
                    fine=(0, 1), reads=[config.parent],
                )  # fmt: skip
                return found.out.decode("utf-8", "replace").strip() or None
        return None

    async def _level(self, work: _Work, outer: _Outer, items: Sequence[Item]) -> None:
        links = [item for item in items if item.mode == GITLINK]
        if not links:
            return
        modules = await self._modules(work.top / outer.git_dir, items)
        wanted = []
        for link in links:
            shown = _shown(outer.path, link.path)
            try:
                if outer.depth >= DEEPEST:
                    raise Refused(f"it is more than {DEEPEST} submodules deep")
                module = checked(link.path, modules)
                repository = source(module.url, outer.address)
                if repository.kind == "ssh":
                    # On the server that the outermost one came from, by ssh too: the same credentials.
                    reach = work.outermost.reach
                    repository = attrs.evolve(repository, asker=work.outermost.asker, reach=reach)
                if not work.left:
                    raise Refused(f"a work copy gets at most {MOST} of them")
                work.left -= 1
                wanted.append(self._one(work, outer, module, repository, link.oid))
            except Refused as refused:
                work.notes.append(f"Submodule {shown} was left empty: {refused}")
        await together(wanted)

    async def _modules(self, git_dir: Path, items: Sequence[Item]) -> dict[str, Module]:
        """What .gitmodules of the commit says; nothing when it is a link or cannot be read."""
        for item in items:
            if item.path == b".gitmodules" and item.mode in (FILE, PROGRAM):
                (text,) = await self._checkouts.blobs(git_dir, [item.oid], _LARGEST)
                if text:
                    found = await self._git.run(
                        "config", "--no-includes", "--list", "-z", "--blob", item.oid,
                        git_dir=git_dir, fine=(0, 1, 128),
                    )  # fmt: skip
                    return parse_modules(found.out) if found.status == 0 else {}
        return {}

    async def _one(
        self, work: _Work, outer: _Outer, module: Module, repository: Repository, commit: str
    ) -> None:
        path = f"{outer.path}/{module.path}".lstrip("/")
        git_dir = f"{outer.git_dir}/modules/{module.name}"
        try:
            await self._blocking.call(self._open_place, work.top, path, git_dir)
            async with self._mirrors.fetched(repository, work.say, want=commit) as mirror:
                contents = _contents(work, mirror, repository, path, git_dir, commit)
                items = await self._checkouts.make(
                    work.top / path, work.top / git_dir, contents, mirror.path, work.say
                )
            await self._blocking.call(self._join, work.top, outer, module, repository, path, git_dir)
        except (GitFailed, HostError, OSError) as error:
            await self._blocking.call(self._empty, work.top / path, work.top / git_dir)
            why = reason(error) if isinstance(error, GitFailed) else str(error)
            log.warn("submodule {path} was left empty: {why}", path=path, why=why)
            work.notes.append(f"Submodule {_shown('', path.encode())} was left empty: {why}")
            return
        work.made.append(Submodule(path, git_dir, repository.key, repository.display, commit))
        await self._level(work, _Outer(path, git_dir, repository.url, outer.depth + 1), items)

    def _open_place(self, top: Path, path: str, git_dir: str) -> None:
        """The folders of a submodule. Nobody but git has written here: what is no folder is no place."""
        place = top
        for part in path.split("/"):
            place = place / part
            if not stat.S_ISDIR(place.lstat().st_mode):
                raise NotADirectoryError(f"{path} is not a folder in this commit")
        place = top
        for part in git_dir.split("/")[:-1]:
            place = place / part
            try:
                place.mkdir()
            except FileExistsError:
                # Theirs of another submodule that is made beside this one, or of git itself.
                continue
            self._checkouts.owner.give(place)

    def _join(
        self, top: Path, outer: _Outer, module: Module, repository: Repository, path: str, git_dir: str
    ) -> None:
        """Make the submodule known on both sides."""
        link = top / path / ".git"
        link.write_text(f"gitdir: {os.path.relpath(top / git_dir, top / path)}\n", encoding="utf-8")
        self._checkouts.owner.give(link)
        section = f"submodule.{module.name}"
        configure(top / outer.git_dir, {f"{section}.active": "true", f"{section}.url": repository.url})

    def _empty(self, place: Path, git_dir: Path) -> None:
        self._trash.remove(git_dir)
        if place.is_dir() and not place.is_symlink():
            self._trash.remove(place)
            place.mkdir()
            self._checkouts.owner.give(place)


def _contents(
    work: _Work, mirror: Mirror, repository: Repository, path: str, git_dir: str, commit: str
) -> Contents:
    outer = work.identity.settings
    return Contents(
        mirror.refs,
        None,
        commit,
        mirror.default_branch,
        {
            "core.worktree": os.path.relpath(work.top / path, work.top / git_dir),
            "remote.origin.url": repository.url,
            "remote.origin.fetch": outer["remote.origin.fetch"],
            "user.name": outer["user.name"],
            "user.email": outer["user.email"],
        },
        repository.display,
        work.identity.who,
    )


def _shown(outer: str, path: bytes) -> str:
    """A path for people, on one line."""
    text = f"{outer}/{path.decode('utf-8', 'replace')}".lstrip("/")
    return repr(text[:100])
