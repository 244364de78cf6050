"""The chunked coding of bodies, both ways (RFC 9112, section 7.1), incremental and strict. Pure.

Extensions of chunks are for the one connection and are left out. A line that ends otherwise than by CRLF is
refused, as is whatever else two readers could take for different sizes.
"""

from __future__ import annotations

import re

from uaihost.tunnels.response import BadHead, BlockReader, read_fields
from uaihost.wire.frames import Header

# Bytes of a chunk's first line. Its size has no more than 16 digits; extensions are rare and short.
LINE_LIMIT = 1024

# Possessive, so that a line is looked at once. Some servers pad the size with spaces.
_LINE = rb"([0-9A-Fa-f]{1,16}+)[ \t]*+(?:;[^\x00\r\n]*+)?"
_FIRST_LINE = re.compile(_LINE + rb"\r\n")
_BEGINNING = re.compile(_LINE + rb"\r?\Z")
_CRLF = b"\r\n"

# What ends a body without trailers.
LAST = b"0\r\n\r\n"


class ChunkedDecoder:
    """Takes the bytes of a chunked body and gives those of its content.

    done: the body's end has come. failed: why this is no chunked body, quoting none of it; empty as long as
    it is one. trailers: the fields after the body. rest: bytes that came after its end.
    """

    __slots__ = ("_kept", "_left", "_tail", "done", "failed", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.failed = ""
        self.trailers: list[Header] = []
        self.rest = b""
        # Bytes of the chunk that are to come, with the CRLF after it; 0 where a chunk's first line is due.
        self._left = 0
        # A first line that is cut, or the CR of a chunk's end.
        self._kept = b""
        self._tail: BlockReader[list[Header]] | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """The content in `data`, in slices. Not to be called any more once it is done or has failed."""
        if self._tail is not None:
            self._end(self._tail, data)
            return []
        if self._kept:
            data, self._kept = self._kept + data, b""
        pieces: list[bytes] = []
        at, size, left = 0, len(data), self._left
        while at < size:
            if left > 2:
                piece = data[at : at + left - 2]
                pieces.append(piece)
                at += len(piece)
                left -= len(piece)
            elif left:
                if not data.startswith(_CRLF[: size - at], at):
                    self.failed = "a chunk is longer than its size"
                    break
                if size - at < 2:
                    self._kept = b"\r"
                    break
                at += 2
                left = 0
            else:
                line = _FIRST_LINE.match(data, at)
                if line is None or line.end() - at > LINE_LIMIT:
                    self._keep(data[at : at + LINE_LIMIT + 1])
                    break
                at = line.end()
                left = int(line[1], 16)
                if not left:
                    # Behind a line end, so that without trailers the blank line is seen too.
                    self._tail = BlockReader(_trailers)
                    self._end(self._tail, _CRLF + data[at:])
                    break
                left += 2
        self._left = left
        return pieces

    def _keep(self, line: bytes) -> None:
        """Keep what may still become a chunk's first line."""
        if len(line) > LINE_LIMIT:
            self.failed = f"the first line of a chunk is longer than {LINE_LIMIT} bytes"
        elif not _BEGINNING.match(line):
            self.failed = "the first line of a chunk is broken"
        else:
            self._kept = line

    def _end(self, tail: BlockReader[list[Header]], data: bytes) -> None:
        try:
            found = tail.feed(data)
        except BadHead as error:
            self.failed = f"in the trailers: {error}"
            return
        if found is not None:
            self.done = True
            self.trailers, self.rest = found


def _trailers(block: bytes) -> list[Header]:
    return read_fields(block[len(_CRLF) :])


def chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk, in pieces. data: at least one byte, since a chunk of none ends the body."""
    return b"%x\r\n" % len(data), data, b"\r\n"
