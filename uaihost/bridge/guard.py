"""Who may ask the app for what: host name, key, origin and content type of every request. Pure.

A person proves to be one with the key, once in the link that is opened and then by a cookie; a program by
`Authorization: Bearer`. Pages of other origins, previews among them, get nothing done with that cookie.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal
from urllib.parse import urlsplit

import attrs

from uaihost.bridge.names import App, Names

# The app loads its own files and speaks to its own API; nothing may frame it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

# Bytes of a request's body: an attachment of 25 MiB in base64 and its frame of JSON.
MAX_BODY = 36 << 20

# Yes or no, and nothing else: for whoever watches the process, without a key.
HEALTH = ("/livez", "/readyz", "/healthz")

_READING = ("GET", "HEAD")


@attrs.frozen
class Asked:
    """What is judged of a request. Header values are empty when the header is not there."""

    method: str
    path: str
    host: str
    authorization: str = ""
    cookie: str = ""
    origin: str = ""
    content_type: str = ""
    # Header `Sec-Fetch-Site` (Fetch Metadata): what a browser says of who asks.
    site: str = ""
    # The key in the query, as in the link that `uaihost up` prints.
    query_key: str = ""
    too_large: bool = False


@attrs.frozen
class Refused:
    """code: of the API's errors; login: answered with the page that says how to get in."""

    status: int
    code: str
    message: str
    login: bool = False


@attrs.frozen
class LetIn:
    """The key was in the query: give the cookie, and lead to the page without the key."""


Verdict = Refused | LetIn | None


class Guard:
    """The judge of one bridge. key: what people and programs must show."""

    def __init__(self, names: Names, key: str) -> None:
        self._names = names
        self._key = key.encode()
        # Not the key itself, so that a stolen cookie does not show what is in the key's file.
        self._cookie = hmac.new(self._key, b"uaihost bridge cookie", hashlib.sha256).hexdigest()

    @property
    def cookie_name(self) -> str:
        """Cookies are shared by all ports of a host name, so two bridges on one machine need two names."""
        return f"uai_{self._names.port}"

    def set_cookie(self) -> str:
        """The value of Set-Cookie. Max-Age: 30 days, in seconds."""
        return f"{self.cookie_name}={self._cookie}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"

    def judge(self, asked: Asked) -> Verdict:
        """None lets the request through."""
        if not isinstance(self._names.find(asked.host), App):
            return Refused(421, "misdirected", "this host name is not served here; use localhost")
        if asked.too_large:
            return Refused(413, "too_large", f"a request may have {MAX_BODY >> 20} MiB and a Content-Length")
        if asked.path in HEALTH or (asked.path.startswith("/static/") and asked.method in _READING):
            return None
        if asked.query_key and asked.path == "/" and asked.method == "GET":
            return LetIn() if self._is_key(asked.query_key) else self._no_key(asked)
        proof = self._proof(asked)
        if proof is None:
            return self._no_key(asked)
        if asked.method not in _READING:
            return self._judge_change(asked, proof)
        return None

    def _judge_change(self, asked: Asked, proof: Literal["bearer", "cookie"]) -> Verdict:
        """A change asked for with the cookie must come from the app's own page."""
        if asked.origin:
            if urlsplit(asked.origin).netloc.lower() != asked.host.lower():
                return Refused(403, "forbidden", "changes are accepted from the app's own page only")
        elif proof == "cookie":
            return Refused(403, "forbidden", "a request with the cookie needs an Origin header")
        if asked.site not in ("", "same-origin", "none"):
            return Refused(403, "forbidden", "changes are accepted from the app's own page only")
        if asked.content_type.split(";")[0].strip().lower() != "application/json":
            return Refused(415, "invalid_args", "send JSON, with Content-Type: application/json")
        return None

    def _proof(self, asked: Asked) -> Literal["bearer", "cookie"] | None:
        scheme, _, key = asked.authorization.partition(" ")
        if scheme.lower() == "bearer" and self._is_key(key.strip()):
            return "bearer"
        for part in asked.cookie.split(";"):
            name, _, value = part.strip().partition("=")
            if name == self.cookie_name and hmac.compare_digest(value.encode(), self._cookie.encode()):
                return "cookie"
        return None

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._key)

    def _no_key(self, asked: Asked) -> Refused:
        return Refused(
            401,
            "unauthorized",
            "open the link with the key that `uaihost up` printed, or send Authorization: Bearer KEY",
            login=asked.path != "/metrics" and not asked.path.startswith("/api/"),
        )
