"""Identifiers: ULIDs (github.com/ulid/spec), sortable by their time of birth."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ulid import ULID

_HOST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


def new_id() -> str:
    """A fresh ULID: 26 characters, lower case so that it can stand in a host name (RFC 4343)."""
    return str(ULID()).lower()


def host_id(folder: Path) -> str:
    """The identity of this host: the content of `<folder>/host-id`, made on first use.

    The folder is created with mode 0700, the file with mode 0600 (docs/protocol.md, section 1).

    Raises:
        ValueError: the file holds something that cannot be an identity.
    """
    path = folder / "host-id"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        found = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        found = ""
    if found:
        if not _HOST_ID.match(found):
            raise ValueError(f"{path} does not hold a host id; remove the file and a new one is made")
        return found
    made = str(ULID())
    # Written beside and renamed, so that a crash leaves no half-written identity.
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{made}\n")
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    return made
