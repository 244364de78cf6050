"""What verbs print: sentences for people, JSON for programs, and nothing that a terminal would obey.

Much of it was written by others: names of tasks and branches, lines of builds, messages of an engine. Every
verb prints through here, or through `cli.terminals`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from uaihost.shown import harmless, json_text

# What a verb has to say: for programs, and for people.
Said = tuple[dict[str, Any], str]


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line, or several."""
    click.echo(harmless(text), err=err)


def echo_json(value: Any, indent: int | None = None) -> None:
    """Print one JSON value."""
    click.echo(json_text(value, indent=indent))


def says(verb: Callable[..., Said]) -> Callable[..., None]:
    """Give a verb `--json` and print what it returns."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
    @functools.wraps(verb)
    def said(*args: Any, as_json: bool, **kwargs: Any) -> None:
        answer, sentence = verb(*args, **kwargs)
        if as_json:
            echo_json(answer)
        else:
            echo(sentence)

    return said
