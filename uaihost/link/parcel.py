"""What leaves as one message: frames of mux.1 put together, and the socket that takes messages.

A message costs its writer and its reader more than a small frame does. It knows neither turns nor tunnels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twisted.internet.interfaces import IPushProducer

from uaihost.link.compression import Gain


class Messages(Protocol):
    """The socket below (link.socket.MessageSocket)."""

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        """One message; the bytes of its payload on the wire."""

    def send_mark(self, payload: bytes) -> None:
        """A ping, whose pong comes to `Outbound.marked`."""

    def set_uplink(self, rate: float | None) -> None:
        """What the way to the other end takes, bytes per second."""

    @property
    def smallest(self) -> int:
        """Bytes of the shortest message that is compressed at all."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """`producer` is paused and resumed as the transport's room goes and comes."""


class Parcel:
    """The message of mux.1 that is being put together.

    size: bytes in it; gain: of whom all of it is, if it is to be compressed.
    """

    __slots__ = ("_pieces", "gain", "size")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0
        self.gain: Gain | None = None

    def add(self, gain: Gain | None, pieces: Iterable[bytes]) -> None:
        """More of it; `gain` as of what is in it already."""
        self.gain = gain
        for piece in pieces:
            self._pieces.append(piece)
            self.size += len(piece)

    def take(self) -> tuple[bytes, Gain | None]:
        """The message; a new one begins."""
        payload, gain = b"".join(self._pieces), self.gain
        self._pieces.clear()
        self.size = 0
        self.gain = None
        return payload, gain
