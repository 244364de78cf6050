"""A process that saves a task's work and then removes the task, to be killed on its way.

Arguments: the data folder, the folder of the repositories, the task. It prints a line before it begins, and
makes the file `<data>/<task>.saved` between saving and removing, as the daemon stores that the work is safe.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from uaihost.blocking import Threads
from uaihost.test.integration.git_rig import Folders
from uaihost.workspaces.workspaces import Workspaces


async def work(data: Path, roots: Path, task: str) -> None:
    threads = Threads(reactor, "files", 4)  # type: ignore[arg-type]
    folders = Folders(data / "mirrors", data / "tasks", data / "saved")
    workspaces = Workspaces(reactor, folders, threads, os.getuid(), os.getgid(), (roots,), {})
    try:
        print("begins", flush=True)
        await workspaces.save(task, ["app"])
        (data / f"{task}.saved").touch()
        await workspaces.remove(task)
        print("ends", flush=True)
    finally:
        threads.stop()


def main() -> None:
    data, roots, task = sys.argv[1:]
    done = Deferred.fromCoroutine(work(Path(data), Path(roots), task))
    done.addErrback(lambda failure: failure.printTraceback())
    done.addBoth(lambda _: reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main()
