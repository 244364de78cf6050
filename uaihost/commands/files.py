"""The commands about repositories and files: clone, diff, attachments. Thin; the work is the workspaces'."""

from __future__ import annotations

import base64
import binascii
import unicodedata

from uaihost.blocking import Blocking
from uaihost.commands.lanes import together
from uaihost.commands.neighbours import Attachments, Channels, Workspaces
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Json
from uaihost.paths import checked, checked_task
from uaihost.wire.inputs import AttachmentRead, AttachmentWrite, CloneRepo, TaskDiff

# Bytes of one attachment: what mail commonly allows, and as base64 still half of the largest message.
MAX_ATTACHMENT = 25 << 20

# Bytes of a file's name: what ext4, xfs and apfs allow.
MAX_FILENAME = 255


class FileCommands:
    """blocking: where large base64 is read and written."""

    def __init__(
        self, workspaces: Workspaces, attachments: Attachments, channels: Channels, blocking: Blocking
    ) -> None:
        self._workspaces = workspaces
        self._attachments = attachments
        self._channels = channels
        self._blocking = blocking

    async def clone(self, command_id: str, wanted: CloneRepo) -> Json:
        # It belongs to no task, so there is nowhere to report progress to.
        return await self._workspaces.clone(wanted.url, wanted.projectId, lambda _: None)

    async def diff(self, command_id: str, wanted: TaskDiff) -> Json:
        checked_task(wanted.taskId)
        for project in wanted.projects:
            checked(project.slug, "project slug")
        found = await together(
            self._workspaces.diff(wanted.taskId, project.id, project.slug) for project in wanted.projects
        )
        return {"projects": found}

    async def write(self, command_id: str, wanted: AttachmentWrite) -> Json:
        checked_task(wanted.taskId)
        filename = checked_filename(wanted.filename)
        if len(wanted.dataBase64) > (MAX_ATTACHMENT + 2) // 3 * 4:
            raise _too_large(filename)
        try:
            data = await self._blocking.call(base64.b64decode, wanted.dataBase64, validate=True)
        except (binascii.Error, ValueError):
            raise HostError(
                ErrorCode.INVALID_ARGS, "dataBase64: not base64 (RFC 4648, with padding, without line breaks)"
            ) from None
        if len(data) > MAX_ATTACHMENT:
            raise _too_large(filename)
        path = await self._attachments.write(wanted.taskId, filename, data)
        await self._channels.attached(wanted.taskId, path, len(data))
        return {"path": path, "bytes": len(data)}

    async def read(self, command_id: str, wanted: AttachmentRead) -> Json:
        checked_task(wanted.taskId)
        filename = checked_filename(wanted.filename)
        data = await self._attachments.read(wanted.taskId, filename)
        if len(data) > MAX_ATTACHMENT:
            raise _too_large(filename)
        text = await self._blocking.call(base64.b64encode, data)
        return {"filename": filename, "dataBase64": text.decode("ascii"), "bytes": len(data)}


def checked_filename(name: str) -> str:
    """`name` itself when it can name a file in a folder of attachments.

    Raises:
        HostError: `invalid_args`.
    """
    problem = None
    if not name or len(name.encode(errors="replace")) > MAX_FILENAME:
        problem = f"must have 1 to {MAX_FILENAME} bytes"
    elif "/" in name or "\\" in name:
        problem = "must not hold a slash: it names a file, not a path"
    elif name.startswith("."):
        problem = "must not begin with a dot"
    elif any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name):
        problem = "must not hold control characters"
    if problem is not None:
        raise HostError(ErrorCode.INVALID_ARGS, f"filename: {name[:60]!r} {problem}")
    return name


def _too_large(filename: str) -> HostError:
    return HostError(
        ErrorCode.TOO_LARGE,
        f"{filename} has more than {MAX_ATTACHMENT >> 20} MiB; put it into the repository or split it",
    )
