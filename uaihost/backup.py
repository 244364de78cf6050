"""A backup of what cannot be made again, in one file, taken while the host runs; and putting it back.

What is in it: the databases, saved work, transcripts, attachments, the host's name; keys when they are asked
for. What is not: mirrors, images, tools, containers, and work that was not saved (`cli.backup` has it saved
first). Everything here blocks. It trusts no name in a file that it reads.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import attrs

from uaihost import __version__
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import DataLock
from uaihost.paths import Folders

# Of the file's form: a reader refuses a newer one.
FORMAT = 1
MANIFEST = "manifest.json"
DATABASES = ("state.db", "bridge.db")
KEYS = ("secrets.key", "host-token", "bridge.key")
TREES = ("saved", "transcripts")
PIECE = 1 << 20

Progress = Callable[[str, int], None]


@attrs.frozen
class Contents:
    """What a file holds. left_out: what could not be read, with why."""

    version: str
    at: int
    keys: bool
    members: int
    size: int
    left_out: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        return {**attrs.asdict(self), "left_out": list(self.left_out)}


class _Reader(io.RawIOBase):
    """A file of exactly `size` bytes, whatever happens to it meanwhile; its digest at the end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left, self.short = file, size, False
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            self.short = True
            data += bytes(wanted - len(data))
        self._left -= len(data)
        self.digest.update(data)
        return data


class _Writer:
    def __init__(self, archive: tarfile.TarFile, progress: Progress) -> None:
        self._archive = archive
        self._progress = progress
        self.members: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []

    def add(self, name: str, path: Path) -> None:
        """A plain file, as it is now; one that is gone by now is no loss."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            self.left_out.append(f"{name}: {error.strerror}")
            return
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                self.left_out.append(f"{name}: no plain file")
                return
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = found.st_size, int(found.st_mtime), 0o600
            reader = _Reader(file, entry.size)
            self._archive.addfile(entry, reader)
        if reader.short:
            self.left_out.append(f"{name}: it became shorter while it was read")
        self.members[name] = {"size": entry.size, "sha256": reader.digest.hexdigest()}
        self._progress(name, entry.size)

    def close(self, keys: bool) -> Contents:
        size = sum(member["size"] for member in self.members.values())
        found = Contents(
            __version__, int(time.time() * 1000), keys, len(self.members), size, tuple(self.left_out)
        )
        text = json.dumps({"format": FORMAT, **found.json(), "files": self.members}).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mode = len(text), 0o600
        self._archive.addfile(entry, io.BytesIO(text))
        return found


def create(folders: Folders, target: Path, *, keys: bool, replace: bool, progress: Progress) -> Contents:
    """Write a backup into `target` (mode 0600): whole, or not at all.

    Raises:
        HostError: `conflict`, the file exists; `not_found`, there is nothing to keep.
    """
    if not folders.database.exists():
        raise HostError(
            ErrorCode.NOT_FOUND, f"{folders.root} holds no host's data; UAI_DATA_DIR names another"
        )
    if target.exists() and not replace:
        raise HostError(ErrorCode.CONFLICT, f"{target} exists; name another file, or give --force")
    partial = target.with_name(f"{target.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
                writer = _Writer(archive, progress)
                _fill(writer, folders, keys, target.parent)
                found = writer.close(keys)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return found


def _fill(writer: _Writer, folders: Folders, keys: bool, scratch: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".uaihost-backup-", dir=scratch) as held:
        for name in DATABASES:
            if (folders.root / name).exists():
                copy = Path(held) / name
                with sqlite3.connect(folders.root / name) as live, sqlite3.connect(copy) as kept:
                    live.backup(kept)
                writer.add(name, copy)
    for name in ("host-id", *(KEYS if keys else ())):
        writer.add(name, folders.root / name)
    trees = [folders.root / name for name in TREES]
    trees += sorted(folders.tasks.glob("*/attachments")) if folders.tasks.is_dir() else []
    for tree in trees:
        for path in _files(tree):
            writer.add(str(path.relative_to(folders.root)), path)


def _files(tree: Path) -> Iterator[Path]:
    """Every file below; what a repository's refs name comes after its refs, so that it is there for them."""
    found = [
        Path(folder) / name for folder, _, names in os.walk(tree, followlinks=False) for name in sorted(names)
    ]
    yield from sorted(found, key=lambda path: ("objects" in path.parts, str(path)))


