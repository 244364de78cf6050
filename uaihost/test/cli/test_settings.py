"""`uaihost config`: the settings in force and their sources, without secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.settings import HIDDEN, config
from uaihost.config import SETTINGS


class ConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        self.file.write_text('disk_budget = "2G"\ntoken = "a-secret-of-the-tests"\n')

    def run_verb(self, *words: str, **environ: str) -> Any:
        return CliRunner().invoke(config, list(words), env={"UAI_CONFIG": str(self.file), **environ})

    def test_what_was_given_and_where(self) -> None:
        found = json.loads(self.run_verb("show", "--json", UAI_EGRESS="deny").output)
        self.assertEqual(found["file"], str(self.file))
        rows = {row["name"]: row for row in found["settings"]}
        self.assertEqual(set(rows), {setting.name for setting in SETTINGS})
        self.assertEqual(rows["egress"]["source"], "UAI_EGRESS")
        self.assertEqual(rows["disk_budget"]["value"], "2G")
        self.assertEqual(rows["disk_budget"]["source"], f"`disk_budget` in {self.file}")
        self.assertEqual((rows["ui_port"]["value"], rows["ui_port"]["source"]), ("5876", "default"))

    def test_secrets_are_not_shown(self) -> None:
        for words in (("show",), ("show", "--json"), ("show", "--all")):
            output = self.run_verb(*words).output
            self.assertNotIn("a-secret", output)
            self.assertIn(HIDDEN, output)

    def test_people_see_what_differs_from_the_defaults(self) -> None:
        output = self.run_verb("show").output
        self.assertIn("disk_budget", output)
        self.assertNotIn("ui_port", output)
        self.assertIn(f"{len(SETTINGS) - 2} others have their defaults", output)

    def test_all_that_is_wrong_is_said(self) -> None:
        self.file.write_text('disk_budget = "1"\ncolour = "red"\n')
        done = self.run_verb("check", UAI_EGRESS="some")
        self.assertEqual(done.exit_code, 1)
        for said in ("disk_budget", "unknown key 'colour'", "UAI_EGRESS"):
            self.assertIn(said, done.output)
        self.assertEqual(len(json.loads(self.run_verb("check", "--json").output)["problems"]), 2)

    def test_good_settings(self) -> None:
        done = self.run_verb("check")
        self.assertEqual((done.exit_code, done.output), (0, "the settings are good\n"))

    def test_where_the_file_is(self) -> None:
        self.assertEqual(self.run_verb("path").output, f"{self.file}\n")
        self.file.unlink()
        self.assertEqual(json.loads(self.run_verb("path", "--json").output)["exists"], False)
