"""A tunnel's life cycle: every input in every state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.fakes_tunnels import FakeLink
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.tunnel import ENDINGS, Traffic, Tunnel
from uaihost.wire.frames import Header
from uaihost.wire.mux import FAILED, STALLED

HEAD = ResponseHead(200, "OK", [])


class ScriptedUpstream:
    """calls: what the tunnel asked for, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def put(self, data: bytes) -> None:
        self.calls.append(f"put {data!r}")

    def end(self) -> None:
        self.calls.append("end")

    def abort(self) -> None:
        self.calls.append("abort")

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")


class SpokenVoice:
    """said: what the tunnel says, in order (tunnel.Voice)."""

    def __init__(self) -> None:
        self.link = FakeLink()
        self.outlet = self.link.outlet("a")
        self.said: list[str] = []

    def interim(self, head: ResponseHead) -> None:
        self.said.append(f"interim {head.status}")

    def head(self, head: ResponseHead) -> None:
        self.said.append(f"head {head.status}")

    def write(self, data: bytes) -> None:
        self.outlet.write(data)

    def refuse(self, code: int, message: str) -> None:
        self.said.append(f"refuse {code} {message}")

    def half(self) -> None:
        self.said.append("half")

    def end(self, trailers: Sequence[Header], reason: str) -> None:
        self.said.append(f"end {list(trailers)} {reason}")

    def fail(self, code: int, reason: str) -> None:
        self.said.append(f"fail {code} {reason}")

    def leave(self, reason: str | None) -> None:
        self.said.append(f"leave {reason}")

    def vanish(self) -> None:
        self.said.append("vanish")

    def over(self) -> None:
        self.said.append("over")


Step = Callable[[Tunnel], None]

# How each state is reached.
STATES: dict[str, list[Step]] = {
    "opening": [],
    "streaming": [lambda t: t.head(HEAD), lambda t: t.trailers([("Digest", "x")])],
    "half": [lambda t: t.head(HEAD), Tunnel.said_all],
    "done": [lambda t: t.failed("before")],
}

INPUTS: dict[str, Step] = {
    "head": lambda t: t.head(HEAD),
    "said_all": Tunnel.said_all,
    "ended": lambda t: t.ended("upstream ended"),
    "failed": lambda t: t.failed("it broke"),
    "given_up": lambda t: t.give_up("too slow"),
    "closed": lambda t: t.close("enough"),
    "cut": Tunnel.cut,
}

Outcome = tuple[list[str], list[str]]

NOTHING: Outcome = ([], [])
LEFT: Outcome = (["leave enough", "over"], ["abort"])
CUT: Outcome = (["vanish", "over"], ["abort"])

# What each input leads to: what is said, and the calls of the upstream.
TABLE: dict[str, dict[str, Outcome]] = {
    "opening": {
        "head": (["head 200"], []),
        "said_all": NOTHING,
        "ended": ([f"refuse {FAILED} upstream ended without an answer", "over"], []),
        "failed": ([f"refuse {FAILED} it broke", "over"], []),
        "given_up": ([f"refuse {STALLED} too slow", "over"], ["abort"]),
        "closed": LEFT,
        "cut": CUT,
    },
    "streaming": {
        "head": NOTHING,
        "said_all": (["half"], []),
        "ended": (["end [('Digest', 'x')] upstream ended", "over"], []),
        "failed": ([f"fail {FAILED} it broke", "over"], []),
        "given_up": ([f"fail {STALLED} too slow", "over"], ["abort"]),
        "closed": LEFT,
        "cut": CUT,
    },
    "half": {
        "head": NOTHING,
        "said_all": NOTHING,
        "ended": (["end [] upstream ended", "over"], []),
        "failed": ([f"fail {FAILED} it broke", "over"], []),
        "given_up": ([f"fail {STALLED} too slow", "over"], ["abort"]),
        "closed": LEFT,
        "cut": CUT,
    },
    "done": dict.fromkeys(INPUTS, NOTHING),
}


class LifeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.voice = SpokenVoice()
        self.upstream = ScriptedUpstream()
        self.traffic = Traffic()
        self.tunnel = Tunnel(self.voice, self.traffic)
        self.tunnel.start(self.upstream)
        self.upstream.calls.clear()

    def test_every_input_in_every_state(self) -> None:
        self.assertEqual(set(TABLE), set(STATES))
        for state, steps in STATES.items():
            self.assertEqual(set(TABLE[state]), set(INPUTS))
            for name, step in INPUTS.items():
                self.setUp()
                for earlier in steps:
                    earlier(self.tunnel)
                self.voice.said.clear()
                step(self.tunnel)
                self.assertEqual(
                    (self.voice.said, self.upstream.calls), TABLE[state][name], f"{name} in {state}"
                )

    def test_after_its_end_nothing_moves_it(self) -> None:
        for last in ("ended", "failed", "given_up", "closed", "cut"):
            self.setUp()
            INPUTS[last](self.tunnel)
            said, calls = list(self.voice.said), list(self.upstream.calls)
            for step in INPUTS.values():
                step(self.tunnel)
            self.assertEqual((self.voice.said, self.upstream.calls), (said, calls), last)
            self.assertEqual(said[-1], "over")
            self.assertEqual(sum(self.traffic.ended.values()), 1, last)

    def test_how_it_ended_is_counted(self) -> None:
        for last, how in {
            "ended": "completed",
            "failed": "failed",
            "given_up": "given_up",
            "closed": "closed",
            "cut": "link_lost",
        }.items():
            self.setUp()
            INPUTS["head"](self.tunnel)
            INPUTS[last](self.tunnel)
            self.assertEqual(self.traffic.ended, {**dict.fromkeys(ENDINGS, 0), how: 1})

    def test_the_upstream_is_the_outlets_producer_while_it_streams(self) -> None:
        for last in (INPUTS["ended"], INPUTS["said_all"], INPUTS["failed"]):
            self.setUp()
            outlet = self.voice.outlet
            self.assertIsNone(outlet.producer)
            self.tunnel.head(HEAD)
            self.assertIs(outlet.producer, self.tunnel)
            self.voice.link.block()
            self.tunnel.body(b"x" * 300_000)
            self.voice.link.unblock()
            self.assertEqual(self.upstream.calls, ["pause", "resume"])
            last(self.tunnel)
            self.assertIsNone(outlet.producer)

    def test_what_the_head_says_of_compressing_is_passed_on_before_the_bytes(self) -> None:
        for value, gains in (("text/html", True), ("image/png", False), ("x/unknown", None)):
            self.setUp()
            self.tunnel.head(ResponseHead(200, "OK", [("Content-Type", value)]))
            self.assertEqual(self.voice.outlet.hints, [gains])

    def test_interim_answers_are_passed_on(self) -> None:
        self.tunnel.interim(ResponseHead(103, "Early Hints", []))
        self.tunnel.head(HEAD)
        self.assertEqual(self.voice.said, ["interim 103", "head 200"])

    def test_bytes_are_counted_and_passed_on(self) -> None:
        self.tunnel.head(HEAD)
        self.tunnel.deliver(b"up")
        self.tunnel.request_end()
        self.tunnel.body(b"down")
        self.assertEqual(self.upstream.calls, ["put b'up'", "end"])
        self.assertEqual(self.voice.link.data("a"), b"down")
        self.assertEqual(self.traffic, Traffic(received=2, sent=4))