def verify(source: Path, into: Path | None = None) -> Contents:
    """Read a whole backup and check every byte; write it below `into` when that is given.

    Raises:
        HostError: `invalid_args`: it is no backup, is damaged, of a newer version, or names what it must not.
    """
    with tempfile.TemporaryDirectory(prefix="uaihost-verify-") as scratch:
        folder = Path(scratch) if into is None else into
        try:
            with gzip.open(source) as plain:
                with tarfile.open(fileobj=plain, mode="r|") as archive:
                    seen, manifest = _read(archive, folder, everything=into is not None)
                # To its end, where the check sum of the whole is.
                while plain.read(PIECE):
                    pass
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
            raise _damaged(source, str(error)) from None
        if manifest is None:
            raise _damaged(source, "its end is missing")
        if manifest.get("format", 0) > FORMAT:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"{source} is of uaihost {manifest.get('version')}; use that or a later one",
            )
        expected = {name: each["sha256"] for name, each in manifest["files"].items()}
        if seen != expected:
            wrong = sorted({*seen.items()} ^ {*expected.items()})[0][0]
            raise _damaged(source, f"{wrong} is not what was written")
        for name in DATABASES:
            if (folder / name).exists():
                with sqlite3.connect(folder / name) as database:
                    (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
                if said != "ok":
                    raise _damaged(source, f"{name}: {said}")
    fields = {field.name for field in attrs.fields(Contents)}
    kept = {name: value for name, value in manifest.items() if name in fields}
    return Contents(**{**kept, "left_out": tuple(kept["left_out"])})


def _read(
    archive: tarfile.TarFile, folder: Path, everything: bool
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Digests by name, and the manifest; what is wanted is written below the folder."""
    seen: dict[str, str] = {}
    for entry in archive:
        name = PurePosixPath(entry.name)
        if not entry.isreg() or name.is_absolute() or ".." in name.parts or not name.parts:
            raise ValueError(f"it names {entry.name[:80]!r}, which is no file of a host's data")
        content = archive.extractfile(entry)
        assert content is not None
        if entry.name == MANIFEST:
            return seen, json.loads(content.read(256 << 20))
        digest = hashlib.sha256()
        file = None
        if everything or entry.name in DATABASES:
            target = folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            while piece := content.read(PIECE):
                digest.update(piece)
                if file is not None:
                    file.write(piece)
        finally:
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
                file.close()
        seen[entry.name] = digest.hexdigest()
    return seen, None


def restore(folders: Folders, source: Path) -> Contents:
    """Put a backup into a data folder without a host's data. A kill at any moment loses nothing: the database
    comes last, and what was in the way is kept in `before-restore-*`.

    Raises:
        HostError: `conflict`, the folder holds a host's data, or its host runs; as of `verify`.
    """
    lock = DataLock(folders.lock)
    try:
        if folders.database.exists():
            raise HostError(
                ErrorCode.CONFLICT,
                f"{folders.root} holds a host's data; move it away, or name another folder with UAI_DATA_DIR",
            )
        half = folders.root / "restoring"
        # Of a restore that was cut off.
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        try:
            found = verify(source, half)
            _put(half, folders.root)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        return found
    finally:
        lock.release()


def _put(half: Path, root: Path) -> None:
    aside: Path | None = None
    names = sorted(path.name for path in half.iterdir())
    for name in sorted(names, key=lambda name: name in DATABASES):
        if (root / name).exists():
            aside = aside or Path(tempfile.mkdtemp(prefix="before-restore-", dir=root))
            (root / name).rename(aside / name)
        (half / name).rename(root / name)
    descriptor = os.open(root, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _damaged(source: Path, why: str) -> HostError:
    return HostError(ErrorCode.INVALID_ARGS, f"{source} is no whole backup: {why}; nothing was changed")
