"""`uaihost logs`: what the host on this machine logged, and what it logs now. It needs no running host."""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import click

from uaihost.cli.local import settings
from uaihost.cli.said import echo
from uaihost.cli.task_id import TaskId
from uaihost.errors import ErrorCode, HostError
from uaihost.logs.records import LEVELS, at_least, line, stamp
from uaihost.paths import Folders
from uaihost.shown import json_text

# Seconds between two looks for more; a person does not notice them.
LOOK = 0.2

_SPAN = re.compile(r"(\d{1,6})(s|m|h|d)\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command()
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many of the newest records.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on; Ctrl-C ends it.")
@click.option("--task", type=TaskId(), metavar="ID", help="Only records about this task.")
@click.option("--level", type=click.Choice(LEVELS), default="debug", help="Only this level and above.")
@click.option("--since", help="Only newer ones: 90s, 10m, 2h, 3d, or a time as in 2026-11-23T18:00:00Z.")
@click.option("--json", "as_json", is_flag=True, help="Records as they are stored, one JSON object a line.")
def logs(count: int, follow: bool, task: str | None, level: str, since: str | None, as_json: bool) -> None:
    """Show what the host on this machine logged, newest last."""
    path = Folders(settings().data_dir).log
    oldest = _since(since, time.time()) if since else ""

    def wanted(made: dict[str, Any]) -> bool:
        return (
            at_least(made["level"], level)
            and (task is None or made.get("task") == task)
            and made["time"] >= oldest
        )

    show = _json if as_json else line
    tail = Tail(path)
    for made in deque(filter(wanted, tail.stored()), maxlen=count):
        echo(show(made))
    if not tail.found and not follow:
        raise HostError(ErrorCode.NOT_FOUND, f"nothing was logged yet: {path} does not exist")
    while follow:
        for made in filter(wanted, tail.more()):
            echo(show(made))
        time.sleep(LOOK)


class Tail:
    """The records of a log's file and of the older ones beside it, and those that come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._begun = ""

    @property
    def found(self) -> bool:
        """Whether there is a log."""
        return self._file is not None

    def stored(self) -> Iterator[dict[str, Any]]:
        """What there is, oldest first; what comes later is for `more`."""
        older = sorted(
            self._path.parent.glob(f"{self._path.name}.*"),
            key=lambda path: _number(path.suffix),
            reverse=True,
        )
        for path in older:
            if _number(path.suffix):
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield from _records(file)
        yield from self.more()

    def more(self) -> Iterator[dict[str, Any]]:
        """What came since the last call, the rest of a file that was rotated away meanwhile included."""
        while True:
            if self._file is None:
                try:
                    self._file = self._path.open(encoding="utf-8", errors="replace")
                except FileNotFoundError:
                    return
            rotated = self._rotated()
            yield from self._read(self._file)
            if not rotated:
                return
            self._file.close()
            self._file, self._begun = None, ""

    def _read(self, file: TextIO) -> Iterator[dict[str, Any]]:
        for text in file:
            self._begun += text
            if self._begun.endswith("\n"):
                whole, self._begun = self._begun, ""
                yield from _records([whole])

    def _rotated(self) -> bool:
        """Whether the path names another file by now. Asked before reading, so that nothing is missed."""
        assert self._file is not None
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._file.fileno())
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)


def _records(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for text in lines:
        try:
            made = json.loads(text)
        except ValueError:
            continue  # Cut off by a full disk, or of an older version.
        if isinstance(made, dict) and {"time", "level", "logger", "message"} <= made.keys():
            yield made


def _number(suffix: str) -> int:
    return int(suffix[1:]) if suffix[1:].isdigit() else 0


def _since(text: str, now: float) -> str:
    """A time as records have it.

    Raises:
        click.UsageError: it is none.
    """
    found = _SPAN.match(text)
    if found:
        return stamp(
            (datetime.fromtimestamp(now, UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})).timestamp()
        )
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--since {text!r} is neither a span as 90s, 10m, 2h or 3d, nor a time as 2026-11-23T18:00:00Z"
        ) from None
    # A time without a zone is this machine's.
    return stamp(moment.timestamp())


def _json(made: dict[str, Any]) -> str:
    return json_text(made, separators=(",", ":"))
