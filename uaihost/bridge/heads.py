"""What a host says of a response, as bytes that can stand in HTTP/1.1 (RFC 9112). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from uaihost.wire.frames import Header
from uaihost.wire.mux import Head

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_BAD_VALUE = re.compile(rb"[\r\n\0]")

# What says how a message is framed, or for whom, cannot come after its body (RFC 9110, section 6.5.1).
_NO_TRAILERS = frozenset({b"connection", b"content-length", b"host", b"trailer", b"transfer-encoding"})


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
