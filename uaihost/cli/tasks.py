"""Verbs about the tasks of this machine's host: what each does, what it waits for, how its steps went."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import click

from uaihost.cli.lines import line, story
from uaihost.cli.local import ask, settings
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def tasks(as_json: bool) -> None:
    """List the tasks of this machine and what each waits for."""
    found = _ask("/api/status")["tasks"]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    if not found:
        click.echo("no tasks")
    for task in found:
        click.echo(line(task, time.time()))


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def task(task_id: str, as_json: bool) -> None:
    """Show one task: its state, its steps with their times, what failed, what its container can reach."""
    found = _ask(f"/api/tasks/{quote(task_id, safe='')}")
    click.echo(json.dumps(found, indent=2) if as_json else story(found, time.time()))


def _ask(path: str) -> Any:
    answer = ask(Folders(settings().data_dir).control_socket, "GET", path)
    if answer is None:
        raise HostError(ErrorCode.UNAVAILABLE, "no host is running here; start one with `uaihost up`")
    return answer
