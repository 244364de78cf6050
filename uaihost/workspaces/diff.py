"""What a task changed in a work copy, against the merge base with the default branch."""

from __future__ import annotations

from typing import Any

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.diff_parser import File, clip, parse_files, parse_patch
from uaihost.workspaces.mirrors import Mirrors
from uaihost.workspaces.places import Places
from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.snapshot import Snapshot, Snapshots

# What a person can read and a page can show: bytes of hunks for a file and in all, files.
FILE_LIMIT = 256 << 10
TOTAL_LIMIT = 4 << 20
MAX_FILES = 1000
# Bytes: a file larger than this is not compared line by line (core.bigFileThreshold).
LARGE = 1 << 20
# Bytes: a changed file larger than this is named and not even read; saving reads it.
UNREAD = 32 << 20

_OPTIONS = ("-r", "-M", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--submodule=short")
_SETTINGS = (f"core.bigFileThreshold={LARGE}",)


class Diffs:
    """Shows what work copies hold."""

    def __init__(self, git: Git, mirrors: Mirrors, snapshots: Snapshots) -> None:
        self._git = git
        self._mirrors = mirrors
        self._snapshots = snapshots

    async def diff(self, places: Places, project_id: str) -> dict[str, Any]:
        """Committed, staged, unstaged and untracked changes together, one project of taskDiff's result.

        `{id, slug, base, head, files, truncated}`; base and head are commits, null when there is none.

        Raises:
            HostError: `not_found`, no such work copy; `conflict`, it cannot be read.
        """
        self._snapshots.check(places)
        async with self._snapshots.lock(places):
            snapshot = await self._snapshots.take(places, largest=UNREAD)
            try:
                base = await self._base(snapshot)
                files, truncated = await self._files(snapshot, base)
            except (GitFailed, ValueError) as error:
                why = error.last_line if isinstance(error, GitFailed) else str(error)
                raise HostError(
                    ErrorCode.CONFLICT, f"the changes in {places.copy.name!r} cannot be compared: {why}"
                ) from None
        return {
            "id": project_id,
            "slug": places.copy.name,
            "base": base,
            "head": snapshot.head,
            "files": [file.as_json() for file in files],
            "truncated": truncated,
        }

    async def _base(self, snapshot: Snapshot) -> str | None:
        """Where the work left the default branch; the start of the task when they have nothing in common.

        The default branch is the mirror's: the copy's own is the agent's to move.
        """
        default = await self._mirrors.default(self._mirrors.path(snapshot.record.key)) or snapshot.record.base
        if snapshot.head is None:
            return default
        found = await self._git.line("merge-base", git_dir=snapshot.repo, operands=[default, snapshot.head])
        return found or default

    async def _files(self, snapshot: Snapshot, base: str | None) -> tuple[list[File], bool]:
        assert base is not None
        sides = [base, snapshot.tree]
        files = await self._list(snapshot, sides, [])
        truncated = len(files) > MAX_FILES
        paths: list[bytes] = []
        if truncated:
            # Listed again, because fewer files can pair differently as renames.
            shown = files[:MAX_FILES]
            paths = [path for file in shown for path in (file.path, file.old_path) if path is not None]
            files = await self._list(snapshot, sides, paths)
        await self._mark_large(snapshot, files)
        patch = await self._git.run(
            "diff-tree", *_OPTIONS, "--patch", "--unified=3",
            git_dir=snapshot.repo, settings=_SETTINGS, operands=sides, paths=paths, limit=2 * TOTAL_LIMIT,
        )  # fmt: skip
        parse_patch(patch.out, files, complete=not patch.truncated)
        for name, tracked in sorted(snapshot.large.items()):
            # What was committed before is in the list with its content of then.
            files = [file for file in files if file.path != name]
            files.append(
                File(name, None, "modified" if tracked else "added", None, None, "", "", truncated=True)
            )
        files.sort(key=lambda file: file.path)
        return _limited(files, truncated)

    async def _list(self, snapshot: Snapshot, sides: list[str], paths: list[bytes]) -> list[File]:
        listed = await self._git.run(
            "diff-tree", *_OPTIONS, "--raw", "--numstat", "-z",
            git_dir=snapshot.repo, settings=_SETTINGS, operands=sides, paths=paths,
        )  # fmt: skip
        if listed.truncated:
            raise HostError(ErrorCode.TOO_LARGE, "too many files changed to list them")
        return parse_files(listed.out)

    async def _mark_large(self, snapshot: Snapshot, files: list[File]) -> None:
        """git calls a file above the threshold binary; it may be text that is too large to show."""
        doubtful = [file for file in files if file.binary]
        if not doubtful:
            return
        ids = [oid for file in doubtful for oid in (file.old, file.new)]
        finished = await self._git.run(
            "cat-file", "--batch-check=%(objectsize)",
            git_dir=snapshot.repo, stdin="".join(f"{oid}\n" for oid in ids).encode(),
        )  # fmt: skip
        sizes = [int(line) if line.isdigit() else 0 for line in finished.out.decode("ascii").splitlines()]
        for number, file in enumerate(doubtful):
            if max(sizes[2 * number : 2 * number + 2]) >= LARGE:
                file.binary, file.truncated = False, True


def _limited(files: list[File], truncated: bool) -> tuple[list[File], bool]:
    """The files that fit the limits, and whether anything was left out, now or before."""
    left = TOTAL_LIMIT
    for file in files[:MAX_FILES]:
        if file.hunks is not None:
            kept = clip(file.hunks, min(FILE_LIMIT, left))
            file.truncated = file.truncated or kept != file.hunks
            file.hunks = kept
            left -= len(kept or b"")
    shown = files[:MAX_FILES]
    return shown, truncated or len(shown) < len(files) or any(file.truncated for file in shown)
