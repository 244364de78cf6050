"""A backup of a host at work, put into another folder: what cannot be made again is there again."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.test_product import ProductCase

WORDS = "please keep this"


class LiveBackupTests(ProductCase):
    async def test_another_folder_has_what_the_host_had(self) -> None:
        bridge = await self.product()
        task_id = await self.task_up(bridge)
        self.addCleanup(deferToThread, self.sweep, task_id)
        await deferToThread(self.lives, bridge, task_id)

    def lives(self, bridge: BridgeClient, task_id: str) -> None:
        work = self.daemons.host_data / "tasks" / task_id / "work" / "shop"
        (work / "notes.txt").write_text("not committed\n")
        key = self.folder / "key"
        key.write_text("sk-" + "k" * 40 + "\n")
        self.said("login", "codex", "--api-key-file", str(key))
        bridge.call("POST", f"/api/tasks/{task_id}/messages", {"text": WORDS})
        wait_for("the word", lambda: WORDS in self.transcript(task_id) or None, 30)
        before = self.said("status")
        file = self.folder / "kept.tar.gz"
        made = self.said("backup", "create", str(file), "--with-keys")
        self.assertEqual((made["problems"], made["left_out"], made["keys"]), ([], [], True))
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)

        # Never two hosts with one name.
        self.daemons.kill("uaihost", signal.SIGKILL)
        old, self.daemons.host_data = self.daemons.host_data, self.folder / "other"
        self.said("backup", "restore", str(file))
        self.said("restore", task_id, "--project", "shop", "--to", str(self.folder / "back"))
        self.assertEqual((self.folder / "back" / "notes.txt").read_text(), "not committed\n")
        self.daemons.start_host()
        self.assertEqual(self.daemons.wait_connected(bridge), before["hostId"])
        after = self.said("status")
        self.assertIn(task_id, [task["id"] for task in after["tasks"]])
        self.assertIn("codex", json.dumps(before["agents"]["accounts"]))
        self.assertEqual(
            after["agents"]["accounts"], before["agents"]["accounts"], "its key opens what it sealed"
        )
        self.assertIn(WORDS, self.transcript(task_id))
        self.assertTrue((old / "state.db").exists(), "nothing was taken from the old one")

    def sweep(self, task_id: str) -> None:
        """The container that the killed host left to its successor."""
        self.daemons.stop()
        for kind, words in (("container", ["rm", "-f"]), ("network", ["rm"])):
            command = ["docker", "-H", self.docker_host, kind]
            mine = [*command, "ls", "-q", "--filter", f"label=uaihost.task={task_id}"]
            found = subprocess.run(mine, check=True, capture_output=True, text=True).stdout.split()
            if found:
                subprocess.run([*command, *words, *found], check=True, capture_output=True)

    def said(self, *words: str) -> Any:
        done = self.daemons.command(*words, "--json")
        self.assertEqual(done.returncode, 0, (words, done.stdout, done.stderr))
        return json.loads(done.stdout)

    def transcript(self, task_id: str) -> str:
        path: Path = self.daemons.host_data / "transcripts" / f"{task_id}.jsonl"
        return path.read_text() if path.exists() else ""
