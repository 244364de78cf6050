"""The tunnels of this host by their ids: what the bridge's frames about tunnels are handed to.

Owns every tunnel and the pool of connections to upstreams. Knows the link by its outlets and its input only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
from twisted.logger import Logger

from uaihost.interfaces import Address, LinkInput, Outlet, Targets
from uaihost.tunnels.budget import Account, Budget
from uaihost.tunnels.head import BadRequest, plain_request, raw_request
from uaihost.tunnels.http_upstream import HttpUpstream
from uaihost.tunnels.pool import Pool
from uaihost.tunnels.raw_upstream import RawUpstream
from uaihost.tunnels.tunnel import Traffic, Tunnel
from uaihost.tunnels.upstream import EndpointFor, Receiver, Upstream, tcp_endpoints
from uaihost.wire.codec import encode
from uaihost.wire.frames import TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

log = Logger()


@attrs.frozen
class _Link:
    """The connection to the bridge that is up now."""

    outlet_for: Callable[[str], Outlet]
    budget: Budget


class TunnelTable:
    """Every open tunnel.

    traffic: bytes of all tunnels; opened, refused: how many were asked for with and without a target.
    """

    def __init__(
        self,
        reactor: Any,
        targets: Targets,
        *,
        scheme: Literal["http", "https"] = "http",
        endpoint_for: EndpointFor | None = None,
    ) -> None:
        """
        Args:
            reactor: connects, and is the clock.
            targets: where tasks listen.
            scheme: of the pages that browsers see, for servers that ask; what the bridge says outweighs it.
            endpoint_for: how an address is reached; TCP unless given.
        """
        self.traffic = Traffic()
        self.opened = 0
        self.refused = 0
        self._reactor = reactor
        self._targets = targets
        self._scheme = scheme
        self._endpoint_for = endpoint_for or tcp_endpoints(reactor)
        self._pool = Pool(reactor, self._endpoint_for)
        self._tunnels: dict[str, Tunnel] = {}
        self._link: _Link | None = None

    @property
    def open_tunnels(self) -> int:
        """How many are open now."""
        return len(self._tunnels)

    @property
    def waiting(self) -> int:
        """Bytes from the bridge that wait for upstreams."""
        return self._link.budget.total if self._link is not None else 0

    def link_up(self, outlet_for: Callable[[str], Outlet], link_input: LinkInput) -> None:
        """A connection to the bridge is open; a tunnel left from an earlier one ends."""
        self.link_lost()
        self._link = _Link(outlet_for, Budget(self._reactor, link_input))

    def link_lost(self) -> None:
        """The connection is gone: every upstream is destroyed and nothing is sent."""
        link, self._link = self._link, None
        if link is not None:
            link.budget.close()
        for tunnel in list(self._tunnels.values()):
            tunnel.cut()

    def stop(self) -> None:
        """The host ends: leave no socket and no timer behind."""
        self.link_lost()
        self._pool.close()

    def open(self, frame: TunnelOpen) -> None:
        """`tunnel.open`"""
        link = self._link
        if link is None:
            return
        existing = self._tunnels.get(frame.tunnelId)
        if existing is not None:
            self.refused += 1
            log.warn("the bridge opened tunnel {id} a second time; refused", id=frame.tunnelId[:64])
            existing.refuse_twin(_refusal(frame.tunnelId, 409, "a tunnel with this id is open already"))
            return
        address = self._targets.resolve(frame.taskId, frame.target, frame.name)
        if address is None:
            self._refuse(link, frame, 503, "target port is not available on this host")
            return
        try:
            upstream_for = self._upstream_for(link.budget, frame, address)
        except BadRequest as error:
            self._refuse(link, frame, 400, str(error))
            return
        self.opened += 1
        tunnel = Tunnel(
            frame.tunnelId,
            link.outlet_for,
            upstream_for,
            self.traffic,
            lambda: self._forget(frame.tunnelId, tunnel),
        )
        self._tunnels[frame.tunnelId] = tunnel
        tunnel.start()

    def request_end(self, frame: TunnelRequestEnd) -> None:
        """`tunnel.requestEnd`; for a tunnel that is gone it means nothing."""
        tunnel = self._tunnels.get(frame.tunnelId)
        if tunnel is not None:
            tunnel.request_end()

    def close(self, frame: TunnelClose) -> None:
        """`tunnel.close`; answered by the same in any case, so that the bridge can forget the id."""
        tunnel = self._tunnels.get(frame.tunnelId)
        if tunnel is not None:
            tunnel.close(frame.reason)
        elif self._link is not None:
            self._link.outlet_for(frame.tunnelId).finish(encode(frame))

    def deliver(self, tunnel_id: str, data: bytes) -> None:
        """The bytes of a `tunnel.data`; those for a tunnel that is gone are dropped."""
        tunnel = self._tunnels.get(tunnel_id)
        if tunnel is not None:
            tunnel.deliver(data)

    def _upstream_for(
        self, budget: Budget, frame: TunnelOpen, address: Address
    ) -> Callable[[Tunnel], Upstream]:
        """How the tunnel's upstream is made once there is a tunnel.

        Raises:
            BadRequest: the request cannot be sent as HTTP.
        """
        if frame.upgrade:
            head = raw_request(frame.reqLine)

            def make(account: Account, receiver: Receiver) -> Upstream:
                return RawUpstream(self._reactor, self._endpoint_for, address, head, account, receiver)

        else:
            request = plain_request(frame.reqLine, self._scheme)

            def make(account: Account, receiver: Receiver) -> Upstream:
                return HttpUpstream(self._pool, address, request, account, receiver)

        return lambda tunnel: make(budget.account(tunnel.give_up), tunnel)

    def _refuse(self, link: _Link, frame: TunnelOpen, status: int, message: str) -> None:
        self.refused += 1
        link.outlet_for(frame.tunnelId).finish(_refusal(frame.tunnelId, status, message))

    def _forget(self, tunnel_id: str, tunnel: Tunnel) -> None:
        if self._tunnels.get(tunnel_id) is tunnel:
            del self._tunnels[tunnel_id]


def _refusal(tunnel_id: str, status: int, message: str) -> bytes:
    return encode(TunnelAck(tunnel_id, False, status, message=message))
