"""Verbs about users' connections to GitHub: by a token of one's own, look, forget, try again.

With a GitHub App the bridge connects users; this is the way without one.
"""

from __future__ import annotations

import time
from typing import Any, BinaryIO

import click

from uaihost.bridge.new_task import OWNER
from uaihost.cli.lines import day
from uaihost.cli.local import one_line, verb
from uaihost.cli.said import Said, echo, echo_json, says

_user = click.option(
    "--user", default=OWNER, show_default=True, help="Whose connection: the id that the bridge knows them by."
)


@click.group()
def github() -> None:
    """Connections to GitHub, with which tasks clone, push and open pull requests."""


@github.command()
@_user
@click.option(
    "--token-file",
    type=click.File("rb"),
    help="Read the token from this file, or from standard input with `-`.",
)
@says
def login(user: str, token_file: BinaryIO | None) -> Said:
    """Connect with a personal access token; it is asked for without being shown.

    Make one at GitHub under Settings, Developer settings: a fine-grained token for the repositories that
    agents work on, with read and write of Contents, Issues and Pull requests.
    """
    # Before anybody types a secret.
    verb("github.status", {})
    token = one_line(token_file) if token_file else click.prompt("GitHub token", hide_input=True).strip()
    answer = verb("github.connect", {"user": user, "token": token}, patience=60.0)
    return {"user": user, "login": answer["login"]}, f"{user} is connected to GitHub as {answer['login']}"


@github.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def status(as_json: bool) -> None:
    """Show who is connected, and what is wrong."""
    answer = verb("github.status", {})
    if as_json:
        echo_json(answer, indent=2)
        return
    if not answer["connections"]:
        echo("nobody is connected to GitHub; type: uaihost github login")
    for row in answer["connections"]:
        echo(f"{row['userId']:<16}{_connection(row, time.time())}")


@github.command()
@_user
@says
def logout(user: str) -> Said:
    """Forget a connection; tasks cannot reach GitHub with it from now on."""
    verb("github.clear", {"user": user})
    return (
        {"user": user},
        f"{user} is not connected on this host now; to end the token itself, revoke it at GitHub",
    )


@github.command()
@_user
@says
def retry(user: str) -> Said:
    """Try a connection that failed again, at once."""
    said = verb("github.retry", {"user": user}, patience=60.0)["said"]
    return {"user": user, "said": said}, said


def _connection(row: dict[str, Any], now: float) -> str:
    """One connection for people. now: seconds since the epoch."""
    if row["problem"]:
        return str(row["problem"])
    words = [f"{row['login']} at {row['host']} since {day(row['since'])}"]
    if row["form"] == "token":
        words.append("by a personal access token")
    elif row["expires"] is not None:
        ended = row["expires"] / 1000 < now
        words.append("renewed when it is next used" if ended else f"token until {day(row['expires'])}")
    return ", ".join(words)
