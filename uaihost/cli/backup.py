"""`uaihost backup`: one file with what cannot be made again: taken while the host runs, checked, put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from uaihost import backup as archive
from uaihost.cli.local import ask, settings, verb
from uaihost.cli.said import echo, echo_json
from uaihost.cli.terminals import terminal
from uaihost.errors import HostError
from uaihost.paths import Folders

# Seconds: saving the work of a large task takes minutes.
PATIENCE = 1800.0

_json = click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.group()
def backup() -> None:
    """Keep what cannot be made again in one file, and put it back on this or another machine."""


@backup.command()
@_file
@click.option("--with-keys", is_flag=True, help="Also the keys: whoever has the file then has every secret.")
@click.option("--saved-only", is_flag=True, help="Do not save the work of tasks first.")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
@_json
def create(file: Path, with_keys: bool, saved_only: bool, force: bool, as_json: bool) -> None:
    """Write a backup into FILE, which only you can read; the host may run.

    The work of tasks that are there is saved first, as `uaihost restore --live` does. Without --with-keys
    stored sign-ins do not open where it is put back: keep `secrets.key` apart, or sign in anew.
    """
    folders = Folders(settings().data_dir)
    problems = [] if saved_only else _save(folders)
    with terminal(stderr=True).status("reading") as shown:
        done = archive.create(
            folders,
            file,
            keys=with_keys,
            replace=force,
            progress=lambda name, size: shown.update(f"{name[-60:]}  {size:,} bytes"),
        )
    answer = {"file": str(file), "bytes": file.stat().st_size, "problems": problems, **done.json()}
    if as_json:
        echo_json(answer)
        return
    echo(f"{file}: {done.members} files, {answer['bytes']:,} bytes")
    for problem in (*problems, *(f"left out: {each}" for each in done.left_out)):
        echo(problem)
    if not with_keys:
        echo("without keys: keep secrets.key apart, or sign in anew where this is put back")


@backup.command()
@_file
@_json
def verify(file: Path, as_json: bool) -> None:
    """Read all of FILE and say whether it is whole and what it holds."""
    _tell(file, archive.verify(file), as_json, "is whole")


@backup.command()
@_file
@_json
def restore(file: Path, as_json: bool) -> None:
    """Put FILE into the data folder, which holds no host's data yet; no host may run there.

    Tasks are listed as they were. Containers and work copies are not in a backup: `uaihost restore TASK`
    gives the saved work, and a new task on its branch goes on with it.
    """
    folders = Folders(settings().data_dir)
    _tell(file, archive.restore(folders, file), as_json, f"was put into {folders.root}")


def _tell(file: Path, found: archive.Contents, as_json: bool, what: str) -> None:
    if as_json:
        echo_json({"file": str(file), **found.json()})
        return
    keys = "with keys" if found.keys else "without keys"
    echo(f"{file} {what}: {found.members} files, {found.size:,} bytes, {keys}, of uaihost {found.version}")


def _save(folders: Folders) -> list[str]:
    """Have the host save the work of its tasks; what did not work, for people."""
    status: Any = ask(folders.control_socket, "GET", "/api/status")
    problems = []
    for task in [] if status is None else status["tasks"]:
        if task["status"] == "exposed":
            continue
        try:
            with terminal(stderr=True).status(f"saving the work of {task['id']}"):
                verb("task.keep", {"taskId": task["id"]}, patience=PATIENCE)
        except HostError as error:
            problems.append(f"the work of {task['id']} was not saved: {error.message}")
    return problems
