"""HTTP heads as tunnels pass them on: what goes upstream, what comes back. Pure.

Owns the rules of docs/protocol.md, section 5, on headers, and refuses whatever would let a frame of the
bridge inject a line or a second request. Strings here are the latin-1 reading of the bytes on the wire, as in
every HTTP implementation (RFC 9110, section 5.5). Knows neither sockets nor tunnels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote

import attrs

from uaihost.tunnels.response import HEAD_LIMIT, BadHead, BlockReader
from uaihost.wire.frames import Header, RequestLine

__all__ = [
    "HEAD_LIMIT",
    "BadHead",
    "BadRequest",
    "HeadReader",
    "PlainRequest",
    "ResponseHead",
    "plain_request",
    "raw_request",
    "response_head",
]

Fields = list[tuple[bytes, bytes]]

# RFC 9110, section 7.6.1, and docs/protocol.md, section 5.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# The upstream's own name: what development servers accept whatever they are configured for.
UPSTREAM_HOST = b"127.0.0.1"

# The browser's address is the bridge's knowledge; where it kept it to itself, this host is the hop before.
FORWARDED_FOR = b"127.0.0.1"

# Methods that may be sent twice (RFC 9110, section 9.2.2).
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})

# Methods whose request without a body says so (RFC 9110, section 8.6).
_BODY_EXPECTED = frozenset({b"POST", b"PUT", b"PATCH"})

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+\Z")
# Browsers send ASCII only; other clients put raw bytes there, which servers read.
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+\Z")
# Beside what ends a line or a string: vertical tab and form feed, which some servers take for space.
_VALUE = re.compile(r"[^\x00\r\n\x0b\x0c]*\Z")
_STATUS_LINE = re.compile(r"HTTP/\d(?:\.\d)?[ \t]+(\d{3})(?:[ \t]+(.*))?\Z")


class BadRequest(ValueError):
    """The request cannot be sent as HTTP; the text says which part and why."""


@attrs.frozen
class PlainRequest:
    """A request for an HTTP/1.1 upstream, framing aside.

    length: the body's, as announced; None when it is not. chunked: a body of unknown length is announced.
    With neither, whether there is a body shows when its first byte or its end comes.
    """

    method: bytes
    target: bytes
    fields: Fields
    length: int | None
    chunked: bool

    @property
    def announced(self) -> bool:
        """Whether the head alone says where the body ends."""
        return self.chunked or self.length is not None

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent a second time: idempotent, and no body is announced."""
        return self.method in IDEMPOTENT and not self.chunked and not self.length

    def head(self, body: bool) -> bytes:
        """The request's head, ready to be sent. body: at least one byte of it has come."""
        lines = [b"%s %s HTTP/1.1\r\n" % (self.method, self.target)]
        lines += [b"%s: %s\r\n" % field for field in self.framed(body)]
        lines.append(b"\r\n")
        return b"".join(lines)

    def framed(self, body: bool) -> Fields:
        """The fields with those that frame the body. body: at least one byte of it has come."""
        if self.length is not None:
            return [*self.fields, (b"Content-Length", b"%d" % self.length)]
        if self.chunked or body:
            return [*self.fields, (b"Transfer-Encoding", b"chunked")]
        if self.method in _BODY_EXPECTED:
            return [*self.fields, (b"Content-Length", b"0")]
        return self.fields


@attrs.frozen
class ResponseHead:
    """status: 100 to 999; text: the reason phrase; headers in order and case as received."""

    status: int
    text: str
    headers: list[Header]


