"""`uaihost audit`: what it asks the daemon for and how uses are shown."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import TestCase

from uaihost.cli import audit as shown
from uaihost.cli.main import cli

USE = {
    "at": 0,
    "user": "ada",
    "task": "t1",
    "what": "git",
    "host": "github.com",
    "path": "o/r",
    "outcome": "ok",
}


class AuditTests(TestCase):
    def printed(self, *words: str, **changed: str) -> str:
        def verb(name: str, asked: dict[str, Any]) -> dict[str, Any]:
            self.asked = (name, asked)
            return {"uses": [{**USE, **changed}]}

        self.patch(shown, "verb", verb)
        done = CliRunner().invoke(cli, ["audit", *words])
        self.assertEqual(done.exit_code, 0, done.output)
        return done.stdout

    def test_a_line_for_people(self) -> None:
        self.assertEqual(
            self.printed("--task", "t1")[19:], f"  {'t1':<20} {'ada':<12} git   github.com/o/r  ok\n"
        )
        self.assertEqual(self.asked, ("audit.read", {"task": "t1", "last": 200}))

    def test_the_hosts_own_use_has_no_task(self) -> None:
        self.assertIn("  -    ", self.printed(task=""))

    def test_lines_for_programs(self) -> None:
        self.assertEqual(json.loads(self.printed("--json", "--last", "7")), USE)
        self.assertEqual(self.asked, ("audit.read", {"task": None, "last": 7}))

    def test_nothing_that_a_terminal_obeys(self) -> None:
        line = self.printed(path="x\x1b[2J\x9b", outcome="a\nb\u202e")
        self.assertTrue(line.removesuffix("\n").isprintable(), line)
