"""The benchmark of loading the editor gives its figures."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from benchmarks.lanes import DIRECT, TUNNEL
from uaihost.test.integration.node import CHECKOUT


class EditorBenchmarkTests(TestCase):
    # The editor is installed by the first run.
    timeout = 400

    async def test_both_ways_are_measured(self) -> None:
        samples = Path(self.mktemp()).resolve()
        words = ["-m", "benchmarks", "--only", "editor", "--rounds", "1", "--quick", "--out", str(samples)]
        out, err, status = await getProcessOutputAndValue(
            sys.executable, words, env=os.environ, path=str(CHECKOUT), reactor=reactor
        )
        self.assertEqual(status, 0, (out + err).decode(errors="replace"))
        lanes = json.loads(samples.read_text())["lanes"]
        self.assertEqual(set(lanes), {DIRECT.name, TUNNEL.name})
        for measures in lanes.values():
            (units,) = measures.values()
            (workbench,), (files,) = units["workbench s"], units["files s"]
            self.assertTrue(0 < workbench <= files, units)
        self.assertIn("| editor in Chromium | workbench s | ≤ 1.3 times", out.decode())
