"""How long a task takes to come up when image and cache are there, beside what it cannot do without.

    python -m benchmarks.taskup [--files N] [--commits N] [--rounds N] [--only WORD] [--within DIR]

Two measures, each of two lanes that take turns, A B A B, in one run; what counts is the ratio of the medians.
The first round warms the page cache and does not count.

- work copy: uaihost's, made for the container's user from its cache, beside `git clone --no-hardlinks` of the
  same repository.
- task: from `POST /api/tasks` until the task is ready, through bridge and host as people run them, beside the
  start of a container of the same image and then `git clone --no-hardlinks`.

Nothing is taken down or removed before the end: ext4 makes new files slowly where many were just deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.python.failure import Failure

from benchmarks.repositories import make
from uaihost.blocking import Threads
from uaihost.cli.local import settings
from uaihost.containers.client import connect
from uaihost.containers.images import owner
from uaihost.paths import Folders
from uaihost.rooms import engine_address
from uaihost.test.integration.processes import Daemons, free_port
from uaihost.workspaces.workspaces import Workspaces

reactor: Any = _reactor

# What the project promises: a work copy no slower than git's own clone, a task within this of its parts.
TARGETS = {"work copy": 1.0, "task": 1.3}
LABEL = "uaihost.benchmark"
# Seconds for one task; a machine that is busy with other work takes a few.
PATIENCE = 120

Samples = dict[str, dict[str, list[float]]]


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def clone(repository: Path, target: Path) -> None:
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(repository), str(target)], check=True)


class Copies:
    """uaihost's work copies without the rest of it, and plain clones."""

    measure = "work copy"

    def __init__(self, folder: Path, repository: Path) -> None:
        self._folder = folder
        self._repository = repository
        self._threads = Threads(reactor, "benchmark", 4)
        folders = Folders(folder / "data")
        folders.root.mkdir(mode=0o700)
        self._workspaces = Workspaces(
            reactor, folders, self._threads, *owner(), (repository.parent,), dict(os.environ)
        )

    def lanes(self) -> dict[str, Callable[[int], float]]:
        return {"git clone": self._clone, "uaihost": self._copy}

    def _clone(self, number: int) -> float:
        return timed(lambda: clone(self._repository, self._folder / f"clone-{number}"))

    def _copy(self, number: int) -> float:
        return timed(lambda: blockingCallFromThread(reactor, self._prepare, f"t{number}"))

    def _prepare(self, task: str) -> Deferred[Any]:
        return Deferred.fromCoroutine(
            self._workspaces.prepare(task, "app", str(self._repository), "work", None, lambda _: None)
        )

    def stop(self) -> None:
        self._threads.stop()


class Tasks:
    """Bridge and host as two processes, and a container with a clone beside it."""

    measure = "task"

    def __init__(self, folder: Path, repository: Path, address: str, image: str) -> None:
        self._folder = folder
        self._repository = repository
        self._client = connect(address)
        self._image = image
        self._made: list[str] = []
        self._tasks: list[str] = []
        self._daemons = Daemons(folder, address, [repository.parent])
        try:
            self._bridge = self._daemons.start_bridge()
            self._daemons.start_host()
            self._daemons.wait_connected(self._bridge)
        except BaseException:
            self._daemons.stop()
            raise

    def lanes(self) -> dict[str, Callable[[int], float]]:
        return {"docker run + git clone": self._alone, "uaihost": self._up}

    def _alone(self, number: int) -> float:
        home = self._folder / f"alone-{number}"
        home.mkdir()

        def work() -> None:
            made = self._client.create_container(
                self._image,
                ["300"],
                entrypoint=["/bin/sleep"],
                labels={LABEL: "1"},
                ports=[8000],
                host_config=self._client.create_host_config(
                    binds={str(home): {"bind": "/workspace", "mode": "rw"}},
                    port_bindings={8000: ("127.0.0.1", free_port())},
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    init=True,
                ),
            )
            self._made.append(made["Id"])
            self._client.start(made)
            clone(self._repository, home / "app")

        return timed(work)

    def _up(self, number: int) -> float:
        new = {"name": f"Bench {number}", "repoUrl": str(self._repository), "branch": f"bench-{number}"}
        task = ""

        def work() -> None:
            nonlocal task
            task = self._bridge.call("POST", "/api/tasks", new)["id"]
            self._tasks.append(task)
            end = time.monotonic() + PATIENCE
            while not (found := self._bridge.call("GET", f"/api/tasks/{task}"))["ready"]:
                if found["status"] == "failed" or time.monotonic() > end:
                    raise RuntimeError(f"the task is {found['status']}: {found.get('message')}")
                time.sleep(0.02)

        return timed(work)

    def stop(self) -> None:
        for made in self._made:
            self._client.remove_container(made, force=True)
        try:
            for task in self._tasks:
                self._bridge.call("POST", f"/api/tasks/{task}/down", {}, PATIENCE)
        finally:
            self._daemons.stop()
        self._client.close()


def image() -> tuple[str, str]:
    """The engine's address and the small image, built if it is missing."""
    words = [sys.executable, "-m", "uaihost.cli", "image", "build", "--kind", "small", "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return engine_address(settings()), str(json.loads(done.stdout)["reference"])


def measure(files: int, commits: int, rounds: int, only: str | None, within: str) -> dict[str, Any]:
    """All samples: `{measure: {lane: [seconds]}}`, and what they are of."""
    folder = Path(tempfile.mkdtemp(prefix="uai-", dir=within)).resolve()
    samples: Samples = {}
    try:
        repository = folder / "code" / "app.git"
        repository.parent.mkdir()
        make(repository, files, commits)
        for name in TARGETS:
            if only is None or only in name:
                place = folder / name.replace(" ", "-")
                place.mkdir()
                subject = Copies(place, repository) if name == "work copy" else _tasks(place, repository)
                try:
                    samples[name] = _take_turns(subject.lanes(), rounds)
                finally:
                    subject.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"files": files, "commits": commits, "rounds": rounds, "samples": samples}


def _tasks(place: Path, repository: Path) -> Tasks:
    return Tasks(place, repository, *image())


def _take_turns(lanes: dict[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {lane: [] for lane in lanes}
    for number in range(rounds + 1):
        for lane, once in lanes.items():
            took = once(number)
            if number:
                found[lane].append(took)
    return found


def report(found: dict[str, Any]) -> str:
    """The medians and their ratio, as a Markdown table."""
    lines = [
        f"{found['files']} files, {found['commits']} commits, medians of {found['rounds']} rounds:",
        "",
        "| | beside | s | uaihost, s | ratio | target |",
        "|---|---|---|---|---|---|",
    ]
    for name, lanes in found["samples"].items():
        beside = next(iter(lanes))
        other, own = map(statistics.median, lanes.values())
        figures = f"{other:.2f} | {own:.2f} | {own / other:.2f}"
        lines.append(f"| {name} | {beside} | {figures} | ≤ {TARGETS[name]} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.taskup", description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", help="a word of the measure to take: copy, task")
    parser.add_argument(
        "--within", default="/tmp", help="the folder to work in; /dev/shm leaves out the disk"
    )
    parser.add_argument("--out", type=Path, help="write all samples there as JSON")
    given = parser.parse_args()
    ended: list[Any] = []
    begun = deferToThread(measure, given.files, given.commits, given.rounds, given.only, given.within)
    begun.addBoth(ended.append).addBoth(lambda _: reactor.stop())
    reactor.run()
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    found = ended[0]
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
