"""The TCP door's lock: the token of this installation, and what a request shows of it.

The token lies in a file of the data folder that only the daemon's user can read. What is required of a
request is guards'.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from twisted.web.http import Request

from uaihost.web.guards import Asked, Keys, Need, Refusal, cookie_of, refusal, same

# Seconds that a browser is remembered.
REMEMBERED = 30 * 24 * 3600
# The header in which the page shows its key; no form and no plain request of another page can send one.
KEY_HEADER = "X-Uaihost-Key"


class Door:
    """port: of the door; it is known when the door is open."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.port = 0

    @property
    def keys(self) -> Keys:
        """What opens it now."""
        return Keys.of(self._token, self.port)

    @property
    def origin(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def link(self) -> str:
        """What the owner opens. It holds the token."""
        return f"{self.origin}/?token={self._token}"

    def refuses(self, request: Request, need: Need) -> Refusal | None:
        """Why the request is refused, or None."""
        return refusal(self._asked(request), need, self.keys, self.port)

    def opens(self, token: str) -> bool:
        """Whether this is the token of the link."""
        return same(token, self._token)

    def remember(self, request: Request) -> bytes:
        """Give the browser its cookie; where it goes on, with the page's key where no server is shown it."""
        keys = self.keys
        request.responseHeaders.addRawHeader(
            "Set-Cookie",
            f"{keys.cookie_name}={keys.cookie}; Path=/; Max-Age={REMEMBERED}; HttpOnly; SameSite=Strict",
        )
        return f"/#key={keys.key}".encode()

    def _asked(self, request: Request) -> Asked:
        def header(name: str) -> str:
            # A header that comes twice is nothing that a browser or a sound program sends.
            found = request.requestHeaders.getRawHeaders(name) or [""]
            return str(found[0]) if len(found) == 1 else "\0"

        scheme, _, credentials = header("authorization").partition(" ")
        return Asked(
            method=request.method.decode("ascii", "replace"),
            host=header("host"),
            origin=header("origin") if request.requestHeaders.hasHeader("origin") else None,
            site=header("sec-fetch-site") if request.requestHeaders.hasHeader("sec-fetch-site") else None,
            upgrade=request.requestHeaders.hasHeader("upgrade"),
            kind=header("content-type"),
            cookie=cookie_of(header("cookie"), self.keys.cookie_name),
            key=header(KEY_HEADER),
            bearer=credentials.strip() if scheme.lower() == "bearer" else "",
        )


def installed_token(path: Path) -> str:
    """The token in the file `path`, made on first use, and anew when others could read the file."""
    try:
        found = path.lstat()
        if found.st_mode & 0o077 == 0 and found.st_uid == os.geteuid() and path.is_file():
            text = path.read_text(encoding="ascii").strip()
            if len(text) >= 32:
                return text
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    token = secrets.token_urlsafe(32)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
    beside.rename(path)
    return token
