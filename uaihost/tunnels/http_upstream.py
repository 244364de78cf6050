"""Plain tunnels' server side: one HTTP/1.1 exchange over a connection that may have served others before.

Owns the framing of both bodies and the decision whether a connection is fit for another exchange. Knows
nothing of frames.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from uaihost.interfaces import Address
from uaihost.tunnels import chunked
from uaihost.tunnels.budget import Account
from uaihost.tunnels.chunked import ChunkedDecoder
from uaihost.tunnels.feed import Feed
from uaihost.tunnels.head import PlainRequest, end_to_end, response_head
from uaihost.tunnels.pool import HttpConnection, Pool
from uaihost.tunnels.response import BadHead, BlockReader, RawHead, framing, response_reader
from uaihost.tunnels.upstream import INTERIMS, Receiver, cannot_connect


class HttpUpstream:
    """One request and its response (tunnels.upstream.Upstream).

    A connection from the pool may have died unnoticed. While no byte of the answer has come, a request that
    is repeatable and of which no body byte has left goes out once more, on a fresh connection.
    """

    def __init__(
        self, pool: Pool, address: Address, request: PlainRequest, account: Account, receiver: Receiver
    ) -> None:
        self._pool = pool
        self._address = address
        self._request = request
        self._receiver = receiver
        self._feed = Feed(account, self._send_body, self._send_end)
        self._connecting: Deferred[HttpConnection] | None = None
        self._connection: HttpConnection | None = None
        self._pooled = False
        self._paused = False
        self._over = False
        self._new_exchange()

    def _new_exchange(self) -> None:
        self._head: BlockReader[RawHead] = response_reader()
        self._interims = 0
        self._head_sent = False
        self._body_sent = False
        self._request_done = False
        self._answered = False
        self._reusable = False
        # Bytes of the request's body that its Content-Length still asks for; None where it is chunked.
        self._owed: int | None = None
        # Bytes of the answer's body that are to come, where its length is known.
        self._left = 0
        # What takes the bytes of the answer: its head, then one of the ways in which a body is delimited.
        self.received: Callable[[bytes], None] = self._receive_head

    # tunnels.upstream.Upstream

    def start(self) -> None:
        # A request that cannot be sent twice never meets a connection that may be dead.
        idle = self._pool.take(self._address) if self._request.repeatable else None
        if idle is not None:
            self._pooled = True
            self._attach(idle)
        else:
            self._connect()

    def put(self, data: bytes) -> None:
        self._feed.put(data)
        self._send_head()

    def end(self) -> None:
        self._feed.end()
        self._send_head()

    def abort(self) -> None:
        connection = self._finish()
        if connection is not None:
            connection.abort()

    def pauseProducing(self) -> None:
        self._paused = True
        if self._connection is not None:
            self._connection.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    # The connection.

    def _connect(self) -> None:
        self._connecting = self._pool.connect(self._address)
        self._connecting.addCallbacks(self._attach, self._refused)

    def _refused(self, failure: Failure) -> None:
        self._connecting = None
        self._fail(cannot_connect(self._address, failure))

    def _attach(self, connection: HttpConnection) -> None:
        self._connecting = None
        if self._over:
            connection.abort()
            return
        self._connection = connection
        connection.exchange = self
        if self._paused:
            connection.pause()
        self._send_head()

    def lost(self, failure: Failure) -> None:
        """The connection is gone."""
        self._connection = None
        if self.received == self._receive_rest and failure.check(ConnectionDone):
            self._complete()
        elif self._worth_repeating():
            self._feed.detach()
            self._pooled = False
            self._new_exchange()
            self._connect()
        elif self.received == self._receive_head:
            why = failure.getErrorMessage().rstrip(".")
            self._fail(f"the server closed the connection before it answered ({why})")
        else:
            self._fail("the server closed the connection in the middle of its answer")

    def _worth_repeating(self) -> bool:
        return self._pooled and self._request.repeatable and not self._answered and not self._body_sent

    # The request.

    def _send_head(self) -> None:
        """Send the head once its framing is certain; then the feed takes over."""
        feed = self._feed
        if self._head_sent or self._connection is None:
            return
        if not (self._request.announced or feed.begun or feed.ended):
            return
        self._head_sent = True
        request = self._request
        chunks = request.chunked or (feed.begun and request.length is None)
        self._owed = None if chunks else request.length or 0
        self._connection.write(request.head(feed.begun))
        feed.attach(self._connection.transport)

    def _send_body(self, data: bytes) -> None:
        assert self._connection is not None
        self._body_sent = True
        if self._owed is None:
            self._connection.write_all(chunked.chunk(data))
            return
        self._owed -= len(data)
        if self._owed < 0:
            self._fail("the request body is longer than its Content-Length")
            return
        self._connection.write(data)

    def _send_end(self) -> None:
        assert self._connection is not None
        if self._owed:
            self._fail("the request body is shorter than its Content-Length")
            return
        if self._owed is None:
            self._connection.write(chunked.LAST)
        self._request_done = True

    # The response.

    def _receive_head(self, data: bytes) -> None:
        if self._pooled and not self._head_sent and self._connection is not None:
            # A server's farewell to an idle connection, such as a 408: not an answer to this request.
            connection, self._connection = self._connection, None
            connection.abort()
            self._pooled = False
            self._new_exchange()
            self._connect()
            return
        self._answered = True
        try:
            while (found := self._head.feed(data)) is not None:
                head, data = found
                if not head.interim:
                    self._begin_body(head, data)
                    return
                if head.status == 101:
                    raise BadHead("it switches protocols, which nobody asked for")
                self._interims += 1
                if self._interims > INTERIMS:
                    raise BadHead(f"there are more than {INTERIMS} interim answers")
                self._receiver.interim(response_head(head.status, head.reason, head.fields))
                if self._over or not data:
                    return
        except BadHead as error:
            self._fail(f"the server's answer is not HTTP: {error}")

    def _begin_body(self, head: RawHead, rest: bytes) -> None:
        """Choose how the body is delimited and take what came with the head."""
        body = framing(head, self._request.method)
        self._reusable = body.persistent
        if body.chunked:
            self._chunks = ChunkedDecoder()
            self.received = self._receive_chunked
        elif body.length is not None:
            self._left = body.length
            self.received = self._receive_counted
        else:
            self.received = self._receive_rest
        self._receiver.head(response_head(head.status, head.reason, body.fields))
        if not self._over and (rest or (body.length is not None and not self._left)):
            self.received(rest)

    def _receive_counted(self, data: bytes) -> None:
        left = self._left = self._left - len(data)
        if left > 0:
            self._receiver.body(data)
            return
        if left < 0:
            # More than was announced: whatever it is, the connection is out of step.
            self._reusable = False
            data = data[:left]
        if data:
            self._receiver.body(data)
        self._complete()

    def _receive_rest(self, data: bytes) -> None:
        self._receiver.body(data)

    def _receive_chunked(self, data: bytes) -> None:
        chunks = self._chunks
        pieces = chunks.feed(data)
        if pieces:
            self._receiver.body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._over:
            return
        if chunks.failed:
            self._fail(f"the server's answer is not HTTP: {chunks.failed}")
        elif chunks.done:
            if chunks.rest:
                self._reusable = False
            if chunks.trailers:
                self._receiver.trailers(end_to_end(chunks.trailers))
            self._complete()

    # The end.

    def _complete(self) -> None:
        if self._over:
            return
        connection = self._finish()
        if connection is not None:
            if not self._request_done:
                # The server does not care for the rest of the request.
                connection.abort()
            elif self._reusable:
                self._pool.put(self._address, connection)
            else:
                self._pool.end(connection)
        self._receiver.ended("upstream ended")

    def _fail(self, message: str) -> None:
        if not self._over:
            self.abort()
            self._receiver.failed(message)

    def _finish(self) -> HttpConnection | None:
        """Nothing more goes either way; the connection, if there is one, is the caller's to dispose of."""
        self._over = True
        self._feed.close()
        if self._connecting is not None:
            self._connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.exchange = None
        return connection
