"""`uaihost audit`: what users' credentials were used for."""

from __future__ import annotations

import time

import click

from uaihost.cli.local import verb
from uaihost.cli.said import echo, echo_json
from uaihost.cli.task_id import TaskId


@click.command()
@click.option(
    "--task", "task_id", type=TaskId(), metavar="ID", help="Only of this task; the host's own git has none."
)
@click.option(
    "--last", type=click.IntRange(1, 10_000), default=200, show_default=True, help="So many, the newest."
)
@click.option("--json", "as_json", is_flag=True, help="One object of JSON on each line.")
def audit(task_id: str | None, last: int, as_json: bool) -> None:
    """Show what git, gh and ssh were given users' credentials for, oldest first.

    Each line says when, in which task, for whom, what (git: a token for git; api: a request of gh; sign: an
    SSH sign-in), where, and how it ended.
    """
    for use in verb("audit.read", {"task": task_id, "last": last})["uses"]:
        if as_json:
            echo_json(use)
            continue
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(use["at"] / 1000))
        where = f"{use['host']}/{use['path']}" if use["what"] == "git" else f"{use['host']} {use['path']}"
        words = (
            f"{use['task'] or '-':<20} {use['user']:<12} {use['what']:<5} {where.strip()}  {use['outcome']}"
        )
        # A task chose some of these words: each use is one line.
        echo(at + "  " + "".join(one if one.isprintable() else "\ufffd" for one in words))
