"""What both ends of the bridge WebSocket share: an open socket that sends and delivers whole messages.

It knows Autobahn and TCP; it knows neither frames nor tunnels. Whoever reads it is a `Receiver`.
"""

from __future__ import annotations

import socket as sockets
import sys
from typing import Any, Protocol

from autobahn.twisted.websocket import WebSocketAdapterProtocol
from autobahn.util import encode_truncate
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.link.compression import Deflate

log = Logger()

# Bytes read from the kernel at once, and written to the transport before it pauses its producer: Twisted has
# one number for both. Its default of 64 KiB means four times the calls in bulk. What is on its way is bounded
# by link.flight, and much more here would be a longer turn of the reactor.
TRANSPORT_BUFFER = 256 * 1024

# Bytes the kernel may hold unsent before the socket counts as full (tcp(7), Linux 3.12). Without it the send
# buffer grows to MiB, and everything urgent waits behind them.
NOT_SENT_LOW_WATER = 256 * 1024
# linux/tcp.h; the socket module names it from Python 3.12 on.
_TCP_NOTSENT_LOWAT = 25

# Seconds between the first close frame and the end of the TCP connection (docs/protocol.md, section 1).
CLOSE_TIMEOUT = 5.0

# Bytes handed to Autobahn at once unless they belong to one frame: it copies the rest of what it was given
# for every frame in it, so that a large read full of small frames would cost its square.
_PARSE_SIZE = 16 * 1024

# Bytes of one message, sent or received after inflating. The largest legal one is a result or a command with
# an attachment in base64; the bound keeps a hostile or broken peer from taking all memory.
MAX_MESSAGE = 64 * 1024 * 1024


class Receiver(Protocol):
    """Who reads a socket."""

    def text(self, payload: bytes) -> None:
        """A text message, valid UTF-8."""

    def binary(self, payload: bytes) -> None:
        """A binary message."""

    def marked(self, payload: bytes) -> None:
        """The other end has read up to a mark (`MessageSocket.send_mark`)."""

    def closed(self, code: int | None, reason: str) -> None:
        """The last call: the connection is gone.

        code: ours if we closed first, else the peer's; None when it gave none; 1006 without a closing
        handshake (RFC 6455, section 7.1.5).
        """


class SocketFactory(Protocol):
    """What a socket's factory must offer beside Autobahn's own."""

    clock: IReactorTime

    def opened(self, socket: MessageSocket) -> None:
        """The opening handshake is done: attach a receiver now."""

    def lost(self, socket: MessageSocket, code: int | None, reason: str) -> None:
        """The connection is gone, opened or not; the receiver has been told."""


