"""The verbs of the service: what they hand on, and what they print for people and for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import attrs
import msgspec
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import answers
from uaihost.cli.main import cli
from uaihost.services.machine import Ran
from uaihost.test.services.rig import Units, machine


class ServiceVerbTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        self.units = Units()
        self.machine = machine(root, PATH=os.environ["PATH"], UAI_DATA_DIR=str(root / "data"))

        def run(argv: Sequence[str], environ: object = None) -> Ran:
            return self.units(argv)

        for target, found in (("look", lambda environ: self.machine), ("run", run)):
            patched = patch(f"uaihost.services.machine.{target}", found)
            patched.start()
            self.addCleanup(patched.stop)

    def verb(self, *words: str, stdin: str = "", status: int = 0) -> Result:
        result = CliRunner().invoke(cli, list(words), input=stdin)
        self.assertEqual(result.exit_code, status, result.output)
        return result

    def test_people_read_what_was_done_and_where_to_look(self) -> None:
        said = self.verb("install", "--bridge").output.splitlines()
        self.assertIn("start uaihost", said)
        self.assertIn("start uaibridge", said)
        self.assertTrue(said[-1].startswith('open "http://localhost:8789/?key=$(cat '))
        again = self.verb("install").output.splitlines()
        self.assertEqual(again[0], "everything was so already; nothing was changed")
        self.assertEqual(len(again), 2)

    def test_what_would_be_done_is_said_so(self) -> None:
        said = self.verb("install", "--bridge", "--dry-run").output
        self.assertIn("would start uaihost\n", said)
        self.assertEqual(self.units.running, set())

    def test_programs_read_one_value_of_the_published_form(self) -> None:
        for words in (["install", "--bridge"], ["stop"], ["start"], ["restart"], ["uninstall"]):
            found = json.loads(self.verb(*words, "--json").output)
            msgspec.convert(found, answers.ANSWERS[words[0]])
            self.assertEqual(found["services"], ["uaibridge", "uaihost"])

    def test_the_bridge_to_dial_and_the_token_are_handed_on(self) -> None:
        self.verb(
            "install", "--cloud-url", "wss://b.example/host", "--token-file", "-", stdin="a-given-token\n"
        )
        config = self.machine.home / ".config/uaihost"
        self.assertEqual((config / "host-token").read_text(), "a-given-token\n")
        self.assertIn('UAI_CLOUD_URL="wss://b.example/host"', (config / "service.env").read_text())

    def test_a_file_that_holds_no_token_is_refused(self) -> None:
        result = CliRunner().invoke(cli, ["install", "--token-file", "-"], input="two\nlines\n")
        self.assertIn("one line", str(result.exception))
        self.assertEqual(self.units.asked, [])

    def test_whose_services_is_said_or_follows_from_who_asks(self) -> None:
        self.verb("install", "--bridge", "--user")
        self.machine = attrs.evolve(self.machine, uid=0)
        found = json.loads(self.verb("install", "--bridge", "--dry-run", "--json").output)
        self.assertEqual(found["kind"], "system")
        found = json.loads(self.verb("install", "--user", "--dry-run", "--json").output)
        self.assertEqual(found["kind"], "user")
