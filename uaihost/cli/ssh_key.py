"""Verbs about the SSH key that a user's tasks sign in to forges with. The private half is never shown."""

from __future__ import annotations

from typing import Any

import click

from uaihost.bridge.new_task import OWNER
from uaihost.cli.local import verb
from uaihost.cli.said import Said, echo, echo_json, says

_user = click.option(
    "--user", default=OWNER, show_default=True, help="Whose key: the id that the bridge knows the user by."
)

_json = click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")


@click.group(name="ssh-key")
def ssh_key() -> None:
    """The SSH key that tasks push and fetch with: made and kept on this host."""


@ssh_key.command()
@_user
@_json
def show(user: str, as_json: bool) -> None:
    """Print the public key, for the forge's page of SSH keys."""
    answer = verb("ssh.show", {"user": user})
    if answer["publicKey"] is None and not as_json:
        echo(f"{user} has no SSH key; make one with: uaihost ssh-key ensure --user {user}", err=True)
        raise SystemExit(1)
    _print(answer, as_json)


@ssh_key.command()
@_user
@_json
def ensure(user: str, as_json: bool) -> None:
    """Make a key if there is none, and print its public half."""
    _print(verb("ssh.ensure", {"user": user}), as_json)


@ssh_key.command()
@_user
@says
def delete(user: str) -> Said:
    """Forget the key; running tasks cannot sign in with it from now on."""
    verb("ssh.delete", {"user": user})
    return {"user": user}, f"{user} has no SSH key on this host now; remove it at the forge too"


def _print(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(answer)
        return
    # The key alone on standard output: it can be piped to where it belongs.
    echo(answer["publicKey"])
    echo(answer["fingerprint"], err=True)
