"""The site of the documents in a real browser, opened from a disk: no server, no network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.test.documents import TOP
from uaihost.test.support import short_folder

# Milliseconds that a page gets to come to rest.
REST = 8000


class SiteTests(TestCase):
    timeout = 120

    async def test_the_search_works_from_a_disk(self) -> None:
        folder = short_folder(self)
        await deferToThread(built, folder / "site")
        page = folder / "site" / "adr" / "0015-where-git-runs.html"
        shown, said = await deferToThread(opened, folder, f"file://{page}?q=drain")
        self.assertRegex(shown, r"[1-9][0-9]* matching documents")
        self.assertIn("operations.html", shown)
        self.assertNotIn("CONSOLE", said)


def built(folder: Path) -> None:
    """The site."""
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(words, cwd=TOP, check=True, env={"NO_MKDOCS_2_WARNING": "1"})


def opened(folder: Path, address: str) -> tuple[str, str]:
    """A page as the browser has it once it is at rest, and what its console says."""
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    where = [f"--user-data-dir={folder / 'profile'}", f"--timeout={REST}", "--dump-dom", address]
    done = subprocess.run([*words, *where], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout, done.stderr
