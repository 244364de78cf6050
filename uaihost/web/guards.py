"""Who may ask what at the TCP door, decided from a request's head alone. Pure.

Anybody on this machine and any web page in the owner's browser can send requests to a port on loopback. What
tells the owner's own page apart: the cookie that the page's link set (not readable by scripts), the key that
the same link left in the page's own storage (of this very port, where cookies are of the whole host name),
and what browsers say of where a request comes from. Programs show the token itself instead.
"""

from __future__ import annotations

import hmac
from enum import Enum

import attrs

# What a browser calls a request of a page to its own scheme, host and port (Fetch Metadata, section 2.3).
SAME_ORIGIN = "same-origin"
# What it calls one that a person began, by typing an address.
TYPED = "none"
JSON = "application/json"


class Need(Enum):
    """What a route asks of whoever calls it."""

    NOTHING = "the right host name: it tells nothing about the owner"
    DATA = "cookie and key, or the token"
    CHANGE = "the same, and a body of JSON from the page's own origin"
    DOWNLOAD = "cookie or token: its address is a secret that works once"
    FIGURES = "the token, or nothing where the owner opened them"


@attrs.frozen
class Keys:
    """What opens one door. token: of this installation, for programs; cookie and key: the page's."""

    cookie_name: str
    token: str = attrs.field(repr=False)
    cookie: str = attrs.field(repr=False)
    key: str = attrs.field(repr=False)

    @classmethod
    def of(cls, token: str, port: int) -> Keys:
        """The keys of the door at `port`. A page that was opened at another port has others."""

        def derived(use: str) -> str:
            return hmac.digest(token.encode(), f"uaihost {use} {port}".encode(), "sha256").hex()

        return cls(f"uaihost-{port}", token, derived("cookie"), derived("page"))


@attrs.frozen
class Asked:
    """A request, as far as it matters here; None or an empty text for what it does not say.

    site: Sec-Fetch-Site; upgrade: whether it asks for another protocol, as WebSockets do; kind: the media
    type of its body; cookie: the value of the door's own cookie; bearer: the token of its Authorization.
    """

    method: str = "GET"
    host: str = ""
    origin: str | None = None
    site: str | None = None
    upgrade: bool = False
    kind: str = ""
    cookie: str = ""
    key: str = ""
    bearer: str = ""


@attrs.frozen
class Refusal:
    """status: of HTTP; code: for programs; message: for people."""

    status: int
    code: str
    message: str


_WRONG_HOST = Refusal(421, "wrong_host", "open this page as http://127.0.0.1:<port>/, by no other name")
_NO_UPGRADE = Refusal(400, "no_upgrade", "there are no WebSockets at this port")
_ELSEWHERE = Refusal(403, "other_origin", "only this page itself may ask that, not another one")
_NOT_JSON = Refusal(415, "not_json", f"the body must be {JSON}")
_LOCKED = Refusal(401, "locked", "open the link that `uaihost status` shows; it has the token in it")


def refusal(asked: Asked, need: Need, keys: Keys, port: int) -> Refusal | None:
    """Why the door at `port` refuses, or None."""
    if asked.host.lower() not in hosts(port):
        # A foreign name that was made to lead here (DNS rebinding), or a page of another port.
        return _WRONG_HOST
    if asked.upgrade:
        return _NO_UPGRADE
    if need is Need.NOTHING:
        return None
    own = asked.origin in (None, f"http://{asked.host.lower()}")
    sites = (None, SAME_ORIGIN, TYPED) if need is Need.DOWNLOAD else (None, SAME_ORIGIN)
    if not own or asked.site not in sites:
        return _ELSEWHERE
    if asked.bearer:
        entitled = same(asked.bearer, keys.token)
    elif need is Need.FIGURES:
        entitled = False
    else:
        entitled = same(asked.cookie, keys.cookie)
        if need is not Need.DOWNLOAD:
            # A server at another port of this host is sent the cookie; the key never leaves the page's.
            entitled &= same(asked.key, keys.key)
    if not entitled:
        return _LOCKED
    if need is Need.CHANGE and not asked.bearer and asked.origin is None:
        # Browsers name the origin of every request that may change something.
        return _ELSEWHERE
    if need is Need.CHANGE and asked.kind.partition(";")[0].strip().lower() != JSON:
        return _NOT_JSON
    return None


def hosts(port: int) -> tuple[str, ...]:
    """The names under which the door may be asked, as the Host header has them."""
    names = ("127.0.0.1", "localhost", "[::1]")
    return tuple(f"{name}:{port}" for name in names) + (names if port == 80 else ())


def same(given: str, wanted: str) -> bool:
    """Whether they are the same, in a time that tells nothing of how much of it is."""
    return bool(wanted) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def cookie_of(header: str, name: str) -> str:
    """The value of the cookie `name` in a Cookie header; empty when it is not there, or there twice."""
    found = [
        value.strip() for each in header.split(";") for key, _, value in [each.partition("=")]
        if key.strip() == name
    ]  # fmt: skip
    return found[0] if len(found) == 1 else ""


# Sent with everything. No page may frame this one, read it, or learn where a link led from; it loads only
# its own files, and text that it is given can never become a script.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
