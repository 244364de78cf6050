"""How the command ends: exit statuses, and errors as sentences for people or JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from uaihost.cli.said import echo, echo_json
from uaihost.errors import ErrorCode, HostError

DONE, FAILED, USAGE, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 130

# The manual's table.
MEANINGS = {
    DONE: "done",
    FAILED: "it failed; the sentence on standard error says why and what to do",
    USAGE: "the command, an option or a setting is wrong",
    UNAVAILABLE: "what it needs does not answer: no host runs here, or no engine, or no bridge",
    INTERRUPTED: "ended by Ctrl-C; what was begun was cleared up",
}


def conclude(command: Callable[[], Any], words: Sequence[str]) -> int:
    """Run a click command of `words` and return the exit status.

    With `--json` among the words an error is the one JSON value on standard output,
    `{"error": {"code", "message"}}`, beside the sentence on standard error.
    """
    as_json = "--json" in words
    try:
        found = command()
    except click.exceptions.Abort:
        echo("uaihost: interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        if as_json:
            _json("usage", error.format_message())
        error.show()
        return error.exit_code
    except HostError as error:
        return _failed(error.code.value, error.message, as_json)
    except BrokenPipeError:
        # Whoever read this has enough, as `head` has. Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        # A data folder that cannot be made or written, most of the time.
        return _failed("internal", f"{error}; UAI_DATA_DIR names another data folder", as_json)
    # Verbs that end with a status of their own hand it back without standalone mode.
    return found if isinstance(found, int) else DONE


def _failed(code: str, message: str, as_json: bool) -> int:
    if as_json:
        _json(code, message)
    echo(f"uaihost: {message}", err=True)
    return UNAVAILABLE if code == ErrorCode.UNAVAILABLE.value else FAILED


def _json(code: str, message: str) -> None:
    echo_json({"error": {"code": code, "message": message}})
