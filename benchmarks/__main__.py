"""Measures the tunnel: uaihost, and in the same run OpenSSH and the reference host beside it.

    python -m benchmarks [--reference DIR] [--rounds N] [--only WORD]... [--out FILE] [--document FILE]

Every round takes each measure of every lane in turn (A B A B), so that a noisy machine disturbs all alike.
What counts are the ratios of the medians. benchmarks/README.md says what each measure is.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from benchmarks import report, slowlink
from benchmarks.measures import QUICK, Effort
from benchmarks.processes import Broken
from benchmarks.run import Run


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--reference", type=Path, help="a checkout of the reference host that runs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a word of the measures to take")
    parser.add_argument("--without", action="append", default=[], help="a word of the lanes to leave out")
    parser.add_argument("--out", type=Path, help="write all samples there as JSON")
    parser.add_argument("--samples", type=Path, help="measure nothing; show the samples of such a file")
    parser.add_argument("--document", type=Path, help="put the tables there, between its two marks")
    known = slowlink.congestion()
    parser.add_argument(
        "--congestion", default=known[0], choices=known, help="TCP's congestion control on the slow link"
    )
    parser.add_argument("--quick", action="store_true", help="see that all works; the figures mean nothing")
    return parser.parse_args()


def main() -> int:
    given = options()
    # So that its processes end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if given.samples is not None:
        found = json.loads(given.samples.read_text())
    else:
        effort = QUICK if given.quick else Effort()
        reference = given.reference and given.reference.resolve()
        run = Run(effort, given.rounds, reference, given.only, given.without, given.congestion)
        try:
            found = run.measure()
        except Broken as error:
            print(f"the benchmark broke: {error}", file=sys.stderr)
            return 1
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    text = report.report(found)
    print(f"\n{text}")
    if given.document is not None:
        report.write(given.document, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
