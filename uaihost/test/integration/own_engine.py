"""Starts an engine of its own in FOLDER, twice, and stops it: run in a network namespace apart.

    python -m uaihost.test.integration.own_engine FOLDER

Two engines in one network namespace disturb each other; no other one is looked for here. Prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from uaihost.blocking import Threads
from uaihost.containers.client import answers
from uaihost.containers.setup import EngineHandle, Setup, alive, look, mounts, stop_engine


async def play(reactor: Any, folder: Path) -> None:
    own = f"unix://{folder}/docker.sock"
    said: list[str] = []
    seen: dict[str, Any] = {}

    async def engine() -> EngineHandle:
        threads = Threads(reactor, "own-engine", 1)
        environ = {"PATH": os.environ["PATH"]}
        try:
            return await Setup(
                reactor,
                threads,
                folder,
                said.append,
                environ,
                answers=lambda address: address == own and answers(address),
                look=look,
            ).engine()
        finally:
            threads.stop()

    first = await engine()
    assert first.pid is not None
    seen["first"] = [first.docker_host == own, first.started_by_us, alive(first.pid)]
    seen["session"] = os.getsid(first.pid) == first.pid
    links = [str(Path(f"/proc/{first.pid}/fd/{number}").readlink()) for number in (0, 1, 2)]
    seen["descriptors"] = [links[0], links[1] == str(folder / "dockerd.log"), links[2] == links[1]]
    again = await engine()
    seen["again"] = [again.docker_host == own, again.started_by_us]
    # A killed engine leaves a zombie, a pid file and a socket.
    os.kill(first.pid, signal.SIGKILL)
    while alive(first.pid):
        await deferLater(reactor, 0.05)
    seen["left"] = [(folder / "docker.pid").exists(), (folder / "docker.sock").exists()]
    second = await engine()
    assert second.pid is not None
    seen["second"] = [second.started_by_us, second.pid != first.pid]
    await stop_engine(reactor, second)
    seen["stopped"] = [alive(second.pid), answers(own)]
    seen["mounts"] = mounts(folder, Path("/proc/mounts").read_text())
    seen["said"] = said
    print(json.dumps(seen))


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(play(reactor, Path(sys.argv[1]))))
