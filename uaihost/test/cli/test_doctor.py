"""`uaihost doctor` on a terminal and off it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.doctor import Shown, _environment, doctor
from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import Check, Finding, Report, Result, fail, ok, skipped, warn
from uaihost.doctor.patient import Patient
from uaihost.test.support import short_folder


async def look(_: Patient) -> Finding:
    return ok("")


class ShownTests(SynchronousTestCase):
    RESULTS = (
        Result("a", "first", warn("slow [disk]", "type a"), 0.1),
        Result("b", "second", skipped("it needs a"), 0.0),
        Result("c", "third", fail("broken", "type c", "# and think"), 0.2),
    )

    def setUp(self) -> None:
        self.out = io.StringIO()
        checks = [Check(result.name, result.title, look) for result in self.RESULTS]
        self.shown = Shown(Console(file=self.out, width=80, color_system=None, highlight=False), checks)

    def test_lines_come_in_the_order_of_the_checks(self) -> None:
        with self.shown.live(silent=False):
            for result in reversed(self.RESULTS):
                self.shown.done(result)
        self.assertEqual(
            self.out.getvalue().splitlines(),
            [
                "warn  first                slow [disk]",
                "-     second               it needs a",
                "FAIL  third                broken",
            ],
        )

    def test_for_programs_nothing_but_the_json(self) -> None:
        with self.shown.live(silent=True):
            for result in self.RESULTS:
                self.shown.done(result)
        self.assertEqual(self.out.getvalue(), "")

    def test_what_to_type_comes_last_and_the_worst_first(self) -> None:
        self.shown.summary(Report("1", 0, 1.23, self.RESULTS))
        self.assertEqual(
            self.out.getvalue().splitlines(),
            [
                "",
                "FAIL third: broken",
                "  type:",
                "    type c",
                "    # and think",
                "",
                "warn first: slow [disk]",
                "  type:",
                "    type a",
                "",
                "1 to look at, 1 failed, 1 not looked at, in 1.2 s",
            ],
        )

    def test_a_report_shows_what_is_in_it(self) -> None:
        self.shown.bundle(Path("r.tar.gz"), ["log.jsonl  5 lines"])
        self.assertEqual(self.out.getvalue(), "r.tar.gz:\n  log.jsonl  5 lines\n")


class EnvironmentTests(SynchronousTestCase):
    def test_what_the_service_of_this_user_is_started_with(self) -> None:
        folder = short_folder(self) / "uaihost"
        folder.mkdir()
        given = {"XDG_CONFIG_HOME": str(folder.parent), "UAI_TASK_PIDS": "64"}
        with patch.dict("os.environ", given, clear=True), patch("os.geteuid", return_value=1000):
            self.assertEqual(_environment(), given)
            (folder / "host-token").write_text("t\n")
            (folder / "service.env").write_text('# so\nUAI_TASK_PIDS="128"\nUAI_TASK_CPUS="1"\n')
            found = _environment()
            self.assertEqual((found["UAI_TASK_PIDS"], found["UAI_TASK_CPUS"]), ("64", "1"))
            self.assertEqual(found["UAI_HOST_TOKEN_FILE"], str(folder / "host-token"))
            with patch.dict("os.environ", {"UAI_HOST_TOKEN": "mine"}):
                self.assertNotIn("UAI_HOST_TOKEN_FILE", _environment())
            (folder / "service.env").write_text('UAI_TASK_CPUS="1\n')
            self.assertEqual(_environment(), given)


class CommandTests(SynchronousTestCase):
    def test_the_names(self) -> None:
        done = CliRunner().invoke(doctor, ["--list", "--json"])
        self.assertEqual([row["name"] for row in json.loads(done.output)], [check.name for check in CHECKS])
        self.assertIn("bridge-token", CliRunner().invoke(doctor, ["--list"]).output)

    def test_bad_usage(self) -> None:
        for words in (["--only", "nonsense"], ["--colour"], ["x"]):
            self.assertEqual(CliRunner().invoke(doctor, words).exit_code, 2)
