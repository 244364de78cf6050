"""Brings a task up on an engine of its own in FOLDER, restarts that engine, tells what became of the task.

    python -m uaihost.test.integration.engine_restart FOLDER ENGINE IMAGE

Run it in a network namespace apart: two engines in one disturb each other. IMAGE comes from the engine at
ENGINE, over its Unix socket. Prints JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.threads import deferToThread

from uaihost.blocking import Threads
from uaihost.commands.adoption import Adoption
from uaihost.commands.exposed import Exposed
from uaihost.commands.lanes import Lanes
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.containers.client import answers
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.setup import EngineHandle, Setup, look, stop_engine
from uaihost.containers.watch import EngineEvents
from uaihost.events import EventJournal
from uaihost.interfaces import Say
from uaihost.paths import Folders, data_files
from uaihost.state.database import Database
from uaihost.test.commands.fakes import FakeChannels, FakePorts, FakeReadiness, FakeWorkspaces, task_up

HOST = "engine-restart"


class OneImage:
    """commands.neighbours.Images of one image that is there."""

    def __init__(self, image: str) -> None:
        self._image = image

    async def ensure(self, on_progress: Say) -> str:
        return self._image


async def play(reactor: Any, folder: Path, other: str, image: str) -> None:
    own = f"unix://{folder}/docker.sock"
    threads = Threads(reactor, "own-engine", 2)
    started: list[EngineHandle] = []

    async def engine() -> EngineHandle:
        environ = {"PATH": os.environ["PATH"]}
        found = await Setup(
            reactor,
            threads,
            folder,
            lambda line: None,
            environ,
            answers=lambda address: address == own and answers(address),
            look=look,
        ).engine()
        if found.started_by_us:
            started.append(found)
        return found

    loopback_up()
    handle = await engine()
    try:
        await deferToThread(copy, image, other, own)
        root = folder.parent / "data"
        root.mkdir()
        seen = await restart(reactor, Folders(root), own, image, handle, engine)
    finally:
        await engine()
        remove_all(own)
        # The one that runs; what was found running is nobody's to stop.
        await stop_engine(reactor, started[-1])
        threads.stop()
    print(json.dumps(seen))


async def restart(
    reactor: Any, folders: Folders, own: str, image: str, handle: EngineHandle, start: Any
) -> dict[str, Any]:
    folders.tasks.mkdir()
    database = await Database.open(
        folders.database, data_files("migrations"), Threads(reactor, "database", 1)
    )
    journal = EventJournal(database, reactor)
    docker = DockerEngine(reactor, Threads(reactor, "engine", 2), own, HOST)
    exposed = Exposed(database, journal, reactor, FakePorts())
    around = Surroundings(
        FakeWorkspaces(folders),
        docker,
        OneImage(image),
        FakeReadiness(),
        FakeChannels(),
        FakePorts(),
        folders,
        1000,
        1000,
    )
    tasks = Tasks(database, journal, reactor, Threads(reactor, "files", 1), around, exposed)
    lanes = Lanes()
    adoption = Adoption(database, reactor, docker, tasks, exposed, lanes)
    events = EngineEvents(reactor, own, HOST, adoption)
    seen: dict[str, Any] = {}
    adoption.start()
    events.start()
    try:
        up = await lanes.turn(lifecycle_key("t1"), lambda: tasks.up("up", task_up()))
        seen["up"] = up["status"]
        (folders.work_copy("t1", "shop") / "work").write_text("of days")
        first = await docker.find("t1")
        await stop_engine(reactor, handle)

        async def state() -> list[Any]:
            (row,) = await tasks.overview("t1")
            return [row["status"], None if row["waiting"] is None else row["waiting"]["reason"]]

        seen["away"] = await until(reactor, state, lambda found: found[1] == "engine-unreachable")
        seen["away"][0] = "running" if seen["away"][0] in ("running", "starting") else seen["away"][0]
        await start()
        back = await until(reactor, state, lambda found: found == ["running", None])
        second = await docker.find("t1")
        assert first is not None and second is not None
        seen["back"] = [*back, second.state]
        seen["another"] = second.started_at != first.started_at
        seen["work"] = (folders.work_copy("t1", "shop") / "work").read_text()
        seen["swept"] = await docker.sweep({"t1"})
    finally:
        events.stop()
        adoption.stop()
        await database.close()
    return seen


async def until(reactor: Any, state: Any, wanted: Any) -> Any:
    found = None
    for _ in range(600):
        found = await state()
        if wanted(found):
            return found
        await deferLater(reactor, 0.1)
    raise AssertionError(f"it stays {found}")


def loopback_up() -> None:
    """A network namespace begins with its loopback down, and ports are published there (netdevice(7))."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        found = fcntl.ioctl(any_socket, get_flags, struct.pack("16sh14x", b"lo", 0))
        (flags,) = struct.unpack_from("h", found, 16)
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def copy(image: str, source: str, target: str) -> None:
    saved = subprocess.Popen(["docker", "-H", source, "save", image], stdout=subprocess.PIPE)
    subprocess.run(
        ["docker", "-H", target, "load", "-q"], stdin=saved.stdout, check=True, capture_output=True
    )
    if saved.wait() != 0:
        raise AssertionError(f"{image} could not be read from {source}")


def remove_all(address: str) -> None:
    command = ["docker", "-H", address, "ps", "-aq"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if found:
        subprocess.run(["docker", "-H", address, "rm", "-f", *found], check=True, capture_output=True)


if __name__ == "__main__":
    folder, other, image = sys.argv[1:]
    react(lambda reactor: Deferred.fromCoroutine(play(reactor, Path(folder), other, image)))
