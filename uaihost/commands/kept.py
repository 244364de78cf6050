"""The rows of what was kept of tasks, as they are made of what the work copies' room says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from pathlib import PurePath

from uaihost.state import saved
from uaihost.state.saved import SavedRecord
from uaihost.workspaces.workspaces import Saved


def put(connection: sqlite3.Connection, task_id: str, kept: Iterable[Saved], at: int) -> None:
    """Store a row for each. at: milliseconds since the epoch."""
    for one in kept:
        saved.put(connection, _row(task_id, one, at))


def _row(task_id: str, one: Saved, at: int) -> SavedRecord:
    key = PurePath(one.repository).name.removesuffix(".git")
    # Names of files may be no Unicode, which only this writes.
    parts = json.dumps(one.parts).encode("ascii")
    return SavedRecord(
        task_id, one.name or one.slug, one.slug, one.project, key, one.branch, one.commit, one.wip,
        one.extra, one.note, parts, one.size, at,
    )  # fmt: skip
