"""The local page's API on a real host without its bridge: a task is exported while it runs, then stopped."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import tarfile
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread

from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.test_product import ProductCase
from uaihost.test.web.sample import good


class Page:
    """What the page does, without a browser: opened by its link, it keeps its cookie and its key."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        answer, _ = self.ask("GET", f"/?{parts.query}")
        self.cookie = str(answer.getheader("set-cookie")).partition(";")[0]
        self.key = str(answer.getheader("location")).partition("#key=")[2]

    def ask(self, method: str, path: str, headers: Mapping[str, str] = {}, body: str | None = None) -> Any:
        """The answer and its body."""
        connection = HTTPConnection(urlsplit(self.origin).netloc, timeout=120)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            answer: HTTPResponse = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def look(self, path: str) -> Any:
        answer, data = self.ask("GET", path, self.shown())
        assert answer.status == 200, data
        return json.loads(data)

    def verb(self, name: str, words: dict[str, Any]) -> Any:
        headers = {**self.shown(), "Origin": self.origin, "Content-Type": "application/json"}
        answer, data = self.ask("POST", f"/api/verbs/{name}", headers, json.dumps(words))
        assert answer.status == 200, data
        return json.loads(data)

    def shown(self) -> dict[str, str]:
        return {"Cookie": self.cookie, "X-Uaihost-Key": self.key, "Sec-Fetch-Site": "same-origin"}


class LocalPageTests(ProductCase):
    async def test_with_the_bridge_gone_a_task_is_exported_and_stopped(self) -> None:
        bridge = await self.product()
        task_id = await self.task_up(bridge)
        copy = self.daemons.host_data / "tasks" / task_id / "work" / "shop"
        await deferToThread(unsaved, copy)
        await deferToThread(self.daemons.kill, "uaibridge", signal.SIGTERM)
        shown = await deferToThread(self.daemons.command, "status")
        (link,) = [word for word in shown.stdout.split() if "?token=" in word]
        page = await deferToThread(Page, link)
        status = await deferToThread(wait_for, "the loss", lambda: self.away(page.look("/api/status")), 30)
        self.assertLessEqual(set(good()), set(status), "the sample is what a host says")
        (task,) = status["tasks"]
        self.assertEqual((task["id"], task["status"]), (task_id, "running"))
        self.assertLessEqual(set(task) - {"usage"}, set(good()["tasks"][0]))
        self.assertEqual(status["image"]["state"], "present")

        made = await deferToThread(page.verb, "task.export", {"taskId": task_id})
        self.assertEqual((made["file"], made["live"]), (f"{task_id}.tar.gz", True))
        answer, data = await deferToThread(page.ask, "GET", made["download"], page.shown())
        self.assertEqual((answer.status, len(data)), (200, made["bytes"]))
        await deferToThread(self.check_archive, data, task_id)
        again, _ = await deferToThread(page.ask, "GET", made["download"], page.shown())
        self.assertEqual(again.status, 404, "an export is fetched once")
        self.assertEqual(list((self.daemons.host_data / "exports").iterdir()), [])
        (task,) = (await deferToThread(page.look, "/api/status"))["tasks"]
        self.assertEqual(task["status"], "running", "the task went on")

        done = await deferToThread(page.verb, "task.stop", {"taskId": task_id})
        self.assertEqual((done["status"], done["restore"]), ("stopped", f"uaihost restore {task_id}"))
        await self.check_nothing_left(task_id)
        back = str(self.folder / "back")
        restored = await deferToThread(
            self.daemons.command, "restore", task_id, "--project", "shop", "--to", back
        )
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.assertIn("not committed", (Path(back) / "index.html").read_text())

        after = await deferToThread(page.verb, "task.export", {"taskId": task_id})
        self.assertFalse(after["live"], "what was kept is exported when the task is gone")
        bridge = await deferToThread(self.daemons.start_bridge)
        await deferToThread(wait_for, "the bridge to learn of it", lambda: stopped(bridge, task_id), 60)

    def away(self, status: dict[str, Any]) -> dict[str, Any] | None:
        return status if status["bridge"]["state"] == "waiting" else None

    def check_archive(self, data: bytes, task_id: str) -> None:
        target = self.folder / "exported"
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
            tar.extractall(target, filter="data")
        self.assertIn("shop/", (target / task_id / "READ-ME.txt").read_text())
        clone = target / task_id / "shop"

        def git(*words: str) -> str:
            done = subprocess.run(
                ["git", "-C", str(clone), "-c", "safe.directory=*", *words],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            return done.stdout.strip()

        self.assertEqual(git("branch", "--show-current"), "shop")
        self.assertIn("not committed", (clone / "index.html").read_text())
        self.assertEqual((clone / "new.txt").read_text(), "untracked\n")
        self.assertEqual(len(git("stash", "list").splitlines()), 1)
        self.assertEqual((clone / ".git" / "hooks").exists(), False, "nothing that git would run")


def unsaved(copy: Path) -> None:
    """Work of every kind in a copy, and a hook that must never run."""
    git = ["git", "-C", str(copy), "-c", "safe.directory=*", "-c", "user.name=A", "-c", "user.email=a@b"]
    (copy / "index.html").write_text("<p>put aside\n")
    subprocess.run([*git, "stash", "push", "-q"], check=True)
    (copy / "index.html").write_text("<p>not committed\n")
    (copy / "new.txt").write_text("untracked\n")
    for name in ("post-checkout", "pre-commit", "post-index-change"):
        hook = copy / ".git" / "hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nkill -9 $PPID\n")
        hook.chmod(0o755)


def stopped(bridge: BridgeClient, task_id: str) -> bool | None:
    task = bridge.call("GET", f"/api/tasks/{task_id}")
    return True if task["status"] == "stopped" else None
