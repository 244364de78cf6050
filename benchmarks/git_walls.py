"""What it costs to run git behind walls: one small git in several ways, in turns, in one run.

    python -m benchmarks.git_walls [--rounds N] [--container NAME]

- bare: a child without anything; walls: as the host runs git (workspaces.confinement); each wall by itself;
- namespaces: `unshare` with a network, mount and process namespace of its own;
- container: `docker exec` in a running container that has git, when one is named.

What counts are the ratios of the medians to the first lane.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred

from uaihost.children import run
from uaihost.workspaces.confinement import Confinement
from uaihost.workspaces.safe_git import Git

reactor: Any = _reactor

Lane = Callable[[], Awaitable[object]]


def lanes(folder: Path, container: str | None) -> dict[str, Lane]:
    repository = folder / "mirrors" / "app.git"
    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    full = Confinement.of_this_machine()
    none = attrs.evolve(full, landlock=0, filtered=False, memory=0)
    ways = {
        "bare": none,
        "walls": full,
        "Landlock": attrs.evolve(none, landlock=full.landlock),
        "system calls": attrs.evolve(none, filtered=full.filtered),
    }

    def ours(confinement: Confinement) -> Lane:
        git = Git(reactor, folder / "mirrors" / ".git-home", {}, confinement)
        return lambda: git.run("rev-parse", "--git-dir", git_dir=repository)

    def other(*argv: str) -> Lane:
        env = {**os.environ, "GIT_DIR": str(repository)}

        async def once() -> None:
            finished = await run(reactor, argv, env=env, timeout=30)
            if finished.status != 0:
                raise RuntimeError(f"{argv[0]}: {finished.err.decode()}")

        return once

    found = {name: ours(confinement) for name, confinement in ways.items()}
    git = ("git", "rev-parse", "--git-dir")
    if shutil.which("unshare"):
        found["namespaces"] = other("unshare", "--net", "--mount", "--pid", "--fork", *git)
    if container is not None:
        found["container"] = other("docker", "exec", container, "git", "--version")
    return found


async def measure(found: dict[str, Lane], rounds: int) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 3):
        for name, once in found.items():
            begun = time.perf_counter()
            await once()
            if number >= 3:
                samples[name].append(time.perf_counter() - begun)
    return samples


def report(samples: dict[str, list[float]]) -> str:
    """The medians, as a Markdown table."""
    base = statistics.median(samples["bare"])
    lines = ["| | ms | ratio |", "|---|---:|---:|"]
    for name, times in samples.items():
        middle = statistics.median(times)
        lines.append(f"| {name} | {1000 * middle:.2f} | {middle / base:.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.git_walls", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--container", help="a running container that has git")
    given = parser.parse_args()
    ended: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="uai-") as folder:
        (Path(folder) / "mirrors").mkdir()
        work = Deferred.fromCoroutine(measure(lanes(Path(folder), given.container), given.rounds))
        work.addBoth(ended.append).addBoth(lambda _: reactor.callWhenRunning(reactor.stop))
        reactor.run()
    if not isinstance(ended[0], dict):
        ended[0].raiseException()
    print(report(ended[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
