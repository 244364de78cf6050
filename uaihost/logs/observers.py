"""The process's log: each event becomes one record, and goes to the file, the console and the newest ones.

It stands between Twisted's log and whatever is written, so nothing leaves the process by a log that was not
redacted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from uaihost.logs.file import RecordFile
from uaihost.logs.recent import Recent
from uaihost.logs.records import at_least, level_of, line, record
from uaihost.logs.redaction import Redactor
from uaihost.shown import json_text

# Takes one record and its text in the process's format.
Sink = Callable[[Mapping[str, Any]], object]


@implementer(ILogObserver)
class ProcessLog:
    """What this process logs.

    level: the least that is kept (`records.LEVELS`).
    """

    def __init__(self, level: str) -> None:
        self.redactor = Redactor()
        self.recent = Recent()
        self._level = level
        self._sinks: list[Sink] = [self.recent.add]
        self._file: RecordFile | None = None
        # A sink that logs would never end.
        self._busy = False

    def __call__(self, event: LogEvent) -> None:
        if self._busy or not at_least(level_of(event), self._level):
            return
        self._busy = True
        try:
            made = record(event, self.redactor)
            for sink in self._sinks:
                sink(made)
        finally:
            self._busy = False

    def to(self, sink: Sink, least: str = "debug") -> None:
        """Give records of this level and above to one more reader."""
        self._sinks.append(lambda made: sink(made) if at_least(made["level"], least) else None)

    def to_stream(self, stream: TextIO, form: str, least: str = "debug") -> None:
        """Write them to a stream: `text`, lines for people, or `json`, an object a line."""
        self.to(lambda made: _write(stream, _FORMS[form](made)), least)

    def open_file(self, path: Path) -> None:
        """Write them to the data folder's file as well, from now on; until `close`."""
        self._file = RecordFile(path)
        for _, kept in self.recent.after():
            self._file.add(kept)
        self._sinks.append(self._file.add)

    def close(self) -> None:
        """Write no more to the file."""
        if self._file is not None:
            self._sinks.remove(self._file.add)
            self._file.close()
            self._file = None


def _json(made: Mapping[str, Any]) -> str:
    return json_text(made, separators=(",", ":"))


_FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {"text": line, "json": _json}


def _write(stream: TextIO, text: str) -> None:
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            # A console whose locale has not these letters.
            stream.write(text.encode("ascii", "backslashreplace").decode("ascii") + "\n")
        stream.flush()
    except (OSError, ValueError):
        # Whoever read it is gone, or the disk is full; the work goes on.
        pass


def stdout() -> TextIO:
    """Standard output as the process began with it: twistd puts a logger in its place."""
    assert sys.__stdout__ is not None
    return sys.__stdout__
