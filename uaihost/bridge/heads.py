"""Heads at the bridge (RFC 9112): what a browser may send, and a host's response as bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import h11

from uaihost.wire.frames import Header
from uaihost.wire.mux import Head

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_BAD_VALUE = re.compile(rb"[\r\n\0]")

# A head that every reader takes for the same lines: no bare CR or LF, no folded line. Possessive, so that a
# line is looked at once.
_WHOLE_LINES = re.compile(rb"[^\r\n]++\r\n(?:[^\r\n \t][^\r\n]*+\r\n)*+\r\n")

# What says how a message is framed, or for whom, cannot come after its body (RFC 9110, section 6.5.1).
_NO_TRAILERS = frozenset({b"connection", b"content-length", b"host", b"trailer", b"transfer-encoding"})


def objection(received: bytes, request: h11.Request) -> str:
    """Why a request is refused that h11 took; empty for none (RFC 9112, sections 2.2, 5.2 and 6.1).

    received: the bytes that begin with its head.
    """
    if not _WHOLE_LINES.match(received):
        return "A line of the request's head ends in a bare CR or LF, or is folded."
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (b"content-length" in names or request.http_version < b"1.1"):
        return "The request says in two ways how long it is."
    return ""


def asks_upgrade(request: h11.Request) -> bool:
    """Whether it wants another protocol. One with a body has its Upgrade ignored: the connection would have
    to change in the middle of what others may read as a second request (RFC 9110, section 7.8).
    """
    words: set[bytes] = set()
    upgrade = False
    for name, value in request.headers:
        if name == b"connection":
            words.update(word.strip(b" \t") for word in value.lower().split(b","))
        elif name == b"upgrade":
            upgrade = True
        elif name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return False
    return upgrade and b"upgrade" in words and request.http_version >= b"1.1"


def reason(head: Head) -> bytes:
    """The text after the status.

    Raises:
        ValueError: it cannot stand there.
    """
    text = (head.statusText or "").encode("latin-1")
    if _BAD_VALUE.search(text):
        raise ValueError("illegal reason")
    return text


def fields(pairs: Sequence[Header] | None) -> list[tuple[bytes, bytes]]:
    """Headers, in order.

    Raises:
        ValueError: one cannot stand in a head.
    """
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs or ()]
    if any(not _TOKEN.match(name) or _BAD_VALUE.search(value) for name, value in encoded):
        raise ValueError("illegal header")
    return encoded


def trailers(pairs: Sequence[Header]) -> list[tuple[bytes, bytes]]:
    """Those that may follow a body. Raises as `fields`."""
    return [pair for pair in fields(pairs) if pair[0].lower() not in _NO_TRAILERS]
