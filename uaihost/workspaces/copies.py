"""Making a task's work copy: a clone of its own, which shares nothing with the mirror or with other tasks.

No worktrees, no hard links, no alternates: each of those would let an agent reach what is not its own.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import attrs

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.branches import checked
from uaihost.workspaces.mirrors import Mirror, Mirrors
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.urls import Repository


@attrs.frozen
class Identity:
    """Whose name the commits of a task carry."""

    name: str
    email: str


@attrs.frozen
class WorkCopy:
    """A project's work copy. path: of the folder on the host, for the container; base: the commit that the
    default branch was on when it was made; head: the one that the task's branch was on then."""

    path: str
    base: str
    head: str


# Commits that are made for a task whose owner gave no name.
NOBODY = Identity("uaihost", "uaihost@localhost")

_OBJECT = re.compile(r"[0-9a-f]{38,62}\Z|pack-[0-9a-f]{40,64}\.(?:pack|idx|rev)\Z")


class Copies:
    """Makes work copies, for the container's user `uid`, `gid`."""

    def __init__(
        self, git: Git, mirrors: Mirrors, trash: Trash, blocking: Blocking, uid: int, gid: int
    ) -> None:
        self._git = git
        self._mirrors = mirrors
        self._trash = trash
        self._blocking = blocking
        self._uid = uid
        self._gid = gid

    async def prepare(
        self,
        places: Places,
        repository: Repository,
        branch: str,
        identity: Identity | None,
        on_progress: Callable[[str], None],
    ) -> WorkCopy:
        """The work copy on `branch`; one that exists is returned as it is, a half-made one is made again.

        The branch is the saved or the remote one of that name, else it starts at the default branch.

        Raises:
            HostError: `clone_failed`; `conflict` when the copy that exists is of something else.
        """
        checked(branch)
        found = Record.load(places.record)
        if found is not None and places.copy.is_dir():
            if (found.key, found.branch) != (repository.key, branch):
                raise HostError(
                    ErrorCode.CONFLICT,
                    f"the task already has a work copy of {found.display} on {found.branch!r} in this place; "
                    "take the task down first",
                )
            return WorkCopy(str(places.copy), found.base, found.head)
        if places.copy.exists():
            raise HostError(
                ErrorCode.CONFLICT,
                f"{places.copy} holds files of unknown origin; move them away and try again",
            )
        async with self._mirrors.lock(repository.key):
            mirror = await self._mirrors.fetch(repository, on_progress)
            try:
                head = await self._start(mirror, branch)
                await self._make(places, mirror, repository, branch, head, identity or NOBODY)
            except GitFailed as failed:
                if not await self._mirrors.is_damaged(mirror.path, failed):
                    raise _failed(repository, failed) from None
                await self._mirrors.rebuild(repository, on_progress)
                mirror = await self._mirrors.fetch(repository, on_progress)
                try:
                    head = await self._start(mirror, branch)
                    await self._make(places, mirror, repository, branch, head, identity or NOBODY)
                except GitFailed as again:
                    raise _failed(repository, again) from None
        return WorkCopy(str(places.copy), mirror.head, head)

    async def _start(self, mirror: Mirror, branch: str) -> str:
        """The commit to start on. Where the saved and the remote branch went different ways the saved one
        wins, since the copy has the other as origin/<branch>."""
        saved = await self._mirrors.commit(mirror.path, f"refs/heads/{branch}")
        remote = await self._mirrors.commit(mirror.path, f"refs/remotes/origin/{branch}")
        if saved and remote and await self._mirrors.is_ancestor(mirror.path, saved, remote):
            return remote
        return saved or remote or mirror.head

    async def _make(
        self,
        places: Places,
        mirror: Mirror,
        repository: Repository,
        branch: str,
        head: str,
        identity: Identity,
    ) -> None:
        # Not beside the other work copies: half-made, it is none.
        beside = places.own / "half-made"
        git_dir = beside / ".git"
        await self._blocking.call(self._trash.remove, places.own)
        await self._blocking.call(_folders, places)
        try:
            form = await self._git.line("rev-parse", "--show-object-format", git_dir=mirror.path)
            await self._git.run(
                "init", "--quiet", "--template=", f"--object-format={form}", "--", operands=[str(beside)]
            )
            listed = await self._git.run(
                "for-each-ref", "--format=%(objectname) %(refname)",
                git_dir=mirror.path, operands=["refs/remotes/origin/", "refs/tags/"],
            )  # fmt: skip
            refs = [
                line for line in listed.out.splitlines() if not line.endswith(b" refs/remotes/origin/HEAD")
            ]
            await self._blocking.call(_fill, mirror.path, git_dir, refs)
            tracked = f" refs/remotes/origin/{branch}".encode() in {line[line.index(b" ") :] for line in refs}
            await self._configure(git_dir, mirror, repository, branch, head, tracked, identity)
            await self._git.run("reset", "--quiet", "--hard", git_dir=git_dir, work_tree=beside)
            await self._blocking.call(_give, beside, self._uid, self._gid)
            record = Record(
                repository.key, repository.display, branch, mirror.head, head, identity.name, identity.email
            )
            await self._blocking.call(record.store, places.record)
        except BaseException:
            await self._blocking.call(self._trash.remove, beside)
            raise
        beside.rename(places.copy)

    async def _configure(
        self,
        git_dir: Path,
        mirror: Mirror,
        repository: Repository,
        branch: str,
        head: str,
        tracked: bool,
        identity: Identity,
    ) -> None:
        origin = "refs/remotes/origin/"
        await self._git.run("update-ref", git_dir=git_dir, operands=[f"refs/heads/{branch}", head])
        await self._git.run("symbolic-ref", git_dir=git_dir, operands=["HEAD", f"refs/heads/{branch}"])
        await self._git.run(
            "symbolic-ref", git_dir=git_dir, operands=[f"{origin}HEAD", f"{origin}{mirror.default_branch}"]
        )
        settings = {
            "remote.origin.url": repository.url,
            "remote.origin.fetch": f"+refs/heads/*:{origin}*",
            "user.name": _one_line(identity.name),
            "user.email": _one_line(identity.email),
            "push.autoSetupRemote": "true",
        }
        if tracked:
            settings |= {
                f"branch.{branch}.remote": "origin",
                f"branch.{branch}.merge": f"refs/heads/{branch}",
            }
        for name, value in settings.items():
            await self._git.run("config", "--", git_dir=git_dir, operands=[name, value])


