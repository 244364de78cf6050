"""Raw tunnels' server side: a TCP connection that begins with an HTTP head each way and then is bytes.

Owns the half-open states of the socket. Knows nothing of what the bytes mean, and never ends a connection
because it is silent: a development server may say nothing for hours.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.interfaces import Address
from uaihost.tunnels.budget import Account
from uaihost.tunnels.feed import Feed
from uaihost.tunnels.head import BadHead, HeadReader
from uaihost.tunnels.upstream import INTERIMS, EndpointFor, Receiver, cannot_connect, tune

# Seconds that a server which has closed its side is given to take what was already on its way to it.
LINGER = 10.0


@implementer(IHalfCloseableProtocol)
class _Connection(StreamProtocol):
    transport: Any

    def __init__(self, upstream: RawUpstream) -> None:
        self._upstream = upstream

    def connectionMade(self) -> None:
        tune(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._upstream.received(data)

    def readConnectionLost(self) -> None:
        self._upstream.closed()

    def writeConnectionLost(self) -> None:
        """Our own end of file has left."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._upstream.lost(reason)


class RawUpstream:
    """One connection (tunnels.upstream.Upstream). head: the request head as it is sent.

    half_closes: whether the bridge can be told that one direction ended while the other goes on, and tells
    the same; in revision 1 neither can.
    """

    __slots__ = (
        "_address",
        "_clock",
        "_connecting",
        "_endpoint_for",
        "_feed",
        "_half_closes",
        "_head",
        "_linger",
        "_over",
        "_paused",
        "_reader",
        "_receiver",
        "_said_all",
        "_transport",
    )

    def __init__(
        self,
        clock: IReactorTime,
        endpoint_for: EndpointFor,
        address: Address,
        head: bytes,
        account: Account,
        receiver: Receiver,
        half_closes: bool = False,
    ) -> None:
        self._clock = clock
        self._endpoint_for = endpoint_for
        self._address = address
        self._head = head
        self._receiver = receiver
        self._feed = Feed(account, self._send, self._send_end)
        self._reader: HeadReader | None = HeadReader()
        self._connecting: Deferred[Any] | None = None
        self._transport: Any = None
        self._linger: IDelayedCall | None = None
        self._paused = False
        self._half_closes = half_closes
        self._said_all = False
        self._over = False

    # tunnels.upstream.Upstream

    def start(self) -> None:
        factory = Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        self._connecting = self._endpoint_for(self._address).connect(factory)
        self._connecting.addCallbacks(self._connected, self._refused)

    def put(self, data: bytes) -> None:
        self._feed.put(data)

    def end(self) -> None:
        # In revision 1, before the answer and with no byte sent, it says only that the request has no body,
        # as no upgrade has; an end of file then would make servers give the handshake up.
        if self._half_closes or self._reader is None or self._feed.begun:
            self._feed.end()

    def abort(self) -> None:
        if not self._over:
            self._finish()
            self._destroy()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._said_all:
            self._transport.resumeProducing()

    # The connection.

    def _connected(self, connection: _Connection) -> None:
        self._connecting = None
        if self._over:
            connection.transport.abortConnection()
            return
        transport = self._transport = connection.transport
        if self._paused:
            transport.pauseProducing()
        transport.write(self._head)
        self._head = b""
        self._feed.attach(transport)

    def _refused(self, failure: Failure) -> None:
        self._connecting = None
        self._fail(cannot_connect(self._address, failure))

    def received(self, data: bytes) -> None:
        """Bytes from the server."""
        if self._reader is None:
            self._receiver.body(data)
        elif not self._over:
            self._receive_head(self._reader, data)

    def closed(self) -> None:
        """The server sends nothing more."""
        if self._over or self._said_all:
            return
        if self._reader is not None:
            self._fail("the server closed the connection before it answered")
        elif self._half_closes:
            self._said_all = True
            self._receiver.said_all()
            if self._feed.drained and not self._over:
                self._close()
        else:
            # Revision 1 cannot tell the bridge that one direction goes on: what was given is delivered, then
            # the connection ends.
            self._feed.flush()
            self._finish()
            self._close()
            self._receiver.ended("upstream closed")

    def lost(self, failure: Failure) -> None:
        """The connection is gone, both ways."""
        self._transport = None
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        if self._over:
            return
        if self._reader is not None:
            why = failure.getErrorMessage().rstrip(".")
            self._fail(f"the server closed the connection before it answered ({why})")
        elif failure.check(ConnectionDone):
            self._finish()
            self._receiver.ended("upstream closed")
        else:
            self._fail(f"upstream closed: {failure.getErrorMessage().rstrip('.')}")

    def _receive_head(self, reader: HeadReader, data: bytes) -> None:
        interims = 0
        while True:
            try:
                found = reader.feed(data)
            except BadHead as error:
                self._fail(str(error))
                return
            if found is None:
                return
            head, data = found
            if not 100 <= head.status <= 199 or head.status == 101:
                break
            interims += 1
            if interims > INTERIMS:
                self._fail(f"there are more than {INTERIMS} interim answers")
                return
            self._receiver.interim(head)
            if self._over:
                return
            reader = self._reader = HeadReader()
        self._reader = None
        self._receiver.head(head)
        if data and not self._over:
            self._receiver.body(data)

    def _send(self, data: bytes) -> None:
        self._transport.write(data)

    def _send_end(self) -> None:
        # With a producer registered the end of file would wait for it.
        self._feed.detach()
        if self._said_all:
            self._close()
        else:
            self._transport.loseWriteConnection()

    def _close(self) -> None:
        # First the timer: a socket that we have closed on our side already is gone at once.
        self._linger = self._clock.callLater(LINGER, self._destroy)
        self._transport.loseConnection()

    # The end.

    def _fail(self, message: str) -> None:
        if not self._over:
            self._finish()
            self._destroy()
            self._receiver.failed(message)

    def _finish(self) -> None:
        self._over = True
        self._feed.close()
        if self._connecting is not None:
            self._connecting.cancel()

    def _destroy(self) -> None:
        if self._transport is not None:
            self._transport.abortConnection()
