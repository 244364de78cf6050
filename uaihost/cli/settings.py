"""`uaihost config`: the settings in force, where each comes from, and whether they are good."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from uaihost import config as settings
from uaihost.cli.exits import FAILED
from uaihost.cli.said import echo, echo_json
from uaihost.cli.terminals import terminal

HIDDEN = "(set, not shown)"

_json = click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")


@click.group()
def config() -> None:
    """Show and check the settings; docs/settings.md says what each means."""


@config.command()
@_json
@click.option("--all", "everything", is_flag=True, help="Also those that have their default.")
def show(as_json: bool, everything: bool) -> None:
    """Show the settings that were given, and where; secrets are not shown."""
    given, path = _given()
    rows = [_row(each) for each in given]
    if as_json:
        echo_json({"file": str(path) if path else None, "settings": rows})
        return
    shown = rows if everything else [row for row in rows if row["source"] != "default"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for row in shown:
        table.add_row(row["name"], row["value"], row["source"])
    terminal(highlight=False).print(table)
    if len(shown) < len(rows):
        echo(f"{len(rows) - len(shown)} others have their defaults; --all shows them")


@config.command()
@_json
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Say all that is wrong with the settings. Status 1 when something is."""
    _, problems = settings.survey({}, os.environ, home=Path.home(), root=os.geteuid() == 0)
    if as_json:
        echo_json({"problems": problems})
    else:
        echo("\n".join(problems) or "the settings are good")
    context.exit(FAILED if problems else 0)


@config.command()
@_json
def path(as_json: bool) -> None:
    """Show where the TOML file is, or would be."""
    place = settings.default_file(os.environ, Path.home(), os.geteuid() == 0)
    there = place.is_file()
    if as_json:
        echo_json({"file": str(place), "exists": there})
    else:
        echo(f"{place}" + ("" if there else "  (not there)"))


def _given() -> tuple[list[settings.Given], Path | None]:
    return settings.sources(os.environ, home=Path.home(), root=os.geteuid() == 0)


def _row(given: settings.Given) -> dict[str, Any]:
    value = given.setting.default.replace("`", "") if given.text is None else given.text
    if given.setting.secret and given.text is not None:
        value = HIDDEN
    return {"name": given.setting.name, "value": value, "source": given.source, "env": given.setting.env}
