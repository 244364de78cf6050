"""Puts the tool versions that the host installed into the home folder's mise, for each project what it names.

Which they are says /run/host/tools.json: `{slug: {"tools": [[name, version], ...], "notes": [text, ...]}}`.
They lie in /opt/uai-tools/installs, shared by all tasks and read-only here; mise sees them through links in
the home folder, beside what the task itself installs there.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from . import places, processes, progress

# Seconds for one call of mise, which takes 12 ms.
MISE_LIMIT = 60.0


class Toolchain:
    """children: by which mise is called."""

    def __init__(self, where: places.Places, children: processes.Children) -> None:
        self._where = where
        self._children = children
        # mise writes the names of its programs anew for each link.
        self._lock = threading.Lock()
        self._projects = self._read()
        self._forget_what_is_gone()

    def knows(self, slug: str) -> bool:
        """Whether there is anything to do or to say for the project."""
        entry = self._projects.get(slug) or {}
        return bool(entry.get("tools") or entry.get("notes"))

    def set_up(self, slug: str) -> list[str]:
        """Link the project's versions; lines for people: what it gets, and what it does not.

        Raises:
            progress.Failed: mise did not take one.
        """
        entry = self._projects[slug]
        lines = []
        for name, version in entry.get("tools", []):
            with self._lock:
                self._link(name, version)
            lines.append(f"{name} {version}")
        return [*lines, *entry.get("notes", [])]

    def _link(self, name: str, version: str) -> None:
        shared = self._where.tools / name / version
        own = self._installs / name / version
        if own.is_symlink() and own.readlink() == shared:
            return
        if own.exists():
            return  # The task has installed it for itself.
        words = [str(self._where.mise), "link", "--force", f"{name}@{version}", str(shared)]
        # In the home folder, where no repository's file says anything to mise.
        problem = processes.run(words, str(self._where.home), self._children, self._environment(), MISE_LIMIT)
        if problem:
            raise progress.Failed(f"{name} {version} cannot be used: {problem}")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self._where.home), "MISE_OFFLINE": "1", "MISE_SAFE": "1"}

    @property
    def _installs(self) -> Path:
        return self._where.home / ".local" / "share" / "mise" / "installs"

    def _read(self) -> dict[str, Any]:
        path = self._where.control / "tools.json"
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(places.CONTROL_LIMIT))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _forget_what_is_gone(self) -> None:
        """Remove links to versions that the host has deleted: mise would choose one and fail."""
        # The task may have closed these folders to itself; linking then says so.
        with contextlib.suppress(OSError):
            for link in self._installs.glob("*/*") if self._installs.is_dir() else []:
                if link.is_symlink() and not link.exists():
                    link.unlink()
