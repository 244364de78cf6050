"""The benchmarks run: every measure gives figures, in next to no time and with nothing beside uaihost."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import report, slowlink
from benchmarks.lanes import MUX
from benchmarks.measures import MEASURES

ROOT = Path(__file__).resolve().parents[3]

# Seconds within which the command has to be done.
PATIENCE = 90

# Figures that are good when there is nothing to count.
MAY_BE_ZERO = {"resets", "RSS growth MB", "KiB each"}


class CommandTests(SynchronousTestCase):
    def test_every_measure_gives_figures(self) -> None:
        samples, document = Path(self.mktemp()), Path(self.mktemp())
        document.write_text(f"before\n{report.BEGIN}\n{report.END}\nafter\n")
        words = [
            sys.executable,
            "-m",
            "benchmarks",
            "--quick",
            "--rounds",
            "1",
            "--out",
            str(samples.resolve()),
        ]
        words += ["--document", str(document.resolve()), "--without", "OpenSSH", "--without", "revision 1"]
        # The editor is measured by the browser's tests.
        words += ["--without", "off", "--without", "Chromium"]
        try:
            done = subprocess.run(
                words, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired as error:
            self.fail(f"not done after {PATIENCE} s: {error.stdout!r} {error.stderr!r}"[-4000:])
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:])
        lanes = json.loads(samples.read_text())["lanes"]
        self.assertEqual(set(lanes), {MUX.name})
        measures = [one for one in MEASURES if MUX in one.kinds]
        wanted = {one.title for one in measures if one.loss is None or slowlink.missing() is None}
        self.assertEqual(set(lanes[MUX.name]), wanted)
        for measure, units in lanes[MUX.name].items():
            self.assertTrue(units, measure)
            for unit, taken in units.items():
                self.assertEqual(len(taken), 1, f"{measure}, {unit}")
                self.assertTrue(math.isfinite(taken[0]), f"{measure}, {unit}: {taken}")
                least = 0 if unit in MAY_BE_ZERO else 1e-9
                self.assertGreaterEqual(taken[0], least, f"{measure}, {unit}")
                self.assertIn(f"| {measure} | {unit} | ", document.read_text())
        self.assertTrue(document.read_text().startswith("before\n"))
        self.assertTrue(document.read_text().endswith("after\n"))
