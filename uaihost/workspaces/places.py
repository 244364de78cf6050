"""Where a task's files lie, and what the daemon remembers of a work copy. Nothing else builds these paths."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Protocol

import attrs

from uaihost.errors import ErrorCode, HostError

_TASK = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}\Z")


class Folders(Protocol):
    """The part of the daemon's data folder that this room lives in."""

    @property
    def mirrors(self) -> Path:
        """Bare repositories, `<key>.git`."""

    @property
    def tasks(self) -> Path:
        """A folder per task."""

    @property
    def saved(self) -> Path:
        """Work of tasks that are gone."""


@attrs.frozen
class Submodule:
    """A submodule of a work copy, as it was made.

    path, git_dir: of its files and of its repository, both relative to the work copy, with slashes; key: of
    its mirror; display: its address; commit: the one that was checked out.
    """

    path: str
    git_dir: str
    key: str
    display: str
    commit: str


@attrs.frozen
class Record:
    """What a work copy was made from. key: of its mirror; display: its address; base, head: commits.

    submodules: outer ones before those in them.
    """

    key: str
    display: str
    branch: str
    base: str
    head: str
    name: str
    email: str
    submodules: tuple[Submodule, ...] = ()

    def store(self, path: Path) -> None:
        beside = path.with_suffix(".new")
        with beside.open("w", encoding="utf-8") as file:
            json.dump(attrs.asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)

    @classmethod
    def load(cls, path: Path) -> Record | None:
        """The record in the file `path`; None when there is none that can be read."""
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            inner = tuple(Submodule(**found) for found in fields.pop("submodules", ()))
            return cls(**fields, submodules=inner)
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return None


@attrs.frozen
class Places:
    """Paths of one work copy: task `task_id`, project `slug`; or of a repository inside it.

    copy: what the container sees. Everything else is the daemon's own and is mounted nowhere: `record`;
    `repo`, the bare repository into which the copy's work is taken; `view`, `stage`: passing folders.
    inside, git: the files and the repository, relative to the copy, with slashes. Both are the agent's: only
    what follows no link may be given them.
    """

    task: Path
    copy: Path
    own: Path
    inside: str = ""
    git: str = ".git"

    @classmethod
    def of(cls, tasks: Path, task_id: str, slug: str) -> Places:
        """
        Raises:
            HostError: `invalid_args`, one of the two cannot be the name of a folder.
        """
        task = task_folder(tasks, task_id)
        if not _SLUG.match(slug) or slug.endswith((".lock", ".")) or ".." in slug:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"the project's slug {slug[:80]!r} must be 1 to 100 of A-Z, a-z, 0-9, '_', '.' and '-', "
                "starting with a letter or digit",
            )
        return cls(task, task / "work" / slug, task / "git" / slug)

    def inner(self, path: str, git_dir: str) -> Places:
        """Of a repository inside this work copy: of its files, and of what git keeps of it."""
        name = f"{path}\n{git_dir}".encode("utf-8", "surrogateescape")
        own = self.own / "inner" / hashlib.sha256(name).hexdigest()[:24]
        return attrs.evolve(self, own=own, inside=path, git=git_dir)

    @property
    def tree(self) -> Path:
        """The files."""
        return self.copy / self.inside if self.inside else self.copy

    @property
    def record(self) -> Path:
        return self.own / "copy.json"

    @property
    def half_made(self) -> Path:
        """The work copy while it is made. Not beside the others: half-made, it is none."""
        return self.own / "half-made"

    def land(self) -> None:
        """Move the finished work copy to where the container sees it.

        To be called in the reactor thread, so that two of one task do not restore one another's mode.

        Raises:
            OSError: something else is there.
        """
        work = self.copy.parent
        work.mkdir(mode=0o755, parents=True, exist_ok=True)
        mode = stat.S_IMODE(work.stat().st_mode)
        if os.geteuid() != 0:
            # Closed even to its owner, who is also the container's user.
            work.chmod(mode | 0o700)
        try:
            self.half_made.rename(self.copy)
        finally:
            if os.geteuid() != 0:
                work.chmod(mode)

    @property
    def repo(self) -> Path:
        return self.own / "repo.git"

    @property
    def view(self) -> Path:
        return self.own / "view.git"

    @property
    def index(self) -> Path:
        """The copy's own index, as it was at the last look."""
        return self.own / "index"

    @property
    def seen(self) -> Path:
        """The repository of what was looked at between two savings; it may go at any time."""
        return self.own / "seen.git"

    @property
    def stage(self) -> Path:
        return self.own / "stage"


def task_folder(tasks: Path, task_id: str) -> Path:
    """The folder of a task.

    Raises:
        HostError: `invalid_args`, the id cannot be the name of a folder.
    """
    if not _TASK.match(task_id):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            f"the task id {task_id[:80]!r} must be 1 to 64 of A-Z, a-z, 0-9, '_' and '-'",
        )
    return tasks / task_id


def mirrors_used(tasks: Path) -> set[str]:
    """The keys of the mirrors that the work copies of all tasks, and their submodules, were made from."""
    keys: set[str] = set()
    for path in tasks.glob("*/git/*/copy.json"):
        record = Record.load(path)
        if record is not None:
            keys |= {record.key, *(one.key for one in record.submodules)}
    return keys
