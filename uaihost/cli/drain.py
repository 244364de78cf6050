"""`uaihost drain`: before an upgrade or a restart of the machine, let what is under way end."""

from __future__ import annotations

import time
from typing import Any

import click

from uaihost.cli.local import verb
from uaihost.cli.said import echo, echo_json
from uaihost.cli.terminals import terminal

# Seconds between two looks.
LOOK = 1.0


@click.command()
@click.option("--now", is_flag=True, help="End the agents' turns instead of waiting for them.")
@click.option("--stop", is_flag=True, help="End the host once nothing is under way.")
@click.option("--off", is_flag=True, help="Take it back: turns begin again, tasks come up again.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
@click.pass_context
def drain(
    context: click.Context, now: bool, stop: bool, off: bool, timeout: float | None, as_json: bool
) -> None:
    """Let agents' turns and commands end, and begin no new ones.

    Words that people send meanwhile are kept, and are heard after `--off` or the next start. Agents would
    outlive a restart in any case; this is for who wants nothing under way. Status 1: not done in time.
    """
    if off and (now or stop):
        raise click.UsageError("--off goes with neither --now nor --stop")
    if off:
        _tell(verb("host.drain", {"off": True}), as_json)
        return
    found = verb("host.drain", {"now": now})
    end = None if timeout is None else time.monotonic() + timeout
    with terminal(stderr=True).status("") as shown:
        while (found["turns"] or found["commands"]) and (end is None or time.monotonic() < end):
            shown.update(
                f"{_count(found['turns'], 'turn')} and {_count(found['commands'], 'command')} under way"
            )
            time.sleep(LOOK)
            found = verb("host.drain", {})
    done = not found["turns"] and not found["commands"]
    if done and stop:
        found |= verb("host.stop", {})
    _tell(found, as_json)
    context.exit(0 if done else 1)


def _tell(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(found)
    elif not found["draining"]:
        echo("the host takes tasks again, and agents begin their turns")
    elif found["turns"] or found["commands"]:
        echo(
            f"still under way: {_count(found['turns'], 'turn')}, {_count(found['commands'], 'command')}; "
            "`uaihost drain --now` ends the turns"
        )
    elif found.get("stopping"):
        echo("nothing was under way; the host ends")
    else:
        echo("nothing is under way; `uaihost drain --off` goes on")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
