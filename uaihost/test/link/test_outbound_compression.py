"""Which frames of mux.1 share a compressed message: one tunnel's DATA and nothing else."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.outbound import Outbound
from uaihost.test.link.fakes import Pipe
from uaihost.test.link.test_compression import NOISE, TEXT
from uaihost.test.support import given, settings, strategies
from uaihost.wire import mux

_acts = strategies.lists(
    strategies.tuples(
        strategies.integers(1, 3),
        strategies.sampled_from(["head", "write", "write", "turn", "urgent", "control"]),
        strategies.sampled_from([TEXT, NOISE]),
        strategies.sampled_from([1, 300, 3000]),
    ),
    max_size=20,
)
_hints = strategies.tuples(*[strategies.sampled_from([True, False, None])] * 3)


class CompressedMessageTests(SynchronousTestCase):
    @settings(max_examples=200)
    @given(_acts, _hints)
    def test_what_is_compressed_is_one_tunnels_data(
        self, acts: list[tuple[int, str, bytes, int]], hints: tuple[bool | None, ...]
    ) -> None:
        clock, pipe = Clock(), Pipe(1 << 30)
        outbound = Outbound(pipe, clock)
        streams: dict[int, Any] = {number: outbound.stream(number) for number in (1, 2, 3)}
        for number, hint in enumerate(hints, 1):
            streams[number].hint(hint)
        written = dict.fromkeys(streams, b"")
        for number, act, source, size in acts:
            if act == "head":
                streams[number].frame(
                    mux.head_frame(number, mux.Head(True, 200, "OK", [("Set-Cookie", "s=1")]))
                )
            elif act == "write":
                streams[number].write(source[:size])
                written[number] += source[:size]
            elif act == "urgent":
                outbound.urgent(mux.credit_frame(number, size))
            elif act == "control":
                outbound.control(b"{}")
            else:
                clock.advance(0)
        clock.advance(0)
        arrived = dict.fromkeys(streams, b"")
        for sent in pipe.sent:
            if not sent.binary:
                continue
            frames = list(mux.frames(sent.payload))
            for kind, number, payload in frames:
                if kind == mux.DATA:
                    arrived[number] += payload
            if sent.compress:
                self.assertEqual({kind for kind, _, _ in frames}, {mux.DATA})
                self.assertEqual(len({number for _, number, _ in frames}), 1)
                self.assertIsNot(hints[frames[0][1] - 1], False)
        self.assertTrue(arrived == written)

    def test_text_is_compressed_and_its_head_is_not(self) -> None:
        clock, pipe = Clock(), Pipe(1 << 30)
        stream = Outbound(pipe, clock).stream(5)
        stream.hint(True)
        stream.frame(mux.head_frame(5, mux.Head(True, 200, "OK", [("Set-Cookie", "s=1")])))
        stream.write(TEXT[:3000])
        stream.finish(mux.end_frame(5))
        clock.advance(0)
        self.assertEqual(
            [([kind for kind, _, _ in mux.frames(sent.payload)], sent.compress) for sent in pipe.sent],
            [([mux.HEAD], False), ([mux.DATA], True), ([mux.END], False)],
        )

    def test_what_is_not_compressed_leaves_together(self) -> None:
        clock, pipe = Clock(), Pipe(1 << 30)
        stream = Outbound(pipe, clock).stream(5)
        stream.hint(False)
        stream.frame(mux.head_frame(5, mux.Head(True, 200, "OK", [])))
        stream.write(TEXT[:3000])
        stream.finish(mux.end_frame(5))
        clock.advance(0)
        [sent] = pipe.sent
        self.assertFalse(sent.compress)
        self.assertEqual(len(list(mux.frames(sent.payload))), 3)
