"""The table of the editor's start."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import editor_start


class EditorStartTests(SynchronousTestCase):
    def test_what_counts_is_the_ratio_of_the_medians(self) -> None:
        alone = {"healthz": [0.4, 9.0, 0.5], "page": [1.0]}
        task = {"healthz": [0.6, 0.6, 0.1], "page": [1.1]}
        samples = dict(zip(editor_start.LANES, (alone, task), strict=True))
        lines = editor_start.report({"samples": samples}).splitlines()
        self.assertEqual(lines[2], "| /healthz | 0.50 | 0.60 | 1.20 | 1.2 |")
        self.assertEqual(lines[3], "| `GET /` after it | 1.00 | 1.10 | 1.10 | 1.2 |")
