"""One tunnel's life cycle: what it says to the bridge, and when its two ends are connected and let go.

Owns the order head, data, end towards the bridge. Bytes pass beside the state machine: from the upstream to
the outlet, and from the bridge to the upstream. How a thing is said is the voice's, in revision 1 of the
protocol (tunnels.table) or in mux.1 (tunnels.streams). Knows neither HTTP nor sockets nor frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
from automat import TypeMachineBuilder
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.tunnels import content
from uaihost.tunnels.head import ResponseHead
from uaihost.tunnels.upstream import Upstream
from uaihost.wire.frames import Header
from uaihost.wire.mux import FAILED, STALLED

# How a tunnel ends: the server said everything; it failed; it was given up, since one side kept bytes waiting
# or broke the protocol; the bridge closed it; the link was lost.
ENDINGS = ("completed", "failed", "given_up", "closed", "link_lost")


@attrs.define
class Traffic:
    """Of all tunnels since the start.

    received, sent: bytes from the bridge and towards it; opened, refused: how many were asked for, with and
    without a server; ended: how those that were opened have ended, by ENDINGS.
    """

    received: int = 0
    sent: int = 0
    opened: int = 0
    refused: int = 0
    ended: dict[str, int] = attrs.field(factory=lambda: dict.fromkeys(ENDINGS, 0))


class Voice(Protocol):
    """How one tunnel speaks to the bridge. outlet: where its bytes go, in order with what is said.

    `refuse`, `end`, `fail`, `leave` and `vanish` come last, and once.
    """

    @property
    def outlet(self) -> Outlet: ...

    def interim(self, head: ResponseHead) -> None:
        """An answer before the one that counts."""

    def head(self, head: ResponseHead) -> None:
        """The answer."""

    def write(self, data: bytes) -> None:
        """Bytes of the answer."""

    def refuse(self, code: int, message: str) -> None:
        """There is no answer; `code` is one of wire.mux's."""

    def half(self) -> None:
        """No more bytes follow; the bridge's still have somewhere to go."""

    def end(self, trailers: Sequence[Header], reason: str) -> None:
        """Everything was said, and whatever still comes is not needed."""

    def fail(self, code: int, reason: str) -> None:
        """The answer is cut short; `code` is one of wire.mux's."""

    def leave(self, reason: str | None) -> None:
        """The bridge closed the tunnel: nothing that waits need leave."""

    def vanish(self) -> None:
        """The link is gone."""

    def over(self) -> None:
        """After one of the last five: forget the tunnel. Called once."""


class Life(Protocol):
    """The inputs of the state machine. They return nothing, so that Automat can queue re-entrant ones."""

    def answered(self, head: ResponseHead) -> None:
        """The upstream's response head."""

    def said_all(self) -> None:
        """The upstream sends nothing more, but goes on receiving."""

    def ended(self, reason: str) -> None:
        """The upstream's answer is complete, and it takes nothing more."""

    def failed(self, code: int, reason: str) -> None:
        """The upstream failed; it is gone."""

    def given_up(self, code: int, reason: str) -> None:
        """The tunnel cannot go on, though its upstream could."""

    def closed(self, reason: str | None) -> None:
        """The bridge closes the tunnel."""

    def cut(self) -> None:
        """The link is gone."""


