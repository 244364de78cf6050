"""`uaihost version`: what a bug report needs to begin with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click

from uaihost import __version__
from uaihost.cli.said import echo, echo_json

# What the host's behaviour depends on most.
LIBRARIES = ("Twisted", "autobahn", "cryptography", "docker", "msgspec")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
def version(as_json: bool) -> None:
    """Show the versions of this program, its libraries and this machine's system."""
    found = {
        "uaihost": __version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    if as_json:
        echo_json(found)
        return
    for name, text in (*found.items(), *found["libraries"].items()):  # type: ignore[attr-defined]
        if isinstance(text, str):
            echo(f"{name:<14}{text}")


def _version(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "missing"
