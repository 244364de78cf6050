"""A process with nothing in it but the host's end of tunnels, so that its memory is theirs alone.

    python -m uaihost.test.integration.tunnels_host LINK_PORT UPSTREAM_PORT

It connects to LINK_PORT, where messages are framed by five bytes: 0 for text or 1 for binary, and the length,
big-endian. The preview `web` of task `t` is at UPSTREAM_PORT. It ends with the connection.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from uaihost.interfaces import Address
from uaihost.link.outbound import Outbound
from uaihost.tunnels.table import TunnelTable
from uaihost.tunnels.targets import PortTable
from uaihost.wire.codec import from_bridge
from uaihost.wire.frames import TunnelClose, TunnelData, TunnelOpen, TunnelRequestEnd

FRAME = struct.Struct(">BI")

reactor: Any = global_reactor


class FramedLink(Protocol):
    """The link: Outbound's socket below, LinkInput, and the reader of frames."""

    smallest = 256
    transport: Any

    def __init__(self, upstream: Address) -> None:
        targets = PortTable()
        targets.set_task("t", None, {"web": upstream})
        self._table = TunnelTable(reactor, targets)
        self._received = bytearray()
        self._announced = ""
        self._holds: set[object] = set()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.bufferSize = 128 * 1024
        outbound = Outbound(self, reactor)
        self._table.link_up(outbound, self, lambda reason: None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._table.stop()
        reactor.callLater(0, reactor.stop)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        start = 0
        while len(self._received) - start >= FRAME.size:
            binary, size = FRAME.unpack_from(self._received, start)
            end = start + FRAME.size + size
            if len(self._received) < end:
                break
            with memoryview(self._received) as view:
                payload = bytes(view[start + FRAME.size : end])
            start = end
            self._take(payload, bool(binary))
        del self._received[:start]

    def _take(self, payload: bytes, binary: bool) -> None:
        if binary:
            self._table.deliver(self._announced, payload)
            return
        frame = from_bridge(payload)
        if isinstance(frame, TunnelData):
            self._announced = frame.tunnelId
        elif isinstance(frame, TunnelOpen):
            self._table.open(frame)
        elif isinstance(frame, TunnelRequestEnd):
            self._table.request_end(frame)
        elif isinstance(frame, TunnelClose):
            self._table.close(frame)
        else:
            raise AssertionError(f"no frame for tunnels: {frame}")

    # link.parcel.Messages

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        self.transport.writeSequence([FRAME.pack(binary, len(payload)), payload])
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        """Nobody answers it."""

    def set_uplink(self, rate: float | None) -> None:
        raise AssertionError("without an answer nothing is known")

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.transport.registerProducer(producer, streaming)

    # interfaces.LinkInput

    def hold(self, reason: object) -> None:
        self._holds.add(reason)
        self.transport.pauseProducing()

    def release(self, reason: object) -> None:
        self._holds.remove(reason)
        if not self._holds:
            self.transport.resumeProducing()


def main(link_port: int, upstream_port: int) -> None:
    upstream = Address("127.0.0.1", upstream_port)
    connecting = connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", link_port), FramedLink(upstream))
    connecting.addErrback(lambda _: reactor.callLater(0, reactor.stop))
    reactor.run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
