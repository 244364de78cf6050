"""The command as a whole: its verbs, how it ends, and what it costs to ask it for its version."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import exits
from uaihost.cli.main import VERBS, cli
from uaihost.errors import ErrorCode, HostError

NAMES = [verb for group in VERBS.values() for verb in group]


class VerbsTests(SynchronousTestCase):
    def test_every_verb_can_be_had_and_says_what_it_does(self) -> None:
        for name in NAMES:
            done = CliRunner().invoke(cli, [name, "--help"])
            self.assertEqual(done.exit_code, 0, name)
            self.assertRegex(done.output.splitlines()[2], r"^  [A-Z].*", name)

    def test_the_help_names_every_verb(self) -> None:
        output = CliRunner().invoke(cli, ["--help"]).output
        for name in NAMES:
            self.assertIn(f"\n  {name} ", output)

    def test_one_that_is_nearly_right_is_told(self) -> None:
        done = CliRunner().invoke(cli, ["statsu"])
        self.assertEqual(done.exit_code, exits.USAGE)
        self.assertIn("Did you mean status", done.output)

    def test_a_verb_needs_no_more_than_it_uses(self) -> None:
        code = (
            "import sys; from uaihost.cli.main import cli\n"
            "cli(['version', '--json'], standalone_mode=False)\n"
            "print(sorted({name.partition('.')[0] for name in sys.modules} & {'twisted', 'docker', 'klein'}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found, modules = done.stdout.splitlines()
        self.assertEqual(modules, "[]")
        self.assertEqual(json.loads(found)["libraries"].keys() >= {"Twisted", "autobahn"}, True)


class ExitTests(SynchronousTestCase):
    def conclude(self, command: Callable[[], Any], *words: str) -> tuple[int, str, str]:
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            status = exits.conclude(command, words)
        return status, out.getvalue(), err.getvalue()

    def test_what_is_done_has_the_status_that_it_gives(self) -> None:
        self.assertEqual(self.conclude(lambda: None)[0], exits.DONE)
        self.assertEqual(self.conclude(lambda: 7)[0], 7)

    def test_a_failure_is_a_sentence_and_for_programs_json(self) -> None:
        def fail() -> None:
            raise HostError(ErrorCode.CONFLICT, "it is taken; take another")

        status, out, err = self.conclude(fail)
        self.assertEqual((status, out, err), (exits.FAILED, "", "uaihost: it is taken; take another\n"))
        status, out, err = self.conclude(fail, "x", "--json")
        error = {"code": "conflict", "message": "it is taken; take another"}
        self.assertEqual((status, json.loads(out)), (exits.FAILED, {"error": error}))

    def test_what_does_not_answer_has_a_status_of_its_own(self) -> None:
        def fail() -> None:
            raise HostError(ErrorCode.UNAVAILABLE, "no host is running here")

        self.assertEqual(self.conclude(fail)[0], exits.UNAVAILABLE)

    def test_bad_usage_is_json_too(self) -> None:
        def fail() -> None:
            raise click.UsageError("no such option")

        status, out, err = self.conclude(fail, "--json")
        self.assertEqual((status, json.loads(out)["error"]["code"]), (exits.USAGE, "usage"))
        self.assertIn("no such option", err)

    def test_who_gives_up_is_told_no_trace(self) -> None:
        def give_up() -> None:
            raise click.exceptions.Abort

        self.assertEqual(self.conclude(give_up)[0], exits.INTERRUPTED)

    def test_a_folder_that_cannot_be_written_is_named(self) -> None:
        def fail() -> None:
            raise PermissionError(13, "Permission denied", "/data")

        status, _, err = self.conclude(fail)
        self.assertEqual(status, exits.FAILED)
        self.assertIn("'/data'; UAI_DATA_DIR names another", err)
