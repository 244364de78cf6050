"""The files of saved work beside the vault, in saved/<task>: <name>.tar with what git does not keep of a work
copy, and <name>.json, which describes all that was kept.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs

from uaihost.blocking import Blocking
from uaihost.paths import flush
from uaihost.workspaces import archive
from uaihost.workspaces.leftovers import Inner, Survey, choose, shown_name
from uaihost.workspaces.places import Places
from uaihost.workspaces.repository_files import damaged, remembered
from uaihost.workspaces.safe_git import Git
from uaihost.workspaces.snapshot import Snapshot

# Bytes of names that a tree may hold: some million files.
_NAMES = 256 << 20


@attrs.frozen
class Found:
    """What a work copy holds. snapshots: of itself, with None, and of each repository inside it; torn: the
    repositories inside it of which there is none."""

    survey: Survey
    snapshots: list[tuple[Inner | None, Snapshot]]
    torn: list[Inner]


class Beside:
    """Writes those files, in folders of the folder `saved`."""

    def __init__(self, git: Git, blocking: Blocking, saved: Path) -> None:
        self._git = git
        self._blocking = blocking
        self._saved = saved

    async def name(self, task_id: str, slug: str, places: Places) -> str:
        """Of the files of this work copy: those of an earlier one that had the slug are not touched."""
        return await self._blocking.call(
            lambda: free_name(self._saved / task_id, slug, places.record.stat().st_mtime_ns)
        )

    async def write(
        self, task_id: str, name: str, places: Places, found: Found
    ) -> tuple[Path | None, list[str]]:
        """Write the tar file; its path if there is anything for it, and notes for people.

        Raises:
            HostError: `too_large`, a repository that git cannot read.
            OSError: it cannot be written.
        """
        kept: set[bytes] = set()
        forced: set[bytes] = set()
        for one, snapshot in found.snapshots:
            if one is None or one.path is not None:
                above = b"" if one is None or one.path is None else one.path + b"/"
                kept.update(above + text for text in await self._names(snapshot))
                forced.update(above + text for text in snapshot.converted)
        for torn in found.torn:
            if torn.path is not None:
                start = torn.path + b"/"
                forced.update(text for text in found.survey.files if text.startswith(start))
        chosen = await self._blocking.call(choose, found.survey, kept | forced)
        git_dirs = [b".git", *(one.git_dir for one in found.survey.inner)]
        raw = [
            b".git" if one is None else one.git_dir
            for one, snapshot in found.snapshots
            if snapshot.fault is not None or snapshot.missed is not None
        ]
        raw += [one.git_dir for one in found.torn]
        files = await self._blocking.call(remembered, places.copy, git_dirs, bool(chosen.files))
        files += await self._blocking.call(damaged, places.copy, raw)
        items = [archive.Item(archive.WORK + text, text) for text in {*chosen.files, *forced}]
        items += [archive.Item(archive.WORK + text + b"/", text + b"/") for text in chosen.folders]
        items += [archive.Item(archive.GIT + text, text) for text in dict.fromkeys(files)]
        notes = _notes(found)
        if chosen.left:
            notes.append(f"left out: {', '.join(chosen.left)}")
        if not items:
            return None, notes
        target = self._saved / task_id / f"{name}.tar"
        items.sort(key=lambda item: item.name)
        unread = await self._blocking.call(archive.write, target, places.copy, items)
        if unread:
            shown = ", ".join(shown_name(path) for path in unread[:5])
            notes.append(f"{len(unread)} files could not be read: {shown}")
        return target, notes

    async def describe(self, task_id: str, places: Places, what: dict[str, Any]) -> None:
        """Write the description; `what` holds its name."""
        made = places.record.stat().st_mtime_ns
        description = {"version": 1, "task": task_id, "made": made, **what}
        await self._blocking.call(write_json, self._saved / task_id / f"{what['name']}.json", description)

    async def _names(self, snapshot: Snapshot) -> list[bytes]:
        listed = await self._git.run(
            "ls-tree", "-r", "-z", "--name-only", "--full-tree", git_dir=snapshot.repo,
            operands=[snapshot.tree], limit=_NAMES,
        )  # fmt: skip
        return [text for text in listed.out.split(b"\0") if text]


def free_name(folder: Path, start: str, made: int) -> str:
    """The name of files in `folder`: `start`, or with a number when that is something else's. Blocking.

    made: tells what they describe from what had the same name before.
    """
    for number in range(1, 1 << 20):
        name = start if number == 1 else f"{start}-{number}"
        try:
            there = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            # Without its description a tar file is the rest of a write that was cut off.
            return name
        except ValueError:
            continue
        if there.get("made") == made:
            return name
    raise AssertionError(f"{start} was kept too often")


def write_json(target: Path, value: Any) -> None:
    """Put JSON into a file, whole and on the disk or not at all. Blocking."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.new")
    with beside.open("w", encoding="ascii") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(target)
    flush(target.parent)
    flush(target.parent.parent)


def _notes(found: Found) -> list[str]:
    notes = [snapshot.fault for _, snapshot in found.snapshots if snapshot.fault]
    notes += [
        f"{snapshot.missed}; its repository is kept as files too"
        for _, snapshot in found.snapshots
        if snapshot.missed
    ]
    return notes + [
        f"{shown_name(one.path or one.git_dir)} is a repository that cannot be read; it is kept as files"
        for one in found.torn
    ]
