"""The report as lines for people."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.containers import report
from uaihost.containers.report import Check, Report


class ReportTests(TestCase):
    def test_nothing_found_out_is_failed(self) -> None:
        found = report.failed("the probe was killed", 7)
        self.assertFalse(found.passed)
        self.assertEqual(
            found.text(),
            "Isolation: 0 of 1 checks passed\nThe task was not started:\n- probe: the probe was killed",
        )
        self.assertFalse(Report((), 7).passed)
        self.assertFalse(Report((Check("x", "ok", False),), 7).passed)
