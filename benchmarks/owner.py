"""What the owner's side costs: a verb's start, and a line of the log. Ratios of two things of one run.

    python -m benchmarks.owner [--rounds N]

- verbs: `uaihost version` beside a Python that imports click, and beside one that imports the whole host;
- log: a line of which secrets are taken out, with 1,000 learnt ones, beside Twisted's own text observer's.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from twisted.logger import Logger, LogPublisher, textFileLogObserver

from uaihost.logs.observers import ProcessLog

CLICK = (sys.executable, "-c", "import click")
VERB = (sys.executable, "-m", "uaihost.cli", "version")
HOST = (sys.executable, "-c", "import uaihost.app")


def verbs(rounds: int) -> None:
    samples: dict[str, list[float]] = {"click alone": [], "uaihost version": [], "the whole host": []}
    for _ in range(rounds):
        for name, words in zip(samples, (CLICK, VERB, HOST), strict=True):
            begun = time.perf_counter()
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
            samples[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(found) for name, found in samples.items()}
    first = medians["click alone"]
    for name, median in medians.items():
        print(f"{name:<24}{median * 1000:8.0f} ms {median / first:8.2f}")


def log(rounds: int) -> None:
    count = 2000
    process = ProcessLog("info")
    process.to_stream(io.StringIO(), "text")
    for number in range(1000):
        process.redactor.learn(f"a-secret-of-the-benchmark-{number:06}")
    ours = Logger("benchmark", observer=LogPublisher(process))
    theirs = Logger("benchmark", observer=LogPublisher(textFileLogObserver(io.StringIO())))

    def many(logger: Logger) -> Callable[[], float]:
        def once() -> float:
            begun = time.perf_counter()
            for number in range(count):
                logger.info("task {task}: step {step} took {seconds} s", task="t1", step=number, seconds=1.5)
            return (time.perf_counter() - begun) / count

        return once

    lanes = {"Twisted's text": many(theirs), "without secrets": many(ours)}
    samples: dict[str, list[float]] = {name: [] for name in lanes}
    for _ in range(rounds):
        for name, once in lanes.items():
            samples[name].append(once())
    medians = {name: statistics.median(found) for name, found in samples.items()}
    first = medians["Twisted's text"]
    for name, median in medians.items():
        print(f"{name:<24}{median * 1e6:8.0f} us {median / first:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    verbs(rounds)
    log(rounds)


if __name__ == "__main__":
    main()
