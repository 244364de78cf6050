"""Response heads of HTTP servers, read strictly (RFC 9112), and how each says where its body ends. Pure.

Where two readers of the same bytes could disagree on where a message ends, the head is refused: a bare CR or
LF, a folded line, a NUL, space before a colon, a length that is not a number, a coding other than chunked.
Knows neither sockets nor tunnels; what a tunnel passes on of a head is tunnels.head's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from uaihost.wire.frames import Header

H = TypeVar("H")

# Bytes of a response head. Node takes 16 KiB, nginx 8 KiB a line, Apache 64 KiB by default settings of both
# its limits: the most generous, because the browser's own limit comes after ours.
HEAD_LIMIT = 64 * 1024

_BLANK_LINE = re.compile(rb"\n\r?\n")
_START = b"HTTP/1."
# RFC 9112, section 4. Some servers leave out the reason and even the space before it.
_STATUS_LINE = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([^\x00\r\n\x0b\x0c]*+))?\r\n")
# One line each, by possessive repeats, so that a line is looked at once. Control characters other than these
# occur in cookies; vertical tab and form feed are space to some readers.
_FIELD = re.compile(
    r"^([-!#$%&'*+.^_`|~0-9A-Za-z]++):[ \t]*+([^\x00\r\n\x0b\x0c]*+)\r\n",
    re.MULTILINE,
)
# One digit more is beyond what 64 bits hold, and int() of very many takes long.
_LENGTH = re.compile(r"[0-9]{1,19}\Z")

# Statuses of responses that never have a body (RFC 9110, sections 15.3.5 and 15.4.5).
_BODILESS = frozenset({204, 304})


class BadHead(ValueError):
    """The server's answer has no head that could be passed on; the text says why, and quotes none of it."""


@attrs.frozen
class RawHead:
    """A head as the server sent it.

    minor: of the version, 1.0 to 1.9. status: 100 to 999. fields: names as sent, in order; values without
    the space around them, by latin-1.
    """

    minor: int
    status: int
    reason: str
    fields: list[Header]

    @property
    def interim(self) -> bool:
        """Whether the head that counts is still to come (RFC 9110, section 15.2)."""
        return self.status < 200


@attrs.frozen
class Framing:
    """Where the body ends: after `length` bytes, by chunks, or, with neither, with the connection.

    persistent: whether the connection may serve another request afterwards. fields: the head's, with one
    length at most, and none beside chunks (RFC 9112, section 6.3).
    """

    length: int | None
    chunked: bool
    persistent: bool
    fields: list[Header]


class BlockReader(Generic[H]):
    """Takes bytes until a block of lines, such as a head, has its blank line; ready for the next one then."""

    __slots__ = ("_begin", "_kept", "_parse", "_searched")

    def __init__(self, parse: Callable[[bytes], H], begin: bytes = b"") -> None:
        """
        Args:
            parse: reads a whole block, blank line included.
            begin: how every block begins; what does not is refused without waiting for its end.
        """
        self._parse = parse
        self._begin = begin
        self._kept: bytearray | None = None
        self._searched = 0

    def feed(self, data: bytes) -> tuple[H, bytes] | None:
        """The block as parsed and what followed it, once the first blank line has come; None before.

        Raises:
            BadHead: longer than HEAD_LIMIT, or what `parse` raises.
        """
        held: bytes | bytearray = data
        if self._kept is not None:
            self._kept += data
            held = self._kept
        found = _BLANK_LINE.search(held, self._searched)
        if (found.start() if found else len(held)) > HEAD_LIMIT:
            raise BadHead(f"the response head is longer than {HEAD_LIMIT} bytes")
        if not held.startswith(self._begin[: len(held)]):
            raise BadHead("the response does not begin as HTTP/1.1 does")
        if found is None:
            if self._kept is None:
                self._kept = bytearray(data)
            self._searched = max(0, len(held) - 2)
            return None
        self._kept = None
        self._searched = 0
        return self._parse(bytes(held[: found.end()])), bytes(held[found.end() :])


def response_reader() -> BlockReader[RawHead]:
    """A reader of strict heads, interim ones too."""
    return BlockReader(read_head, _START)


def read_head(head: bytes) -> RawHead:
    """A whole head, its blank line included.

    Raises:
        BadHead: it is not one as RFC 9112 has it.
    """
    text = head.decode("latin-1")
    start = _STATUS_LINE.match(text)
    if start is None:
        raise BadHead("the status line is not one of HTTP/1.1")
    minor, status, reason = start.groups()
    return RawHead(int(minor), int(status), reason or "", _fields(text, start.end()))


def read_fields(block: bytes) -> list[Header]:
    """Header lines up to and with a blank line, such as the trailers of a body.

    Raises:
        BadHead: a line is not a field.
    """
    return _fields(block.decode("latin-1"), 0)


def _fields(text: str, at: int) -> list[Header]:
    found: list[Header] = _FIELD.findall(text, at)
    # Each match takes one whole line, so with as many matches as lines, all but the blank one, nothing is
    # left over.
    if len(found) + 1 != text.count("\n", at) or not text.endswith("\r\n"):
        raise BadHead("a header line is broken (a bare CR or LF, a folded line, a NUL or no legal name)")
    if " \r" in text or "\t\r" in text:
        return [(name, value.rstrip(" \t")) for name, value in found]
    return found


def framing(head: RawHead, method: bytes) -> Framing:
    """How the body of the response to a request by `method` is delimited (RFC 9112, section 6.3).

    Raises:
        BadHead: it cannot be said for certain.
    """
    length: int | None = None
    lengths = chunked = False
    persistent = head.minor >= 1
    for name, value in head.fields:
        lower = name.lower()
        if lower == "content-length":
            number = _length(value)
            if lengths and number != length:
                raise BadHead("two lengths of the body contradict one another")
            lengths, length = True, number
        elif lower == "transfer-encoding":
            if chunked or value.lower() != "chunked":
                raise BadHead("the body's coding is not chunked, once")
            chunked = True
        elif lower == "connection" and persistent:
            persistent = all(word.strip(" \t") != "close" for word in value.lower().split(","))
    fields = head.fields
    if lengths:
        fields = _one_length(fields, None if chunked else length)
    # The two together may be meant to be read differently by others; the coding outweighs the length.
    persistent = persistent and not (lengths and chunked)
    if method == b"HEAD" or head.status in _BODILESS:
        return Framing(0, False, persistent, fields)
    if chunked:
        return Framing(None, True, persistent, fields)
    return Framing(length, False, persistent and lengths, fields)


def _length(value: str) -> int:
    """One number, which some servers and proxies repeat in a list."""
    numbers = {number.strip(" \t") for number in value.split(",")}
    number = numbers.pop()
    if numbers or not _LENGTH.match(number):
        raise BadHead("Content-Length is not one number")
    return int(number)


def _one_length(fields: list[Header], length: int | None) -> list[Header]:
    """The fields with at most one Content-Length, at the place of the first one; none for None."""
    kept: list[Header] = []
    for field in fields:
        if field[0].lower() != "content-length":
            kept.append(field)
        elif length is not None:
            kept.append((field[0], str(length)))
            length = None
    return kept