def _machine() -> Callable[[Tunnel], Life]:
    builder = TypeMachineBuilder(Life, Tunnel)
    opening = builder.state("opening")
    streaming = builder.state("streaming")
    half = builder.state("half")
    done = builder.state("done")

    def acknowledge(life: Life, core: Tunnel, head: ResponseHead) -> None:
        core.acknowledge(head)

    def say_all(life: Life, core: Tunnel) -> None:
        core.outlet.unregisterProducer()
        core.voice.half()

    def refuse(life: Life, core: Tunnel, code: int, reason: str) -> None:
        core.voice.refuse(code, reason)
        core.over("failed")

    def refuse_empty(life: Life, core: Tunnel, reason: str) -> None:
        core.voice.refuse(FAILED, f"{reason} without an answer")
        core.over("failed")

    def refuse_stuck(life: Life, core: Tunnel, code: int, reason: str) -> None:
        core.upstream.abort()
        core.voice.refuse(code, reason)
        core.over("given_up")

    def end(life: Life, core: Tunnel, reason: str) -> None:
        core.outlet.unregisterProducer()
        core.voice.end(core.trailing, reason)
        core.over("completed")

    def let_go(life: Life, core: Tunnel, reason: str) -> None:
        core.voice.end((), reason)
        core.over("completed")

    def fail(life: Life, core: Tunnel, code: int, reason: str) -> None:
        core.outlet.unregisterProducer()
        core.voice.fail(code, reason)
        core.over("failed")

    def fail_stuck(life: Life, core: Tunnel, code: int, reason: str) -> None:
        core.upstream.abort()
        core.outlet.unregisterProducer()
        core.voice.fail(code, reason)
        core.over("given_up")

    def leave(life: Life, core: Tunnel, reason: str | None) -> None:
        core.upstream.abort()
        core.voice.leave(reason)
        core.over("closed")

    def vanish(life: Life, core: Tunnel) -> None:
        core.upstream.abort()
        core.voice.vanish()
        core.over("link_lost")

    opening.upon(Life.answered).to(streaming)(acknowledge)
    opening.upon(Life.said_all).loop().returns(None)
    opening.upon(Life.ended).to(done)(refuse_empty)
    opening.upon(Life.failed).to(done)(refuse)
    opening.upon(Life.given_up).to(done)(refuse_stuck)

    # An upstream answers once.
    streaming.upon(Life.answered).loop().returns(None)
    streaming.upon(Life.said_all).to(half)(say_all)
    streaming.upon(Life.ended).to(done)(end)

    half.upon(Life.answered).loop().returns(None)
    half.upon(Life.said_all).loop().returns(None)
    half.upon(Life.ended).to(done)(let_go)

    for state in (streaming, half):
        state.upon(Life.failed).to(done)(fail)
        state.upon(Life.given_up).to(done)(fail_stuck)
    for state in (opening, streaming, half):
        state.upon(Life.closed).to(done)(leave)
        state.upon(Life.cut).to(done)(vanish)

    # Queued re-entrant inputs may still arrive.
    for each in (Life.answered, Life.ended, Life.failed, Life.given_up, Life.closed):
        done.upon(each).loop().returns(None)
    for each_bare in (Life.said_all, Life.cut):
        done.upon(each_bare).loop().returns(None)
    return builder.build()


@implementer(IPushProducer)
class Tunnel:
    """One tunnel: receiver of its upstream's reports, push producer of its outlet."""

    __slots__ = ("_life", "_traffic", "outlet", "trailing", "upstream", "voice")

    upstream: Upstream

    def __init__(self, voice: Voice, traffic: Traffic) -> None:
        self.voice = voice
        self.outlet = voice.outlet
        self.trailing: Sequence[Header] = ()
        self._traffic = traffic
        self._life = _life(self)

    # From whoever reads the bridge's frames.

    def start(self, upstream: Upstream) -> None:
        """Connect to the upstream and send it the request."""
        self.upstream = upstream
        upstream.start()

    def deliver(self, data: bytes) -> None:
        """Bytes from the bridge."""
        self._traffic.received += len(data)
        self.upstream.put(data)

    def request_end(self) -> None:
        """The bridge has sent its last byte."""
        self.upstream.end()

    def close(self, reason: str | None) -> None:
        """The bridge closes the tunnel."""
        self._life.closed(reason)

    def give_up(self, message: str, code: int = STALLED) -> None:
        """It cannot go on: the upstream keeps bytes waiting, or the bridge broke the protocol."""
        self._life.given_up(code, message)

    def cut(self) -> None:
        """The link is gone: destroy the upstream and say nothing."""
        self._life.cut()

    # For the machine.

    def acknowledge(self, head: ResponseHead) -> None:
        """Pass the answer on; its bytes follow."""
        self.voice.head(head)
        self.outlet.hint(content.gains(head.headers))
        self.outlet.registerProducer(self, True)

    def over(self, how: str) -> None:
        """It ended: one of ENDINGS. Called once."""
        self._traffic.ended[how] += 1
        self.voice.over()

    # tunnels.upstream.Receiver

    def interim(self, head: ResponseHead) -> None:
        self.voice.interim(head)

    def head(self, head: ResponseHead) -> None:
        self._life.answered(head)

    def body(self, data: bytes) -> None:
        self._traffic.sent += len(data)
        self.voice.write(data)

    def trailers(self, fields: Sequence[Header]) -> None:
        self.trailing = fields

    def said_all(self) -> None:
        self._life.said_all()

    def ended(self, reason: str) -> None:
        self._life.ended(reason)

    def failed(self, message: str) -> None:
        self._life.failed(FAILED, message)

    # IPushProducer, called by the outlet.

    def pauseProducing(self) -> None:
        self.upstream.pauseProducing()

    def resumeProducing(self) -> None:
        self.upstream.resumeProducing()

    def stopProducing(self) -> None:
        self.upstream.pauseProducing()


_life = _machine()
