"""The key of stored secrets as its owner meets it: a running host, rotation, another key, none."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.paths import Folders
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons, until
from uaihost.test.support import short_folder

TOKEN = "sk-ant-oat01-" + "s" * 95


class HostTests(TestCase):
    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.daemons = Daemons(self.folder, await docker_host(), [])
        self.addCleanup(self.daemons.stop)
        self.folders = Folders(self.daemons.host_data)

    def test_it_is_rotated_lost_and_put_back_while_the_host_runs(self) -> Deferred[None]:
        return deferToThread(self.owner)

    def owner(self) -> None:
        self.daemons.start_bridge()
        self.start()
        self.assertEqual(self.status(), (0, 0, None))
        file = self.folder / "token"
        file.write_text(TOKEN)
        self.says("signed in", "login", "claude", "--token-file", str(file))
        self.says("ssh-ed25519 ", "ssh-key", "ensure", "--user", "ada")
        self.assertEqual(self.status(), (2, 0, None))
        first = self.folders.secrets_key.read_bytes()
        self.says("a new key seals 2 stored secrets", "secrets", "rotate")
        second = self.folders.secrets_key.read_bytes()
        self.assertNotEqual(first, second)
        self.assertEqual(self.claude()["form"], "token")

        # The key of before: nothing opens, the host runs and says why, and loses nothing.
        self.write_key(first)
        self.restart()
        self.assertIn("another key", self.claude()["problem"])
        self.assertEqual(self.status(), (0, 2, None))
        refused = self.daemons.command("secrets", "rotate")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("nothing was changed", " ".join(refused.stderr.split()))

        # None at all: nobody makes another one behind the rows.
        self.folders.secrets_key.unlink()
        self.restart()
        self.assertIn("missing", self.claude()["problem"])
        self.assertIn("missing", str(self.status()[2]))
        self.assertFalse(self.folders.secrets_key.exists())

        self.write_key(second)
        self.restart()
        self.assertEqual((self.claude()["form"], self.status()), ("token", (2, 0, None)))

        # Lost for good: given up, and signed in anew without a restart.
        self.folders.secrets_key.unlink()
        self.restart()
        self.says("2 stored secrets are forgotten", "secrets", "forget", "--yes")
        self.says("signed in", "login", "claude", "--token-file", str(file))
        self.assertEqual(self.status(), (1, 0, None))
        self.assertNotIn(TOKEN, self.daemons.log("uaihost"))

    def start(self) -> None:
        self.daemons.start_host()
        until("the host", lambda: self.daemons.command("status").returncode == 0, 60)

    def restart(self) -> None:
        self.daemons.kill("uaihost", signal.SIGTERM)
        self.start()

    def write_key(self, data: bytes) -> None:
        self.folders.secrets_key.unlink(missing_ok=True)
        descriptor = os.open(self.folders.secrets_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def says(self, what: str, *words: str) -> None:
        done = self.daemons.command(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(what, done.stdout)

    def asked(self, *words: str) -> Any:
        done = self.daemons.command(*words, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def status(self) -> tuple[int, int, str | None]:
        found = self.asked("secrets", "status")
        return found["sealed"], found["others"], found["problem"]

    def claude(self) -> dict[str, Any]:
        found: dict[str, Any] = next(
            each for each in self.asked("accounts")["accounts"] if each["provider"] == "claude"
        )
        return found
