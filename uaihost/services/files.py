"""Files of an installation: written whole or not at all, and left alone where they are right already."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import attrs


@attrs.frozen
class File:
    """A file as it should be.

    mode: of its permissions. owner: user and group, None for whoever writes. kept: what is there stays,
    whatever it says: it is the owner's.
    """

    path: Path
    content: bytes = attrs.field(repr=False)
    mode: int = 0o644
    owner: tuple[int, int] | None = None
    kept: bool = False

    def differs(self) -> bool:
        """Whether writing it would change anything."""
        try:
            found = self.path.stat()
            if not self.kept and self.path.read_bytes() != self.content:
                return True
        except FileNotFoundError:
            return True
        return found.st_mode & 0o777 != self.mode or (
            self.owner is not None and (found.st_uid, found.st_gid) != self.owner
        )

    def write(self) -> None:
        """Put it in place: whoever reads meanwhile sees the one before or this one, whole."""
        content = self.path.read_bytes() if self.kept and self.path.exists() else self.content
        descriptor, beside = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                if self.owner is not None:
                    os.fchown(file.fileno(), *self.owner)
                os.fchmod(file.fileno(), self.mode)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).rename(self.path)
        except BaseException:
            Path(beside).unlink()
            raise


@attrs.frozen
class Folder:
    """A folder as it should be. shared: one of the machine's or of the user's own, whose mode is not ours."""

    path: Path
    mode: int = 0o700
    owner: tuple[int, int] | None = None
    shared: bool = False

    def differs(self) -> bool:
        """Whether making it would change anything."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        if self.shared:
            return False
        return found.st_mode & 0o777 != self.mode or (
            self.owner is not None and (found.st_uid, found.st_gid) != self.owner
        )

    def write(self) -> None:
        """Make it, and those above it."""
        self.path.mkdir(mode=self.mode, parents=True, exist_ok=True)
        if not self.shared:
            if self.owner is not None:
                os.chown(self.path, *self.owner)
            self.path.chmod(self.mode)
