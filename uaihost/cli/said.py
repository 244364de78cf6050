"""Verbs that do one thing and say so: a sentence for people, the same as JSON for programs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import click

# What a verb has to say: for programs, and for people.
Said = tuple[dict[str, Any], str]


def says(verb: Callable[..., Said]) -> Callable[..., None]:
    """Give a verb `--json` and print what it returns."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")
    @functools.wraps(verb)
    def said(*args: Any, as_json: bool, **kwargs: Any) -> None:
        answer, sentence = verb(*args, **kwargs)
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json else sentence)

    return said
