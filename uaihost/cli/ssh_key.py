"""Verbs about the SSH key that a user's tasks sign in to forges with. The private half is never shown."""

from __future__ import annotations

from typing import Any

import click

from uaihost.bridge.new_task import OWNER
from uaihost.cli.local import verb

_user = click.option(
    "--user", default=OWNER, show_default=True, help="Whose key: the id that the bridge knows the user by."
)


@click.group(name="ssh-key")
def ssh_key() -> None:
    """The SSH key that tasks push and fetch with: made and kept on this host."""


@ssh_key.command()
@_user
def show(user: str) -> None:
    """Print the public key, for the forge's page of SSH keys."""
    answer = verb("ssh.show", {"user": user})
    if answer["publicKey"] is None:
        click.echo(f"{user} has no SSH key; make one with: uaihost ssh-key ensure --user {user}", err=True)
        raise SystemExit(1)
    _print(answer)


@ssh_key.command()
@_user
def ensure(user: str) -> None:
    """Make a key if there is none, and print its public half."""
    _print(verb("ssh.ensure", {"user": user}))


@ssh_key.command()
@_user
def delete(user: str) -> None:
    """Forget the key; running tasks cannot sign in with it from now on."""
    verb("ssh.delete", {"user": user})
    click.echo(f"{user} has no SSH key on this host now; remove it at the forge too")


def _print(answer: dict[str, Any]) -> None:
    # The key alone on standard output: it can be piped to where it belongs.
    click.echo(answer["publicKey"])
    click.echo(answer["fingerprint"], err=True)
