"""`uaihost restore`: what was kept of tasks, and a clone of it for a person; with or without a daemon.

Listing and restoring only read the data folder. `--live` keeps first what a task holds now, under the locks
that the daemon uses too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from uaihost.blocking import Threads
from uaihost.cli.image import age, megabytes, run
from uaihost.cli.local import settings
from uaihost.cli.said import echo, echo_json
from uaihost.cli.task_id import TaskId
from uaihost.cli.terminals import terminal
from uaihost.config import Settings
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders, checked_task
from uaihost.workspaces.workspaces import Kept, Workspaces

# What is kept of a task beside its work copies has no project.
BESIDE = "(beside)"


@click.command()
@click.argument("task_id", required=False, metavar="[TASK]", type=TaskId())
@click.option("--project", help="Only this project, by its slug.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--live", is_flag=True, help="What a task that is still there holds now.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
def restore(task_id: str | None, project: str | None, target: Path | None, live: bool, as_json: bool) -> None:
    """Get back what tasks left: clones with commits, uncommitted work, stashes and ignored files.

    Without TASK, list what was kept. Nothing is written into a folder that exists.
    """
    wanted = settings()
    if not wanted.data_dir.is_dir():
        raise HostError(
            ErrorCode.NOT_FOUND, f"there is no data folder {wanted.data_dir}; set UAI_DATA_DIR to it"
        )
    if task_id is None:
        if project or target or live:
            raise click.UsageError("--project, --to and --live go with a TASK")
        show(run(lambda reactor, threads: workspaces(reactor, threads, wanted).kept()), as_json)
        return
    checked_task(task_id)

    async def work(reactor: Any, threads: Threads) -> list[tuple[Kept, Path, list[str]]]:
        rooms = workspaces(reactor, threads, wanted)
        kept = await (snapshot(rooms, wanted, task_id) if live else rooms.kept(task_id))
        kept = [one for one in kept if project in (None, one.slug)]
        if not kept:
            raise HostError(ErrorCode.NOT_FOUND, missing(task_id, project))
        done = []
        for one, path in zip(kept, targets(kept, target), strict=True):
            done.append((one, path, await rooms.restore(one, path.absolute(), person(path.absolute()))))
        return done

    done = run(work)
    if as_json:
        values = [{**one.json(), "path": str(path), "notes": notes} for one, path, notes in done]
        echo_json(values, indent=2)
        return
    for one, path, notes in done:
        echo(f"{one.name if one.slug else BESIDE} of {one.task}: {path}")
        for line in notes:
            echo(f"  {line}")


async def snapshot(rooms: Workspaces, wanted: Settings, task_id: str) -> list[Kept]:
    """Keep what the task holds now; what that is."""
    folder = Folders(wanted.data_dir).work(task_id)
    slugs = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not slugs:
        raise HostError(
            ErrorCode.NOT_FOUND, f"there are no work copies in {folder}; without --live comes what was kept"
        )
    names = {one.name for one in await rooms.save(task_id, slugs)}
    return [one for one in await rooms.kept(task_id) if one.name in names]


def missing(task_id: str, project: str | None) -> str:
    """The sentence for what is not there."""
    of = task_id if project is None else f"{project} of {task_id}"
    return f"nothing of {of} was kept; `uaihost restore` lists what was, --live takes what a task holds now"


def targets(kept: Sequence[Kept], target: Path | None) -> list[Path]:
    """The folder of each: what --to says when there is one, a folder in it when there are several."""
    if target is not None and len(kept) == 1:
        return [target]
    return [(target or Path()) / f"{one.name if one.slug else 'beside'}-{one.task}" for one in kept]


def person(target: Path) -> tuple[int, int] | None:
    """Whom `target` is given to: root works for the owner of the folder that it is made in."""
    above = next(path for path in target.parents if path.is_dir()).stat()
    return (above.st_uid, above.st_gid) if os.geteuid() == 0 else None


def workspaces(reactor: Any, threads: Threads, wanted: Settings) -> Workspaces:
    """The work copies of the data folder; none is made here, so the container's user does not matter."""
    folders = Folders(wanted.data_dir)
    return Workspaces(reactor, folders, threads, os.getuid(), os.getgid(), wanted.local_repositories)


def show(kept: Sequence[Kept], as_json: bool) -> None:
    """The list, for people or for programs."""
    if as_json:
        echo_json([one.json() for one in kept], indent=2)
        return
    if not kept:
        echo("nothing was kept yet: no task went down with work")
        return
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("task", "project", "kept", "what", "files beside"):
        # What is typed again must stand in one piece.
        shown.add_column(name, overflow="fold", no_wrap=name in ("task", "project"))
    for one in kept:
        ago = age(time.time() - one.at)
        shown.add_row(
            one.task, one.name if one.slug else BESIDE, ago if ago == "now" else f"{ago} ago",
            ", ".join(holds(one)), megabytes(one.size) if one.size else "",
        )  # fmt: skip
    terminal(file=sys.stdout).print(shown)


def holds(one: Kept) -> list[str]:
    """What it is, in a few words each."""
    found = [one.branch] if one.branch else []
    if any(part["wip"] or part["index"] for part in one.parts):
        found.append("uncommitted work")
    for kind, words in (("stashes", "stashes"), ("past", "lost commits")):
        if count := sum(len(part[kind]) for part in one.parts):
            found.append(f"{count} {words}")
    if len(one.parts) > 1:
        found.append(f"{len(one.parts) - 1} repositories in it")
    return found
