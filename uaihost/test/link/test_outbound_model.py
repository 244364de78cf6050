"""Tunnels of both kinds in any order of events: windows are kept, order too, and nothing waits for ever."""

from __future__ import annotations

import re
from typing import Any

import attrs
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.flight import MOST_CHUNK, MOST_MARKS
from uaihost.link.outbound import HIGH_WATER, SPARSE, Outbound
from uaihost.test.link.fakes import Pipe, Spring
from uaihost.test.support import settings, strategies
from uaihost.wire import mux

_ANNOUNCED = re.compile(rb'\{"kind":"tunnel.data","tunnelId":"(\d+)"\}\Z')
_SIZES = strategies.sampled_from([1, 100, 3000, 30_000, 70_000, 3 * MOST_CHUNK])
_WHICH = strategies.integers(0, 5)


@attrs.define
class Said:
    """One tunnel: what it was told to send, what came, and what its window permits."""

    number: int
    muxed: bool
    outlet: Any
    spring: Spring
    wanted: list[bytes] = attrs.field(factory=list)
    came: list[bytes] = attrs.field(factory=list)
    left: int = mux.TUNNEL_WINDOW
    discarded: bool = False

    def add(self, parts: list[bytes], part: bytes) -> None:
        """Data that follows data is one part."""
        if part.startswith(b"data:") and parts and parts[-1].startswith(b"data:"):
            parts[-1] += part[5:]
        else:
            parts.append(part)


class _Peer(Pipe):
    """The other end: it reads what was sent, and keeps the windows by its own book."""

    def __init__(self, machine: Links, capacity: int) -> None:
        super().__init__(capacity)
        self._machine = machine
        self._announced: int | None = None

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        machine = self._machine
        if not binary and (found := _ANNOUNCED.match(payload)):
            assert self._announced is None
            self._announced = int(found[1])
        elif binary and self._announced is not None:
            machine.hear(self._announced, b"data:" + payload)
            self._announced = None
        elif binary:
            for kind, number, content in mux.frames(payload):
                machine.hear_mux(kind, number, content)
        else:
            assert self._announced is None, "a message between header and bytes"
            machine.hear_text(payload)
        size = super().send_message(payload, binary, compress, history)
        self.sent.clear()
        return size


