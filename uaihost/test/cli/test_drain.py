"""`uaihost drain`: it waits, it can be taken back, and it ends the host only when nothing is under way."""

from __future__ import annotations

import json
import time
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import drain as module


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.left = 2
        self.passed = 0.0
        self.patch(module, "verb", self.verb)
        self.patch(time, "sleep", self.sleep)
        self.patch(time, "monotonic", lambda: self.passed)

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        self.left = max(0, self.left - 1)

    def verb(self, name: str, words: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((name, words))
        if name == "host.stop":
            return {"stopping": True}
        return {"draining": not words.get("off"), "turns": self.left, "commands": 0}

    def run_verb(self, *words: str) -> Any:
        return CliRunner().invoke(module.drain, list(words))

    def test_it_waits_until_nothing_is_under_way(self) -> None:
        done = self.run_verb("--json")
        self.assertEqual((done.exit_code, self.passed), (0, 2.0))
        self.assertEqual(json.loads(done.stdout), {"draining": True, "turns": 0, "commands": 0})

    def test_the_host_is_ended_after_that(self) -> None:
        done = self.run_verb("--stop", "--now")
        self.assertEqual(self.asked[0], ("host.drain", {"now": True}))
        self.assertEqual(self.asked[-1], ("host.stop", {}))
        self.assertIn("the host ends", done.output)

    def test_what_is_not_done_in_time_is_said_and_ends_nothing(self) -> None:
        self.left = 10
        done = self.run_verb("--timeout", "3", "--stop")
        self.assertEqual(done.exit_code, 1)
        self.assertIn("still under way: 7 turns", done.output)
        self.assertNotIn("host.stop", [name for name, _ in self.asked])

    def test_it_is_taken_back(self) -> None:
        self.assertIn("takes tasks again", self.run_verb("--off").output)
        self.assertEqual(self.asked, [("host.drain", {"off": True})])

    def test_what_contradicts_itself_is_refused(self) -> None:
        self.assertEqual(self.run_verb("--off", "--stop").exit_code, 2)
        self.assertEqual(self.asked, [])
