"""The figures of a real host: nothing is lost or shows up late, also when the daemon is killed at work."""

from __future__ import annotations

import signal
import subprocess

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.threads import deferToThread

from uaihost.cli import demo
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.counts import OUTCOMES
from uaihost.test.integration.test_product import ProductCase, consent
from uaihost.web.metrics import FIGURES

LIVES = ("commands", "turns", "image_builds", "github_renewals")
# Those of one task come and go with it.
OF_TASKS = {name for name, figure in FIGURES.items() if "task" in figure.labels}

Found = dict[tuple[str, ...], float]


class FiguresTests(ProductCase):
    def scraped(self) -> Found:
        """What the host says now; what begins is what ended plus what runs, whenever one looks."""
        socket = str(self.daemons.host_data / "control.sock")
        command = ["curl", "--silent", "--fail", "--unix-socket", socket, "http://localhost/metrics"]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
        found: Found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[(sample.name, *sorted(sample.labels.values()))] = sample.value
        for name in LIVES:
            ended = sum(found[(f"uaihost_{name}_ended_total", outcome)] for outcome in OUTCOMES)
            running = found[(f"uaihost_{name}_running",)]
            self.assertEqual(found[(f"uaihost_{name}_started_total",)], ended + running, name)
            self.assertGreaterEqual(running, 0)
        for (_, pool), begun in [
            (key, n) for key, n in found.items() if key[0] == "uaihost_blocking_calls_started_total"
        ]:
            ended = sum(
                n for key, n in found.items() if key[0] == "uaihost_blocking_calls_total" and pool in key[1:]
            )
            self.assertEqual(begun, ended + found[("uaihost_blocking_calls_running", pool)], pool)
        return found

    def once(self, what: str, key: tuple[str, ...], value: float) -> Found:
        """The figures as soon as one of them has this value."""

        def look() -> Found | None:
            found = self.scraped()
            return found if found[key] == value else None

        found: Found = wait_for(what, look, 60)
        return found

    def killed(self, bridge: BridgeClient) -> None:
        self.daemons.kill("uaihost", signal.SIGKILL)
        self.daemons.start_host()
        self.daemons.wait_connected(bridge)

    async def test_the_daemon_is_killed_during_a_command_and_a_turn(self) -> None:
        bridge = await self.product()
        await deferToThread(self.work, bridge, await deferToThread(self.repository))

    def work(self, bridge: BridgeClient, repository: object) -> None:
        fresh = self.scraped()
        new = {"name": "Shop", "repoUrl": str(repository), "branch": "shop"}
        task_id = bridge.call("POST", "/api/tasks", {**new, "previewPorts": [{"name": "web", "port": 3000}]})[
            "id"
        ]
        # It takes a second or more, and is seen within 0.2 s of its begin.
        self.once("the command", ("uaihost_commands_running",), 1)
        self.killed(bridge)
        again = self.scraped()
        self.assertGreaterEqual(again[("uaihost_commands_started_total",)], 1)
        wait_for("the task", lambda: demo.running(bridge, task_id, lambda text: None), 600)
        up = self.once("the command's end", ("uaihost_tasks", "running"), 1)
        self.assertEqual(up[("uaihost_task_changes_total", "ready")], 1)

        word = {"text": f"edit index.html {demo.BEFORE} => {demo.AFTER}"}
        bridge.call("POST", f"/api/tasks/{task_id}/messages", word)
        wait_for("the question", lambda: demo.asked(bridge, task_id), 60)
        self.once("the turn", ("uaihost_turns_running",), 1)
        self.killed(bridge)
        self.scraped()
        consent(bridge, task_id)
        done = self.once("the turn's end", ("uaihost_turns_ended_total", "completed"), 1)
        self.assertEqual(done[("uaihost_turns_running",)], 0)
        self.assertEqual({key for key in done if key[0] not in OF_TASKS}, set(fresh))
        bridge.call("POST", f"/api/tasks/{task_id}/down", {}, 120)
