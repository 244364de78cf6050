"""The bounds that docs/recovery.md publishes are those of the code."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.workspaces import leftovers, repository_files, restore, task_files

PAGE = Path(__file__).parents[3] / "docs" / "recovery.md"


def mebibytes(count: int) -> str:
    return f"{count >> 20} MiB"


class PageTests(SynchronousTestCase):
    def test_bounds(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        rows = dict(line.strip("| ").split(" | ") for line in text.splitlines() if line.count(" | ") == 1)
        folder = f"{mebibytes(leftovers.LARGEST_FOLDER)} and {leftovers.MOST_IN_FOLDER} files"
        whole = f"{mebibytes(leftovers.LARGEST_ALL)} and {leftovers.MOST_FILES} files"
        self.assertEqual(rows["a file"], mebibytes(leftovers.LARGEST_FILE))
        self.assertEqual(rows["a folder in which git keeps nothing"], folder)
        self.assertEqual(rows["all of a work copy"], whole)
        sessions = rows["agents' sessions of a task, the newest first"]
        self.assertEqual(sessions, mebibytes(task_files.SESSIONS_LIMIT))
        self.assertIn(f"up to {repository_files.DAMAGED >> 30} GiB", text)
        self.assertIn(f"`{restore.RESTORED}past/1`", text)
