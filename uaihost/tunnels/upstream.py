"""What a tunnel and its upstream know of one another, and of the socket between upstream and server.

The two kinds of upstream, `http_upstream` and `raw_upstream`, share this seam.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure

from uaihost.interfaces import Address
from uaihost.tunnels.head import ResponseHead
from uaihost.wire.frames import Header

# Bytes read from the kernel at once, and written to the socket before it pauses its producer: Twisted has one
# number for both. The link splits what is larger into messages of this size, which would cost a copy.
READ_SIZE = 128 * 1024

# Seconds to connect. The servers are on this machine: only one whose queue of connections is full is slower.
CONNECT_TIMEOUT = 10.0

# Interim answers that are taken at once; Go's client takes 5 in all. Without a bound a server could fill one
# read with thousands, each of which would be a frame.
INTERIMS = 32

EndpointFor = Callable[[Address], IStreamClientEndpoint]


class Upstream(Protocol):
    """A tunnel's server side. `end`, `abort` and the producer's methods may come at any time."""

    def start(self) -> None:
        """Connect and send the head. Reports go to the receiver, possibly before this returns."""

    def put(self, data: bytes) -> None:
        """Bytes from the bridge, in order."""

    def end(self) -> None:
        """The bridge has sent its last byte."""

    def abort(self) -> None:
        """Destroy it; nothing is reported any more."""

    def pauseProducing(self) -> None:
        """Read nothing from the server."""

    def resumeProducing(self) -> None:
        """Read again."""


class Receiver(Protocol):
    """Whom an upstream reports to.

    `interim`*, `head`, `body`*, `trailers`?, `said_all`?, then `ended`; or `failed` at any point.
    """

    def interim(self, head: ResponseHead) -> None:
        """An answer with a status from 100 to 199, except 101; the one that counts is still to come."""

    def head(self, head: ResponseHead) -> None:
        """The server's answer begins."""

    def body(self, data: bytes) -> None:
        """Bytes for the bridge."""

    def trailers(self, fields: Sequence[Header]) -> None:
        """Fields after the answer's body; at least one."""

    def said_all(self) -> None:
        """The server sends nothing more, but goes on receiving: one half of an upgraded connection."""

    def ended(self, reason: str) -> None:
        """The last report: the answer is complete, and the server takes nothing more."""

    def failed(self, message: str) -> None:
        """The last report: it went wrong; the message is for people."""


class NotListening(Exception):
    """The way to the task is open, and no server listens at its end; the text says how that shows."""


class NoWay(Exception):
    """The task cannot be reached at all; the text says why."""


def tune(transport: Any) -> None:
    """Set the buffers of a fresh socket, and send what is written without waiting for more."""
    transport.bufferSize = READ_SIZE
    transport.setTcpNoDelay(True)


def cannot_connect(address: Address, failure: Failure) -> str:
    """Why there is no connection, with what to do."""
    why = failure.getErrorMessage().rstrip(".")
    if failure.check(NoWay):
        return (
            f"cannot reach port {address.inner} of the task: its relay does not answer ({why}); try again in "
            "a few seconds, and if it stays so take the task down and up again"
        )
    if failure.check(NotListening):
        where = f"port {address.inner} of the task"
    else:
        where = f"{address.host}:{address.port}"
    return f"cannot connect to {where} ({why}); start the server in the task, listening on this port"
