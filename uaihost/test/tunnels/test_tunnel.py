"""A tunnel's life cycle: every input in every state."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.fakes_tunnels import FakeLink
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.tunnel import Traffic, Tunnel

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


Step = Callable[[Tunnel], None]

# How each state is reached.
STATES: dict[str, list[Step]] = {
    "opening": [],
    "awaiting_head": [Tunnel.connected],
    "streaming": [Tunnel.connected, lambda t: t.head(HEAD)],
    "done": [lambda t: t.failed("before")],
}

INPUTS: dict[str, Step] = {
    "connected": Tunnel.connected,
    "head": lambda t: t.head(HEAD),
    "ended": lambda t: t.ended("upstream ended"),
    "failed": lambda t: t.failed("it broke"),
    "given_up": lambda t: t.give_up("too slow"),
    "closed": lambda t: t.close("enough"),
    "cut": Tunnel.cut,
}

Outcome = tuple[list[str], list[str], bool]

NOTHING: Outcome = ([], [], False)
ACK: Outcome = (["ack 200"], [], False)
ENDED: Outcome = (["close upstream ended"], [], True)
ANSWERED: Outcome = (["close enough"], ["abort"], True)
CUT: Outcome = ([], ["abort"], True)

# What each input leads to: frames that leave, calls of the upstream, whether the tunnel is over by it.
TABLE: dict[str, dict[str, Outcome]] = {
    state: {
        "connected": NOTHING,
        "head": ACK,
        "ended": (["refusal 502 upstream ended without an answer"], [], True),
        "failed": (["refusal 502 it broke"], [], True),
        "given_up": (["refusal 502 too slow"], ["abort"], True),
        "closed": ANSWERED,
        "cut": CUT,
    }
    for state in ("opening", "awaiting_head")
}
TABLE["streaming"] = {
    "connected": NOTHING,
    "head": NOTHING,
    "ended": ENDED,
    "failed": (["close it broke"], [], True),
    "given_up": (["close too slow"], ["abort"], True),
    "closed": ANSWERED,
    "cut": CUT,
}
TABLE["done"] = dict.fromkeys(INPUTS, NOTHING)


class LifeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.link = FakeLink()
        self.upstream = ScriptedUpstream()
        self.traffic = Traffic()
        self.overs = 0
        self.tunnel = Tunnel("a", self.link.outlet, lambda tunnel: self.upstream, self.traffic, self.over)

    def over(self) -> None:
        self.overs += 1

    def said(self) -> list[str]:
        words = []
        for frame in self.link.frames():
            if not hasattr(frame, "ok"):
                words.append(f"close {frame.reason}")
            elif frame.ok:
                words.append(f"ack {frame.status}")
            else:
                words.append(f"refusal {frame.status} {frame.message}")
        return words

    def test_every_input_in_every_state(self) -> None:
        self.assertEqual(set(TABLE), set(STATES))
        for state, steps in STATES.items():
            self.assertEqual(set(TABLE[state]), set(INPUTS))
            for name, step in INPUTS.items():
                self.setUp()
                for earlier in steps:
                    earlier(self.tunnel)
                before, overs = len(self.link.frames()), self.overs
                self.upstream.calls.clear()
                step(self.tunnel)
                self.assertEqual(
                    (self.said()[before:], self.upstream.calls, self.overs > overs),
                    TABLE[state][name],
                    f"{name} in {state}",
                )

    def test_after_its_end_nothing_moves_it(self) -> None:
        for last in ("ended", "failed", "given_up", "closed", "cut"):
            self.setUp()
            self.tunnel.connected()
            INPUTS[last](self.tunnel)
            said, calls = self.said(), list(self.upstream.calls)
            for step in INPUTS.values():
                step(self.tunnel)
            self.assertEqual((self.said(), self.upstream.calls, self.overs), (said, calls, 1), last)

    def test_the_upstream_is_the_outlets_producer_while_it_streams(self) -> None:
        outlet = self.link.outlets[0]
        self.assertIsNone(outlet.producer)
        self.tunnel.head(HEAD)
        self.assertIs(outlet.producer, self.tunnel)
        self.link.block()
        self.tunnel.body(b"x" * 300_000)
        self.link.unblock()
        self.assertEqual(self.upstream.calls, ["pause", "resume"])
        self.tunnel.ended("upstream ended")
        self.assertIsNone(outlet.producer)

    def test_bytes_are_counted_and_passed_on(self) -> None:
        self.tunnel.start()
        self.tunnel.head(HEAD)
        self.tunnel.deliver(b"up")
        self.tunnel.request_end()
        self.tunnel.body(b"down")
        self.assertEqual(self.upstream.calls, ["start", "put b'up'", "end"])
        self.assertEqual((self.link.data("a"), self.traffic), (b"down", Traffic(received=2, sent=4)))