def plain_request(line: RequestLine, scheme: str) -> PlainRequest:
    """The request of a plain tunnel for its upstream. scheme: of the page the browser sees, http or https.

    Raises:
        BadRequest: a part of it cannot be sent.
    """
    method, target = _start(line)
    if method == b"CONNECT":
        raise BadRequest("the method CONNECT asks for a tunnel of its own; open one with upgrade instead")
    named = _named_by_connection(line.headers)
    fields: Fields = []
    host: bytes | None = None
    lengths: set[str] = set()
    chunked = False
    forwarded = set()
    for name, value in line.headers:
        lower = name.lower()
        field = _field(name, value.strip(" \t"))
        if lower == "host":
            host = field[1] if host is None else host
        elif lower == "transfer-encoding":
            chunked = True
        elif lower == "content-length":
            lengths |= {length.strip() for length in value.split(",")}
        elif lower not in HOP_BY_HOP and lower not in named:
            fields.append(field)
            forwarded.add(lower)
    if host is not None and "x-forwarded-host" not in forwarded:
        fields.append((b"X-Forwarded-Host", host))
    if "x-forwarded-proto" not in forwarded:
        fields.append((b"X-Forwarded-Proto", scheme.encode("ascii")))
    if "x-forwarded-for" not in forwarded:
        fields.append((b"X-Forwarded-For", FORWARDED_FOR))
    # The coding outweighs a length beside it (RFC 9112, section 6.3).
    length = None if chunked else _length(lengths)
    return PlainRequest(
        method,
        quote(target, safe=_ASCII).encode("ascii"),
        [(b"Host", UPSTREAM_HOST), *fields],
        length,
        chunked,
    )


def raw_request(line: RequestLine) -> bytes:
    """The request head of a raw tunnel, every header as given.

    Raises:
        BadRequest: a part of it cannot be sent.
    """
    method, target = _start(line)
    lines = [b"%s %s HTTP/1.1\r\n" % (method, target)]
    lines += [b"%s: %s\r\n" % _field(name, value) for name, value in line.headers]
    lines.append(b"\r\n")
    return b"".join(lines)


def response_head(status: int, reason: str, fields: Sequence[Header]) -> ResponseHead:
    """A plain upstream's response head as the bridge gets it: less what concerns the one connection."""
    return ResponseHead(status, reason or _phrase(status), end_to_end(fields))


def end_to_end(fields: Sequence[Header]) -> list[Header]:
    """The headers, or trailers, that concern more than the one connection."""
    dropped = HOP_BY_HOP | _named_by_connection(fields)
    return [field for field in fields if field[0].lower() not in dropped]


class HeadReader(BlockReader[ResponseHead]):
    """Takes the bytes of a raw upstream until its response head is whole.

    What follows are bytes that nobody here reads, so it takes what a browser may make sense of: lines that
    end in LF; a status line that is none becomes 502 "Bad Gateway"; a line without a colon is left out.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_parse_head)


def _parse_head(head: bytes) -> ResponseHead:
    first, *lines = (line.removesuffix("\r") for line in head.decode("latin-1").split("\n"))
    headers = [
        (name, value.strip(" \t")) for name, colon, value in (line.partition(":") for line in lines) if colon
    ]
    matched = _STATUS_LINE.match(first)
    if matched is None:
        return ResponseHead(502, "Bad Gateway", headers)
    status = int(matched[1])
    return ResponseHead(status, matched[2] or _phrase(status), headers)


def _start(line: RequestLine) -> tuple[bytes, bytes]:
    if not _TOKEN.match(line.method):
        raise BadRequest(f"the method {line.method[:40]!r} is not an HTTP method")
    if not _TARGET.match(line.url):
        raise BadRequest("the url is empty or holds a space, a control character or one beyond latin-1")
    return line.method.encode("ascii"), line.url.encode("latin-1")


def _field(name: str, value: str) -> tuple[bytes, bytes]:
    # The value is not shown: it may be a cookie.
    if not _TOKEN.match(name):
        raise BadRequest(f"the header name {name[:40]!r} is not an HTTP header name")
    if not _VALUE.match(value):
        raise BadRequest(f"the header {name[:40]!r} holds a line break or another control character")
    try:
        return name.encode("ascii"), value.encode("latin-1")
    except UnicodeEncodeError:
        raise BadRequest(f"the header {name[:40]!r} holds a character beyond latin-1") from None


def _length(values: set[str]) -> int | None:
    if not values:
        return None
    value = next(iter(values))
    # Twenty digits are beyond what 64 bits hold; int() of many more would take long.
    if len(values) > 1 or not (value.isascii() and value.isdigit()) or len(value) > 20:
        raise BadRequest("Content-Length is not one number")
    return int(value)


def _named_by_connection(headers: Sequence[Header]) -> set[str]:
    """Headers that the Connection header declares to concern one hop only."""
    return {
        word.strip(" \t").lower()
        for name, value in headers
        if name.lower() == "connection"
        for word in value.split(",")
    }


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))
