"""Verbs about the owner's accounts at the vendors of agents: sign in, sign out, look.

What signs in goes to the running daemon over its Unix socket, and nowhere else: the owner's own settings of
those programs are neither read nor written.
"""

from __future__ import annotations

import time
from typing import Any, BinaryIO
from urllib.parse import quote

import click

from uaihost.cli import interactive
from uaihost.cli.lines import day
from uaihost.cli.local import daemon, one_line
from uaihost.cli.said import Said, echo, echo_json, says

PROVIDERS = ("claude", "codex")

_provider = click.argument("provider", type=click.Choice(PROVIDERS))


@click.command()
@_provider
@click.option(
    "--api-key-file",
    type=click.File("rb"),
    help="Sign in with the API key in this file, or on standard input with `-`.",
)
@click.option("--api-key", is_flag=True, help="Ask for an API key, without showing it.")
@click.option("--token", is_flag=True, help="Ask for a long-lived token, as `claude setup-token` prints.")
@click.option("--token-file", type=click.File("rb"), help="Sign in with the long-lived token in this file.")
@says
def login(
    provider: str,
    api_key_file: BinaryIO | None,
    api_key: bool,
    token: bool,
    token_file: BinaryIO | None,
) -> Said:
    """Sign in to Claude or Codex, for the agents of this host.

    Without an option the program's own sign-in runs, in a container of its own: open the page that it names.
    """
    ways = [api_key_file is not None, api_key, token, token_file is not None]
    if sum(ways) > 1:
        raise click.UsageError("give one of --api-key-file, --api-key, --token, --token-file")
    if (token or token_file is not None) and provider != "claude":
        raise click.UsageError("only claude has long-lived tokens")
    # Before anybody types a secret.
    daemon("GET", "/api/accounts")
    form, secrets = "key", {}
    if token or token_file is not None:
        form = "token"
    file = api_key_file or token_file
    if file is not None:
        secrets = {form: one_line(file)}
    elif api_key or token:
        secrets = {form: click.prompt(f"{provider} {form}", hide_input=True).strip()}
    else:
        form, secrets = interactive.sign_in(provider)
    daemon("PUT", f"/api/accounts/{quote(provider)}", {"form": form, "secrets": secrets})
    answer = {"provider": provider, "form": form}
    return answer, f"signed in to {provider} by {form}; its agents can be used now"


@click.command()
@_provider
@says
def logout(provider: str) -> Said:
    """Forget how this host is signed in; agents that run with it keep what they were given until they end."""
    daemon("DELETE", f"/api/accounts/{quote(provider)}")
    return (
        {"provider": provider},
        f"signed out of {provider} on this host; to end the key or login itself, revoke it at its vendor",
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def accounts(as_json: bool) -> None:
    """Show how this host is signed in, and which kinds of agents work."""
    answer = daemon("GET", "/api/accounts")
    if as_json:
        echo_json(answer, indent=2)
        return
    for account in answer["accounts"]:
        echo(f"{account['provider']:<10}{_account(account, time.time())}")
    echo("")
    for kind in answer["kinds"]:
        echo(f"@{kind['kind']:<9}{'works' if kind['problem'] is None else kind['problem']}")


def _account(account: dict[str, Any], now: float) -> str:
    """One account for people. now: seconds since the epoch."""
    if account["problem"]:
        return str(account["problem"])
    if account["form"] == "none":
        return f"not signed in; type: uaihost login {account['provider']}"
    words = [f"signed in by {account['form']} since {day(account['since'])}"]
    if account["expires"] is not None:
        ended = account["expires"] / 1000 < now
        words.append("renewed when it is next used" if ended else f"token until {day(account['expires'])}")
    if account["gateway"]:
        words.append(f"through {account['gateway']}")
    return ", ".join(words)
