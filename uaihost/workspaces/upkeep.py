"""What keeps a mirror's folder in order: stamps, leftovers of a git that was killed, packs, borrowed objects.

Every function here but the coroutines blocks. None removes an object that can be read nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from twisted.internet.task import deferLater
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.workspaces.safe_git import Git, GitFailed

log = Logger()

# Seconds: a git whose daemon was killed gets TERM and has removed its locks long before.
_DYING = 3.0
# Seconds between two repacks, and the number of packs from which one is worth it.
_DAY = 86_400.0
_MANY_PACKS = 12
# Seconds: a large repository, at the lowest priority.
_REPACK = 7200.0

# Files of ours in the mirror, whose times are what they say.
_FETCHED = "uai-fetched"
# Whom the server has given the repository, a hash each; the host's own is one of them.
_ASKERS = "uai-askers"
_REPACKED = "uai-repacked"

_LEFT = re.compile(r"(?:tmp_|\.tmp-)")
_HEAD = Path("refs") / "remotes" / "origin" / "HEAD"


def stamp(path: Path, display: str, now: float, asker: str = "") -> None:
    """Remember that the mirror was fetched and wanted, of what it is one, and who was given it."""
    askers = path / _ASKERS
    if not askers.exists() or not knows(path, asker):
        with askers.open("a", encoding="ascii") as lines:
            lines.write(_mark(asker) + "\n")
    file = path / _FETCHED
    file.touch()
    os.utime(file, (now, now))
    description = path / "description"
    if not description.exists():
        description.write_text(display + "\n", encoding="utf-8")


def knows(path: Path, asker: str) -> bool:
    """Whether the server has given this mirror's repository to `asker`, who is empty for the host's own."""
    try:
        return _mark(asker) in (path / _ASKERS).read_text(encoding="ascii").split()
    except FileNotFoundError:
        # It was fetched before anybody had credentials of their own here.
        return not asker


def withdraw(path: Path, asker: str) -> None:
    """The server does not give this mirror's repository to `asker` any more."""
    askers = path / _ASKERS
    if askers.exists():
        left = [mark for mark in askers.read_text(encoding="ascii").split() if mark != _mark(asker)]
        beside = askers.with_name(_ASKERS + ".new")
        beside.write_text("".join(f"{mark}\n" for mark in left), encoding="ascii")
        beside.replace(askers)


def _mark(asker: str) -> str:
    return hashlib.sha256(asker.encode()).hexdigest()


def fetched_at(path: Path) -> float:
    """Seconds since the epoch."""
    for file in (path / _FETCHED, path):
        if file.exists():
            return file.stat().st_mtime
    return 0.0


def last_used(folder: Path) -> dict[str, float]:
    """Every mirror's key with the time of its last fetch."""
    return {path.name.removesuffix(".git"): fetched_at(path) for path in folder.glob("*.git")}


def default_branch(path: Path) -> str | None:
    """The branch of the remote's HEAD, as it was last remembered."""
    try:
        text = (path / _HEAD).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    start = "ref: refs/remotes/origin/"
    return text.removeprefix(start).removesuffix("\n") if text.startswith(start) else None


def age(seconds: float) -> str:
    """How long ago, for people: `3 hours`."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return "less than a minute"


def clear_locks(path: Path, now: float) -> float:
    """Remove the lock files of a git that was killed; the caller's lock says that no other one runs.

    Returns the seconds until the youngest that was left may be removed too, 0 when none was left.
    """
    wait = 0.0
    for file in _lock_files(path):
        try:
            old = now - file.stat().st_mtime
            if old < _DYING:
                wait = max(wait, _DYING - old)
            else:
                file.unlink()
                log.info("removed {file}, which a git that was killed left", file=str(file))
        except FileNotFoundError:
            continue
    return wait


async def outlive_locks(git: Git, blocking: Blocking, path: Path, now: Callable[[], float]) -> None:
    """Wait until the lock files of a git that was killed may be removed, and remove them."""
    if wait := await blocking.call(clear_locks, path, now()):
        await deferLater(git.reactor, min(wait, _DYING), lambda: None)
        await blocking.call(clear_locks, path, now())


def clear_all(path: Path) -> None:
    """Remove what interrupted fetches left; nothing uses the mirror."""
    for file in [*_lock_files(path), *_temporary(path / "objects")]:
        file.unlink(missing_ok=True)


def _lock_files(path: Path) -> Iterator[Path]:
    yield from path.glob("*.lock")
    yield from (path / "refs").rglob("*.lock")


def _temporary(objects: Path) -> Iterator[Path]:
    for folder in (objects, objects / "pack"):
        if folder.is_dir():
            yield from (file for file in folder.iterdir() if _LEFT.match(file.name) and file.is_file())


def is_due(path: Path, now: float) -> bool:
    """Whether the mirror has many packs and was not repacked today."""
    done_at = path / _REPACKED
    if done_at.exists() and now - done_at.stat().st_mtime < _DAY:
        return False
    return path.is_dir() and len(list((path / "objects" / "pack").glob("*.pack"))) >= _MANY_PACKS


def done(path: Path, now: float) -> None:
    """Remember that it was repacked."""
    (path / _REPACKED).touch()
    os.utime(path / _REPACKED, (now, now))


async def repack(git: Git, path: Path) -> None:
    """Put small packs together. Packs are rolled up whole: what no ref leads to is kept with the rest.

    Raises:
        GitFailed: it did not work; every object is still there.
    """
    await git.run(
        "repack", "-d", "-q", "--geometric=2", "--no-write-bitmap-index", git_dir=path,
        settings=("pack.threads=1", "pack.windowMemory=256m"), timeout=_REPACK, idle=True,
    )  # fmt: skip


def set_aside(path: Path) -> Path:
    """Rename a damaged mirror, to a name that is not taken."""
    for number in range(1, 1 << 20):
        aside = path.with_name(f"{path.name.removesuffix('.git')}.damaged-{number}")
        if not aside.exists():
            path.rename(aside)
            return aside
    raise FileExistsError(f"{path} has been damaged too often")


def is_lent(path: Path, saved: Path | None) -> bool:
    """Whether a repository in `saved` borrows the mirror's objects."""
    if saved is None:
        return False
    lent = os.fsencode(path / "objects")
    for file in saved.glob("*/objects/info/alternates"):
        try:
            if lent in file.read_bytes().splitlines():
                return True
        except FileNotFoundError:
            continue
    return False


async def take_over(git: Git, blocking: Blocking, damaged: Path, path: Path) -> None:
    """Give the new mirror what can be read of the damaged one: the remote may have dropped it meanwhile."""
    for index in await blocking.call(lambda: sorted((damaged / "objects" / "pack").glob("*.idx"))):
        try:
            await git.run(
                "verify-pack", "--", git_dir=path, operands=[str(index)], reads=[index.parent],
                timeout=_REPACK,
            )  # fmt: skip
        except GitFailed as failed:
            log.warn("a pack of {path} cannot be read: {error}", path=str(damaged), error=str(failed))
            continue
        await blocking.call(_link_pack, index, path / "objects" / "pack")


def _link_pack(index: Path, target: Path) -> None:
    # The index last: a pack is looked for only where there is one.
    for file in (index.with_suffix(".pack"), index):
        if not (target / file.name).exists():
            os.link(file, target / file.name)
