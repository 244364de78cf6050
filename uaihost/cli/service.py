"""Verbs about the service: install it, bring it up to date, remove it; start, stop and restart it.

They speak to this machine's service manager, whichever it is, and to no daemon.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from uaihost.cli.local import one_line
from uaihost.cli.said import echo, echo_json
from uaihost.services import machine
from uaihost.services.install import Installer, Outcome, kind_of, user_manager

F = TypeVar("F", bound=Callable[..., Any])


def _common(verb: F) -> F:
    """The options of every verb here."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option(
            "--system/--user",
            default=None,
            help="The machine's services, or your own (default: the machine's for root).",
        ),
    ):
        verb = option(verb)
    return verb


@click.command()
@_common
@click.option("--bridge", is_flag=True, help="Also install a bridge on this machine, with its page.")
@click.option("--cloud-url", help="The bridge that the host dials (UAI_CLOUD_URL).")
@click.option(
    "--token-file", type=click.File("rb"), help="A file with the host's token on one line; - reads it."
)
def install(
    system: bool | None, dry_run: bool, as_json: bool, bridge: bool, cloud_url: str | None, token_file: Any
) -> None:
    """Install the host as a service that starts by itself, or bring it up to date.

    Settings that are in the environment now are kept for the service, the token in a file of its own.
    Installed again with nothing new it changes nothing; what did change is written, and then alone the
    service restarts.
    """
    token = None if token_file is None else one_line(token_file)
    _show(
        _installer(system, dry_run).install(bridge=bridge, cloud_url=cloud_url, token=token),
        as_json,
    )


@click.command()
@_common
def uninstall(system: bool | None, dry_run: bool, as_json: bool) -> None:
    """Stop and remove the service; data, settings and token stay."""
    _show(_installer(system, dry_run).uninstall(), as_json)


@click.command()
@_common
def start(system: bool | None, dry_run: bool, as_json: bool) -> None:
    """Start the service, and the bridge where it is installed."""
    _show(_installer(system, dry_run).start(), as_json)


@click.command()
@_common
def stop(system: bool | None, dry_run: bool, as_json: bool) -> None:
    """Stop the service once its results have left. Tasks and their agents go on."""
    _show(_installer(system, dry_run).stop(), as_json)


@click.command()
@_common
def restart(system: bool | None, dry_run: bool, as_json: bool) -> None:
    """Restart the service. Tasks and their agents go on meanwhile."""
    _show(_installer(system, dry_run).restart(), as_json)


def _installer(system: bool | None, dry_run: bool) -> Installer:
    here = machine.look(os.environ)

    def run(argv: Sequence[str]) -> machine.Ran:
        # Looked for each time: an installation may make a user's manager start.
        return machine.run(argv, user_manager(os.environ))

    return Installer(here, kind_of(here, run, system), run, dry_run=dry_run)


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        echo_json(outcome.as_json(), indent=2)
        return
    would = "would " if outcome.dry_run else ""
    for step in outcome.steps:
        if step.changed:
            echo(f"{would}{step.action} {step.target}")
    for note in outcome.notes:
        echo(note)
