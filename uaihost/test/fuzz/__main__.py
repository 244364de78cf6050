"""Feed the readers of foreign bytes with mutated inputs.

    python -m uaihost.test.fuzz [--inputs N] [--seed N]

The same seed gives the same inputs. An input on which something does not hold is printed, and ends the run
with status 1.
"""

from __future__ import annotations

import argparse
import sys

from uaihost.test.fuzz.run import Finding, run
from uaihost.test.fuzz.subjects import SUBJECTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m uaihost.test.fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    each = -(-options.inputs // len(SUBJECTS))
    for subject in SUBJECTS:
        try:
            ways = run(subject, each, options.seed)
        except Finding as finding:
            print(finding)
            return 1
        print(f"{subject.name}: {each:,} inputs, {len(ways)} ways through")
    return 0


sys.exit(main())
