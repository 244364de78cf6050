"""From what the bridge asks for to an upstream: which server, and which kind of exchange with it.

Owns the pool of connections. Knows the requests of tunnels, in whichever protocol they came; not the link.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from uaihost.interfaces import Targets
from uaihost.tunnels.budget import Account
from uaihost.tunnels.head import BadRequest, plain_request, raw_request
from uaihost.tunnels.http_upstream import HttpUpstream
from uaihost.tunnels.pool import Pool
from uaihost.tunnels.raw_upstream import RawUpstream
from uaihost.tunnels.relay import endpoints
from uaihost.tunnels.upstream import EndpointFor, Receiver, Upstream
from uaihost.wire.frames import RequestLine

MakeUpstream = Callable[[Account, Receiver], Upstream]


class Refused(Exception):
    """There is no upstream for a request. status: of the answer; the text is its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Asked(Protocol):
    """What frames.TunnelOpen and mux.Open have in common."""

    @property
    def target(self) -> str: ...

    @property
    def taskId(self) -> str: ...

    @property
    def name(self) -> str | None: ...

    @property
    def reqLine(self) -> RequestLine: ...

    @property
    def upgrade(self) -> bool: ...


class Servers:
    """The servers of this host's tasks."""

    def __init__(
        self,
        reactor: Any,
        targets: Targets,
        scheme: Literal["http", "https"],
        endpoint_for: EndpointFor | None,
    ) -> None:
        """As those of tunnels.table.TunnelTable."""
        self._reactor = reactor
        self._targets = targets
        self._scheme = scheme
        self._endpoint_for = endpoint_for or endpoints(reactor)
        self._pool = Pool(reactor, self._endpoint_for)

    def find(self, asked: Asked, half_closes: bool) -> MakeUpstream:
        """How the upstream is made once there is a tunnel. half_closes: as in raw_upstream.

        Raises:
            Refused: there is no such server, or the request cannot be sent as HTTP.
        """
        address = self._targets.resolve(asked.taskId, asked.target, asked.name)
        if address is None:
            raise Refused(503, "target port is not available on this host")
        try:
            if asked.upgrade:
                head = raw_request(asked.reqLine)
                return lambda account, receiver: RawUpstream(
                    self._reactor, self._endpoint_for, address, head, account, receiver, half_closes
                )
            request = plain_request(asked.reqLine, self._scheme)
            return lambda account, receiver: HttpUpstream(self._pool, address, request, account, receiver)
        except BadRequest as error:
            raise Refused(400, str(error)) from None

    def close(self) -> None:
        """Leave no socket behind that nobody uses."""
        self._pool.close()
