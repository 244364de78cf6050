"""Verbs about the key that seals stored secrets: where it lies, a new one, giving up what is lost."""

from __future__ import annotations

import json

import click

from uaihost.cli.local import verb


@click.group()
def secrets() -> None:
    """The key of what this host stores of tokens and keys."""


@secrets.command()
@click.option("--json", "as_json", is_flag=True, help="The daemon's answer as it is.")
def status(as_json: bool) -> None:
    """Show where the key lies and what it seals."""
    answer = verb("secrets.status", {})
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    click.echo(f"key      {answer['where']}")
    click.echo(f"sealed   {answer['sealed']} stored secrets")
    if answer["others"]:
        click.echo(f"closed   {answer['others']} stored secrets, which this key does not open")
    if answer["problem"]:
        click.echo(f"problem  {answer['problem']}")


@secrets.command()
def rotate() -> None:
    """Make a new key and seal every stored secret with it; the one before is gone then.

    Keep a copy of the new key beside your backups: without it, nothing that is stored opens.
    """
    answer = verb("secrets.rotate", {}, patience=300.0)
    click.echo(f"a new key seals {answer['sealed']} stored secrets; it lies in {answer['where']}")


@secrets.command()
@click.confirmation_option(prompt="Delete the stored secrets that cannot be opened any more?")
def forget() -> None:
    """Give up the stored secrets that the key does not open, when their own key is lost for good."""
    answer = verb("secrets.forget", {})
    click.echo(f"{answer['forgotten']} stored secrets are forgotten; start the host again and sign in anew")