class Links(RuleBasedStateMachine):
    @initialize(capacity=strategies.sampled_from([1, 1000, 2 << 20, 8 << 20]), measured=strategies.booleans())
    def begin(self, capacity: int, measured: bool) -> None:
        self.clock = Clock()
        self.pipe = _Peer(self, capacity)
        self.outbound = Outbound(self.pipe, self.clock)
        self.left = mux.LINK_WINDOW
        self.tunnels: dict[int, Said] = {}
        self.live: list[Said] = []
        self.urgent: list[bytes] = []
        self.heard_urgent: list[bytes] = []
        self.controls: list[bytes] = []
        self.heard_controls: list[bytes] = []
        self.count = 0
        for place in range(6):
            self.live.append(self.open(place))
        if measured:
            self.control(0)
            self.clock.advance(0.01)
            self.answer(0)

    def open(self, place: int) -> Said:
        number = len(self.tunnels) + 1
        muxed = place < 4
        outlet = self.outbound.stream(number) if muxed else self.outbound.outlet(str(number))
        spring = Spring()
        outlet.registerProducer(spring, True)
        said = self.tunnels[number] = Said(number, muxed, outlet, spring)
        return said

    # ---- what the other end hears

    def hear(self, number: int, part: bytes) -> None:
        said = self.tunnels[number]
        assert not said.discarded, "something of a discarded tunnel"
        assert self.outbound.control_waiting == 0, "a tunnel before a control frame"
        flight = self.outbound._flight
        # A turn that began inside the window may end a chunk and some frames beyond it.
        beyond = -flight.room - flight.chunk - SPARSE
        assert beyond < flight.reserve, "beyond the window, and beyond what is kept for the sparse"
        assert beyond < 0 or len(part) <= SPARSE, "much beyond the window"
        said.add(said.came, part)

    def hear_mux(self, kind: int, number: int, content: bytes) -> None:
        if kind == mux.CREDIT:
            self.heard_urgent.append(content)
            return
        if kind == mux.DATA:
            said = self.tunnels[number]
            said.left -= len(content)
            self.left -= len(content)
            assert said.left >= 0 and self.left >= 0, "beyond a window"
            self.hear(number, b"data:" + content)
        else:
            self.hear(number, b"frame:%d:" % kind + content)

    def hear_text(self, payload: bytes) -> None:
        if payload.startswith(b"control"):
            self.heard_controls.append(payload)
        else:
            self.hear(int(payload.split()[1]), payload)

    # ---- what happens

    @rule(place=_WHICH, size=_SIZES)
    def write_at_once(self, place: int, size: int) -> None:
        self.write(place, size)
        self.clock.advance(0)

    @rule(place=_WHICH, size=_SIZES)
    def write(self, place: int, size: int) -> None:
        said = self.live[place]
        self.count += 1
        data = (b"%d," % self.count * size)[:size]
        said.add(said.wanted, b"data:" + data)
        said.outlet.write(data)

    @rule(place=_WHICH, last=strategies.booleans())
    def frame(self, place: int, last: bool) -> None:
        said = self.live[place]
        self.count += 1
        kind = mux.END if last else mux.HEAD
        content = b"%d" % self.count
        if said.muxed:
            said.wanted.append(b"frame:%d:" % kind + content)
            payload = mux.frame(kind, said.number, content)
        else:
            payload = b"frame %d %s" % (said.number, content)
            said.wanted.append(payload)
        if last:
            said.outlet.finish(payload)
            self.live[place] = self.open(place)
        else:
            said.outlet.frame(payload)

    @rule(place=_WHICH)
    def discard(self, place: int) -> None:
        self.live[place].discarded = True
        self.live[place].outlet.discard()
        self.live[place] = self.open(place)

    @rule(number=strategies.integers(0, 50), size=_SIZES)
    def credit(self, number: int, size: int) -> None:
        said = list(self.tunnels.values())[number % len(self.tunnels)]
        if said.muxed:
            said.left += size
            said.outlet.credit(size)

    @rule(size=_SIZES)
    def link_credit(self, size: int) -> None:
        self.left += size
        self.outbound.credit(size)

    @rule()
    def say_urgent(self) -> None:
        self.count += 1
        self.urgent.append(self.count.to_bytes(4, "big"))
        self.outbound.urgent(mux.credit_frame(0, self.count))

    @rule(size=strategies.integers(0, 2000))
    def control(self, size: int) -> None:
        self.count += 1
        self.controls.append(b"control %d" % self.count + bytes(size))
        self.outbound.control(self.controls[-1])

    @rule(seconds=strategies.sampled_from([0.0, 0.001, 0.1, 11.0]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def drain(self) -> None:
        self.pipe.drain()

    @precondition(lambda self: self.pipe.marks)
    @rule(which=strategies.integers(0, 20))
    def answer(self, which: int) -> None:
        which %= len(self.pipe.marks)
        payload = self.pipe.marks[which]
        del self.pipe.marks[: which + 1]
        self.outbound.marked(payload)

    @rule(deaf=strategies.booleans())
    def deafen(self, deaf: bool) -> None:
        self.outbound.deaf(deaf)

    # ---- what always holds

    @invariant()
    def bounded(self) -> None:
        outbound = self.outbound
        assert len(self.pipe.marks) <= MOST_MARKS
        assert outbound.total >= 0 and outbound.held >= 0
        for said in self.live:
            over = said.outlet.waiting > HIGH_WATER
            assert said.spring.paused or not over, "more than its share waits, and its producer goes on"

    def teardown(self) -> None:
        """Once there is room, credit and answers, everything leaves and every producer may go on."""
        if not hasattr(self, "outbound"):
            return
        self.outbound.deaf(False)
        for _ in range(3000):
            self.clock.advance(0.01)
            self.pipe.drain()
            marks, self.pipe.marks = self.pipe.marks, []
            for payload in marks:
                self.outbound.marked(payload)
            if not self.clock.getDelayedCalls() and not self.pipe.full:
                short = [said for said in self.tunnels.values() if said.muxed and not said.left]
                if not marks and self.left and not short:
                    break
                for said in short:
                    said.left += 1 << 20
                    said.outlet.credit(1 << 20)
                if not self.left:
                    self.left += 1 << 20
                    self.outbound.credit(1 << 20)
        else:
            raise AssertionError("it does not come to rest")
        assert (self.outbound.total, self.outbound.held, self.outbound.control_waiting) == (0, 0, 0)
        assert self.heard_controls == self.controls
        assert self.heard_urgent == self.urgent
        for said in self.tunnels.values():
            if said.discarded:
                assert b"".join(said.wanted).startswith(b"".join(said.came))
            else:
                assert said.came == said.wanted
        assert not any(said.spring.paused for said in self.live)


class ModelTests(SynchronousTestCase):
    def test_any_order_of_events(self) -> None:
        run(Links, settings=settings(max_examples=150, stateful_step_count=60))
