"""Verbs about the tasks of this machine's host: what each does, what it waits for, how its steps went."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from uaihost.cli.absence import nobody
from uaihost.cli.lines import line, story
from uaihost.cli.local import ask, fetch, settings, verb
from uaihost.cli.said import echo, echo_json
from uaihost.cli.task_id import TaskId
from uaihost.cli.terminals import terminal
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders

_json = click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")

# Seconds without a word of the daemon: saving and packing large work copies takes minutes.
PATIENCE = 1800.0


@click.command()
@_json
def tasks(as_json: bool) -> None:
    """List the tasks of this machine and what each waits for."""
    found = _ask("/api/status")["tasks"]
    if as_json:
        echo_json(found, indent=2)
        return
    if not found:
        echo("no tasks")
    for task in found:
        echo(line(task, time.time()))


class _Task(click.Group):
    """`uaihost task ID` is `uaihost task show ID`: what people type most is the shortest."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_Task)
def task() -> None:
    """Show, stop or export one task; also when no bridge is there. `uaihost task ID` shows it."""


@task.command()
@click.argument("task_id", metavar="ID", type=TaskId())
@_json
def show(task_id: str, as_json: bool) -> None:
    """Show one task: its state, its steps with their times, what failed, what its container can reach."""
    found = _ask(f"/api/tasks/{quote(task_id, safe='')}")
    if as_json:
        echo_json(found, indent=2)
    else:
        echo(story(found, time.time()))


@task.command()
@click.argument("task_id", metavar="ID", type=TaskId())
@_json
def stop(task_id: str, as_json: bool) -> None:
    """Stop a task after its work was saved, and remove its container and work copies.

    The bridge hears of it when it is reached again.
    """
    with terminal(stderr=True).status(f"saving the work of {task_id}"):
        found = verb("task.stop", {"taskId": task_id}, patience=PATIENCE)
    if as_json:
        echo_json(found)
        return
    echo(f"{task_id} is {found['status']}")
    if found["restore"]:
        echo(f"its work was saved; to get it back: {found['restore']}")


@task.command()
@click.argument("task_id", metavar="ID", type=TaskId())
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@_json
def export(task_id: str, file: Path | None, as_json: bool) -> None:
    """Write a task's work into FILE, a .tar.gz: branches, stashes, uncommitted and ignored files.

    A task that runs goes on; of one that is gone, what was kept is exported. Without FILE the archive is
    named after the task, in this folder. A file that exists is not overwritten.
    """
    if file is not None and file.exists():
        raise HostError(ErrorCode.CONFLICT, f"{file} exists; name another file")
    with terminal(stderr=True).status(f"packing the work of {task_id}"):
        found = verb("task.export", {"taskId": task_id}, patience=PATIENCE)
    target = file or Path(found["file"])
    fetch(found["download"], target)
    answer = {"file": str(target), "bytes": found["bytes"], "live": found["live"], "notes": found["notes"]}
    if as_json:
        echo_json(answer)
        return
    echo(f"{target}: {found['bytes']:,} bytes" + ("" if found["live"] else ", as it was kept"))
    for folder, lines in sorted(found["notes"].items()):
        for each in lines:
            echo(f"  {folder}: {each}")


def _ask(path: str) -> Any:
    answer = ask(Folders(settings().data_dir).control_socket, "GET", path)
    if answer is None:
        raise nobody()
    return answer
