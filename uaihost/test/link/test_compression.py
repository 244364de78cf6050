"""One connection's deflate against zlib's, and the decision whether a tunnel's messages are worth it."""

from __future__ import annotations

import random
import zlib
from typing import Any

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from autobahn.websocket.compress import PerMessageDeflate
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.compression import (
    LARGEST,
    LARGEST_SLOW,
    MIDDLING,
    SLOW,
    SMALLEST,
    SMALLEST_SLOW,
    Deflate,
    Gain,
    gains,
)
from uaihost.test.support import given, settings, strategies

TAIL = b"\x00\x00\xff\xff"
LIMIT = 1 << 20


def _text(rng: random.Random) -> bytes:
    """Some 200 kB that shrink as source code does: phrases of words, the first of them often."""
    words = [bytes(rng.choices(b"etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(3000)]
    phrases = [b" ".join(rng.choices(words, k=rng.randint(2, 8))) for _ in range(2500)]
    weights = [1 / (n + 1) ** 0.8 for n in range(len(phrases))]
    return b"; ".join(rng.choices(phrases, weights, k=6000))


TEXT = _text(random.Random(4))
NOISE = random.Random(5).randbytes(200_000)

RATES = [None, 100_000, SLOW[0] + 1, MIDDLING[0] - 1, MIDDLING[1] + 1]


def deflate(server: bool = False, keeps: bool = True, window: int = 15, theirs_keeps: bool = True) -> Deflate:
    """A connection's; keeps and window are of the direction it sends in."""
    ends = (not keeps, not theirs_keeps) if server else (not theirs_keeps, not keeps)
    windows = (window, 15) if server else (15, window)
    return Deflate(PerMessageDeflate(server, *ends, *windows, 8))


class Reader:
    """The other end, by zlib, with exactly the window that was agreed on."""

    def __init__(self, window: int = 15, keeps: bool = True) -> None:
        self.window = window
        self.keeps = keeps
        self.inflater: Any = None

    def read(self, data: bytes) -> bytes:
        if self.inflater is None or not self.keeps:
            self.inflater = zlib.decompressobj(-self.window)
        found = b""
        data += TAIL
        # In small steps, since zlib also finds in its output what the window does not hold any more.
        while data:
            found += self.inflater.decompress(data, 64)
            data = self.inflater.unconsumed_tail
        while more := self.inflater.decompress(b"", 64):
            found += more
        return found


def inflate(end: Deflate, data: bytes, step: int = 1 << 30, limit: int = LIMIT) -> bytes:
    """One message, as Autobahn reads it."""
    end.start_decompress_message()
    found = b""
    for start in range(0, len(data), step):
        found += end.decompress_message_data(data[start : start + step], max_output_len=limit - len(found))
    end.end_decompress_message()
    return found


def _payload(kind: int, start: int, size: int) -> bytes:
    source = (TEXT, NOISE, bytes(200_000))[kind]
    return source[start : start + size] if start + size <= len(source) else source[:size]


_payloads = strategies.builds(
    _payload,
    strategies.integers(0, 2),
    strategies.integers(0, 60_000),
    strategies.one_of(strategies.integers(0, 3000), strategies.integers(0, 100_000)),
)
_steps = strategies.lists(
    strategies.tuples(_payloads, strategies.sampled_from(["a", "b", None]), strategies.sampled_from(RATES)),
    max_size=12,
)


class SendingTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(_steps, strategies.sampled_from([9, 10, 12, 15]), strategies.booleans(), strategies.booleans())
    def test_zlib_reads_every_message(
        self, steps: list[tuple[bytes, str | None, float | None]], window: int, keeps: bool, server: bool
    ) -> None:
        """Whatever was sent plain in between, whoever spoke, however the level changed."""
        end, reader = deflate(server, keeps, window), Reader(window, keeps)
        for payload, speaker, rate in steps:
            end.set_uplink(rate)
            sent = end.compress(payload, speaker)
            if sent is not None:
                self.assertLess(len(sent), len(payload))
                self.assertEqual(reader.read(sent), payload)

    def test_the_reader_knows_a_larger_window_when_it_sees_one(self) -> None:
        sent = deflate().compress(NOISE[:2000] + NOISE[:2000])
        assert sent is not None
        self.assertEqual(Reader().read(sent), NOISE[:2000] * 2)
        self.assertRaises(zlib.error, Reader(9).read, sent)

    def test_a_speaker_refers_to_its_own_last_messages_only(self) -> None:
        payload = NOISE[:4000] + TEXT[:8000]
        for speakers, refers in (("aa", True), ("ab", False), ("aba", False), ("a-a", False), ("--", False)):
            end, reader = deflate(), Reader()
            sizes = []
            for speaker in speakers:
                sent = end.compress(payload, None if speaker == "-" else speaker)
                assert sent is not None
                self.assertEqual(reader.read(sent), payload)
                sizes.append(len(sent))
            self.assertEqual(sizes[-1] < 1000, refers, (speakers, sizes))

    def test_the_length_of_a_message_tells_nothing_of_another_speaker(self) -> None:
        """A guess of what another one said costs as much right as wrong."""
        secret = b"set-cookie: session=" + NOISE[:2000].hex().encode()
        right, wrong = secret, b"set-cookie: session=" + NOISE[3000:5000].hex().encode()
        for speaker in ("b", None):
            lengths = set()
            for said in (right, wrong):
                end = deflate()
                assert end.compress(said, "a") is not None
                sent = end.compress(right, speaker)
                assert sent is not None
                lengths.add(len(sent))
            self.assertEqual(len(lengths), 1)

    def test_without_takeover_nothing_is_remembered(self) -> None:
        end = deflate(keeps=False)
        first, second = end.compress(TEXT[:9000], "a"), end.compress(TEXT[:9000], "a")
        self.assertEqual(first, second)
        kept = deflate()
        kept.compress(TEXT[:9000], "a")
        self.assertLess(len(kept.compress(TEXT[:9000], "a") or TEXT), len(first or b""))

    def test_what_does_not_gain_is_sent_as_it_is_and_forgotten(self) -> None:
        end, reader = deflate(), Reader()
        first = end.compress(TEXT[:5000], "a")
        self.assertIs(end.compress(NOISE[:5000], "a"), None)
        again = end.compress(TEXT[:5000], "a")
        assert first is not None and again is not None
        self.assertEqual(len(again), len(first))
        self.assertEqual([reader.read(first), reader.read(again)], [TEXT[:5000]] * 2)

    def test_short_messages_are_compressed_where_they_take_time(self) -> None:
        end = deflate()
        for rate, smallest in ((None, SMALLEST), (50e6, SMALLEST), (1000.0, SMALLEST_SLOW)):
            end.set_uplink(rate)
            self.assertEqual(end.smallest, smallest)
            self.assertIs(end.compress(bytes(smallest - 1)), None)
            self.assertIsNot(end.compress(bytes(smallest)), None)

    def test_the_slower_the_link_the_smaller_the_message(self) -> None:
        sizes = []
        for rate in (None, MIDDLING[0] - 1, SLOW[0] - 1):
            end = deflate()
            end.set_uplink(rate)
            sizes.append(len(end.compress(TEXT[:LARGEST_SLOW]) or TEXT))
        self.assertEqual(sizes, sorted(sizes, reverse=True))
        self.assertLess(sizes[2], 0.95 * sizes[0])

    def test_a_large_message_on_a_slow_link_takes_the_faster_compressor(self) -> None:
        slow, middling = deflate(), deflate()
        slow.set_uplink(1.0)
        middling.set_uplink(SLOW[1])
        large = (TEXT * 2)[: LARGEST_SLOW + 1]
        self.assertEqual(len(large), LARGEST_SLOW + 1)
        self.assertNotEqual(slow.compress(large), None)
        self.assertLessEqual(
            len(slow.compress(large[:-1]) or large), len(middling.compress(large[:-1]) or b"")
        )

    def test_speeds_between_the_bounds_change_nothing(self) -> None:
        end = deflate()
        lengths = []
        for rate in (
            None,
            SLOW[0] + 1,
            SLOW[0] - 1,
            SLOW[1] - 1,
            SLOW[1] + 1,
            MIDDLING[1] - 1,
            MIDDLING[1] + 1,
        ):
            end.set_uplink(rate)
            lengths.append(len(end.compress(TEXT[:50_000]) or TEXT))
        quick, middling, slow, slow_still, middling_again, middling_still, quick_again = lengths
        self.assertEqual((slow, middling, quick), (slow_still, middling_still, quick_again))
        self.assertEqual(middling, middling_again)
        self.assertLess(slow, middling)
        self.assertLess(middling, quick)

    def test_a_speaker_whose_messages_shrink_much_goes_deep(self) -> None:
        loose = [TEXT[n : n + 6000] * 5 for n in (0, 50_000, 100_000)] + [TEXT[:40_000], TEXT[40_000:80_000]]
        quick, deep = deflate(), deflate()
        deep.set_uplink(SLOW[1])
        reader = Reader()
        sent = [quick.compress(payload, "a") or b"" for payload in loose]
        self.assertTrue([reader.read(each) for each in sent] == loose)
        # The first goes quickly, and what follows as on a middling link, until one shrinks little again.
        self.assertTrue(sent[1:4] == [deep.compress(payload, "a") for payload in loose[1:4]])
        self.assertTrue(sent[4] == deflate().compress(loose[4], "a"))

    def test_frames_of_some_length_gain(self) -> None:
        sizes = (SMALLEST_SLOW - 1, SMALLEST_SLOW, LARGEST, LARGEST + 1)
        self.assertEqual([gains(bytes(n)) for n in sizes], [False, True, True, False])


class ReceivingTests(SynchronousTestCase):
    @settings(max_examples=150)
    @given(
        strategies.lists(
            strategies.tuples(_payloads, strategies.sampled_from([0, 1, 6, 9]), strategies.booleans()),
            max_size=8,
        ),
        strategies.sampled_from([1 << 30, 16384, 1000, 1]),
        strategies.booleans(),
    )
    def test_what_zlib_wrote(self, messages: list[tuple[bytes, int, bool]], step: int, server: bool) -> None:
        """One history over all messages, flushed as its sender likes, cut anywhere."""
        end = deflate(server)
        writer: Any = None
        for payload, level, afresh in messages:
            if step == 1:
                payload = payload[:3000]
            if writer is None or afresh:
                writer = zlib.compressobj(level, zlib.DEFLATED, -15)
            half = len(payload) // 2
            sent = writer.compress(payload[:half]) + writer.flush(zlib.Z_SYNC_FLUSH)
            sent += writer.compress(payload[half:]) + writer.flush(zlib.Z_SYNC_FLUSH)
            if not sent.endswith(TAIL):
                continue
            self.assertEqual(inflate(end, sent[:-4], step), payload)

    def test_without_takeover_each_message_stands_alone(self) -> None:
        writer = zlib.compressobj(6, zlib.DEFLATED, -15)
        first, second = (
            (writer.compress(TEXT[:5000]) + writer.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)
        )
        end = deflate(theirs_keeps=False)
        self.assertEqual(inflate(end, first), TEXT[:5000])
        self.assertRaises(PayloadCorruptError, inflate, end, second)
        end = deflate()
        self.assertEqual([inflate(end, first), inflate(end, second)], [TEXT[:5000]] * 2)

    def test_examples_of_the_rfc(self) -> None:
        """RFC 7692, section 7.2.3: a fixed block, a shared history, a stored, a last, two blocks."""
        end = deflate()
        for sent in (
            "f248cdc9c90700",
            "f200110000",
            "000500faff48656c6c6f00",
            "f348cdc9c9070000",
            "f248050000 00ffff cac9c90700",
            "f248cdc9c90700",
        ):
            self.assertEqual(inflate(end, bytes.fromhex(sent)), b"Hello", sent)
            self.assertEqual(inflate(end, b"\x00"), b"")

    def test_never_more_than_is_allowed(self) -> None:
        writer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = (writer.compress(bytes(50_000_000)) + writer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        for limit in (0, 1, 1000, 65536, 49_999_999):
            for step in (1 << 30, 1000):
                self.assertRaises(PayloadExceededError, inflate, deflate(), bomb, step, limit)
        self.assertEqual(inflate(deflate(), bomb, limit=50_000_000), bytes(50_000_000))

    def test_what_is_no_deflate_stream(self) -> None:
        whole = (
            zlib.compressobj(6, zlib.DEFLATED, -15).compress(b"") or b""
        ) + b"\xf2\x48\xcd\xc9\xc9\x07\x00"
        for sent in (
            b"\xff" * 50,
            b"\x07",
            whole[:-2],
            # Bytes after a last block.
            bytes.fromhex("f348cdc9c9070000") + b"\x00",
            bytes.fromhex("f348cdc9c9070000") + b"\x03" * 5000,
            bytes.fromhex("f348cdc9c90700"),
            # A distance beyond everything that was said.
            bytes.fromhex("f20011000000"),
            # A stored block that promises more than comes.
            bytes.fromhex("000500faff4865"),
        ):
            for step in (1 << 30, 1):
                self.assertRaises(PayloadCorruptError, inflate, deflate(), sent, step)

    @settings(max_examples=300)
    @given(strategies.binary(max_size=200), strategies.integers(1, 200))
    def test_any_bytes_are_read_or_refused(self, data: bytes, step: int) -> None:
        try:
            found = inflate(deflate(), data, step, 10_000)
        except (PayloadCorruptError, PayloadExceededError):
            return
        self.assertEqual(found, Reader().read(data)[: len(found)])


class GainTests(SynchronousTestCase):
    def decide(self, gain: Gain, payload: bytes, after: float) -> bool:
        """One message; after: of its size, on the wire."""
        worth = gain.worth(payload)
        if worth:
            gain.learn(len(payload), int(len(payload) * after))
        return worth

    def test_what_never_gains_is_never_looked_at(self) -> None:
        gain = Gain(False)
        self.assertEqual({self.decide(gain, TEXT[:50_000], 0.2) for _ in range(500)}, {False})

    def test_what_gains_stays(self) -> None:
        for hint in (True, None):
            gain = Gain(hint)
            self.assertEqual({self.decide(gain, TEXT[:50_000], 0.3) for _ in range(500)}, {True})

    def test_without_a_hint_a_sample_decides(self) -> None:
        self.assertTrue(Gain().worth(TEXT[:4000]))
        self.assertFalse(Gain().worth(NOISE[:4000]))
        self.assertFalse(Gain().worth(NOISE[:4096] + TEXT))

    def test_what_is_short_decides_nothing(self) -> None:
        for hint in (True, None):
            gain = Gain(hint)
            self.assertFalse(gain.worth(TEXT[: SMALLEST_SLOW - 1]))
            self.assertFalse(gain.worth(NOISE[: SMALLEST_SLOW - 1]))
            self.assertTrue(gain.worth(TEXT[:SMALLEST_SLOW]))

    def test_noise_is_looked_at_again_after_some_mebibytes(self) -> None:
        gain = Gain()
        self.assertFalse(gain.worth(NOISE[:100_000]))
        blind = 0
        while not gain.worth(TEXT[:100_000]):
            blind += 100_000
        self.assertGreaterEqual(blind, 4_000_000)
        self.assertLess(blind, 5_000_000)

    def test_what_was_promised_and_does_not_gain_is_given_up(self) -> None:
        gain = Gain(True)
        tried = [self.decide(gain, NOISE[:16_000], 1.0) for _ in range(2000)]
        self.assertEqual(tried[:6], [True] * 5 + [False])
        self.assertEqual(sum(tried), 5)

    def test_little_is_no_gain(self) -> None:
        for after, goes_on in ((0.95, False), (0.85, True)):
            gain = Gain(True)
            for _ in range(10):
                self.decide(gain, TEXT[:16_000], after)
            self.assertEqual(gain.worth(TEXT[:16_000]), goes_on)

    def test_one_message_that_does_not_gain_among_many_that_do(self) -> None:
        gain = Gain(True)
        for number in range(100):
            self.assertTrue(self.decide(gain, TEXT[:16_000], 1.0 if number % 4 == 0 else 0.3))

    def test_a_hint_begins_anew(self) -> None:
        gain = Gain()
        self.assertFalse(gain.worth(NOISE[:10_000]))
        gain.hint(True)
        self.assertTrue(gain.worth(TEXT[:10_000]))
        gain.hint(False)
        self.assertFalse(gain.worth(TEXT[:10_000]))
        gain.hint(None)
        self.assertTrue(gain.worth(TEXT[:10_000]))

    def test_messages_below_the_floor_teach_nothing(self) -> None:
        gain = Gain(True)
        for _ in range(1000):
            gain.learn(SMALLEST - 1, SMALLEST - 1)
        self.assertTrue(gain.worth(TEXT[:10_000]))
