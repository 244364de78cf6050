"""What the documents say to type beside a running host, typed beside a running host.

The host is `uaihost up` in a clean data folder, with the small image and the scripted agent; GitHub is a
forge on this machine. Every page gets a home of its own; all that speak of a task have one, with work in it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.documents import TOP, Command, commands_of
from uaihost.test.integration.documents_rig import by_page, surroundings
from uaihost.test.integration.forge import Forge
from uaihost.test.integration.processes import BIN
from uaihost.test.integration.typed import Reader
from uaihost.test.support import short_folder


class HostDocumentsTests(TestCase):
    # The first run on a machine makes the base and the task image.
    timeout = 900

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.env = await surroundings(self, self.folder)
        self.forge = Forge(self, self.folder)
        self.repository = self.forge.repository("me/shop", "me")
        self.env |= {"UAI_GITHUB_URL": self.forge.url, "UAI_CA_FILE": str(self.forge.ca_file)}
        self.data = Path(self.env["UAI_DATA_DIR"])
        self.port = int(self.env["UAI_HOST_BRIDGE_PORT"])
        self.shared = ""
        self.key = self.folder / "key"
        self.key.write_text("sk-" + "k" * 40 + "\n")
        self.token = self.folder / "token"
        self.token.write_text(self.forge.model.personal("me") + "\n")

    async def test_every_command_beside_a_host(self) -> None:
        await deferToThread(self.up)
        wrong = []
        for page, found in by_page(commands_of("host")):
            wrong += await deferToThread(self.read, page, found)
        self.assertEqual(wrong, [], "\n".join(wrong))

    def up(self) -> None:
        """Start the host, and wait for its page."""
        log = (self.folder / "up.log").open("wb")
        self.host = subprocess.Popen(
            [str(BIN / "uaihost"), "up"],
            env=self.env,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()
        self.addCleanup(self.down)
        wait_for("the page's address", self.opened, 120)
        self.bridge = BridgeClient(self.port, (self.data / "bridge.key").read_text().strip())
        self.type("github", "login", "--token-file", str(self.token))

    def opened(self) -> bool | None:
        text = (self.folder / "up.log").read_text(errors="replace")
        assert self.host.poll() is None, text
        return True if "Open http" in text else None

    def down(self) -> None:
        self.host.terminate()
        self.host.wait(60)

    def type(self, *words: str) -> str:
        """What `uaihost` prints."""
        done = subprocess.run(
            [str(BIN / "uaihost"), *words],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def read(self, page: str, commands: list[Command]) -> list[str]:
        """One reader, who begins with this page."""
        home = self.folder / page.replace("/", "-")
        home.mkdir()
        (home / "docs").symlink_to(TOP / "docs")
        words = {"FILE": str(self.key), "TOKENFILE": str(self.token)}
        if any("TASK" in command.text for command in commands):
            self.shared = words["TASK"] = self.shared or self.task()
        reader = Reader(home, {**self.env, "HOME": str(home)}, words)
        try:
            return reader.types(commands)
        finally:
            reader.leaves()

    def task(self) -> str:
        """A task that runs, with a commit and a change that is not committed."""
        new = {"name": "Round once", "repoUrl": self.repository, "branch": f"fix/{secrets.token_hex(3)}"}
        task: str = self.bridge.call("POST", "/api/tasks", new)["id"]
        wait_for("the task running", lambda: self.runs(task), 300)
        (copy,) = (self.data / "tasks" / task / "work").iterdir()
        owner = copy.stat()
        (copy / "cart.py").write_text("total = round(sum(prices), 2)\n")
        self.git(copy, "add", ".")
        self.git(copy, "commit", "-qm", "Round once")
        (copy / "notes.txt").write_text("not committed\n")
        for path in copy.rglob("*"):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return task

    def runs(self, task: str) -> bool | None:
        told: dict[str, Any] = self.bridge.call("GET", f"/api/tasks/{task}")
        assert told["status"] != "failed", told.get("message")
        return True if told["status"] == "running" else None

    def git(self, copy: Path, *words: str) -> None:
        who = ["-c", "safe.directory=*", "-c", "user.name=Me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", *who, "-C", str(copy), *words], env=self.env, check=True)
