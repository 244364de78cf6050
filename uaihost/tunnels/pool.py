"""Connections to HTTP upstreams, kept for a while after an exchange for the next one to the same address."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.python.failure import Failure

from uaihost.interfaces import Address
from uaihost.tunnels.upstream import EndpointFor, tune

# Idle connections to one address: five browsers with six connections each. With 8, thirty-two requests in
# parallel made and closed connections all the time, at 12 % more processor time each.
IDLE_LIMIT = 32

# Seconds that a server is given to take the rest of what was sent to it, once its answer is whole.
LINGER = 10.0

# Seconds that one is kept: Node's servers close theirs after 5 s, and one that both ends drop at the same
# moment costs a retry.
IDLE_SECONDS = 4.0


class Exchange(Protocol):
    """Who uses a connection."""

    def received(self, data: bytes) -> None:
        """Bytes from the server."""

    def lost(self, failure: Failure) -> None:
        """The connection is gone."""


class HttpConnection(StreamProtocol):
    """A socket to an upstream. exchange: who uses it now; None while it is idle or given up."""

    transport: Any

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self._expiry: IDelayedCall | None = None
        self._pool: Pool | None = None

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def write_all(self, pieces: Sequence[bytes]) -> None:
        self.transport.writeSequence(pieces)

    def pause(self) -> None:
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def abort(self) -> None:
        """Destroy it; its user hears nothing of that."""
        self.exchange = None
        self._leave_pool()
        self.transport.abortConnection()

    def close(self) -> None:
        """End it in order; nobody uses it any more."""
        self.transport.loseConnection()

    def keep(self, pool: Pool, expiry: IDelayedCall) -> None:
        """It is idle in `pool` until somebody uses it, or `expiry`."""
        self._pool = pool
        self._expiry = expiry

    def use(self) -> None:
        """It is idle no more."""
        self._pool = None
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self._expiry = None

    def connectionMade(self) -> None:
        tune(self.transport)

    def dataReceived(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.received(data)
        else:
            # Nobody has asked for anything.
            self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave_pool()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.lost(reason)

    def _leave_pool(self) -> None:
        if self._pool is not None:
            self._pool.drop(self)
        self.use()


class Pool:
    """Connections by address; the one that was used last is used first, so that a few stay warm."""

    def __init__(self, clock: IReactorTime, endpoint_for: EndpointFor) -> None:
        self._clock = clock
        self._endpoint_for = endpoint_for
        self._factory: Factory = Factory.forProtocol(HttpConnection)
        self._factory.noisy = False
        self._idle: dict[Address, list[HttpConnection]] = {}
        self._ending: set[HttpConnection] = set()

    def connect(self, address: Address) -> Deferred[HttpConnection]:
        """A fresh connection."""
        connecting: Deferred[Any] = self._endpoint_for(address).connect(self._factory)
        return connecting

    def take(self, address: Address) -> HttpConnection | None:
        """An idle connection, if there is one. It may have died unnoticed."""
        idle = self._idle.get(address)
        if not idle:
            return None
        connection = idle.pop()
        if not idle:
            del self._idle[address]
        connection.use()
        return connection

    def put(self, address: Address, connection: HttpConnection) -> None:
        """An exchange is done with it. It is read while idle, so that its end is noticed."""
        idle = self._idle.setdefault(address, [])
        if len(idle) >= IDLE_LIMIT:
            idle[0].abort()
            idle = self._idle.setdefault(address, [])
        idle.append(connection)
        connection.keep(self, self._clock.callLater(IDLE_SECONDS, connection.abort))
        connection.resume()

    def end(self, connection: HttpConnection) -> None:
        """An exchange is done with it, and there will be no other one."""
        self._ending.add(connection)
        connection.keep(self, self._clock.callLater(LINGER, connection.abort))
        connection.close()

    def drop(self, connection: HttpConnection) -> None:
        """It is idle here no more, or has ended."""
        self._ending.discard(connection)
        for address, idle in self._idle.items():
            if connection in idle:
                idle.remove(connection)
                if not idle:
                    del self._idle[address]
                return

    def close(self) -> None:
        """Drop every connection that nobody uses."""
        for connection in list(self._ending):
            connection.abort()
        for idle in list(self._idle.values()):
            for connection in list(idle):
                connection.abort()
