"""The way to a server in a task's container: through the task's relay, else by the port of this machine.

Owns the relay's first lines (uaihost/shim/relay.py); from then on the connection is the server's, as if it
had been reached directly. It knows neither HTTP nor tunnels.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.interfaces import Address
from uaihost.tunnels.upstream import CONNECT_TIMEOUT, EndpointFor, NotListening, NoWay
from uaihost.unix import hostile_socket_endpoint

# Seconds for the relay's answer: it waits 10 itself for a server whose queue of connections is full.
ANSWER_TIMEOUT = 15.0
# Bytes of the relay's answer.
LINE_LIMIT = 512


def endpoints(reactor: Any) -> EndpointFor:
    """Addresses to endpoints on `reactor`."""

    def endpoint(address: Address) -> IStreamClientEndpoint:
        tcp = TCP4ClientEndpoint(reactor, address.host, address.port, timeout=CONNECT_TIMEOUT)
        return tcp if address.relay is None else _Relayed(reactor, address, tcp)

    return endpoint


@implementer(IStreamClientEndpoint)
class _Relayed:
    """tcp: the way when the relay does not answer, and the address has a port."""

    def __init__(self, reactor: Any, address: Address, tcp: IStreamClientEndpoint) -> None:
        self._reactor = reactor
        self._address = address
        self._tcp = tcp

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Fails with NotListening when no server listens, with NoWay when nobody can be asked."""
        assert self._address.relay is not None
        asking = _Asking(self._reactor, self._address.inner, factory)
        socket = hostile_socket_endpoint(self._reactor, self._address.relay)
        quiet = Factory.forProtocol(lambda: asking)
        quiet.noisy = False
        connecting: Deferred[Any] = socket.connect(quiet)
        connecting.addCallback(lambda _: asking.answered)
        connecting.addErrback(self._not_relayed, factory)
        return connecting

    def _not_relayed(self, failure: Failure, factory: IProtocolFactory) -> Deferred[Any]:
        if failure.check(NotListening, CancelledError, ConnectingCancelledError):
            return fail(failure)
        if self._address.port:
            other: Deferred[Any] = self._tcp.connect(factory)
            return other
        return fail(NoWay(failure.getErrorMessage().rstrip(".")))


class _Asking(StreamProtocol):
    """Asks the relay for a port and then gives the connection to a protocol of `factory`.

    answered: fires with that protocol.
    """

    transport: Any

    def __init__(self, reactor: Any, port: int, factory: IProtocolFactory) -> None:
        self._reactor = reactor
        self._port = port
        self._factory = factory
        self._line = b""
        self._timer: IDelayedCall | None = None
        self.answered: Deferred[IProtocol] = Deferred(lambda _: self._end())

    def connectionMade(self) -> None:
        self._timer = self._reactor.callLater(ANSWER_TIMEOUT, self._fail, "the relay did not answer in time")
        self.transport.write(b"connect %d\n" % self._port)

    def dataReceived(self, data: bytes) -> None:
        self._line += data
        line, end, rest = self._line.partition(b"\n")
        if line == b"ok" and end:
            self._hand_over(rest)
        elif end and line.startswith(b"error "):
            text = line.removeprefix(b"error ").decode("utf-8", "replace")
            self._fail_with(NotListening("".join(each if each.isprintable() else "?" for each in text)))
        elif end or len(self._line) > LINE_LIMIT:
            self._fail("the relay does not speak as it should")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail("the relay closed the connection")

    def _hand_over(self, rest: bytes) -> None:
        self._stop_timer()
        protocol = self._factory.buildProtocol(self.transport.getPeer())
        if protocol is None:
            self._fail("nobody takes the connection")
            return
        # Not passed on by an object between them: it would see every byte.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        self.answered.callback(protocol)
        if rest and self.transport.protocol is protocol:
            protocol.dataReceived(rest)

    def _fail(self, why: str) -> None:
        self._fail_with(NoWay(why))

    def _fail_with(self, error: Exception) -> None:
        self._end()
        if not self.answered.called:
            self.answered.errback(error)

    def _end(self) -> None:
        self._stop_timer()
        self.transport.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
