"""Verbs about the key that seals stored secrets: where it lies, a new one, giving up what is lost.

The running daemon does them; without one, this process does, under the lock that keeps two daemons apart.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

import click

from uaihost.blocking import Inline
from uaihost.cli.local import ask, run_now, settings
from uaihost.cli.said import Said, echo, echo_json, says
from uaihost.credentials.key_sources import source
from uaihost.credentials.keys import Keys, key_verbs
from uaihost.offline import with_database
from uaihost.paths import Folders
from uaihost.state.database import Database

# Seconds for all secrets of a host and a keyring that asks its owner.
PATIENCE = 300.0


@click.group()
def secrets() -> None:
    """The key of what this host stores of tokens and keys."""


@secrets.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def status(as_json: bool) -> None:
    """Show where the key lies and what it seals."""
    answer = _do("secrets.status")
    if as_json:
        echo_json(answer, indent=2)
        return
    echo(f"key      {answer['where']}")
    echo(f"sealed   {answer['sealed']} stored secrets")
    if answer["others"]:
        echo(f"closed   {answer['others']} stored secrets, which this key does not open")
    if answer["problem"]:
        echo(f"problem  {answer['problem']}")


@secrets.command()
@says
def rotate() -> Said:
    """Make a new key and seal every stored secret with it; the one before is gone then.

    Keep a copy of the new key beside your backups: without it, nothing that is stored opens.
    """
    answer = _do("secrets.rotate")
    return answer, f"a new key seals {answer['sealed']} stored secrets; it lies in {answer['where']}"


@secrets.command()
@click.confirmation_option(prompt="Delete the stored secrets that cannot be opened any more?")
@says
def forget() -> Said:
    """Give up the stored secrets that the key does not open, when their own key is lost for good."""
    answer = _do("secrets.forget")
    said = f"{answer['forgotten']} stored secrets are forgotten; start the host again and sign in anew"
    return answer, said


def _do(name: str) -> dict[str, Any]:
    wanted = settings()
    folders = Folders(wanted.data_dir)
    answer: dict[str, Any] | None = ask(
        folders.control_socket, "POST", f"/api/verbs/{quote(name)}", {}, PATIENCE
    )
    if answer is not None:
        return answer

    async def here(database: Database) -> dict[str, Any]:
        keys = Keys(
            Inline(), database, lambda: source(wanted.secrets_source, folders.secrets_key, os.environ)
        )
        return await key_verbs(keys)[name]({})

    return run_now(with_database(folders, here))
