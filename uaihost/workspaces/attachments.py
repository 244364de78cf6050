"""Files that people give to a task. The container sees them read-only under /attachments."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.places import task_folder

# Bytes. A frame carries a file as base64, one third larger, and is held in memory whole.
LIMIT = 25 << 20
# Bytes: what file systems allow for one name.
LONGEST = 255

_INSIDE = "/attachments"


class Attachments:
    """The attachments of all tasks. tasks: the folder with a folder per task."""

    def __init__(self, tasks: Path, blocking: Blocking) -> None:
        self._tasks = tasks
        self._blocking = blocking

    async def write(self, task_id: str, filename: str, data: bytes) -> str:
        """Store `data`, in place of an older file of that name; its path as the container sees it.

        Raises:
            HostError: `invalid_args`, the name cannot be one; `too_large`.
        """
        checked(filename)
        if len(data) > LIMIT:
            raise HostError(
                ErrorCode.TOO_LARGE,
                f"the file {filename[:80]!r} has {len(data)} bytes; at most {LIMIT} can be attached",
            )
        folder = task_folder(self._tasks, task_id) / "attachments"
        await self._blocking.call(_write, folder, filename, data)
        return f"{_INSIDE}/{filename}"

    async def read(self, task_id: str, filename: str) -> bytes:
        """The content of the file.

        Raises:
            HostError: `invalid_args`; `not_found`.
        """
        checked(filename)
        path = task_folder(self._tasks, task_id) / "attachments" / filename
        try:
            return await self._blocking.call(_read, path)
        except (FileNotFoundError, NotADirectoryError):
            raise HostError(ErrorCode.NOT_FOUND, f"the task has no attachment {filename[:80]!r}") from None


def checked(filename: str) -> str:
    """`filename`, when it can name an attachment.

    Raises:
        HostError: `invalid_args`; the message says what is wrong.
    """
    if wrong := _fault(filename):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"the file name {filename[:80]!r} {wrong}; use a plain name like notes.txt",
        )
    return filename


def _fault(filename: str) -> str | None:
    if not filename:
        return "is empty"
    if filename in (".", ".."):
        return "names a folder"
    if "/" in filename or "\\" in filename:
        return "holds a path; only the name itself is allowed"
    if any(ord(character) < 32 or ord(character) == 127 for character in filename):
        return "holds a control character"
    if any("\ud800" <= character <= "\udfff" for character in filename):
        return "holds half a character"
    if len(filename.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None


def _write(folder: Path, filename: str, data: bytes) -> None:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Written in the folder above, on the same file system, so that a half-written file is never seen.
    descriptor, beside = tempfile.mkstemp(dir=folder.parent, prefix=".attachment-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).replace(folder / filename)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
