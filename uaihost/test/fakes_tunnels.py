"""Verified fakes of what tunnels need of the link: `interfaces.LinkOutput` and `interfaces.LinkInput`.

`OutletContract` is what an outlet promises; it runs against the fake and against `link.outbound`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.wire import mux
from uaihost.wire.codec import encode, from_host
from uaihost.wire.credit import WindowOverflow
from uaihost.wire.frames import Frame, TunnelAck

# Bytes that may wait in one outlet before its producer is paused.
SHARE = 256 * 1024


class FakeLink:
    """A link in memory. sent: what has left, in order: encoded frames and pairs of a tunnel's id and bytes.

    muxed: the frames of mux.1 that have left, (type, tunnel, payload); link_credit: what it was given for all
    tunnels, whose sum it does not bound; round_trip: seconds.
    holds: the reasons for which the input is held now; history: every hold and release; left: called whenever
    something has left.
    """

    left: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.sent: list[bytes | tuple[str, bytes]] = []
        self.blocked = False
        self.holds: list[object] = []
        self.history: list[tuple[str, object]] = []
        self.outlets: list[FakeOutlet] = []
        self.muxed: list[tuple[int, int, bytes]] = []
        self.streams: dict[int, FakeOutlet] = {}
        self.round_trip: float | None = 0.1
        self.link_credit = 0
        self.urgent_waiting = 0

    def control(self, payload: bytes, compress: bool = False) -> None:
        self.sent.append(payload)

    def stream(self, number: int) -> FakeOutlet:
        made = self.streams[number] = FakeOutlet(self, number)
        self.outlets.append(made)
        return made

    def urgent(self, frame: bytes) -> None:
        self.muxed += mux.frames(frame)

    def credit(self, size: int) -> None:
        self.link_credit += size

    def outlet(self, tunnel_id: str) -> FakeOutlet:
        made = FakeOutlet(self, tunnel_id)
        self.outlets.append(made)
        return made

    def block(self) -> None:
        """Nothing leaves any more."""
        self.blocked = True

    def unblock(self) -> None:
        """All that waits leaves."""
        self.blocked = False
        for outlet in list(self.outlets):
            outlet.drain()

    # interfaces.LinkInput

    def hold(self, reason: object) -> None:
        assert reason not in self.holds
        self.holds.append(reason)
        self.history.append(("hold", reason))

    def release(self, reason: object) -> None:
        self.holds.remove(reason)
        self.history.append(("release", reason))

    # For assertions.

    def frames(self) -> list[Any]:
        """The frames that have left, decoded."""
        return [from_host(item) for item in self.sent if isinstance(item, bytes)]

    def data(self, tunnel_id: str) -> bytes:
        """The tunnel's bytes that have left."""
        return b"".join(item[1] for item in self.sent if isinstance(item, tuple) and item[0] == tunnel_id)

    def order(self) -> list[str]:
        """What has left, by kind: frames by their type's name, bytes as "data"."""
        return ["data" if isinstance(item, tuple) else type(from_host(item)).__name__ for item in self.sent]


class FakeOutlet:
    """One tunnel's way out (interfaces.Outlet): a name for revision 1, a number for mux.1.

    left: bytes that may leave for the credit there is. hints: what was said of compressing.
    """

    def __init__(self, link: FakeLink, tunnel: str | int) -> None:
        self._link = link
        self._tunnel = tunnel
        # (is data, payload), in order.
        self._waiting: list[tuple[bool, bytes]] = []
        self._size = 0
        self._finished = False
        self._gone = False
        self._paused = False
        self.left = mux.TUNNEL_WINDOW if isinstance(tunnel, int) else 1 << 62
        self.producer: IPushProducer | None = None
        self.hints: list[bool | None] = []

    def frame(self, payload: bytes) -> None:
        self._put(False, payload)

    def write(self, data: bytes) -> None:
        assert type(data) is bytes
        if data:
            self._put(True, data)

    def finish(self, payload: bytes) -> None:
        self.unregisterProducer()
        self._put(False, payload)
        self._finished = True

    def discard(self) -> None:
        self._gone = True
        self._waiting.clear()
        self.unregisterProducer()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        assert self.producer is None
        self.producer = producer
        if self._paused:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def hint(self, gains: bool | None) -> None:
        self.hints.append(gains)

    def credit(self, size: int) -> None:
        assert isinstance(self._tunnel, int), "revision 1 has no credit"
        if self.left + size > mux.MAX_WINDOW:
            raise WindowOverflow("a window of more than the largest")
        self.left += size
        if not self._link.blocked:
            self.drain()

    def _put(self, data: bool, payload: bytes) -> None:
        if self._gone:
            return
        assert not self._finished, "nothing follows an outlet's last frame"
        self._waiting.append((data, payload))
        self._size += len(payload)
        if not self._link.blocked:
            self.drain()
        if self._size > SHARE and not self._paused:
            self._paused = True
            if self.producer is not None:
                self.producer.pauseProducing()

    def drain(self) -> None:
        left = False
        while self._waiting and (self.left or not self._waiting[0][0]):
            left = True
            data, payload = self._waiting.pop(0)
            if data and len(payload) > self.left:
                self._waiting.insert(0, (True, payload[self.left :]))
                payload = payload[: self.left]
            self._size -= len(payload)
            self._leave(data, payload)
        if left and self._link.left is not None:
            self._link.left()
        if self._paused and self._size <= SHARE:
            self._paused = False
            if self.producer is not None:
                self.producer.resumeProducing()

    def _leave(self, data: bool, payload: bytes) -> None:
        tunnel = self._tunnel
        if isinstance(tunnel, str):
            self._link.sent.append((tunnel, payload) if data else payload)
        elif data:
            self.left -= len(payload)
            self._link.muxed.append((mux.DATA, tunnel, payload))
        else:
            self._link.muxed += mux.frames(payload)


