"""The verb that frees disk: what it asks the daemon for, and what it makes of the answer."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import gc as verb
from uaihost.cli.main import cli
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

GB = 1 << 30
ANSWER: dict[str, Any] = {
    "freeBytes": 20 * GB,
    "budgetBytes": 50 * GB,
    "usedBytes": 51 * GB,
    "classes": {"mirrors": 51 * GB, "saved": 0},
    "removed": [
        {"what": "shop", "class": "mirrors", "bytes": GB, "why": "not fetched for 30 days", "how": "fetch it"}
    ],
    "kept": [{"what": "task t1", "why": "it is running"}],
}


class GcTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.asked: list[tuple[Any, ...]] = []

    def run_verb(self, answer: Any, *words: str) -> Result:
        def ask(*asked: Any) -> Any:
            self.asked.append(asked)
            return answer

        self.patch(verb, "ask", ask)
        with patch.dict(os.environ, {"UAI_DATA_DIR": str(self.folder)}):
            return CliRunner().invoke(cli, ["gc", *words])

    def test_it_says_what_went_and_how_to_get_it_back(self) -> None:
        done = self.run_verb(ANSWER)
        self.assertEqual((done.exit_code, done.exception), (0, None))
        for line in (
            "51.0 GiB  mirrors",
            "51.0 GiB of 50.0 GiB in use, 20.0 GiB free",
            "removed shop (mirrors, 1.0 GiB): not fetched for 30 days",
            "to get it back: fetch it",
            "kept task t1: it is running",
        ):
            self.assertIn(line, done.output)
        self.assertNotIn("saved", done.output)
        method, path, body = self.asked[0][1:4]
        self.assertEqual((method, path, body), ("POST", "/api/clean", {"dryRun": False}))

    def test_a_dry_run_is_asked_for_and_told_as_such(self) -> None:
        done = self.run_verb(ANSWER, "--dry-run")
        self.assertIn("would remove shop", done.output)
        self.assertEqual(self.asked[0][3], {"dryRun": True})

    def test_programs_get_the_answer_as_it_is(self) -> None:
        self.assertEqual(json.loads(self.run_verb(ANSWER, "--json").output), ANSWER)

    def test_nothing_measured_and_nothing_removed(self) -> None:
        done = self.run_verb({**ANSWER, "usedBytes": None, "removed": [], "kept": []})
        self.assertIn("not measured of 50.0 GiB", done.output)
        self.assertIn("nothing to remove", done.output)

    def test_without_a_daemon_it_says_how_to_start_one(self) -> None:
        done = self.run_verb(None)
        assert isinstance(done.exception, HostError)
        self.assertEqual(done.exception.code, ErrorCode.UNAVAILABLE)
        self.assertIn("uaihost up", done.exception.message)
