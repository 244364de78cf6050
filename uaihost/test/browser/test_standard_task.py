"""A task of the standard image as a person sees it: editor, diff, a real Vite app on a port nobody named.

Real bridge, host, engine, image and Chromium. The app listens on the container's own loopback, so that only
the relay reaches it, and on a port that was not asked for, so that it has to be found.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli import demo
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.browser.browser import Browser
from uaihost.test.browser.test_editor import ROW, SIDEBAR, TEXT, UNSAVED
from uaihost.test.integration.engine import docker_host, standard_image
from uaihost.test.integration.processes import Daemons
from uaihost.test.support import short_folder

SOURCE = Path(__file__).parent / "preview"
TITLE = "document.querySelector('#title')?.textContent"


class StandardTaskTests(TestCase):
    # The first run on a machine builds the image, and the task installs Vite.
    timeout = 900

    async def setUp(self) -> None:  # type: ignore[override]
        await standard_image(self)
        self.folder = short_folder(self)
        roots = self.folder / "repositories"
        self.daemons = Daemons(self.folder, await docker_host(), [roots], image="standard")
        self.repository = roots / "shop"
        await deferToThread(make_app, self.repository)
        self.addCleanup(deferToThread, self.daemons.stop)
        self.bridge: BridgeClient = await deferToThread(self.daemons.start_bridge)
        self.daemons.start_host()
        await deferToThread(self.daemons.wait_connected, self.bridge)
        self.browser = Browser(reactor, f"standard-{self._testMethodName}")
        self.addCleanup(self.browser.stop)
        await self.browser.start()

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        return await deferToThread(self.bridge.call, method, path, body, 120)

    async def task_up(self) -> str:
        new = {"name": "Bread", "repoUrl": str(self.repository), "previewPorts": [], "branch": "bread"}
        task_id: str = (await self.ask("POST", "/api/tasks", new))["id"]
        self.addCleanup(self.take_down, task_id)
        await deferToThread(
            wait_for, "the task", lambda: demo.running(self.bridge, task_id, lambda _: None), 300
        )
        return task_id

    async def take_down(self, task_id: str) -> None:
        if "uaihost" not in self.daemons.processes:
            return
        if (await self.ask("GET", f"/api/tasks/{task_id}"))["phase"] != "gone":
            await self.ask("POST", f"/api/tasks/{task_id}/down", {})

    async def view(self, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask("GET", f"/api/tasks/{task_id}")
        return found

    async def found_port(self, task_id: str) -> str:
        """The address of the preview that was found by itself."""

        def look() -> str | None:
            previews = self.bridge.call("GET", f"/api/tasks/{task_id}")["previews"]
            return next((one["url"] for one in previews if one["name"] == "port-5173"), None)

        return await deferToThread(wait_for, "Vite's port among the previews", look, 120)

    async def test_an_edit_in_the_editor_is_in_the_preview_and_in_the_diff(self) -> None:
        browser = self.browser
        task_id = await self.task_up()
        editor = (await self.view(task_id))["editorUrl"]
        self.assertEqual(await browser.do("open", f"{editor}?folder=/workspace/shop/src"), 200)
        await browser.see(SIDEBAR, 50)
        await browser.see(ROW.format("title.js"), 50)
        await browser.do("click", ROW.format("title.js"))
        await browser.see(TEXT)
        await browser.do("click", TEXT)
        await browser.do("key", "Control+Home")
        await browser.do("type", "// Fresh bread.\n")
        await browser.do("key", "Control+s")
        await browser.gone(UNSAVED)
        await browser.shot("editor")
        diff = await self.ask("GET", f"/api/tasks/{task_id}/diff")
        (file,) = diff["projects"][0]["files"]
        self.assertEqual((file["path"], file["status"]), ("src/title.js", "modified"))
        self.assertIn("+// Fresh bread.", file["hunks"])
        preview = await self.found_port(task_id)
        served = await deferToThread(self.bridge.preview, task_id, "port-5173", "/src/title.js")
        self.assertIn("// Fresh bread.", served[1])
        # The same on the page, beside the links to editor and preview.
        await browser.do("open", f"http://localhost:{self.bridge.port}/?key={self.bridge.key}")
        await browser.do("open", f"http://localhost:{self.bridge.port}/#/task/{task_id}/changes")
        await browser.see(".file:has-text('src/title.js')", 20)
        await browser.see(f".links a[href='{preview}']")
        await browser.see(f".links a[href='{editor}']")
        await browser.shot("changes")
        await browser.do("open", f"http://localhost:{self.bridge.port}/#/task/{task_id}")
        await browser.see(".told summary:has-text('Isolation')", 20)
        await browser.do("click", ".told summary")
        await browser.shot("chat")
        report = await deferToThread(self.daemons.command, "task", task_id, "--json")
        self.assertTrue(json.loads(report.stdout)["report"], report.stderr)

    async def test_vite_reloads_hot_through_the_preview(self) -> None:
        browser = self.browser
        task_id = await self.task_up()
        preview = await self.found_port(task_id)
        self.assertEqual(await browser.do("open", preview), 200)
        await browser.do("until", TITLE, "Hello from the shop", 20000)
        await browser.do("connected", 1)
        await browser.do("run", "window.before = 'the edit'")
        edit = {"text": "edit src/title.js Hello from the shop => Fresh bread"}
        await self.ask("POST", f"/api/tasks/{task_id}/messages", edit)
        asked = await deferToThread(wait_for, "the question", lambda: demo.asked(self.bridge, task_id), 60)
        answer = {"agentId": asked["agentId"], "decision": "accept"}
        await self.ask("POST", f"/api/tasks/{task_id}/permissions/{asked['requestId']}", answer)
        await browser.do("until", TITLE, "Fresh bread", 20000)
        # Not a reload: what the page held is still there.
        self.assertEqual(await browser.do("run", "window.before"), "the edit")
        await browser.shot("preview")


def make_app(folder: Path) -> None:
    """A repository with a Vite app that installs itself and listens where only its container reaches it."""
    shutil.copytree(SOURCE, folder)
    hooks = folder / ".uai"
    hooks.mkdir()
    script(hooks / "setup", "npm ci --no-audit --no-fund")
    script(hooks / "start", "exec npx vite --host 127.0.0.1 --port 5173 --strictPort")
    (folder / ".gitignore").write_text("node_modules\n")
    git = ["git", "-C", str(folder), "-c", "user.name=Shop", "-c", "user.email=shop@localhost"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "Open the shop"]):
        subprocess.run([*git, *words], check=True)


def script(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\nset -e\n{command}\n")
    path.chmod(0o755)
