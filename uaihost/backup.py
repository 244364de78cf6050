"""A backup of what cannot be made again, in one file, taken while the host runs; and putting it back.

What is in it: the databases, saved work, transcripts, attachments, the host's name; keys when they are asked
for. What is not: mirrors, images, tools, containers, and work that was not saved (`cli.backup` has it saved
first). Everything here blocks. It trusts no name in a file that it reads.
"""

from __future__ import annotations

import errno
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
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import attrs

from uaihost import __version__
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import DataLock
from uaihost.paths import Folders, data_files, flush
from uaihost.state import migration

# Of the file's form: a reader refuses a newer one.
FORMAT = 1
MANIFEST = "manifest.json"
# A file, and the folder of its migrations below that of the host's.
DATABASES = {"state.db": ".", "bridge.db": "bridge"}
NAME = "host-id"
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
        HostError: `conflict`, the file exists; `not_found`, there is nothing to keep; `unavailable`, it
            cannot be written.
    """
    if not folders.database.exists():
        raise HostError(
            ErrorCode.NOT_FOUND, f"{folders.root} holds no host's data; UAI_DATA_DIR names another"
        )
    if target.exists() and not replace:
        raise HostError(ErrorCode.CONFLICT, f"{target} exists; name another file, or give --force")
    partial = target.with_name(f"{target.name}.partial")
    try:
        # One of a backup that was cut off. A file that somebody else made would be his to read.
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as archive:
                writer = _Writer(archive, progress)
                _fill(writer, folders, keys, target.parent)
                found = writer.close(keys)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        flush(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"{target} cannot be written: {error.strerror or error}; there is no backup",
        ) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return found


def _fill(writer: _Writer, folders: Folders, keys: bool, scratch: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".uaihost-backup-", dir=scratch) as held:
        for name in DATABASES:
            if (folders.root / name).exists():
                copy = Path(held) / name
                with (
                    closing(sqlite3.connect(folders.root / name)) as live,
                    closing(sqlite3.connect(copy)) as kept,
                ):
                    live.backup(kept)
                writer.add(name, copy)
    for name in (NAME, *(KEYS if keys else ())):
        writer.add(name, folders.root / name)
    trees = [folders.root / name for name in TREES]
    trees += sorted(folders.tasks.glob("*/attachments")) if folders.tasks.is_dir() else []
    for tree in trees:
        for path in _files(tree):
            writer.add(str(path.relative_to(folders.root)), path)


def _files(tree: Path) -> Iterator[Path]:
    """Every file below. Objects of repositories are looked for after everything else was read: a save brings
    objects before the refs that name them, so that what a ref named is there."""
    for objects in (False, True):
        for folder, _, names in os.walk(tree, followlinks=False):
            # `<tree>/<repository>/objects`, and no branch of that name.
            if (Path(folder).relative_to(tree).parts[1:2] == ("objects",)) == objects:
                yield from (Path(folder) / name for name in sorted(names))


def verify(source: Path, into: Path | None = None) -> Contents:
    """Read a whole backup and check every byte; write it below `into` when that is given.

    Raises:
        HostError: `invalid_args`: it is no backup, is damaged, of a newer version, or names what it must not;
            `unavailable`: the disk is full.
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
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                said = f"the disk that holds {folder.parent} is full; free some space"
                raise HostError(ErrorCode.UNAVAILABLE, f"{said}; nothing was changed") from None
            raise _damaged(source, str(error)) from None
        if manifest is None:
            raise _damaged(source, "its end is missing")
        found, expected = _told(source, manifest)
        if seen != expected:
            wrong = sorted({*seen.items()} ^ {*expected.items()})[0][0]
            raise _damaged(source, f"{wrong} is not what was written")
        if "state.db" not in seen:
            raise _damaged(source, "it holds no state.db")
        for name in DATABASES:
            if name in seen:
                _open(source, folder / name)
    return found


def _told(source: Path, manifest: Any) -> tuple[Contents, dict[str, str]]:
    """What a manifest says, and the digests that it names."""
    try:
        if manifest["format"] > FORMAT:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"{source} is of uaihost {manifest.get('version')}; use that or a later one",
            )
        fields = {field.name: manifest[field.name] for field in attrs.fields(Contents)}
        found = Contents(**{**fields, "left_out": tuple(fields["left_out"])})
        return found, {name: each["sha256"] for name, each in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError):
        raise _damaged(source, f"its {MANIFEST} is none") from None


def _open(source: Path, path: Path) -> None:
    """Whether a database is whole, and one that this version can open."""
    known = migration.read(data_files("migrations") / DATABASES[path.name])
    try:
        with closing(sqlite3.connect(path)) as database:
            migration.inspect(database, Path(path.name), known)
            (said,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except HostError as error:
        raise HostError(ErrorCode.INVALID_ARGS, f"{source} cannot be used: {error.message}") from None
    except (sqlite3.Error, TypeError) as error:
        raise _damaged(source, f"{path.name}: {error}") from None
    if said != "ok":
        raise _damaged(source, f"{path.name}: {said}")


def _read(
    archive: tarfile.TarFile, folder: Path, everything: bool
) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Digests by name, and the manifest; what is wanted is written below the folder."""
    seen: dict[str, str] = {}
    for entry in archive:
        name = PurePosixPath(entry.name)
        if not entry.isreg() or not _kept(name) or entry.name in seen:
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


def _kept(name: PurePosixPath) -> bool:
    """Whether `create` writes files of this name; nothing else comes into a data folder."""
    if ".." in name.parts:
        return False
    match name.parts:
        case [only]:
            return only in (MANIFEST, NAME, *DATABASES, *KEYS)
        case ["tasks", _, "attachments", _, *_]:
            return True
        case [tree, _, *_]:
            return tree in TREES
    return False


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
            for repository in (half / "saved").glob("*.git"):
                # Git takes it for none without these, and an empty folder is in no backup.
                for needed in ("objects", "refs"):
                    (repository / needed).mkdir(exist_ok=True)
            for written, _, _ in os.walk(half, topdown=False):
                flush(Path(written))
            _put(half, folders.root)
        finally:
            shutil.rmtree(half, ignore_errors=True)
        return found
    finally:
        lock.release()


def _put(half: Path, root: Path) -> None:
    aside: Path | None = None
    names = sorted(path.name for path in half.iterdir())
    for name in sorted(names, key=lambda name: (name in DATABASES, name == "state.db")):
        if name == "state.db":
            # With it the folder is a host's: after a power cut too it is the last that is there.
            flush(root)
        if (root / name).exists():
            aside = aside or Path(tempfile.mkdtemp(prefix="before-restore-", dir=root))
            (root / name).rename(aside / name)
        (half / name).rename(root / name)
    flush(root)


def _damaged(source: Path, why: str) -> HostError:
    return HostError(ErrorCode.INVALID_ARGS, f"{source} is no whole backup: {why}; nothing was changed")
