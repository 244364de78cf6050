"""mux.1's layout: the document's vectors, round trips, and whatever else may arrive."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import uaihost
from uaihost.test.support import given, settings, strategies
from uaihost.wire import mux
from uaihost.wire.frames import RequestLine

DOCUMENT = Path(uaihost.__file__).parent.parent / "docs" / "protocol.md"

text = strategies.text(strategies.characters(exclude_categories=["Cs"]), max_size=20)
headers = strategies.lists(strategies.tuples(text, text), max_size=4)
tunnels = strategies.integers(0, (1 << 32) - 1)

# The document's rows in words, and the frames they stand for.
VECTORS: dict[str, bytes] = {
    "HEAD of tunnel 1": mux.head_frame(1, mux.Head(True, 204, "No Content", [])),
    "DATA of tunnel 1": mux.frame(mux.DATA, 1, b"hello"),
    "END of tunnel 1": mux.end_frame(1),
    "END of tunnel 258": mux.end_frame(258, [("Digest", "x")]),
    "RESET of tunnel 4294967295": mux.reset_frame(4294967295, mux.CANCELLED, "gone"),
    "CREDIT of 65,536 bytes for the link": mux.credit_frame(0, 65536),
}


def documented() -> dict[str, bytes]:
    """The table of test vectors, by what it says of each frame."""
    rows = DOCUMENT.read_text().split("Test vectors", 1)[1].splitlines()
    found: dict[str, bytes] = {}
    for row in rows:
        cells = re.fullmatch(r"\| (.+) \| `([0-9a-f ]+)`(, then the JSON)? \|", row)
        if cells:
            words, frame = cells[1], bytes.fromhex(cells[2])
            if cells[3]:
                frame += words.split("`")[1].encode()
            found[words] = frame
    return found


class VectorTests(SynchronousTestCase):
    def test_the_documents_vectors(self) -> None:
        found = documented()
        self.assertEqual(len(found), len(VECTORS))
        for words, frame in found.items():
            names = [name for name in VECTORS if re.match(re.escape(name) + r"\b", words)]
            self.assertEqual(len(names), 1, words)
            self.assertEqual(VECTORS[names[0]], frame, words)

    def test_they_are_read_back(self) -> None:
        row = b"".join(VECTORS.values())
        kinds = [(kind, tunnel) for kind, tunnel, _ in mux.frames(row)]
        self.assertEqual(
            kinds,
            [(mux.HEAD, 1), (mux.DATA, 1), (mux.END, 1), (mux.END, 258), (mux.RESET, 4294967295), (6, 0)],
        )


class FrameTests(SynchronousTestCase):
    @given(strategies.lists(strategies.tuples(strategies.integers(0, 255), tunnels, strategies.binary())))
    def test_a_row_of_frames_is_what_was_put_together(self, frames: list[tuple[int, int, bytes]]) -> None:
        message = b"".join(mux.frame(*frame) for frame in frames)
        if frames:
            self.assertEqual(list(mux.frames(message)), frames)
        else:
            self.assertRaises(mux.BadMessage, list, mux.frames(message))

    @given(strategies.lists(strategies.binary(min_size=1), min_size=1), strategies.data())
    def test_a_message_that_is_cut_gives_its_whole_frames_first(
        self, payloads: list[bytes], data: strategies.DataObject
    ) -> None:
        frames = [mux.frame(mux.DATA, number, payload) for number, payload in enumerate(payloads)]
        ends = [sum(map(len, frames[: count + 1])) for count in range(len(frames))]
        message = b"".join(frames)
        cut = data.draw(strategies.integers(1, len(message) - 1).filter(lambda size: size not in ends))
        found = []
        with self.assertRaises(mux.BadMessage):
            for frame in mux.frames(message[:cut]):
                found.append(frame)
        self.assertEqual(len(found), sum(end <= cut for end in ends))

    def test_the_longest_payload_and_one_longer(self) -> None:
        longest = bytes(mux.MAX_PAYLOAD)
        (found,) = mux.frames(mux.frame(mux.DATA, 7, longest))
        self.assertEqual(found, (mux.DATA, 7, longest))
        self.assertRaises(ValueError, mux.frame, mux.DATA, 7, longest + b"x")
        header = mux.data_header(7, mux.MAX_PAYLOAD + 1)
        self.assertRaises(mux.BadMessage, list, mux.frames(header + longest + b"x"))

    @given(tunnels, strategies.integers(1, mux.MAX_PAYLOAD))
    def test_a_header_of_data_is_that_of_the_frame(self, tunnel: int, size: int) -> None:
        header = mux.data_header(tunnel, size)
        self.assertEqual(header, mux.frame(mux.DATA, tunnel, bytes(size))[: mux.HEADER_SIZE])


class PayloadTests(SynchronousTestCase):
    def payload(self, frame: bytes) -> bytes:
        ((_, tunnel, payload),) = mux.frames(frame)
        self.assertEqual(tunnel, 9)
        return payload

    @given(
        strategies.builds(
            mux.Open,
            target=strategies.sampled_from(["editor", "preview"]),
            taskId=text,
            reqLine=strategies.builds(RequestLine, text, text, headers),
            upgrade=strategies.booleans(),
            name=strategies.none() | text,
        )
    )
    def test_open(self, content: mux.Open) -> None:
        self.assertEqual(mux.read_open(self.payload(mux.open_frame(9, content))), content)

    @given(
        strategies.builds(
            mux.Head,
            ok=strategies.booleans(),
            status=strategies.integers(100, 999),
            statusText=strategies.none() | text,
            headers=strategies.none() | headers,
            message=strategies.none() | text,
        )
    )
    def test_head(self, content: mux.Head) -> None:
        self.assertEqual(mux.read_head(self.payload(mux.head_frame(9, content))), content)

    @given(headers)
    def test_trailers(self, fields: list[tuple[str, str]]) -> None:
        self.assertEqual(mux.read_trailers(self.payload(mux.end_frame(9, fields))), fields)

    @given(strategies.integers(0, 65535), text)
    def test_reset(self, code: int, reason: str) -> None:
        self.assertEqual(
            mux.read_reset(self.payload(mux.reset_frame(9, code, reason))), mux.Reset(code, reason)
        )

    def test_a_long_reason_is_cut_and_stays_readable(self) -> None:
        payload = self.payload(mux.reset_frame(9, 2, "ä" * 1000))
        self.assertEqual(len(payload), 2 + mux.MAX_REASON)
        self.assertEqual(mux.read_reset(payload).reason, "ä" * (mux.MAX_REASON // 2))
        self.assertEqual(len(mux.read_reset(b"\0\2" + b"x" * 5000).reason), mux.MAX_REASON)

    @given(strategies.integers(1, mux.MAX_WINDOW))
    def test_credit(self, size: int) -> None:
        self.assertEqual(mux.read_credit(self.payload(mux.credit_frame(9, size))), size)

    def test_credit_out_of_bounds(self) -> None:
        for payload in (b"", b"\0\0\0", b"\0" * 5, b"\0" * 4, b"\x80\0\0\0", b"\xff" * 4):
            self.assertRaises(mux.BadPayload, mux.read_credit, payload)

    def test_what_json_must_hold(self) -> None:
        whole = {
            "target": "editor",
            "taskId": "t",
            "upgrade": False,
            "reqLine": {"method": "GET", "url": "/", "headers": []},
        }
        self.assertEqual(mux.read_open(json.dumps({**whole, "more": 1}).encode()).taskId, "t")
        for field in whole:
            rest = json.dumps({name: value for name, value in whole.items() if name != field})
            self.assertRaises(mux.BadPayload, mux.read_open, rest.encode())
        error = self.assertRaises(
            mux.BadPayload, mux.read_open, json.dumps({**whole, "target": "s3cr3t"}).encode()
        )
        self.assertNotIn("s3cr3t", str(error))


class AnythingTests(SynchronousTestCase):
    readers: tuple[Callable[[bytes], object], ...] = (
        mux.read_open,
        mux.read_head,
        mux.read_trailers,
        mux.read_reset,
        mux.read_credit,
    )

    def take(self, message: bytes) -> str:
        """Read all there is, as an end does."""
        try:
            for _, _, payload in mux.frames(message):
                for reader in self.readers:
                    try:
                        reader(payload)
                    except mux.BadPayload:
                        continue
        except mux.BadMessage:
            return "bad"
        return "good"

    @settings(max_examples=500)
    @given(strategies.binary(max_size=300))
    def test_arbitrary_bytes(self, message: bytes) -> None:
        self.assertIn(self.take(message), ("good", "bad"))

    @settings(max_examples=500)
    @given(strategies.lists(strategies.tuples(strategies.integers(0, 7), strategies.binary()), min_size=1))
    def test_arbitrary_payloads(self, frames: list[tuple[int, bytes]]) -> None:
        message = b"".join(mux.frame(kind, 1, payload) for kind, payload in frames)
        self.assertEqual(self.take(message), "good")

    @given(strategies.sampled_from(list(VECTORS)), strategies.integers(0, 200), strategies.integers(0, 255))
    def test_vectors_with_a_wrong_byte(self, name: str, at: int, byte: int) -> None:
        frame = bytearray(VECTORS[name])
        frame[at % len(frame)] = byte
        self.assertIn(self.take(bytes(frame)), ("good", "bad"))

    def test_json_that_is_deep(self) -> None:
        for opening in (b"[", b'{"reqLine":', b'{"a":'):
            for reader in self.readers[:3]:
                self.assertRaises(mux.BadPayload, reader, opening * 100_000)
