"""A real engine and the task image for integration tests.

The engine is found or started once per run at its usual place, as `uaihost up` does; it stays for the next
run. Each test gets a host id of its own, and what carries its label is removed after the test.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.base import BaseImages
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.images import Images, owner
from uaihost.containers.setup import find_or_start_engine
from uaihost.interfaces import Doing

CHECKOUT = Path(__file__).resolve().parents[3]
# Where `uaihost up` keeps an engine of its own; a test must not start a second one elsewhere.
ENGINE_FOLDER = (
    Path("/var/lib/uaihost/engine")
    if os.geteuid() == 0
    else Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "uaihost" / "engine"
)


async def docker_host() -> str:
    """The address of an engine that answers."""
    return (await find_or_start_engine(reactor, ENGINE_FOLDER, _quiet)).docker_host


async def real_engine(case: TestCase, host_id: str | None = None) -> DockerEngine:
    """An engine for one test; afterwards no container and no network of its host id is left."""
    address = await docker_host()
    threads = Threads(reactor, "test-engine", 4)  # type: ignore[arg-type]
    engine = DockerEngine(reactor, threads, address, host_id or f"test-{secrets.token_hex(6)}")

    async def clean() -> None:
        try:
            for container in await engine.all():
                await engine.remove(container.task_id)
        finally:
            threads.stop()

    case.addCleanup(clean)
    return engine


def make_images(
    case: TestCase, address: str, uid: int | None = None, gid: int | None = None, kind: str = "small"
) -> Images:
    """The builder of a task image on this checkout."""
    threads = Threads(reactor, "test-images", 1)  # type: ignore[arg-type]
    case.addCleanup(threads.stop)
    base = BaseImages(reactor, threads, address, ENGINE_FOLDER)
    mine = owner()
    return Images(
        reactor,
        threads,
        address,
        base,
        image=CHECKOUT / "images" / kind,
        shim=CHECKOUT / "uaihost" / "shim",
        uid=mine[0] if uid is None else uid,
        gid=mine[1] if gid is None else gid,
    )


async def task_image(case: TestCase) -> str:
    """The reference of the small task image, built when it is missing."""
    return await make_images(case, await docker_host()).ensure(_quiet)


async def standard_image(case: TestCase) -> str:
    """The reference of the standard image: built when it is missing, about 100 s without a cache."""
    return await make_images(case, await docker_host(), kind="standard").ensure(_quiet)


def _quiet(_: str | Doing) -> None:
    """Progress is for people."""
