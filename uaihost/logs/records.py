"""What one event of Twisted's log is as a record of JSON, and what a record is as a line for people. Pure.

A record has `time` (RFC 3339, UTC, milliseconds), `level` (debug, info, warn, error, critical), `logger`
(the module), `message`, `trace` when something was raised, `task` and `command` when the event concerns one,
and the other plain fields of the event below `fields`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.logger import LogLevel, formatEvent

from uaihost.about import current
from uaihost.logs.redaction import Redactor
from uaihost.shown import harmless

# Least first.
LEVELS = ("debug", "info", "warn", "error", "critical")

# Characters of one message, of one trace and of one field that are kept: a record is read by people.
MESSAGE_LIMIT = 16 << 10
TRACE_LIMIT = 64 << 10
FIELD_LIMIT = 2 << 10
# Fields of their own in a record.
NAMED = ("task", "command")
# What Twisted's older interface puts into events (twisted.python.log); its message is formatted already.
_LEGACY = {"message", "time", "system", "isError", "format", "why", "failure", "printed", "log"}


def record(event: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    """The event as JSON-able values, without secrets."""
    message = formatEvent(dict(event))
    made: dict[str, Any] = {
        "time": stamp(event.get("log_time", 0.0)),
        "level": level_of(event),
        "logger": str(event.get("log_namespace", "")),
        "message": redactor.text(_cut(message, MESSAGE_LIMIT)),
    }
    failure = event.get("log_failure")
    if failure is not None:
        made["trace"] = redactor.text(_cut(failure.getTraceback(), TRACE_LIMIT))
    # A secret that came in pieces is whole in the message alone; its pieces are not shown either.
    pieces = redactor.knows(message)
    fields: dict[str, Any] = {}
    made |= {name: redactor.text(_cut(value, FIELD_LIMIT)) for name, value in current().items()}
    for name, value in event.items():
        if name.startswith("log_") or name in _LEGACY or not _plain(value):
            continue
        if name in NAMED:
            made[name] = redactor.text(_cut(str(value), FIELD_LIMIT))
        elif not pieces:
            fields |= redactor.value({name: _cut(value, FIELD_LIMIT) if isinstance(value, str) else value})
    if fields:
        made["fields"] = fields
    return made


def line(made: Mapping[str, Any]) -> str:
    """A record as lines for people, without the last line's end.

    Only records begin at the left: no message looks like another record.
    """
    about = "".join(
        f" {name}={made[name]}" for name in NAMED if name in made and made[name] not in made["message"]
    )
    text = f"{made['time']} {made['level']:<5} {made['logger']}: {made['message']}{about}"
    if "trace" in made:
        text += "\n" + made["trace"].rstrip()
    return harmless(text).replace("\n", "\n    ")


def stamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def at_least(level: str, least: str) -> bool:
    """Whether a record's level is `least` or above it."""
    return LEVELS.index(level) >= LEVELS.index(least)


def level_of(event: Mapping[str, Any]) -> str:
    """The name of an event's level; what has none is `info`."""
    level = event.get("log_level", LogLevel.info)
    return str(level.name) if level is not None else "info"


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float, bool))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text) - limit} more characters)"
