"""Every row that holds a sealed secret, whatever it is of: for the key's rotation. SQL in, records out.

A new table with secrets is one more line here.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

import attrs


@attrs.frozen
class Table:
    """name, and its columns: key, the primary one; secret, the sealed one. prefix: a row's place is that and
    its key, as credentials.sealing binds it."""

    name: str
    key: str
    prefix: str
    secret: str = "secret"


TABLES = (
    Table("accounts", "provider", "accounts/"),
    Table("github_connections", "user_id", "github/"),
    Table("ssh_keys", "user_id", "ssh/"),
)


def secrets(db: Connection) -> list[tuple[str, bytes]]:
    """The place of each, and the secret as it is sealed."""
    return [
        (each.prefix + key, secret)
        for each in TABLES
        for key, secret in db.execute(f"SELECT {each.key}, {each.secret} FROM {each.name}")
    ]


def seal_again(db: Connection, again: Callable[[str, bytes], bytes | None]) -> int:
    """Replace each secret by what `again` makes of its place and of it; None leaves it. How many were.

    In one transaction, the caller's: an error of `again` leaves every row as it was.
    """
    changed = 0
    for each in TABLES:
        for key, secret in db.execute(f"SELECT {each.key}, {each.secret} FROM {each.name}").fetchall():
            new = again(each.prefix + key, secret)
            if new is not None:
                db.execute(f"UPDATE {each.name} SET {each.secret} = ? WHERE {each.key} = ?", (new, key))
                changed += 1
    return changed


def remove(db: Connection, unwanted: Callable[[str, bytes], bool]) -> int:
    """Delete the rows whose places and secrets are unwanted; how many."""
    removed = 0
    for each in TABLES:
        for key, secret in db.execute(f"SELECT {each.key}, {each.secret} FROM {each.name}").fetchall():
            if unwanted(each.prefix + key, secret):
                db.execute(f"DELETE FROM {each.name} WHERE {each.key} = ?", (key,))
                removed += 1
    return removed
