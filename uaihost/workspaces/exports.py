"""Archives of saved work for a person to take away: made of clones as `restore` makes them, fetched once.

What an agent made is only read as data: git restores it without hooks, filters and settings of its own, and
the archive is written from folders that nobody but this process can reach.
"""

from __future__ import annotations

import gzip
import os
import secrets
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.removal import Trash
from uaihost.workspaces.restore import Kept

log = Logger()

# Seconds that an archive waits to be fetched.
PATIENCE = 600.0
# Archives that wait at once: each may be as large as a task.
LIMIT = 4
# Bytes of a piece.
PIECE = 256 << 10
# Of zlib: source code is half its size at a third of the usual time.
LEVEL = 3
# What lies beside the work copies.
BESIDE = "beside"
READ_ME = "READ-ME.txt"


class Restores(Protocol):
    """Who makes clones (workspaces.Workspaces)."""

    async def restore(self, saved: Kept, target: Path) -> list[str]:
        """Make the folder `target`; lines for people."""


@attrs.define
class Archive:
    """A file that goes when it was read or nobody came for it. notes: for people, by folder."""

    name: str
    size: int
    ticket: str
    notes: dict[str, list[str]]
    _path: Path
    _blocking: Blocking
    _file: IO[bytes] | None = None

    async def read(self) -> bytes:
        """The next piece; empty at its end."""
        return await self._blocking.call(self._read)

    async def close(self) -> None:
        """Remove it."""
        await self._blocking.call(self._close)

    def _read(self) -> bytes:
        if self._file is None:
            self._file = self._path.open("rb")
        return self._file.read(PIECE)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)


class Exports:
    """folder: for the archives alone; trash: through which what restoring left goes."""

    def __init__(
        self, clock: IReactorTime, blocking: Blocking, restores: Restores, folder: Path, trash: Trash
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._restores = restores
        self._folder = folder
        self._trash = trash
        self._making = 0
        self._ready: dict[str, tuple[Archive, Any]] = {}

    async def sweep(self) -> None:
        """Remove what an earlier daemon left; what cannot be removed is no reason not to start."""
        try:
            await self._blocking.call(self._trash.remove, self._folder)
        except OSError as error:
            log.warn(
                "exports of an earlier start stay in {folder}: {why}", folder=self._folder, why=str(error)
            )

    def stop(self) -> None:
        """Nobody fetches anything any more; the next `sweep` removes it."""
        for _, timer in self._ready.values():
            timer.cancel()
        self._ready.clear()

    async def make(self, task_id: str, kept: Sequence[Kept]) -> Archive:
        """An archive of what was saved of a task, a folder for each; fetched with `take` by its ticket.

        Raises:
            HostError: `unavailable`, it cannot be read or written, or too many wait; nothing stays.
        """
        if len(self._ready) + self._making >= LIMIT:
            raise HostError(
                ErrorCode.UNAVAILABLE, f"{LIMIT} exports wait to be fetched; fetch one, or wait some minutes"
            )
        self._making += 1
        ticket = secrets.token_urlsafe(32)
        half = self._folder / secrets.token_hex(8)
        try:
            await self._blocking.call(_folder, self._folder)
            notes = {}
            for one in kept:
                name = one.name if one.slug else BESIDE
                notes[name] = await self._restores.restore(one, half / task_id / name)
            path = half.with_suffix(".tar.gz")
            try:
                size = await self._blocking.call(_pack, half / task_id, path, _read_me(task_id, notes))
            except OSError as error:
                await self._blocking.call(path.unlink, missing_ok=True)
                raise HostError(
                    ErrorCode.UNAVAILABLE, f"the archive cannot be written: {error.strerror or error}"
                ) from None
        finally:
            self._making -= 1
            await self._blocking.call(self._trash.remove, half)
        archive = Archive(f"{task_id}.tar.gz", size, ticket, notes, path, self._blocking)
        self._ready[ticket] = archive, self._clock.callLater(PATIENCE, self._expire, ticket)
        return archive

    def take(self, ticket: str) -> Archive:
        """The archive, for once.

        Raises:
            HostError: `not_found`, there is none (any more).
        """
        found = self._ready.pop(ticket, None)
        if found is None:
            raise HostError(ErrorCode.NOT_FOUND, "there is no such export any more; export the task again")
        found[1].cancel()
        return found[0]

    def _expire(self, ticket: str) -> None:
        archive, _ = self._ready.pop(ticket)
        gone = Deferred.fromCoroutine(archive.close())
        gone.addErrback(lambda failure: log.failure("an export that nobody fetched stays", failure))


def _folder(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def _read_me(task_id: str, notes: dict[str, list[str]]) -> str:
    lines = [f"The work of task {task_id}, a folder for each of its repositories."]
    lines.append("Each is a clone as the work copy was: branches, stashes, uncommitted and ignored files.")
    for name, said in sorted(notes.items()):
        lines += ["", f"{name}/", *(f"  {line}" for line in said)]
    return "\n".join(lines) + "\n"


def _pack(folder: Path, target: Path, read_me: str) -> int:
    """Write the archive; its size in bytes. Links are kept as links, and whose the files were is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / READ_ME
    if not os.path.lexists(note):
        note.write_text(read_me, encoding="utf-8", errors="backslashreplace")
    opened = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with (
        os.fdopen(opened, "wb") as file,
        gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=LEVEL) as packed,
        tarfile.open(
            fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar,
    ):
        tar.add(folder, folder.name, filter=_nobodys)
    return target.stat().st_size


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = (entry.mode & 0o777) | 0o600
    return entry