class MessageSocket(WebSocketAdapterProtocol, WebSocketProtocol):  # type: ignore[misc]
    """One connection. Every method is harmless once the socket is closing or closed.

    traffic: True after any byte came in but an answer to our own marks, which a peer's library may give while
    its program hangs; for whoever watches for silence, who sets it back.
    lost_by: what ended the byte stream; None before.
    """

    factory: Any
    transport: Any
    traffic = False
    lost_by: BaseException | None = None
    _receiver: Receiver | None = None
    _closing: tuple[int, str] | None = None
    _deadline: IDelayedCall | None = None
    _deflate: Deflate | None = None
    _answers = 0
    _perMessageCompress: Any

    def attach(self, receiver: Receiver) -> None:
        """From now on messages go to `receiver`, in order."""
        self._receiver = receiver

    def send_message(
        self, payload: bytes, binary: bool, compress: bool, history: object | None = None
    ) -> int:
        """One message; dropped when the socket is not open.

        compress: whether it is worth it, if deflate was agreed on; what does not gain is sent as it is.
        history: as `Deflate.compress` has it.

        Returns:
            The bytes of its payload on the wire.
        """
        if self.state != self.STATE_OPEN:
            return 0
        if len(payload) > MAX_MESSAGE:
            log.error("a message of {size} bytes is too large to be sent and was dropped", size=len(payload))
            return 0
        if compress and self._deflate is not None:
            smaller = self._deflate.compress(payload, history)
            if smaller is not None:
                # RSV1 says that it is compressed (RFC 7692, section 6).
                self.sendFrame(opcode=2 if binary else 1, payload=smaller, rsv=4)
                return len(smaller)
        self.sendMessage(payload, isBinary=binary, doNotCompress=True)
        return len(payload)

    def send_mark(self, payload: bytes) -> None:
        """A ping of at most 125 bytes, answered when the other end has read all before it."""
        if self.state == self.STATE_OPEN:
            self.sendFrame(opcode=9, payload=payload)

    @property
    def smallest(self) -> int:
        """Bytes of the shortest message that is compressed at all."""
        return MAX_MESSAGE + 1 if self._deflate is None else self._deflate.smallest

    def set_uplink(self, rate: float | None) -> None:
        """What the way to the other end takes, bytes per second; None: not known."""
        if self._deflate is not None:
            self._deflate.set_uplink(rate)

    def pause_reading(self) -> None:
        """Stop reading; messages already read still arrive."""
        self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake; the connection ends within CLOSE_TIMEOUT whatever the peer does."""
        if self.state == self.STATE_OPEN:
            self._closing = (code, reason)
            # Not `sendClose`: that refuses 1001, which is the code of an endpoint that goes away.
            self.sendCloseFrame(code=code, reasonUtf8=encode_truncate(reason, 123))
            # The peer's answer must be read even by a socket that was held.
            self.resume_reading()
            self._bound_closing()
        elif self.state != self.STATE_CLOSING:
            self.abort()

    def loseConnection(self) -> None:
        """How Twisted's ClientService ends a connection."""
        self.close(1001, "host shutting down")

    def abort(self) -> None:
        """End the connection at once, without a word."""
        if self.lost_by is not None:
            return
        if self.state == self.STATE_CLOSED:
            self.transport.abortConnection()
        else:
            self.wasNotCleanReason = self.wasNotCleanReason or "aborted by this end"
            self.dropConnection(abort=True)

    def connectionMade(self) -> None:
        _tune(self.transport)
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        before, self.traffic = self.traffic, True
        self._answers = 0
        self._parse(data)
        if len(data) <= self._answers:
            self.traffic = before

    def _parse(self, data: bytes) -> None:
        if self.state != self.STATE_OPEN or len(data) <= _PARSE_SIZE:
            self._dataReceived(data)
            return
        start = 0
        while start < len(data):
            frame = self.current_frame
            rest = frame.length - self.current_frame_masker.pointer() if frame is not None else 0
            end = start + max(rest, _PARSE_SIZE)
            self._dataReceived(data[start:end])
            start = end

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.lost_by = reason.value
        super().connectionLost(reason)

    def onOpen(self) -> None:
        if self._perMessageCompress is not None:
            # Before any frame is read or sent, so its own compressor and inflater have seen nothing.
            self._perMessageCompress = self._deflate = Deflate(self._perMessageCompress)
        self.factory.opened(self)

    def onMessageEnd(self) -> None:
        # Autobahn's own also makes a Deferred for its observers of every message; there are none.
        data, self.message_data = self.message_data, []
        if self._receiver is None or self.failedByMe:
            return
        payload = data[0] if len(data) == 1 else b"".join(data)
        if self.message_is_binary:
            self._receiver.binary(payload)
        else:
            self._receiver.text(payload)

    def onPong(self, payload: bytes) -> None:
        # Its header is 2 bytes, and a client's mask 4 more (RFC 6455, section 5.2).
        self._answers += len(payload) + (6 if self.factory.isServer else 2)
        if self._receiver is not None:
            self._receiver.marked(payload)

    def onCloseFrame(self, code: int, reasonRaw: bytes) -> bool | None:
        done = super().onCloseFrame(code, reasonRaw)
        # A peer that said it closes may still never drop the TCP connection.
        self._bound_closing()
        return done

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self._closing is not None:
            code, reason = self._closing
        if self._receiver is not None:
            self._receiver.closed(code, reason or "")
        self.factory.lost(self, code, reason or "")

    def _bound_closing(self) -> None:
        if self._deadline is None:
            self._deadline = self.factory.clock.callLater(CLOSE_TIMEOUT, self._end)

    def _end(self) -> None:
        self._deadline = None
        self.abort()


def _tune(transport: Any) -> None:
    """Set the buffers of the TCP connection below `transport`, through TLS if there is any."""
    while getattr(transport, "transport", None) is not None:
        transport = transport.transport
    connection = getattr(transport, "socket", None)
    if not isinstance(connection, sockets.socket):
        return
    transport.bufferSize = TRANSPORT_BUFFER
    if connection.family in (sockets.AF_INET, sockets.AF_INET6):
        connection.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        if sys.platform == "linux":
            connection.setsockopt(sockets.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)
