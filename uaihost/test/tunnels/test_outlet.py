"""The promises of an outlet, kept by the fake that other tests use and by the real one."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import Outlet
from uaihost.link.outbound import Outbound
from uaihost.test.fakes_tunnels import FakeLink, Link, OutletContract
from uaihost.wire.codec import from_host
from uaihost.wire.frames import TunnelData


class FakeOutletTests(OutletContract, SynchronousTestCase):
    def make_link(self) -> Link:
        return FakeLink()


class OutboundTests(OutletContract, SynchronousTestCase):
    def make_link(self) -> Link:
        return RealLink()


class RealLink:
    """An Outbound over a socket in memory."""

    smallest = 256

    def __init__(self) -> None:
        self._messages: list[tuple[bytes, bool]] = []
        self._scheduler: IPushProducer | None = None
        self._clock = Clock()
        self._outbound = Outbound(self, self._clock)

    # link.parcel.Messages

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        self._messages.append((payload, binary))
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        """Nobody answers it."""

    def set_uplink(self, rate: float | None) -> None:
        raise AssertionError("without an answer nothing is known")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._scheduler = producer

    # uaihost.test.fakes_tunnels.Link

    def outlet(self, tunnel_id: str) -> Outlet:
        return self._outbound.outlet(tunnel_id)

    def block(self) -> None:
        assert self._scheduler is not None
        self._scheduler.pauseProducing()

    def unblock(self) -> None:
        assert self._scheduler is not None
        self._scheduler.resumeProducing()

    def frames(self) -> list[Any]:
        return [
            frame
            for payload, binary in self._messages
            if not binary and not isinstance(frame := from_host(payload), TunnelData)
        ]

    def data(self, tunnel_id: str) -> bytes:
        found, announced = b"", None
        for payload, binary in self._messages:
            if binary:
                found += payload if announced == tunnel_id else b""
                announced = None
            elif isinstance(frame := from_host(payload), TunnelData):
                announced = frame.tunnelId
        return found

    def order(self) -> list[str]:
        """Pieces that follow one another count as one: how they are cut is the scheduler's."""
        kinds: list[str] = []
        for payload, binary in self._messages:
            frame = None if binary else from_host(payload)
            if binary and kinds[-1:] != ["data"]:
                kinds.append("data")
            elif frame is not None and not isinstance(frame, TunnelData):
                kinds.append(type(frame).__name__)
        return kinds
