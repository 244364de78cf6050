"""The table of users' SSH keys (migrations/0009_ssh.sql): SQL in, records out."""

from __future__ import annotations

from sqlite3 import Connection

import attrs


@attrs.frozen
class SshKeyRow:
    """public: the key's blob. secret: sealed; only the credentials' room can read it. at: milliseconds since
    the epoch."""

    user_id: str
    public: bytes
    secret: bytes = attrs.field(repr=False)
    at: int


def find(db: Connection, user_id: str) -> SshKeyRow | None:
    row = db.execute(
        "SELECT user_id, public, secret, at FROM ssh_keys WHERE user_id = ?", (user_id,)
    ).fetchone()
    return None if row is None else SshKeyRow(*row)


def keys(db: Connection) -> list[SshKeyRow]:
    rows = db.execute("SELECT user_id, public, secret, at FROM ssh_keys ORDER BY user_id")
    return [SshKeyRow(*row) for row in rows]


def add(db: Connection, row: SshKeyRow) -> SshKeyRow:
    """Store it unless the user has a key: whichever it is now."""
    db.execute(
        "INSERT OR IGNORE INTO ssh_keys (user_id, public, secret, at) VALUES (?, ?, ?, ?)",
        attrs.astuple(row),
    )
    found = find(db, row.user_id)
    assert found is not None
    return found


def remove(db: Connection, user_id: str) -> bool:
    """Whether there was one."""
    return db.execute("DELETE FROM ssh_keys WHERE user_id = ?", (user_id,)).rowcount == 1
