"""The main job through the public API alone: a task up, an agent's edit, previews, diff, task down, restarts.

Bridge and host run as two processes, as their users run them; the engine, git and the container are real.
"""

from __future__ import annotations

import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from uaihost.cli import demo
from uaihost.cli.answers import ANSWERS
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.engine import docker_host
from uaihost.test.integration.processes import Daemons
from uaihost.test.support import short_folder

reactor: Any = _reactor


class ProductCase(TestCase):
    """Bridge and host as two processes, and a task in a container; for other modules too."""

    # The first run on a machine makes the base and the task image.
    timeout = 900

    def setUp(self) -> None:
        self.folder = short_folder(self)
        (self.folder / "repositories").mkdir()

    async def make_daemons(self) -> None:
        self.docker_host = await docker_host()
        self.daemons = Daemons(self.folder, self.docker_host, [self.folder / "repositories"])
        self.addCleanup(deferToThread, self.daemons.stop)

    async def product(self) -> BridgeClient:
        if not hasattr(self, "daemons"):
            await self.make_daemons()
        bridge = await deferToThread(self.daemons.start_bridge)
        self.daemons.start_host()
        await deferToThread(self.daemons.wait_connected, bridge)
        return bridge

    async def task_up(self, bridge: BridgeClient) -> str:
        repository = await deferToThread(self.repository)
        new = {
            "name": "Shop",
            "repoUrl": str(repository),
            "branch": "shop",
            "previewPorts": [{"name": "web", "port": 3000}],
        }
        answer = await deferToThread(bridge.call, "POST", "/api/tasks", new)
        task_id: str = answer["id"]
        await deferToThread(
            wait_for, "the task", lambda: demo.running(bridge, task_id, lambda text: None), 600
        )
        return task_id

    def repository(self) -> Path:
        target = self.folder / "repositories" / "shop"
        demo.make_sample(target)
        return target

    def check_kept(self, saved: dict[str, Any]) -> None:
        repository = saved["repository"]
        subprocess.run(["git", "-C", repository, "show-ref", "--verify", "-q", "refs/heads/shop"], check=True)
        page = subprocess.run(
            ["git", "-C", repository, "show", f"refs/heads/{saved['wip']}:index.html"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        self.assertIn(demo.AFTER, page)

    async def check_nothing_left(self, task_id: str) -> None:
        def look() -> list[str]:
            found: list[str] = []
            for kind in ("container", "network"):
                command = ["docker", "-H", self.docker_host, kind, "ls", "-q"]
                command += ["--filter", f"label=uaihost.task={task_id}"] + (
                    ["-a"] if kind == "container" else []
                )
                found += subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            tasks = self.daemons.host_data / "tasks"
            found += [str(path) for path in tasks.glob(f"{task_id}*")]
            return found

        self.assertEqual(await deferToThread(look), [])


class ProductTests(ProductCase):
    async def test_the_tour(self) -> None:
        bridge = await self.product()
        task_id = await self.task_up(bridge)
        await deferToThread(demo.seen, bridge, task_id, demo.BEFORE)
        self.assertEqual(await echo(bridge, task_id, b"through the raw tunnel"), b"through the raw tunnel")
        await deferToThread(edit, bridge, task_id)
        await deferToThread(demo.seen, bridge, task_id, demo.AFTER)
        diff = await deferToThread(bridge.call, "GET", f"/api/tasks/{task_id}/diff")
        (file,) = diff["projects"][0]["files"]
        self.assertEqual((file["path"], file["status"]), ("index.html", "modified"))
        self.assertIn(f"+<h1>{demo.AFTER}</h1>", file["hunks"])
        await deferToThread(
            self.check_answers, f"task show {task_id}", f"task export {task_id} {self.folder}/work.tar.gz"
        )
        answer = await deferToThread(bridge.call, "POST", f"/api/tasks/{task_id}/down", {}, 120)
        self.assertEqual(answer["status"], "stopped")
        (saved,) = answer["saved"]
        self.check_kept(saved)
        await self.check_nothing_left(task_id)
        await deferToThread(self.check_answers)

    def exported(self) -> list[str]:
        """The names in the archive that was made."""
        with tarfile.open(self.folder / "work.tar.gz") as archive:
            return archive.getnames()

    def check_answers(self, *more: str) -> None:
        """What `--json` prints of each verb that only looks is what docs/cli-schema.json says."""
        verbs = [
            *more,
            "status",
            "tasks",
            "accounts",
            "github status",
            "gc --dry-run",
            "secrets status",
            "secrets rotate",
            "ssh-key ensure",
            "ssh-key show",
            "ssh-key delete",
            "github retry",
            "restore",
            "config show",
            "config check",
            "config path",
            "image ls",
            "version",
            "drain --timeout 0",
            "drain --off",
        ]
        for verb in verbs:
            words = verb.split()
            done = self.daemons.command(*words, "--json")
            kind = ANSWERS.get(" ".join(words[:2])) or ANSWERS[words[0]]
            # Status 1 is an answer too: there is something under way.
            self.assertIn(done.returncode, (0, 1), f"{verb}: {done.stderr}")
            try:
                msgspec.json.decode(done.stdout, type=kind)
            except msgspec.ValidationError as error:
                self.fail(f"{verb}: {error}: {done.stdout[:2000]}")
        records = self.daemons.command("logs", "--json").stdout.splitlines()
        self.assertGreater(len(records), 5)
        for text in records:
            msgspec.json.decode(text, type=ANSWERS["logs"])

    async def test_a_killed_daemon_comes_back_to_its_task(self) -> None:
        bridge = await self.product()
        task_id = await self.task_up(bridge)
        await deferToThread(demo.seen, bridge, task_id, demo.BEFORE)
        await deferToThread(self.daemons.kill, "uaihost", signal.SIGKILL)
        # Said while nobody listens; the bridge keeps it and the host takes it up when it is back.
        message = f"/api/tasks/{task_id}/messages"
        await deferToThread(
            bridge.call, "POST", message, {"text": f"edit index.html {demo.BEFORE} => {demo.AFTER}"}
        )
        self.daemons.start_host()
        await deferToThread(self.daemons.wait_connected, bridge)
        await deferToThread(consent, bridge, task_id)
        await deferToThread(demo.seen, bridge, task_id, demo.AFTER)
        events = (await deferToThread(bridge.call, "GET", f"/api/tasks/{task_id}"))["events"]
        said = [e["messageId"] for e in events if e["type"] == "channel.message"]
        self.assertEqual(len(said), len(set(said)), "a message came twice")
        await deferToThread(bridge.call, "POST", f"/api/tasks/{task_id}/down", {}, 120)
        await self.check_nothing_left(task_id)

    async def test_a_failing_task_says_why_and_leaves_nothing(self) -> None:
        bridge = await self.product()
        missing = str(self.folder / "repositories" / "nothing-here")
        for url, word in [
            (missing, "repository"),
            ("ext::sh -c id", "ext"),
            ("--upload-pack=id", "-"),
            ("file:///etc", "UAI_LOCAL_REPOSITORIES"),
            (str(self.folder), "UAI_LOCAL_REPOSITORIES"),
        ]:
            answer = await deferToThread(bridge.call, "POST", "/api/tasks", {"repoUrl": url, "name": "Bad"})
            task = await deferToThread(wait_for, "the failure", lambda a=answer: failed(bridge, a["id"]), 60)
            self.assertIn(word, task["message"])
            await self.check_nothing_left(answer["id"])

    async def test_signals_end_the_service_with_status_zero(self) -> None:
        bridge = await self.product()
        self.assertEqual(await deferToThread(self.daemons.kill, "uaihost", signal.SIGTERM), 0)
        self.assertIn("host shutting down", self.daemons.log("uaibridge") + self.daemons.log("uaihost"))
        await deferToThread(
            wait_for,
            "the host's absence",
            lambda: not any(h["connected"] for h in bridge.call("GET", "/api/state")["hosts"]) or None,
            30,
        )

    async def test_ports_are_exposed_with_and_without_a_running_daemon(self) -> None:
        await self.make_daemons()
        done = await deferToThread(self.daemons.command, "expose", "--task", "early", "web=9")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        bridge = await self.product()
        port = await self.serve(b"exposed")
        words = ["expose", "--task", "private", f"web={port}", f"editor={await self.serve(b'an editor')}"]
        done = await deferToThread(self.daemons.command, *words)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        await deferToThread(
            wait_for, "the page", lambda: bridge.preview("private", "web") == (200, "exposed") or None, 30
        )
        self.assertEqual(await deferToThread(bridge.editor, "private"), (200, "an editor"))
        status = await deferToThread(self.daemons.command, "status")
        self.assertIn("private", status.stdout)
        self.assertIn("early", status.stdout)
        done = await deferToThread(self.daemons.command, "unexpose", "private")
        self.assertEqual(done.returncode, 0, done.stderr)
        page, _ = await deferToThread(bridge.preview, "private", "web")
        self.assertNotEqual(page, 200)
        again = await deferToThread(self.daemons.command, "unexpose", "private")
        self.assertEqual(again.returncode, 1)
        self.assertIn("private", again.stderr)

    async def serve(self, content: bytes) -> int:
        page = Data(content, "text/plain")
        page.isLeaf = True
        port = reactor.listenTCP(0, Site(page), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number


def edit(bridge: BridgeClient, task_id: str) -> None:
    text = f"edit index.html {demo.BEFORE} => {demo.AFTER}"
    bridge.call("POST", f"/api/tasks/{task_id}/messages", {"text": text})
    consent(bridge, task_id)
    wait_for("the answer", lambda: demo.answered(bridge, task_id), 60)


def consent(bridge: BridgeClient, task_id: str) -> None:
    request = wait_for("the question", lambda: demo.asked(bridge, task_id), 60)
    path = f"/api/tasks/{task_id}/permissions/{request['requestId']}"
    bridge.call("POST", path, {"agentId": request["agentId"], "decision": "accept"})


def failed(bridge: BridgeClient, task_id: str) -> dict[str, Any] | None:
    task = bridge.call("GET", f"/api/tasks/{task_id}")
    return dict(task) if task["status"] == "failed" else None


class _Echo(WebSocketClientProtocol):
    factory: _EchoFactory

    def onOpen(self) -> None:
        self.sendMessage(self.factory.message)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.answered.callback(payload)
        self.sendClose()


class _EchoFactory(WebSocketClientFactory):
    protocol: Any = _Echo

    def __init__(self, url: str, message: bytes) -> None:
        super().__init__(url)
        self.message = message
        self.answered: Deferred[bytes] = Deferred()


async def echo(bridge: BridgeClient, task_id: str, message: bytes) -> bytes:
    """What the app's WebSocket says back, through the bridge's port and the raw tunnel."""
    host = f"{task_id}-web.preview.localhost:{bridge.port}"
    factory = _EchoFactory(f"ws://{host}/echo", message)
    await TCP4ClientEndpoint(reactor, "127.0.0.1", bridge.port).connect(factory)
    return await factory.answered
