"""`uaihost image`: the images that tasks run in, without a daemon: list, build, remove, make a base.

Everything happens on the engine that the settings name; none is started.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import attrs
import click
from rich.table import Table
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from uaihost.blocking import Threads
from uaihost.cli.local import at_work
from uaihost.cli.loop import run_until_signalled
from uaihost.cli.progress import Steps
from uaihost.cli.said import echo, echo_json
from uaihost.cli.terminals import terminal
from uaihost.config import Settings
from uaihost.containers.base import BaseImages
from uaihost.containers.client import answers
from uaihost.containers.images import ImageInfo
from uaihost.errors import ErrorCode, HostError
from uaihost.exits import Exits
from uaihost.logs.observers import ProcessLog
from uaihost.paths import data_files
from uaihost.rooms import engine_address, task_images

T = TypeVar("T")

log = Logger()

# As shells tell of a program that SIGINT ended.
INTERRUPTED = 130

_json = click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")


@click.group()
def image() -> None:
    """The images that tasks run in: list, build and remove them."""


@image.command("ls")
@_json
def ls(as_json: bool) -> None:
    """List the task images that the engine has.

    `current` is what a new task gets; `in use` has a container, running or not.
    """
    wanted = reachable()

    async def work(reactor: Any, threads: Threads) -> list[ImageInfo]:
        found = [await task_images(reactor, threads, wanted, kind).list() for kind in kinds()]
        return [info for infos in found for info in infos]

    found = run(work)
    if as_json:
        echo_json([attrs.asdict(info) for info in found], indent=2)
    else:
        terminal().print(
            table(found, time.time()) if found else "no task image is there; `uaihost image build`"
        )


@image.command("build")
@click.option("--kind", help="standard or small (default: the one that tasks run in, UAI_TASK_IMAGE).")
@click.option("--no-cache", is_flag=True, help="Build every layer anew, whether the image is there or not.")
@_json
def build(kind: str | None, no_cache: bool, as_json: bool) -> None:
    """Build the task image if it is missing."""
    wanted = reachable()
    chosen = kind or wanted.task_image
    if chosen not in kinds():
        raise click.UsageError(f"there is no kind {chosen!r}; known are {', '.join(kinds())}")
    steps = Steps(terminal(stderr=as_json))

    async def work(reactor: Any, threads: Threads) -> dict[str, Any]:
        started = time.monotonic()
        images = task_images(reactor, threads, wanted, chosen)
        with steps.step(f"{chosen} image") as step:
            reference = await images.build(step.say, force=no_cache)
            sizes = [info.size for info in await images.list() if info.reference == reference]
            step.result = f"{reference}, {megabytes(sum(sizes))}"
        seconds = round(time.monotonic() - started, 1)
        return {"reference": reference, "kind": chosen, "size": sum(sizes), "seconds": seconds}

    done = run(work)
    if as_json:
        echo_json(done)


@image.command("rm")
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@_json
def rm(references: tuple[str, ...], as_json: bool) -> None:
    """Remove task images; one that a container is made of stays, and the command fails."""
    wanted = reachable()

    async def work(reactor: Any, threads: Threads) -> None:
        images = task_images(reactor, threads, wanted, wanted.task_image)
        for reference in references:
            await images.remove(reference)
            if not as_json:
                echo(f"removed {reference}")

    run(work)
    if as_json:
        echo_json({"removed": list(references)})


@image.command("base")
@_json
def base(as_json: bool) -> None:
    """Make the base image of Debian packages with mmdebstrap, for machines that reach no image registry.

    It is used in place of the default base where the engine does not have that. Takes root, or mmdebstrap.
    """
    wanted = reachable()
    steps = Steps(terminal(stderr=as_json))

    async def work(reactor: Any, threads: Threads) -> dict[str, Any]:
        started = time.monotonic()
        bases = BaseImages(reactor, threads, engine_address(wanted), wanted.data_dir / "images")
        with steps.step("base image") as step:
            made = await bases.make(step.say)
            step.result = made.name
        return {"reference": made.name, "id": made.id, "seconds": round(time.monotonic() - started, 1)}

    done = run(work)
    if as_json:
        echo_json(done)


def reachable() -> Settings:
    """The settings, when the engine that they name answers.

    Raises:
        HostError: it does not; says what to do.
    """
    wanted = at_work()
    address = engine_address(wanted)
    if not answers(address):
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"no container engine answers at {address}; start Docker, let `uaihost up` start one, or name "
            "another in DOCKER_HOST",
        )
    return wanted


def kinds() -> list[str]:
    """The kinds of image that are shipped."""
    return sorted(path.parent.name for path in data_files("images").glob("*/Dockerfile"))


def run(work: Callable[[Any, Threads], Awaitable[T]]) -> T:
    """The result of `work`, run on the reactor; an interrupt cancels it and ends the process with 130."""
    running: list[Deferred[T]] = []
    results: list[T] = []
    over: Deferred[None] = Deferred()

    async def begin(reactor: Any, exits: Exits) -> None:
        threads = Threads(reactor, "images", 1)

        async def whole() -> T:
            return await work(reactor, threads)

        try:
            running.append(Deferred.fromCoroutine(whole()))
            results.append(await running[0])
            reactor.stop()
        except CancelledError:
            log.info("interrupted")
        finally:
            threads.stop()
            over.callback(None)

    async def end() -> None:
        if running:
            running[0].cancel()
            # What it began is cleared up first.
            await over

    run_until_signalled(begin, end, ProcessLog("info"))
    if not results:
        raise click.exceptions.Exit(INTERRUPTED)
    return results[0]


def table(images: Iterable[ImageInfo], now: float) -> Table:
    """The images for people. now: seconds since the epoch."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("image", "size", "age", ""):
        shown.add_column(name, overflow="fold")
    for info in images:
        words = [word for word, yes in (("current", info.current), ("in use", info.in_use)) if yes]
        shown.add_row(info.reference, megabytes(info.size), age(now - info.created / 1000), ", ".join(words))
    return shown


def megabytes(size: int) -> str:
    """Bytes for people, in steps of 1000 as the engine's own tools have them."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def age(seconds: float) -> str:
    """A span for people, in its largest whole unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return "now"
