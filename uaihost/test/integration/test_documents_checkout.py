"""What the documents say to type in a checkout, and what to type where the wheel is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.test.documents import TOP, Command, commands_of
from uaihost.test.integration.documents_rig import by_page, surroundings
from uaihost.test.integration.typed import Reader
from uaihost.test.support import short_folder

# What a checkout has made for itself, and what is as large.
MADE = (".git", ".cache", "build", "dist", "artifacts", "__pycache__")


class CheckoutDocumentsTests(TestCase):
    # The first run on a machine makes the base and the task image.
    timeout = 900

    async def test_every_command_in_a_checkout(self) -> None:
        wrong = []
        for page, commands in by_page(commands_of("checkout")):
            folder = short_folder(self)
            env = await surroundings(self, folder)
            # Whoever activated an environment has other programs first.
            env["PATH"] = os.environ["PATH"]
            checkout = folder / "uaihost"
            checked_out(checkout)
            wrong += await deferToThread(types, Reader(checkout, env, {}), commands)
            if any(command.text == "make docs" for command in commands):
                self.looks_like_a_site(checkout / "dist" / "site", page)
        self.assertEqual(wrong, [], "\n".join(wrong))

    def looks_like_a_site(self, site: Path, page: str) -> None:
        """It has its pages and its search, and loads nothing from elsewhere."""
        self.assertTrue((site / "index.html").exists(), page)
        self.assertTrue((site / "search" / "search_index.js").exists(), "the search needs no server")
        for path in site.rglob("*.html"):
            loaded = re.findall(
                r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?:[^"]*)', path.read_text()
            )
            self.assertEqual(loaded, [], path.name)


class WheelDocumentsTests(TestCase):
    # A dozen of libraries are installed.
    timeout = 300

    async def test_every_command_where_the_wheel_is(self) -> None:
        folder = short_folder(self)
        await deferToThread(wheel, folder)
        python = Path(sys.executable).resolve().parent
        given = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        env = {
            **given,
            "PATH": os.pathsep.join([str(python), os.environ["PATH"]]),
            "HOME": str(folder),
            "PIP_FIND_LINKS": str(folder),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        reader = Reader(folder, env, {})
        wrong = await deferToThread(types, reader, commands_of("wheel"))
        self.assertEqual(wrong, [], "\n".join(wrong))


def types(reader: Reader, commands: list[Command]) -> list[str]:
    """One page, to its end."""
    try:
        return reader.types(commands)
    finally:
        reader.leaves()


def checked_out(folder: Path) -> None:
    """A checkout that is set up: this one's files and environment, without what was made beside them.

    Its environment says of itself that it is up to date, so that setting up (scripts/setup) never installs
    anything into that of this checkout.
    """
    (folder / ".venv").mkdir(parents=True)
    for path in TOP.iterdir():
        if path.name not in {*MADE, ".venv"}:
            (folder / path.name).symlink_to(path)
    for path in Path(sys.prefix).iterdir():
        if path.name != ".ready":
            (folder / ".venv" / path.name).symlink_to(path)
    parts = ("requirements/dev.txt", "setup.py", "pyproject.toml")
    wanted = hashlib.sha256(b"".join((TOP / part).read_bytes() for part in parts)).hexdigest()
    (folder / ".venv" / ".ready").write_text(f"{wanted}  -\n")


def wheel(folder: Path) -> None:
    """The wheel of this checkout; its files are copied, since building writes beside them."""
    source = folder / "source"
    ignored = shutil.ignore_patterns(*MADE, ".*", "*.egg-info")
    shutil.copytree(TOP, source, ignore=ignored)
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, *words, str(folder), str(source)], check=True)
    shutil.rmtree(source)
