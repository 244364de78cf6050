"""The table `outbox`: what is to reach the bridge, in order. Functions of an open transaction."""

from __future__ import annotations

import sqlite3

from uaihost.interfaces import Entry


def append(connection: sqlite3.Connection, kind: str, payload: bytes, at: int) -> int:
    """A row at the end; its number. kind: event or result; at: milliseconds since the epoch."""
    row = connection.execute(
        "INSERT INTO outbox (kind, payload, at) VALUES (?, ?, ?)", (kind, payload, at)
    ).lastrowid
    assert row is not None
    return row


def pending(connection: sqlite3.Connection, after_seq: int, limit: int) -> list[Entry]:
    """The first `limit` rows beyond `after_seq`, oldest first."""
    rows = connection.execute(
        "SELECT seq, kind, payload FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
    )
    return [Entry(seq, kind, payload) for seq, kind, payload in rows]


def confirm(connection: sqlite3.Connection, up_to_seq: int) -> None:
    """The bridge has read every row up to this one: they are deleted. Numbers are never used again."""
    connection.execute("DELETE FROM outbox WHERE seq <= ?", (up_to_seq,))


def depth(connection: sqlite3.Connection) -> int:
    """How many rows wait."""
    count: int = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    return count


def oldest(connection: sqlite3.Connection) -> int | None:
    """When the first row that waits was written, milliseconds since the epoch; None when none waits."""
    found = connection.execute("SELECT at FROM outbox ORDER BY seq LIMIT 1").fetchone()
    return None if found is None else int(found[0])