@implementer(IPushProducer)
class RecordingProducer:
    """states: every call, in order."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def pauseProducing(self) -> None:
        self.states.append("paused")

    def resumeProducing(self) -> None:
        self.states.append("resumed")

    def stopProducing(self) -> None:
        self.states.append("stopped")


class Link(Protocol):
    """What the contract needs of a link: `sent` and `order` as those of FakeLink."""

    def outlet(self, tunnel_id: str) -> Outlet: ...

    def block(self) -> None: ...

    def unblock(self) -> None: ...

    def frames(self) -> list[Any]: ...

    def data(self, tunnel_id: str) -> bytes: ...

    def order(self) -> list[str]: ...


def _ack(tunnel_id: str) -> Frame:
    return TunnelAck(tunnel_id, True, 200, statusText="OK", headers=[])


class OutletContract:
    """Mixed into a test case that says how a link is made."""

    make_link: Callable[[], Link]

    def _case(self) -> SynchronousTestCase:
        assert isinstance(self, SynchronousTestCase)
        return self

    def test_frames_and_data_leave_in_order(self) -> None:
        link = self.make_link()
        for block in (False, True):
            if block:
                link.block()
            outlet = link.outlet("a")
            outlet.frame(encode(_ack("a")))
            outlet.write(b"one")
            outlet.finish(encode(TunnelAck("a", False, 502, message="x")))
        link.unblock()
        self._case().assertEqual(link.order(), ["TunnelAck", "data", "TunnelAck"] * 2)
        self._case().assertEqual(link.data("a"), b"oneone")

    def test_a_last_frame_does_not_overtake_data(self) -> None:
        link = self.make_link()
        link.block()
        outlet = link.outlet("a")
        for number in range(20):
            outlet.write(bytes([number]) * 10_000)
        outlet.finish(encode(TunnelAck("a", False, 502, message="the end")))
        link.unblock()
        self._case().assertEqual(link.order()[-1], "TunnelAck")
        self._case().assertEqual(link.data("a"), b"".join(bytes([n]) * 10_000 for n in range(20)))

    def test_a_producer_is_paused_above_its_share_and_resumed_when_there_is_room(self) -> None:
        link = self.make_link()
        outlet = link.outlet("a")
        producer = RecordingProducer()
        outlet.registerProducer(producer, True)
        link.block()
        outlet.write(b"x" * 1000)
        self._case().assertEqual(producer.states, [])
        outlet.write(b"x" * (SHARE + 1))
        self._case().assertEqual(producer.states, ["paused"])
        link.unblock()
        self._case().assertEqual(producer.states, ["paused", "resumed"])

    def test_a_producer_that_comes_to_a_full_outlet_is_paused_at_once(self) -> None:
        link = self.make_link()
        link.block()
        outlet = link.outlet("a")
        outlet.write(b"x" * (SHARE + 1))
        producer = RecordingProducer()
        outlet.registerProducer(producer, True)
        self._case().assertEqual(producer.states, ["paused"])

    def test_an_unregistered_producer_is_left_alone(self) -> None:
        link = self.make_link()
        outlet = link.outlet("a")
        producer = RecordingProducer()
        outlet.registerProducer(producer, True)
        outlet.unregisterProducer()
        link.block()
        outlet.write(b"x" * (SHARE + 1))
        link.unblock()
        self._case().assertEqual(producer.states, [])

    def test_what_is_discarded_never_leaves_and_its_id_can_speak_anew(self) -> None:
        link = self.make_link()
        link.block()
        outlet = link.outlet("a")
        outlet.registerProducer(RecordingProducer(), True)
        outlet.write(b"old" * 100_000)
        outlet.discard()
        outlet.write(b"later")
        link.outlet("a").finish(encode(_ack("a")))
        link.unblock()
        self._case().assertEqual(link.order(), ["TunnelAck"])

    def test_one_outlet_does_not_hold_up_another(self) -> None:
        link = self.make_link()
        first, second = RecordingProducer(), RecordingProducer()
        one, other = link.outlet("a"), link.outlet("b")
        one.registerProducer(first, True)
        other.registerProducer(second, True)
        link.block()
        one.write(b"x" * (SHARE + 1))
        other.write(b"y")
        self._case().assertEqual((first.states, second.states), (["paused"], []))
