"""The chunked coding: content, trailers and what is refused, in any pieces; h11 is the oracle."""

from __future__ import annotations

import h11
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, settings, strategies
from uaihost.test.tunnels.test_response import OK, oracle
from uaihost.tunnels.chunked import LAST, LINE_LIMIT, ChunkedDecoder, chunk
from uaihost.wire.frames import Header

# Bodies that are refused; h11 takes those with False.
REFUSED: list[tuple[str, bytes, bool]] = [
    ("no size", b"\r\nabc\r\n0\r\n\r\n", True),
    ("no number", b"x\r\nabc\r\n0\r\n\r\n", True),
    ("a sign", b"+3\r\nabc\r\n0\r\n\r\n", True),
    ("a minus", b"-3\r\nabc\r\n0\r\n\r\n", True),
    ("a prefix", b"0x3\r\nabc\r\n0\r\n\r\n", True),
    ("an underscore", b"0_3\r\nabc\r\n0\r\n\r\n", True),
    ("space before the size", b" 3\r\nabc\r\n0\r\n\r\n", True),
    ("a line by LF", b"3\nabc\r\n0\r\n\r\n", True),
    ("a line by CR", b"3\rabc\r\n0\r\n\r\n", True),
    ("a line by two CRs", b"3\r\r\nabc\r\n0\r\n\r\n", True),
    ("LF after the data", b"3\r\nabc\n0\r\n\r\n", True),
    ("more data than its size", b"3\r\nabcd\r\n0\r\n\r\n", True),
    ("less data than its size", b"3\r\nab\r\n0\r\n\r\n", True),
    ("a size beyond 64 bits", b"1" + b"0" * 16 + b"\r\nabc", False),
    ("a size of many digits", b"1" * 3000 + b"\r\nabc", True),
    ("zeros without end", b"0" * 3000, True),
    ("LF in an extension", b"3;a\nb\r\nabc\r\n0\r\n\r\n", True),
    ("CR in an extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n", False),
    ("NUL in an extension", b"3;a\0b\r\nabc\r\n0\r\n\r\n", False),
    ("an extension without end", b"3;" + b"a" * LINE_LIMIT, True),
    ("a size and more", b"3 4\r\nabc\r\n0\r\n\r\n", True),
    ("a trailer that is folded", b"0\r\nA: b\r\n c\r\n\r\n", False),
    ("a trailer by LF", b"0\r\nA: b\n\r\n", False),
    ("a blank line by LF", b"0\r\n\n", False),
    ("space before a trailer's colon", b"0\r\nA : b\r\n\r\n", True),
    ("trailers without end", b"0\r\n" + b"A: b\r\n" * 20_000, True),
]

TAKEN: list[tuple[bytes, bytes, list[Header]]] = [
    (b"0\r\n\r\n", b"", []),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (b"3\r\nabc\r\n3\r\n\r\n\n\r\n0\r\n\r\n", b"abc\r\n\n", []),
    (b"0A\r\n0123456789\r\na\r\n0123456789\r\n000\r\n\r\n", b"0123456789" * 2, []),
    (b'3;name=value;other="q;"\r\nabc\r\n0;last\r\n\r\n', b"abc", []),
    (b"3 \t\r\nabc\r\n0  \r\n\r\n", b"abc", []),
    (b"3 ; x\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (
        b"0\r\nDigest: x\r\nX-two:\r\ndigest: y \r\n\r\n",
        b"",
        [("Digest", "x"), ("X-two", ""), ("digest", "y")],
    ),
]


def decoded(body: bytes, *cuts: int) -> tuple[bytes, ChunkedDecoder]:
    """The content and the decoder, fed in pieces of these sizes and the rest at once."""
    decoder = ChunkedDecoder()
    content = b""
    at = 0
    for size in (*cuts, len(body)):
        piece, at = body[at : at + size], at + size
        if decoder.done:
            decoder.rest += piece
        elif piece and not decoder.failed:
            content += b"".join(decoder.feed(piece))
    return content, decoder


