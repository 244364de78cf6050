"""A task's transcript as an agent is told it that remembers nothing of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from uaihost.state.channel import MessageRow

# Characters: what every model reads besides its work; the newest stays.
LIMIT = 48 << 10
# Of one message.
LONGEST = 8 << 10

HEAD = (
    "What was said in this task before you were here, oldest first. It is told to you so that you can go on:"
)


def history(rows: Sequence[MessageRow]) -> str:
    """`rows` in order; "" if nobody but the system said anything."""
    if all(row.author_kind == "system" for row in rows):
        return ""
    told: list[str] = []
    size = 0
    for row in reversed(rows):
        said = _line(row)
        if size + len(said) > LIMIT:
            told.append(f"[{len(rows) - len(told)} earlier messages are left out]")
            break
        told.append(said)
        size += len(said)
    return "\n\n".join([HEAD, *reversed(told)])


def _line(row: MessageRow) -> str:
    who = f"@{row.author_id}" if row.author_kind == "agent" else row.author_label
    text = row.text
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}\n[{len(text) - LONGEST} more characters]"
    return f"{who}: {text}"
