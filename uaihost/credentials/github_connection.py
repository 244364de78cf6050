"""One user's connection to GitHub: what is kept of it, how it is sealed, and which frames are news to it.

It asks nobody anything and stores nothing itself.
"""

from __future__ import annotations

import hashlib
import json

import attrs

from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.state.github import GitHubRow

# How many refresh tokens that a bridge has sent are remembered by their hashes: it repeats only the last.
REMEMBERED = 16
# Characters of a user's id, of a login and of a token: GitHub's tokens have at most 255.
ID_LIMIT, LOGIN_LIMIT, TOKEN_LIMIT = 256, 100, 4096


@attrs.frozen
class Secrets:
    """What is sealed. refresh: None for a token that a person made; access: None until the first exchange.

    ends, refresh_ends: seconds since the epoch by GitHub's clock; None: not known, or never. offered: hashes
    of the refresh tokens that the bridge has sent, the newest last.
    """

    refresh: str | None = attrs.field(default=None, repr=False)
    access: str | None = attrs.field(default=None, repr=False)
    ends: float | None = None
    refresh_ends: float | None = None
    offered: tuple[str, ...] = attrs.field(default=(), repr=False)

    def knows(self, refresh: str) -> bool:
        """The bridge has sent this refresh token before, so that it may have been exchanged since."""
        return offer(refresh) in self.offered

    def remembering(self, earlier: Secrets) -> Secrets:
        """With what the bridge has sent before."""
        return attrs.evolve(self, offered=(earlier.offered + self.offered)[-REMEMBERED:])


@attrs.frozen
class Connection:
    """A GitHubRow, opened. at, begun: milliseconds since the epoch."""

    user_id: str
    form: str
    login: str
    host: str
    at: int
    secrets: Secrets
    generation: int = 1
    begun: int | None = None
    problem: str | None = None


def offer(refresh: str) -> str:
    """By what a refresh token is remembered; it lies sealed, and what it hashes is random."""
    return hashlib.sha256(b"uaihost offered " + refresh.encode()).hexdigest()


def sealed(connection: Connection, sealer: Sealer) -> GitHubRow:
    secret = json.dumps(attrs.asdict(connection.secrets)).encode()
    fields = attrs.asdict(connection, recurse=False, filter=lambda field, _: field.name != "secrets")
    return GitHubRow(secret=sealer.seal(_place(connection.user_id), secret), **fields)


def opened(row: GitHubRow, sealer: Sealer) -> Connection:
    """HostError `unavailable` when it cannot be opened; the row is not touched."""
    try:
        found = json.loads(sealer.open(_place(row.user_id), row.secret))
        secrets = Secrets(**{**found, "offered": tuple(found["offered"])})
    except (ValueError, TypeError, KeyError):
        raise HostError(
            ErrorCode.UNAVAILABLE, "the stored connection to GitHub is damaged; connect again"
        ) from None
    fields = attrs.asdict(row, filter=lambda field, _: field.name != "secret")
    return Connection(secrets=secrets, **fields)


def check(user_id: str, login: str, token: str) -> None:
    """HostError `invalid_args`, without the token, for what cannot be a connection."""
    if not 0 < len(user_id) <= ID_LIMIT or not user_id.isprintable():
        raise HostError(ErrorCode.INVALID_ARGS, f"a user's id has 1 to {ID_LIMIT} printable characters")
    if not 0 < len(login) <= LOGIN_LIMIT or not login.isprintable():
        raise HostError(ErrorCode.INVALID_ARGS, f"a GitHub login has 1 to {LOGIN_LIMIT} printable characters")
    if not 0 < len(token) <= TOKEN_LIMIT or not all("!" <= each <= "~" for each in token):
        raise HostError(
            ErrorCode.INVALID_ARGS, f"a token has 1 to {TOKEN_LIMIT} printable characters without spaces"
        )


def _place(user_id: str) -> str:
    return f"github/{user_id}"
