"""One tunnel's life cycle: which frames it sends, and when its two ends are connected and let go.

Owns the order ack, data, close towards the bridge. Bytes pass beside the state machine: from the upstream to
the outlet, and from the bridge to the upstream. Knows neither HTTP nor sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
from automat import TypeMachineBuilder
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.upstream import Upstream
from uaihost.wire.codec import encode
from uaihost.wire.frames import Header, TunnelAck, TunnelClose


@attrs.define
class Traffic:
    """Bytes of all tunnels since the start. received: from the bridge; sent: towards it."""

    received: int = 0
    sent: int = 0


class Life(Protocol):
    """The inputs of the state machine. They return nothing, so that Automat can queue re-entrant ones."""

    def connected(self) -> None:
        """The upstream has a connection; it may say so again after a retry."""

    def answered(self, head: ResponseHead) -> None:
        """The upstream's response head."""

    def ended(self, reason: str) -> None:
        """The upstream's answer is complete."""

    def failed(self, reason: str) -> None:
        """The upstream failed."""

    def given_up(self, reason: str) -> None:
        """The upstream keeps bytes waiting for too long."""

    def closed(self, reason: str | None) -> None:
        """The bridge closes the tunnel."""

    def cut(self) -> None:
        """The link is gone."""


@attrs.define
class _Core:
    """What the transitions act on. opened anew: an outlet for the one frame that follows a discarded one."""

    tunnel_id: str
    outlet: Outlet
    outlet_anew: Callable[[], Outlet]
    upstream: Upstream
    over: Callable[[], None]
    producer: IPushProducer

    def acknowledge(self, head: ResponseHead) -> None:
        ack = TunnelAck(self.tunnel_id, True, head.status, statusText=head.text, headers=head.headers)
        self.outlet.frame(encode(ack))
        self.outlet.registerProducer(self.producer, True)

    def refuse(self, message: str) -> None:
        self._finish(encode(TunnelAck(self.tunnel_id, False, 502, message=message)))

    def close(self, reason: str) -> None:
        self._finish(encode(TunnelClose(self.tunnel_id, reason)))

    def destroy(self) -> None:
        self.upstream.abort()
        self.outlet.discard()
        self.over()

    def _finish(self, last: bytes) -> None:
        self.outlet.unregisterProducer()
        self.outlet.finish(last)
        self.over()


def _machine() -> Callable[[_Core], Life]:
    builder = TypeMachineBuilder(Life, _Core)
    opening = builder.state("opening")
    awaiting_head = builder.state("awaiting_head")
    streaming = builder.state("streaming")
    done = builder.state("done")

    def acknowledge(life: Life, core: _Core, head: ResponseHead) -> None:
        core.acknowledge(head)

    def refuse(life: Life, core: _Core, reason: str) -> None:
        core.refuse(reason)

    def refuse_empty(life: Life, core: _Core, reason: str) -> None:
        core.refuse(f"{reason} without an answer")

    def refuse_stuck(life: Life, core: _Core, reason: str) -> None:
        core.upstream.abort()
        core.refuse(reason)

    def close(life: Life, core: _Core, reason: str) -> None:
        core.close(reason)

    def close_stuck(life: Life, core: _Core, reason: str) -> None:
        core.upstream.abort()
        core.close(reason)

    def answer_close(life: Life, core: _Core, reason: str | None) -> None:
        core.destroy()
        core.outlet_anew().finish(encode(TunnelClose(core.tunnel_id, reason)))

    def vanish(life: Life, core: _Core) -> None:
        core.destroy()

    opening.upon(Life.connected).to(awaiting_head).returns(None)
    awaiting_head.upon(Life.connected).loop().returns(None)
    for state in (opening, awaiting_head):
        state.upon(Life.answered).to(streaming)(acknowledge)
        state.upon(Life.ended).to(done)(refuse_empty)
        state.upon(Life.failed).to(done)(refuse)
        state.upon(Life.given_up).to(done)(refuse_stuck)

    # An upstream answers once and has its connection by then.
    streaming.upon(Life.connected).loop().returns(None)
    streaming.upon(Life.answered).loop().returns(None)
    streaming.upon(Life.ended).to(done)(close)
    streaming.upon(Life.failed).to(done)(close)
    streaming.upon(Life.given_up).to(done)(close_stuck)

    for state in (opening, awaiting_head, streaming):
        state.upon(Life.closed).to(done)(answer_close)
        state.upon(Life.cut).to(done)(vanish)

    # Queued re-entrant inputs may still arrive.
    for each in (Life.answered, Life.ended, Life.failed, Life.given_up, Life.closed):
        done.upon(each).loop().returns(None)
    for each_bare in (Life.connected, Life.cut):
        done.upon(each_bare).loop().returns(None)
    return builder.build()


_life = _machine()


@implementer(IPushProducer)
class Tunnel:
    """One tunnel: receiver of its upstream's reports, push producer of its outlet.

    over: called once, when the tunnel has ended in any way.
    """

    def __init__(
        self,
        tunnel_id: str,
        outlet_for: Callable[[str], Outlet],
        upstream_for: Callable[[Tunnel], Upstream],
        traffic: Traffic,
        over: Callable[[], None],
    ) -> None:
        self._traffic = traffic
        self._outlet = outlet_for(tunnel_id)
        self._upstream = upstream_for(self)
        core = _Core(
            tunnel_id, self._outlet, lambda: outlet_for(tunnel_id), self._upstream, over, producer=self
        )
        self._life = _life(core)

    # From the table.

    def start(self) -> None:
        """Connect to the upstream and send it the request."""
        self._upstream.start()

    def deliver(self, data: bytes) -> None:
        """Bytes from the bridge."""
        self._traffic.received += len(data)
        self._upstream.put(data)

    def request_end(self) -> None:
        """The bridge has sent its last byte."""
        self._upstream.end()

    def refuse_twin(self, last: bytes) -> None:
        """Pass on what is said of a second tunnel with this one's id, in this one's order."""
        self._outlet.frame(last)

    def close(self, reason: str | None) -> None:
        """The bridge closes the tunnel."""
        self._life.closed(reason)

    def give_up(self, message: str) -> None:
        """The upstream keeps bytes waiting for too long."""
        self._life.given_up(message)

    def cut(self) -> None:
        """The link is gone: destroy the upstream and say nothing."""
        self._life.cut()

    # tunnels.upstream.Receiver

    def connected(self) -> None:
        self._life.connected()

    def interim(self, head: ResponseHead) -> None:
        """Revision 1 has no place for it."""

    def head(self, head: ResponseHead) -> None:
        self._life.answered(head)

    def body(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        self._outlet.write(data)

    def trailers(self, fields: list[Header]) -> None:
        """Revision 1 has no place for them."""

    def ended(self, reason: str) -> None:
        self._life.ended(reason)

    def failed(self, message: str) -> None:
        self._life.failed(message)

    # IPushProducer, called by the outlet.

    def pauseProducing(self) -> None:
        self._upstream.pauseProducing()

    def resumeProducing(self) -> None:
        self._upstream.resumeProducing()

    def stopProducing(self) -> None:
        self._upstream.pauseProducing()
