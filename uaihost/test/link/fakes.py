"""The neighbours of the outbound order in memory: a socket with room for some bytes, and producers."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from uaihost.link.outbound import Outbound
from uaihost.link.socket import TRANSPORT_BUFFER


@attrs.frozen
class Sent:
    payload: bytes
    binary: bool
    compress: bool


class Pipe:
    """A socket (link.parcel.Messages) that is full above `capacity` bytes, like Twisted's transports.

    sent: all messages; marks: all pings, which nobody answers; uplinks: the speeds it was told; closes: what
    `close` was called with. `drain` makes room.
    """

    smallest = 256

    def __init__(self, capacity: int = TRANSPORT_BUFFER) -> None:
        self.capacity = capacity
        self.sent: list[Sent] = []
        self.marks: list[bytes] = []
        self.uplinks: list[float | None] = []
        self.closes: list[tuple[int, str]] = []
        self.traffic = False
        self.reading = True
        self.held = 0
        self.full = False
        self.producer: IPushProducer | None = None

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming and self.producer is None
        self.producer = producer

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        # The bytes that a tunnel.data announced follow it, whatever its own bytes did to the room.
        assert not self.full or binary, "written while full"
        self.sent.append(Sent(payload, binary, compress))
        self.held += len(payload)
        if self.held > self.capacity and not self.full:
            self.full = True
            assert self.producer is not None
            self.producer.pauseProducing()
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        self.marks.append(payload)

    def set_uplink(self, rate: float | None) -> None:
        self.uplinks.append(rate)

    def drain(self) -> None:
        self.held = 0
        if self.full:
            self.full = False
            assert self.producer is not None
            self.producer.resumeProducing()

    def attach(self, receiver: object) -> None:
        self.receiver = receiver

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        self.closes.append((code, reason))

    def texts(self) -> list[bytes]:
        return [message.payload for message in self.sent if not message.binary]


@implementer(IPushProducer)
class Spring:
    """A producer that obeys; `produce` is called whenever it may go on."""

    def __init__(self, produce: Callable[[], None] = lambda: None) -> None:
        self.paused = False
        self.pauses = 0
        self._produce = produce

    def pauseProducing(self) -> None:
        assert not self.paused, "paused twice"
        self.paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        assert self.paused, "resumed without a pause"
        self.paused = False
        self._produce()

    def stopProducing(self) -> None:
        raise AssertionError("an outlet never stops a producer")


def endless(outbound: Outbound, tunnel_id: str, size: int) -> Callable[[], None]:
    """A tunnel whose upstream always has `size` more bytes; calling the result starts it."""
    outlet = outbound.outlet(tunnel_id)
    chunk = tunnel_id[:1].encode() * size

    def produce() -> None:
        while not spring.paused:
            outlet.write(chunk)

    spring = Spring(produce)
    outlet.registerProducer(spring, True)
    return produce
