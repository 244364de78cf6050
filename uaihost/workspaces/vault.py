"""The vault: a bare repository of saved work for every repository that tasks use. Nothing in it is deleted.

refs/heads/<branch>                     the task's branch, moved only forward
refs/heads/uai/<task>/<branch>          the same, when it cannot be moved forward
refs/heads/uai/<task>/wip               what was not committed, on top of the commit it was made on
refs/uai/<task>/<slug>/...              whatever else the work copy held (workspaces.saving)

A name that is taken by other work gets a number: `wip-2`. The vault borrows from nothing: its object files
are further hard links to the mirror's and the snapshots', which are never written again, so that mirrors may
be removed or made anew. Whoever changes a vault holds its lock.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import flush
from uaihost.workspaces.locks import Locks
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.offers import ORIGIN
from uaihost.workspaces.safe_git import Git, GitFailed

_OBJECT = re.compile(r"[0-9a-f]{38,62}\Z|pack-[0-9a-f]{40,64}\.(?:pack|idx|rev)\Z")
_FAN_OUT = re.compile(r"[0-9a-f]{2}\Z")
# What the earlier layout kept in mirrors.
_EARLIER = ("refs/heads/", "refs/uai/")
# How many names are tried before giving up.
_NAMES = 1000
# Loose objects of a snapshot from which they are put into one file first: each costs a flush to the disk.
_MANY_LOOSE = 64
# Seconds for looking whether everything is there: a large history on a slow disk.
_LOOK = 1800.0


class Vault:
    """All vaults, in the folder `folder`."""

    def __init__(self, git: Git, folder: Path, mirrors: Mirrors, blocking: Blocking) -> None:
        self._git = git
        self._folder = folder
        self._mirrors = mirrors
        self._blocking = blocking
        self._locks = Locks(git.reactor, folder / ".locks")
        self._adopted: set[str] = set()

    def path(self, key: str) -> Path:
        """The repository with the saved work of `key`."""
        return self._folder / f"{key}.git"

    def lock(self, key: str) -> AbstractAsyncContextManager[None]:
        """Held by whoever changes it, in this process or another."""
        return self._locks.exclusive(f"{key}.change")

    async def commit(self, key: str, branch: str) -> str | None:
        """The commit of the saved branch of the repository `key`; None when nothing is saved.

        Raises:
            HostError: saved work of an earlier layout cannot be brought here.
        """
        await self.adopt(key)
        if not self.path(key).is_dir():
            return None
        return await self._mirrors.commit(self.path(key), f"refs/heads/{branch}")

    async def refs(self, key: str) -> dict[str, str]:
        """Every name with what it is on."""
        return await self._refs(self.path(key), ["refs/"]) if self.path(key).is_dir() else {}

    async def adopt(self, key: str) -> None:
        """Bring the work here that an earlier layout kept in the mirror; once.

        Raises:
            HostError: it cannot all be kept; it stays where it is.
        """
        mirror = self._mirrors.path(key)
        if key in self._adopted:
            return
        if mirror.is_dir() and (await self._refs(mirror, _EARLIER)):
            async with self._mirrors.lock(key), self.lock(key):
                earlier = await self._refs(mirror, _EARLIER)
                wanted = [([name], oid) for name, oid in earlier.items()]
                await self.keep(key, await self._form(mirror), [], wanted)
                gone = "".join(f"delete {name} {oid}\n" for name, oid in earlier.items())
                await self._git.run("update-ref", "--stdin", git_dir=mirror, stdin=gone.encode())
        self._adopted.add(key)

    async def keep(
        self,
        key: str,
        form: str,
        sources: Sequence[tuple[Path, str]],
        wanted: Sequence[tuple[list[str], str]],
    ) -> list[str]:
        """Keep commits under names; when this returns they are whole and on the disk. The lock is held.

        form: how the repository names its objects. sources: repositories whose objects are taken, each with
        the key of the mirror it borrows from, or with an empty text. wanted: names, in the order of
        preference, and an object; the name that each got is returned. Repeating it changes nothing.

        Raises:
            HostError: they are not whole, or there is no name left.
            GitFailed: git cannot write.
        """
        path = await self._open(key, form)
        try:
            await self._bring(path, key, sources)
            await self._look(path, key, [oid for _, oid in wanted])
            return await self._place(path, wanted)
        except OSError as error:
            why = f"it cannot be written to {path}: {error.strerror}"
            raise HostError(ErrorCode.UNAVAILABLE, f"the work cannot be kept: {why}") from None

    # ---- within --------------------------------------------------------------------------------------------

    async def _open(self, key: str, form: str) -> Path:
        path = self.path(key)
        if not path.is_dir():
            half = path.with_suffix(".new")
            await self._blocking.call(shutil.rmtree, half, ignore_errors=True)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._git.run(
                "init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--",
                operands=[str(half)],
            )  # fmt: skip
            for name, value in (("gc.auto", "0"), ("gc.pruneExpire", "never")):
                await self._git.run("config", name, value, git_dir=half)
            half.rename(path)
        await self._blocking.call(_clear_locks, path)
        return path

    async def _form(self, path: Path) -> str:
        return await self._git.line("rev-parse", "--show-object-format", git_dir=path)

    async def _bring(self, path: Path, key: str, sources: Sequence[tuple[Path, str]]) -> None:
        lenders = dict.fromkeys([key, *(lender for _, lender in sources if lender)])
        for lender in lenders:
            mirror = self._mirrors.path(lender)
            if mirror.is_dir():
                async with self._mirrors.use(lender):
                    await self._blocking.call(_link_objects, mirror, path)
        for source, _ in sources:
            if await self._blocking.call(_loose, source) > _MANY_LOOSE:
                await self._git.run("repack", "-d", "-l", "-q", git_dir=source, timeout=_LOOK)
            await self._blocking.call(_link_objects, source, path)

    async def _look(self, path: Path, key: str, oids: Sequence[str]) -> None:
        """Whether everything that leads from `oids` is here: what the remote has by its commits, every file
        and folder of `oids` themselves one by one."""
        mirror = self._mirrors.path(key)
        known = await self._refs(mirror, [ORIGIN]) if mirror.is_dir() else {}
        asked = "".join(f"{oid}\n" for oid in dict.fromkeys(oids))
        # Of a commit that the vault should have and has not, git would only say nothing.
        boundary = await self._here(path, list(dict.fromkeys(known.values())))
        text = asked + "".join(f"^{oid}\n" for oid in boundary)
        try:
            for words, names in ((("--objects",), text), (("--objects", "--no-walk"), asked)):
                await self._git.run(
                    "rev-list", *words, "--missing=error", "--quiet", "--stdin",
                    git_dir=path, stdin=names.encode("ascii"), timeout=_LOOK,
                )  # fmt: skip
        except GitFailed as failed:
            raise HostError(
                ErrorCode.CONFLICT,
                f"the work cannot be kept whole: {failed.last_line}; check the disk, and let `git fsck` in "
                f"{mirror} say whether the cache is damaged",
            ) from failed

    async def _here(self, path: Path, oids: Sequence[str]) -> list[str]:
        checked = await self._git.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", git_dir=path,
            stdin="".join(f"{oid}\n" for oid in oids).encode("ascii"),
        )  # fmt: skip
        lines = (line.split(" ", 1) for line in checked.out.decode("ascii", "replace").splitlines())
        return [oid for oid, kind in lines if kind in ("commit", "tag")]

    async def _refs(self, path: Path, below: Sequence[str]) -> dict[str, str]:
        listed = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", git_dir=path, operands=list(below)
        )
        lines = (line.split(" ", 1) for line in listed.out.decode("utf-8", "surrogateescape").splitlines())
        return {name: oid for oid, name in lines if name != f"{ORIGIN}HEAD"}

    async def _place(self, path: Path, wanted: Sequence[tuple[list[str], str]]) -> list[str]:
        taken = await self._refs(path, ["refs/"])
        before = dict(taken)
        places = [await self._name(path, names, oid, taken) for names, oid in wanted]
        lines = [
            f"update {name} {taken[name]} {before.get(name, '0' * len(taken[name]))}\n"
            for name in dict.fromkeys(places)
            if before.get(name) != taken[name]
        ]
        await self._git.run("update-ref", "--stdin", git_dir=path, stdin="".join(lines).encode())
        await self._blocking.call(_flush_refs, path, places)
        return places

    async def _name(self, path: Path, names: list[str], oid: str, taken: dict[str, str]) -> str:
        """The first of `names` that may be there, else the last one with a number; it is taken then."""
        for name in [*names, *(f"{names[-1]}-{number}" for number in range(2, _NAMES))]:
            there = taken.get(name)
            if there == oid:
                return name
            if there is None and not _free(name, taken):
                continue
            if there is None or await self._leads(path, there, oid):
                taken[name] = oid
                return name
        raise HostError(
            ErrorCode.CONFLICT, f"no free name for {names[-1]!r} in {path}; delete some of its saved branches"
        )

    async def _leads(self, path: Path, older: str, newer: str) -> bool:
        try:
            return await self._mirrors.is_ancestor(path, older, newer)
        except GitFailed:
            return False  # One of them is a tag or a tree.


def _free(name: str, taken: Mapping[str, str]) -> bool:
    """Whether no ref stands where `name` needs a folder, or the reverse."""
    parts = name.split("/")
    if any("/".join(parts[:end]) in taken for end in range(1, len(parts))):
        return False
    return not any(other.startswith(f"{name}/") for other in taken)


def _loose(repository: Path) -> int:
    found = (entry for entry in (repository / "objects").iterdir() if _FAN_OUT.match(entry.name))
    return sum(len(os.listdir(entry)) for entry in found)  # noqa: PTH208 (only their number)


def _link_objects(source: Path, target: Path) -> None:
    """A second name in `target` for every object file of `source`, on the disk when this returns."""
    for folder in (source / "objects").iterdir():
        if folder.name != "pack" and not _FAN_OUT.match(folder.name):
            continue
        place = target / "objects" / folder.name
        place.mkdir(exist_ok=True)
        # The index last: a pack is looked for only where there is one.
        files = sorted(folder.iterdir(), key=lambda found: (found.suffix == ".idx", found.name))
        new = [file for file in files if _OBJECT.match(file.name) and not (place / file.name).exists()]
        for file in new:
            _link(file, place / file.name)
        if new:
            flush(place)
    flush(target / "objects")


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:
        # Another file system, or one without links.
        half = target.with_name(f"tmp_{target.name}")
        half.unlink(missing_ok=True)
        shutil.copyfile(file, half)
        half.rename(target)
    flush(target)


def _flush_refs(path: Path, names: Iterable[str]) -> None:
    for parent in {(path / name).parent for name in names}:
        with suppress(FileNotFoundError):
            flush(parent)
    flush(path)
    flush(path.parent)


def _clear_locks(path: Path) -> None:
    """Of a git that was killed: the lock that is held says that none runs."""
    for file in [*path.glob("*.lock"), *(path / "refs").rglob("*.lock")]:
        file.unlink(missing_ok=True)
