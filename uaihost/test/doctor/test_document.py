"""docs/doctor.md names every check, in their order, and what it shows of the JSON is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import SCHEMA, Report, Result, Verdict, warn
from uaihost.doctor.run import WHOLE

TEXT = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")


class DocumentTests(SynchronousTestCase):
    def test_every_check_stands_in_the_table_in_its_order(self) -> None:
        self.assertEqual(re.findall(r"(?m)^\| `([a-z-]+)` \|", TEXT), [check.name for check in CHECKS])

    def test_what_never_fails_in_the_document_has_a_warning(self) -> None:
        rows = re.findall(r"(?m)^\| `[a-z-]+` \| .+ \| (.+) \|$", TEXT)
        self.assertEqual(len(rows), len(CHECKS))
        for row in rows:
            if row.startswith("never"):
                self.assertIn("it warns", row)

    def test_the_json(self) -> None:
        shown = json.loads(re.findall(r"(?s)```json\n(.+?)```", TEXT)[0])
        made = Report("1", 0, 0.0, (Result("n", "t", warn("x"), 0.0),)).json()
        self.assertEqual(shown["schema"], SCHEMA)
        self.assertEqual(list(shown), list(made))
        self.assertEqual(list(shown["checks"][0]), list(made["checks"][0]))
        for verdict in Verdict:
            self.assertIn(f"`{verdict.value}`", TEXT)

    def test_the_limit(self) -> None:
        self.assertIn(f"one of {WHOLE:.0f} s", TEXT)
        self.assertLess(WHOLE, 60)
