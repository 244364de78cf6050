"""The table of accounts (migrations/0006_accounts.sql): SQL in, records out."""

from __future__ import annotations

from sqlite3 import Connection

import attrs


@attrs.frozen
class AccountRow:
    """secret: sealed; what it holds only the credentials' room can read. at: milliseconds since the epoch."""

    provider: str
    form: str
    secret: bytes = attrs.field(repr=False)
    at: int


def accounts(db: Connection) -> list[AccountRow]:
    rows = db.execute("SELECT provider, form, secret, at FROM accounts ORDER BY provider")
    return [AccountRow(*row) for row in rows]


def put(db: Connection, row: AccountRow) -> None:
    """Store it in place of what was there."""
    db.execute(
        "INSERT OR REPLACE INTO accounts (provider, form, secret, at) VALUES (?, ?, ?, ?)",
        (row.provider, row.form, row.secret, row.at),
    )


def remove(db: Connection, provider: str) -> None:
    db.execute("DELETE FROM accounts WHERE provider = ?", (provider,))
