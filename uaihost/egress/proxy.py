"""The forward proxy: connections of tasks on their Unix sockets, each joined to one that was permitted.

Owns the two sockets of a connection, what pauses what, how each half ends, and how long everything may take.
Knows nothing of policies (egress.dial asks them) or of HTTP (egress.heads).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.egress.dial import Dialler, Refused, Unreachable
from uaihost.egress.heads import Asked, BadRequest, BadResponse, Carriage, RequestReader, answer
from uaihost.egress.refusals import Refusals, Traffic

log = Logger()

# Connections at once: of one task, as many as a package manager and some agents use; and of all together.
MOST_OF_TASK = 128
MOST = 1024
# Of the descriptors that the process may open, one in this many may be a connection of a task. Each needs
# two, and tasks must not take those that the daemon itself lives on.
DESCRIPTORS = 8

# Seconds for a request's head to come, and for lookup and connection together.
HEAD_TIMEOUT = 30.0
DIAL_TIMEOUT = 45.0
# Seconds in which neither side says anything, after which a connection counts as forgotten. Models think for
# minutes; what is silent for an hour, routers have dropped by then.
SILENCE = 3600.0
# Seconds that a client is given to read an answer of ours while it still sends, and that either side is given
# to take its last bytes.
LINGER = 5.0
DRAIN = 60.0


class Doors:
    """What the doors of all tasks share. open: connections of tasks now.

    descriptors: how many files the process may open.
    """

    def __init__(self, clock: IReactorTime, dialler: Dialler, refusals: Refusals, descriptors: int) -> None:
        self.clock = clock
        self.dialler = dialler
        self.refusals = refusals
        self.traffic = Traffic()
        self.open = 0
        self.most = min(MOST, descriptors // DESCRIPTORS)
        # One task alone never takes all of it.
        self.most_of_task = min(MOST_OF_TASK, self.most // 2)


class Door(Factory):
    """The proxy as one task sees it."""

    noisy = False

    def __init__(self, task_id: str, doors: Doors) -> None:
        self.task_id = task_id
        self.doors = doors
        self.clients: set[Client] = set()
        self.closed = False

    def buildProtocol(self, addr: IAddress | None) -> Client:
        return Client(self)

    @property
    def full(self) -> bool:
        return len(self.clients) >= self.doors.most_of_task or self.doors.open >= self.doors.most

    def enter(self, client: Client) -> None:
        self.clients.add(client)
        self.doors.open += 1

    def leave(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self.doors.open -= 1

    def close(self) -> None:
        """End every connection of the task, and whatever was accepted and has not said a word."""
        self.closed = True
        for client in list(self.clients):
            client.abort()


@implementer(IHalfCloseableProtocol)
class Client(StreamProtocol):
    """A program in a task. It asks once; then it is joined to a server, or answered and left."""

    transport: Any

    def __init__(self, door: Door) -> None:
        self._door = door
        self._clock = door.doors.clock
        self._traffic = door.doors.traffic
        # Until the request's head is whole.
        self._reader: RequestReader | None = RequestReader()
        self._dialling: Deferred[Any] | None = None
        self._carriage: Carriage | None = None
        self._server: Server | None = None
        self._timer: IDelayedCall | None = None
        self._heard = 0.0
        # Whether the client has ended its half, whether it was sent anything, whether the socket is gone.
        self._said_all = False
        self._answered = False
        self._gone = False

    def connectionMade(self) -> None:
        if self._door.closed:
            self.transport.abortConnection()
        elif self._door.full:
            # At once, without a look at what it says: a flood must not cost descriptors.
            self.transport.write(answer(503, "too many connections are open; close some and try again"))
            self.transport.loseConnection()
        else:
            self._door.enter(self)
            self._timer = self._clock.callLater(HEAD_TIMEOUT, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        if self._carriage is not None:
            self._to_server(self._carriage, data)
        elif self._reader is not None:
            try:
                asked = self._reader.feed(data)
            except BadRequest as error:
                self._answer(error.status, str(error))
                return
            if asked is not None:
                self._reader = None
                self._dial(asked)

    def readConnectionLost(self) -> None:
        self._said_all = True
        if self._carriage is None or self._server is None:
            # Before it asked, or after we answered: there is nothing to wait for.
            self.transport.loseConnection()
            return
        # Else the server's socket would have us read again.
        _release(self._server.transport)
        if self._carriage.client_ended():
            self._server.transport.loseWriteConnection()
        self._end_if_over()

    def writeConnectionLost(self) -> None:
        """Our end of file has left."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._stop_timer()
        self._door.leave(self)
        if self._dialling is not None:
            self._dialling.cancel()
        if self._server is not None:
            self._leave_server().transport.abortConnection()

    def abort(self) -> None:
        """End it now."""
        self.transport.abortConnection()

    # Asking.

    def _dial(self, asked: Asked) -> None:
        # What it says meanwhile stays in the kernel.
        self.transport.pauseProducing()
        self._stop_timer()
        factory = Factory.forProtocol(lambda: Server(self, self._clock))
        factory.noisy = False
        dialling = Deferred.fromCoroutine(self._door.doors.dialler.connect(asked.to, factory))
        self._dialling = dialling
        dialling.addTimeout(DIAL_TIMEOUT, self._clock)
        # From here on it may be over already.
        joined = dialling.addCallbacks(self._join, self._not_connected, (asked,), errbackArgs=(asked,))
        joined.addErrback(self._broken)

    def _not_connected(self, failure: Failure, asked: Asked) -> None:
        self._dialling = None
        if self._gone:
            return
        doors = self._door.doors
        if failure.check(Refused):
            self._traffic.blocked += 1
            doors.refusals.add(self._door.task_id, asked.to, str(failure.value))
            self._answer(403, str(failure.value))
            return
        self._traffic.failed += 1
        if failure.check(Unreachable):
            self._answer(502, str(failure.value))
        elif failure.check(CancelledError, ConnectingCancelledError, DeferredTimeout):
            self._answer(504, f"{asked.to} does not answer within {DIAL_TIMEOUT:.0f} s")
        else:
            failure.raiseException()

    def _broken(self, failure: Failure) -> None:
        """A defect of ours costs one connection."""
        log.failure("a connection of a task failed", failure)
        self.abort()

    # Joined.

    def _join(self, protocol: IProtocol, asked: Asked) -> None:
        assert isinstance(protocol, Server)
        self._dialling = None
        server, carriage = protocol, asked.carriage
        self._server, self._carriage = server, carriage
        self._traffic.allowed += 1
        self._heard = self._clock.seconds()
        self._timer = self._clock.callLater(SILENCE, self._look_for_silence)
        try:
            to_client, to_server = carriage.begin()
        except BadRequest as error:
            self._fail(400, str(error))
            return
        # Each socket pauses the other while more than a buffer waits to leave by it.
        self.transport.registerProducer(server.transport, True)
        server.transport.registerProducer(self.transport, True)
        self._write(to_client)
        self._traffic.sent += len(to_server)
        server.transport.write(to_server)
        self.transport.resumeProducing()

    def _to_server(self, carriage: Carriage, data: bytes) -> None:
        if self._server is None:
            return
        self._heard = self._clock.seconds()
        try:
            data = carriage.from_client(data)
        except BadRequest as error:
            self._fail(400, str(error))
            return
        self._traffic.sent += len(data)
        self._server.transport.write(data)

    def server_said(self, data: bytes) -> None:
        """Bytes of the server; none for its end."""
        if self._server is None or self._carriage is None:
            return
        self._heard = self._clock.seconds()
        try:
            self._write(self._carriage.from_server(data) if data else self._carriage.server_ended())
        except BadResponse as error:
            self._fail(502, str(error))
            return
        if not data:
            _release(self.transport)
            if not self._carriage.over:
                self.transport.loseWriteConnection()
        self._end_if_over()

    def server_gone(self) -> None:
        """The connection to the server is gone, both ways."""
        if self._server is None:
            return
        self._leave_server()
        if self._answered:
            self._close()
        else:
            self._answer(502, "the server closed the connection before it answered")

    def _write(self, data: bytes) -> None:
        if data:
            self._answered = True
            self._traffic.received += len(data)
            self.transport.write(data)

    def _end_if_over(self) -> None:
        if self._carriage is not None and self._carriage.over and self._server is not None:
            self._leave_server().close()
            self._close()

    def _leave_server(self) -> Server:
        assert self._server is not None
        server, self._server = self._server, None
        _release(self.transport)
        _release(server.transport)
        return server

    # The end.

    def _fail(self, status: int, sentence: str) -> None:
        """It went wrong while joined. An answer of which a part has left can only be cut off."""
        self._leave_server().transport.abortConnection()
        if self._answered:
            self.abort()
        else:
            self._answer(status, sentence)

    def _close(self) -> None:
        """What waits to leave is given time for it, and no more."""
        self._stop_timer()
        self._timer = self._clock.callLater(DRAIN, self.abort)
        self.transport.loseConnection()

    def _answer(self, status: int, sentence: str) -> None:
        self._reader = None
        self._carriage = None
        self._stop_timer()
        self.transport.write(answer(status, sentence))
        self._timer = self._clock.callLater(LINGER, self.abort)
        if self._said_all:
            self.transport.loseConnection()
        else:
            # A close with bytes unread would be a reset, which can overtake the answer.
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()

    def _too_slow(self) -> None:
        self._answer(408, f"no request came within {HEAD_TIMEOUT:.0f} s")

    def _look_for_silence(self) -> None:
        left = self._heard + SILENCE - self._clock.seconds()
        if left > 0:
            self._timer = self._clock.callLater(left, self._look_for_silence)
        else:
            self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


@implementer(IHalfCloseableProtocol)
class Server(StreamProtocol):
    """The other side of one client."""

    transport: Any

    def __init__(self, client: Client, clock: IReactorTime) -> None:
        self._client = client
        self._clock = clock
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        # A server that vanished without a word is noticed by the system.
        self.transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        self._client.server_said(data)

    def readConnectionLost(self) -> None:
        self._client.server_said(b"")

    def writeConnectionLost(self) -> None:
        """The end of file for it has left."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._client.server_gone()

    def close(self) -> None:
        """End the connection once what waits has left."""
        # First the timer: a socket that has ended its half already is gone at once.
        self._timer = self._clock.callLater(DRAIN, self.transport.abortConnection)
        self.transport.loseConnection()


def _release(transport: Any) -> None:
    if transport.producer is not None:
        transport.unregisterProducer()