class ChunkedTests(SynchronousTestCase):
    def test_what_is_taken(self) -> None:
        for body, content, trailers in TAKEN:
            for size in range(1, len(body) + 1):
                found, decoder = decoded(body + b"next", *[size] * len(body))
                self.assertEqual(
                    (found, decoder.done, decoder.failed, decoder.trailers, decoder.rest),
                    (content, True, "", trailers, b"next"),
                    body,
                )

    def test_what_is_refused(self) -> None:
        for name, body, by_h11_too in REFUSED:
            for size in (1, 2, 3, 7, len(body)):
                found, decoder = decoded(body, *[size] * len(body))
                self.assertTrue(decoder.failed, name)
                self.assertFalse(decoder.done, name)
                self.assertTrue(b"abc".startswith(found) or found == b"ab\r", name)
            answer = OK + b"Transfer-Encoding: chunked\r\n\r\n" + body
            if by_h11_too:
                self.assertRaises(h11.RemoteProtocolError, oracle, answer)

    def test_content_before_the_mistake_is_given(self) -> None:
        self.assertEqual(ChunkedDecoder().feed(b"3\r\nabc\r\nx"), [b"abc"])

    def test_a_body_that_is_cut_is_not_done(self) -> None:
        body = b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n"
        for at in range(len(body)):
            _, decoder = decoded(body[:at])
            self.assertEqual((decoder.done, decoder.failed), (False, ""))

    def test_a_piece_that_is_all_content_is_passed_on_uncopied(self) -> None:
        decoder = ChunkedDecoder()
        decoder.feed(b"100000\r\n")
        piece = b"x" * 5000
        self.assertIs(decoder.feed(piece)[0], piece)

    def test_what_is_kept_is_small(self) -> None:
        decoder = ChunkedDecoder()
        for _ in range(1000):
            decoder.feed(b"3;" + b"x" * 900)
            decoder.feed(b"\r\nabc\r\n")
        self.assertEqual(decoder.failed, "")
        self.assertEqual(decoder._kept, b"")

    def test_what_is_written_can_be_read(self) -> None:
        pieces = [b"a", b"\r\n", b"0\r\n\r\n", b"x" * 70_000]
        body = b"".join(part for piece in pieces for part in chunk(piece)) + LAST
        found, decoder = decoded(body)
        self.assertEqual((found, decoder.done), (b"".join(pieces), True))
        self.assertEqual(oracle(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)[1], b"".join(pieces))

    @settings(max_examples=1000)
    @given(
        parts=strategies.lists(
            strategies.sampled_from(
                [b"3", b"abc", b"\r\n", b"3\r\nabc\r\n", b"0\r\n", b"0\r\n\r\n", b"0", b";x", b" ",
                 b"A: b\r\n", b"\n", b"\r", b"1\r\nz\r\n", b"\r\n\r\n"]
            ),
            max_size=8,
        ),
        cuts=strategies.lists(strategies.integers(1, 9), max_size=12),
    )  # fmt: skip
    def test_bodies_are_read_as_h11_reads_them(self, parts: list[bytes], cuts: list[int]) -> None:
        body = b"".join(parts)
        content, decoder = decoded(body, *cuts)
        whole, at_once = decoded(body)
        self.assertEqual((content, decoder.done, decoder.failed), (whole, at_once.done, at_once.failed))
        self.assertEqual(decoder.rest, at_once.rest)
        try:
            _, expected, trailers = oracle(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        except h11.RemoteProtocolError:
            self.assertFalse(decoder.done, body)
            return
        if decoder.done:
            self.assertEqual(content, expected)
            self.assertEqual([(name.encode(), value.encode()) for name, value in decoder.trailers], trailers)
        else:
            # Stricter: LF ends no line of the trailers.
            self.assertIn("trailers", decoder.failed)
