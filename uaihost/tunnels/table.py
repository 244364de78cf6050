"""The tunnels of this host: what the bridge's frames about tunnels are handed to.

Those of revision 1, by their ids, are spoken for here, those of mux.1 in tunnels.streams. Knows the link by
its output and its input only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from twisted.logger import Logger

from uaihost.interfaces import LinkInput, LinkOutput, Targets
from uaihost.tunnels.budget import Budget
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.servers import Refused, Servers
from uaihost.tunnels.streams import Streams
from uaihost.tunnels.tunnel import Traffic, Tunnel
from uaihost.tunnels.upstream import EndpointFor
from uaihost.wire.codec import encode
from uaihost.wire.frames import Header, TunnelAck, TunnelClose, TunnelOpen, TunnelRequestEnd

log = Logger()


class Spoken:
    """The voice of one tunnel in revision 1 (tunnel.Voice)."""

    __slots__ = ("_id", "_link", "outlet")

    def __init__(self, tunnel_id: str, link: _Link) -> None:
        self._id = tunnel_id
        self._link = link
        self.outlet = link.output.outlet(tunnel_id)

    def interim(self, head: ResponseHead) -> None:
        """Revision 1 has no place for it."""

    def head(self, head: ResponseHead) -> None:
        self.outlet.frame(
            encode(TunnelAck(self._id, True, head.status, statusText=head.text, headers=head.headers))
        )

    def write(self, data: bytes) -> None:
        self.outlet.write(data)

    def refuse(self, code: int, message: str) -> None:
        self.outlet.finish(_refusal(self._id, 502, message))

    def half(self) -> None:
        """Revision 1 cannot say it; its upstreams end as a whole."""

    def end(self, trailers: Sequence[Header], reason: str) -> None:
        self.outlet.finish(encode(TunnelClose(self._id, reason)))

    def fail(self, code: int, reason: str) -> None:
        self.outlet.finish(encode(TunnelClose(self._id, reason)))

    def leave(self, reason: str | None) -> None:
        self.outlet.discard()
        self._link.output.outlet(self._id).finish(encode(TunnelClose(self._id, reason)))

    def vanish(self) -> None:
        self.outlet.discard()

    def over(self) -> None:
        del self._link.tunnels[self._id]


class _Link:
    """The connection to the bridge that is up now."""

    def __init__(
        self,
        reactor: Any,
        output: LinkOutput,
        link_input: LinkInput,
        servers: Servers,
        traffic: Traffic,
        broken: Callable[[str], None],
    ) -> None:
        self.output = output
        self.budget = Budget(reactor, link_input)
        self.streams = Streams(reactor, output, servers, traffic, broken)
        self.tunnels: dict[str, Tunnel] = {}

    def lost(self) -> None:
        self.budget.close()
        for tunnel in list(self.tunnels.values()):
            tunnel.cut()
        self.streams.lost()


class TunnelTable:
    """Every open tunnel. traffic: of all tunnels since the start."""

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
            endpoint_for: how an address is reached; through a task's relay and TCP unless given.
        """
        self.traffic = Traffic()
        self._reactor = reactor
        self._servers = Servers(reactor, targets, scheme, endpoint_for)
        self._link: _Link | None = None

    @property
    def open_tunnels(self) -> int:
        """How many are open now."""
        link = self._link
        return len(link.tunnels) + len(link.streams) if link is not None else 0

    @property
    def waiting(self) -> int:
        """Bytes from the bridge that wait for upstreams."""
        link = self._link
        return link.budget.total + link.streams.held if link is not None else 0

    def link_up(self, output: LinkOutput, link_input: LinkInput, broken: Callable[[str], None]) -> None:
        """A connection to the bridge is open; a tunnel left from an earlier one ends.

        broken: told why it cannot go on, when the bridge does not keep to mux.1.
        """
        self.link_lost()
        self._link = _Link(self._reactor, output, link_input, self._servers, self.traffic, broken)

    def link_lost(self) -> None:
        """The connection is gone: every upstream is destroyed and nothing is sent."""
        link, self._link = self._link, None
        if link is not None:
            link.lost()

    def stop(self) -> None:
        """The host ends: leave no socket and no timer behind."""
        self.link_lost()
        self._servers.close()

    def open(self, frame: TunnelOpen) -> None:
        """`tunnel.open`"""
        link = self._link
        if link is None:
            return
        tunnel_id = frame.tunnelId
        existing = link.tunnels.get(tunnel_id)
        if existing is not None:
            self.traffic.refused += 1
            log.warn("the bridge opened tunnel {id} a second time; refused", id=tunnel_id[:64])
            # In the order of the first one's frames.
            existing.outlet.frame(_refusal(tunnel_id, 409, "a tunnel with this id is open already"))
            return
        try:
            make = self._servers.find(frame, half_closes=False)
        except Refused as refused:
            self.traffic.refused += 1
            link.output.outlet(tunnel_id).finish(_refusal(tunnel_id, refused.status, str(refused)))
            return
        self.traffic.opened += 1
        tunnel = Tunnel(Spoken(tunnel_id, link), self.traffic)
        link.tunnels[tunnel_id] = tunnel
        tunnel.start(make(link.budget.account(tunnel.give_up), tunnel))

    def request_end(self, frame: TunnelRequestEnd) -> None:
        """`tunnel.requestEnd`; for a tunnel that is gone it means nothing."""
        tunnel = self._find(frame.tunnelId)
        if tunnel is not None:
            tunnel.request_end()

    def close(self, frame: TunnelClose) -> None:
        """`tunnel.close`; answered by the same in any case, so that the bridge can forget the id."""
        tunnel = self._find(frame.tunnelId)
        if tunnel is not None:
            tunnel.close(frame.reason)
        elif self._link is not None:
            self._link.output.outlet(frame.tunnelId).finish(encode(frame))

    def deliver(self, tunnel_id: str, data: bytes) -> None:
        """The bytes of a `tunnel.data`; those for a tunnel that is gone are dropped."""
        tunnel = self._find(tunnel_id)
        if tunnel is not None:
            tunnel.deliver(data)

    def message(self, message: bytes) -> None:
        """A message of mux.1."""
        if self._link is not None:
            self._link.streams.message(message)

    def _find(self, tunnel_id: str) -> Tunnel | None:
        return self._link.tunnels.get(tunnel_id) if self._link is not None else None


def _refusal(tunnel_id: str, status: int, message: str) -> bytes:
    return encode(TunnelAck(tunnel_id, False, status, message=message))