def _failed(repository: Repository, failed: GitFailed) -> HostError:
    if "no space left" in failed.text.lower():
        why = "the disk is full; free some space on the host"
    else:
        why = f"git says: {failed.last_line}"
    return HostError(ErrorCode.CLONE_FAILED, f"no work copy of {repository.display} can be made: {why}")


def _one_line(text: str) -> str:
    """A name as a commit can carry it: git refuses line ends and angle brackets in it."""
    kept = "".join(" " if ord(character) < 32 else character for character in text if character not in "<>")
    return kept.strip().lstrip("-") or "uaihost"


def _folders(places: Places) -> None:
    places.copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    places.own.mkdir(mode=0o700, parents=True, exist_ok=True)


def _fill(mirror: Path, git_dir: Path, refs: list[bytes]) -> None:
    """Copy every object file of the mirror, and write `refs`. An index goes after its pack."""
    for folder in sorted(entry for entry in (mirror / "objects").iterdir() if entry.name != "info"):
        target = git_dir / "objects" / folder.name
        target.mkdir(exist_ok=True)
        for file in sorted(folder.iterdir(), key=lambda found: found.suffix, reverse=True):
            if _OBJECT.match(file.name):
                _duplicate(file, target / file.name)
    (git_dir / "packed-refs").write_bytes(b"".join(line + b"\n" for line in refs))


def _duplicate(source: Path, target: Path) -> None:
    """A second file with the same content; on file systems that can, blocks are shared until written."""
    with source.open("rb") as file:
        made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(made, "wb") as copy:
            left = os.fstat(file.fileno()).st_size
            try:
                while left and (sent := os.copy_file_range(file.fileno(), made, left)):
                    left -= sent
            except (OSError, AttributeError):
                file.seek(0)
                copy.truncate(0)
                copy.seek(0)
                shutil.copyfileobj(file, copy, 1 << 20)


def _give(top: Path, uid: int, gid: int) -> None:
    """Everything to the container's user; nobody else can change the tree yet."""
    if os.geteuid() != 0:
        return
    os.lchown(top, uid, gid)
    for directory, folders, files in os.walk(top):
        for name in (*folders, *files):
            os.lchown(f"{directory}/{name}", uid, gid)
