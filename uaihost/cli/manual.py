"""The manual, made from the commands themselves: docs/cli.md, and uaihost.1 for man(1).

usage: python -m uaihost.cli.manual [man | markdown]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import click

from uaihost import __version__
from uaihost.cli.exits import MEANINGS
from uaihost.cli.main import VERBS, cli

_INTRO = """\
# Commands

Made from the commands themselves (`python -m uaihost.cli.manual`); `man uaihost` has the same, and
`uaihost VERB --help` a part of it. Verbs that speak to the running host do so over the Unix socket in its
data folder, so whoever runs them must be its user. On a terminal they show tables and progress; into a pipe
plain lines. `NO_COLOR` is honoured.

`--json` gives one JSON value on standard output ([what it holds](cli-json.md)). An error is then
`{"error": {"code", "message"}}`, and the status says so too.
"""


def commands() -> Iterator[tuple[str, tuple[str, ...], click.Command, click.Context]]:
    """Title of the group, words, command and its context: every verb, and those below it."""
    root = click.Context(cli, info_name="uaihost")
    for title, group in VERBS.items():
        for verb in group:
            command = cli.get_command(root, verb)
            assert command is not None
            yield from _below(title, (verb,), command, root)


def _below(
    title: str, words: tuple[str, ...], command: click.Command, parent: click.Context
) -> Iterator[tuple[str, tuple[str, ...], click.Command, click.Context]]:
    context = click.Context(command, info_name=words[-1], parent=parent)
    yield title, words, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _below(title, (*words, name), inner, context)


def usage(command: click.Command, context: click.Context) -> str:
    """`uaihost tasks [OPTIONS]`, on one line."""
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """(how it is written, what it means) of each option but --help."""
    shown = [each for each in command.params if isinstance(each, click.Option)]
    found = [each.get_help_record(context) for each in shown]
    return [record for record in found if record is not None]


def paragraphs(command: click.Command) -> list[str]:
    """The help text, each paragraph on a line."""
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def markdown() -> str:
    """docs/cli.md."""
    out = [_INTRO]
    shown = ""
    for title, words, command, context in commands():
        if title != shown:
            out.append(f"## {title}\n")
            shown = title
        out.append(f"{'#' * (2 + len(words))} uaihost {' '.join(words)}\n")
        out.append(f"`{usage(command, context)}`\n")
        out += [f"{part}\n" for part in paragraphs(command)]
        rows = options(command, context)
        if rows:
            out.append("| option | meaning |\n|---|---|")
            out += [f"| `{_cell(name)}` | {_cell(meaning)} |" for name, meaning in rows]
            out.append("")
    out.append("## Exit statuses\n\n| status | meaning |\n|---|---|")
    out += [f"| {status} | {meaning} |" for status, meaning in MEANINGS.items()]
    return "\n".join(out) + "\n"


def man() -> str:
    """uaihost.1 (man(7))."""
    out = [
        f'.TH UAIHOST 1 "" "uaihost {__version__}" "User Commands"',
        ".SH NAME",
        "uaihost \\- a crew of coding agents on your own machine",
        ".SH SYNOPSIS",
        ".B uaihost",
        "VERB [OPTIONS] [ARGS]...",
        ".SH DESCRIPTION",
        *_roff_paragraphs(cli),
    ]
    shown = ""
    for title, _, command, context in commands():
        if title != shown:
            out.append(f".SH {title.upper()}")
            shown = title
        out += [f".SS {_roff(usage(command, context))}", *_roff_paragraphs(command)]
        for name, meaning in options(command, context):
            out += [".TP", f".B {_roff(name)}", _roff(meaning)]
    out.append(".SH EXIT STATUS")
    for status, meaning in MEANINGS.items():
        out += [".TP", f".B {status}", _roff(meaning)]
    out += [
        ".SH FILES",
        ".TP",
        ".I /etc/uaihost/uaihost.toml, ~/.config/uaihost/uaihost.toml",
        "Settings of root's host and of a user's; \\fBuaihost config path\\fR says which counts.",
        ".TP",
        ".I /var/lib/uaihost, ~/.local/share/uaihost",
        "Everything that the host keeps.",
        ".SH SEE ALSO",
        ".BR twistd (1),",
        ".BR docker (1)",
    ]
    return "\n".join(out) + "\n"


def _roff_paragraphs(command: click.Command) -> list[str]:
    found: list[str] = []
    for part in paragraphs(command):
        found += [".PP", _roff(part)] if found else [_roff(part)]
    return found


def _roff(text: str) -> str:
    """Text for troff: backslashes and hyphens as themselves, no line that begins like a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return "\\&" + text if text.startswith((".", "'")) else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(man() if sys.argv[1:] == ["man"] else markdown())
