"""git and gh in a task as people run it: a bridge, a host that is killed, a private repository at a forge."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.internet import reactor as default_reactor
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from uaihost.cli import demo
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.engine import docker_host, standard_image
from uaihost.test.integration.forge import Forge
from uaihost.test.integration.processes import Daemons
from uaihost.test.integration.test_broker import RELAY
from uaihost.test.support import short_folder

reactor: Any = default_reactor


class ProductTests(TestCase):
    timeout = 300

    async def test_a_private_repository(self) -> None:
        await standard_image(self)
        self.engine = await docker_host()
        self.root = short_folder(self)
        self.forge = Forge(self, self.root)
        self.url = self.forge.repository("o/shop", "ada")
        self.forge.repository("o/other", "ada")
        self.token = self.forge.model.personal("ada")
        # The forge answers here meanwhile.
        await deferToThread(self.as_people_do)

    def as_people_do(self) -> None:
        self.daemons = daemons = Daemons(self.root, self.engine, [], image="standard")
        daemons.env |= {"UAI_GITHUB_URL": self.forge.url, "UAI_CA_FILE": str(self.forge.ca_file)}
        self.addCleanup(daemons.stop)
        bridge = daemons.start_bridge()
        daemons.start_host()
        daemons.wait_connected(bridge)
        self.connect()
        task_id = self.task(bridge)
        # The host cloned it, with the owner's token.
        cloned = {path for token, _, path in self.forge.seen if token == self.token}
        self.assertIn("/o/shop.git/info/refs", cloned)
        self.inside("git switch -qc fix && git commit -q --allow-empty -m two && git push -q origin fix")
        self.assertEqual(sorted(self.forge.branches("o/shop")), ["fix", "main"])
        self.assertIn("/o/shop/pull/3", self.inside("gh pr create --title T --body B"))
        refused = self.inside("gh pr list -R localhost/o/other", fails=True)
        self.assertIn("o/other is not a repository of this task", refused)
        self.lose_the_token(bridge, task_id)
        daemons.kill("uaihost")
        self.assertIn("could not read Username", self.inside("git fetch origin", fails=True))
        daemons.start_host()
        daemons.wait_connected(bridge)
        wait_for(
            "git in the task", lambda: "well" in self.inside("git fetch -q && echo well", True) or None, 30
        )
        shown = daemons.command("audit", "--task", task_id, "--json").stdout.splitlines()
        uses = {(one["user"], one["what"], one["outcome"]) for one in map(json.loads, shown)}
        self.assertIn(("owner", "git", "ok"), uses)
        self.assertIn(("owner", "api", "ok"), uses)
        daemons.kill("uaihost", 15)
        self.assertEqual(list(self.holding(self.token)), [])
        # The search does find what is there.
        (self.root / "host" / "planted").write_text(f"x{self.token}x")
        self.assertEqual(list(self.holding(self.token)), [self.root / "host" / "planted"])

    def lose_the_token(self, bridge: BridgeClient, task_id: str) -> None:
        """Revoked at GitHub: told once in the task, tried again by an order, well again with another one."""
        self.forge.model.revoke("ada")
        # git says that it was refused; whoever asks next finds out what that means.
        for _ in range(3):
            self.inside("git fetch origin", fails=True)
        (note,) = wait_for(
            "the note", lambda: self.notes(bridge, task_id, "gh authentication expired") or None, 30
        )
        self.assertIn("reason: GitHub does not take the token", note)
        bridge.call("POST", f"/api/tasks/{task_id}/messages", {"text": "/retry-gh"})
        wait_for(
            "the answer", lambda: self.notes(bridge, task_id, "gh authentication expired")[1:] or None, 30
        )
        self.token = self.forge.model.personal("ada")
        self.connect()
        wait_for("the recovery", lambda: self.notes(bridge, task_id, "GitHub works again") or None, 30)
        self.inside("git fetch origin")

    def notes(self, bridge: BridgeClient, task_id: str, words: str) -> list[str]:
        events = bridge.call("GET", f"/api/tasks/{task_id}/events")["events"]
        texts = [event["text"] for event in events if event["type"] == "channel.message"]
        return [text for text in texts if words in text]

    def connect(self) -> None:
        secret = self.root / "token"
        secret.write_text(self.token)
        done = self.daemons.command("github", "login", "--token-file", str(secret))
        self.assertEqual(done.returncode, 0, done.stderr)
        secret.unlink()

    def task(self, bridge: BridgeClient) -> str:
        new = {"repoUrl": self.url, "agents": []}
        task_id = str(bridge.call("POST", "/api/tasks", new)["id"])
        self.addCleanup(self.remove, task_id)
        wait_for("the task", lambda: demo.running(bridge, task_id, lambda text: None), 200)
        (self.container,) = self.labelled("container", task_id)
        run = self.daemons.host_data / "tasks" / task_id / "run"
        port = urlsplit(self.forge.url).port or 443
        (run / "relay.py").write_text(RELAY)
        (run / "ca.pem").write_bytes(self.forge.ca_file.read_bytes())
        listening: Any = blockingCallFromThread(
            reactor, reactor.listenUNIX, str(run / "forge.sock"), ProxyFactory("127.0.0.1", port), mode=0o666
        )
        self.addCleanup(listening.stopListening)
        self.docker("exec", "-d", self.container, "python3", "/run/uai/relay.py", str(port))
        return task_id

    def remove(self, task_id: str) -> None:
        for what, words in (("container", ["rm", "-f"]), ("network", ["rm"])):
            found = self.labelled(what, task_id)
            if found:
                self.docker(what, *words, *found)

    def labelled(self, what: str, task_id: str) -> list[str]:
        every = ["-a"] if what == "container" else []
        return self.docker(what, "ls", "-q", *every, "--filter", f"label=uaihost.task={task_id}").split()

    def docker(self, *words: str) -> str:
        done = subprocess.run(
            ["docker", "-H", self.engine, *words], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    def inside(self, script: str, fails: bool = False) -> str:
        given = ("-e", "GIT_SSL_CAINFO=/run/uai/ca.pem", "-e", "GIT_TERMINAL_PROMPT=0")
        words = ["docker", "-H", self.engine, "exec", "-w", "/workspace/shop", *given, self.container]
        done = subprocess.run([*words, "bash", "-c", script], capture_output=True, text=True, check=False)
        if not fails:
            self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout + done.stderr

    def holding(self, text: str) -> Iterable[Path]:
        for path in self.root.rglob("*"):
            if path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes():
                yield path
