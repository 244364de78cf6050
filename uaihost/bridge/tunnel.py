"""One tunnel at the bridge, as its browser sees it: bytes both ways, ends, and what a slow browser leaves.

How its host is spoken to is the voice's business: revision 1 (bridge.tunnels) or mux.1 (bridge.streams). It
knows neither HTTP nor sockets nor frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from uaihost.interfaces import Outlet
from uaihost.wire.frames import Header
from uaihost.wire.mux import CANCELLED, STALLED, Head

log = Logger()

# Bytes up to which pieces that wait for a browser are joined, so that a flood of tiny ones takes no more
# memory than their bytes.
PIECE = 64 << 10


class BrowserSide(Protocol):
    """Who asked for the tunnel."""

    def informed(self, head: Head) -> None:
        """An interim answer (1xx); never after `acked`."""

    def acked(self, head: Head) -> None:
        """The host's answer. With `ok` false this side closes the tunnel now, if it is not over anyway."""

    def received(self, data: bytes) -> None:
        """Bytes of the response; never while the tunnel is paused."""

    def ended(self, trailers: Sequence[Header]) -> None:
        """The response is whole, or the host's half of an upgraded connection is closed; after `acked`."""

    def closed(self, reason: str) -> None:
        """The last call: the host takes nothing more and, if `ended` did not come, has not sent all.

        Not made when both directions ended by themselves or this side closed the tunnel.
        """


class Voice(Protocol):
    """How one tunnel speaks to its host. Not used any more after `over`."""

    outlet: Outlet

    def write(self, data: bytes) -> None:
        """Bytes for the host."""

    def end(self) -> None:
        """This side sends nothing more."""

    def close(self, code: int, reason: str) -> None:
        """This side wants nothing more; `code` is one of wire.mux's."""

    def drop(self) -> None:
        """The host wants nothing more: what has not left is thrown away."""

    def took(self, size: int) -> None:
        """The browser took so many bytes."""

    def keeps(self, size: int) -> None:
        """So many bytes wait for the browser now."""

    def over(self) -> None:
        """Forget the tunnel."""


class Reading:
    """Several reasons to stop reading one source, merged: it is read while there is none."""

    def __init__(self, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        self._pause = pause
        self._resume = resume
        self._reasons: set[object] = set()

    def hold(self, reason: object) -> None:
        """Stop until `reason` is released."""
        if not self._reasons:
            self._pause()
        self._reasons.add(reason)

    def release(self, reason: object) -> None:
        """Withdraw one reason; one that was not given is no error."""
        if reason in self._reasons:
            self._reasons.remove(reason)
            if not self._reasons:
                self._resume()


@attrs.define
class Traffic:
    """Of all tunnels since the start. received, sent: bytes from hosts and towards them."""

    opened: int = 0
    received: int = 0
    sent: int = 0


@implementer(IPushProducer)
class BridgeTunnel:
    """One tunnel. It is the producer of the browser's transport, which pauses and resumes it.

    done: nothing is called any more, and nothing said.
    half_closes: whether each direction ends on its own; otherwise `end_request` ends a plain request's body
    only.
    """

    __slots__ = (
        "_acked",
        "_browser",
        "_ended",
        "_kept",
        "_paused",
        "_size",
        "_stopped",
        "_told",
        "_traffic",
        "_trailers",
        "_voice",
        "done",
        "half_closes",
        "id",
    )

    def __init__(
        self, id: str, browser: BrowserSide, voice: Voice, half_closes: bool, traffic: Traffic
    ) -> None:
        self.id = id
        self._traffic = traffic
        traffic.opened += 1
        self.half_closes = half_closes
        self._browser = browser
        self._voice = voice
        self._kept: deque[bytearray] = deque()
        self._size = 0
        self._paused = False
        self._acked = False
        # What was sent is complete; what was received is, with these trailers; the browser knows.
        self._ended = False
        self._trailers: Sequence[Header] | None = None
        self._told = False
        # Why the host takes nothing more.
        self._stopped: str | None = None
        self.done = False

    @property
    def outlet(self) -> Outlet:
        """The way to the host."""
        return self._voice.outlet

    # ---- the browser's side

    def write(self, data: bytes) -> None:
        """Bytes of the request's body, or of an upgraded connection."""
        if not self._silent():
            self._traffic.sent += len(data)
            self._voice.write(data)

    def end_request(self) -> None:
        """The request's body is complete, or the browser's half of an upgraded connection is closed."""
        if not self._silent():
            self._ended = True
            self._voice.end()
            if self._told:
                self._finish()

    def close(self, reason: str, code: int = CANCELLED) -> None:
        """The browser wants no more; nothing is called afterwards."""
        if self.done:
            return
        if self._stopped is None and not (self._ended and self._trailers is not None):
            self._voice.close(code, reason)
        self._finish()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._kept and not self._paused:
            data = bytes(self._kept.popleft())
            self._size -= len(data)
            self._browser.received(data)
            if not self.done:
                self._voice.keeps(self._size)
                self._took(len(data))
        if self._trailers is not None and not self._kept:
            self._tell_end()

    def stopProducing(self) -> None:
        self.close("the browser is gone")

    # ---- the host's side

    def informed(self, head: Head) -> None:
        """An interim answer."""
        if not self._acked and not self.done:
            self._browser.informed(head)

    def acked(self, head: Head) -> None:
        """The answer; a second one is ignored."""
        if not self._acked and not self.done:
            self._acked = True
            self._browser.acked(head)

    def refused(self, head: Head) -> None:
        """The answer, and the host knows the tunnel no more."""
        self._stopped = "refused"
        self._voice.drop()
        self._finish()
        self._browser.acked(head)

    def delivered(self, data: bytes) -> None:
        """Bytes of the response."""
        if self.done:
            return
        self._traffic.received += len(data)
        if not self._paused and not self._kept:
            self._browser.received(data)
            if not self.done:
                self._took(len(data))
            return
        if self._kept and len(self._kept[-1]) + len(data) <= PIECE:
            self._kept[-1].extend(data)
        else:
            self._kept.append(bytearray(data))
        self._size += len(data)
        self._voice.keeps(self._size)

    def ended(self, trailers: Sequence[Header]) -> None:
        """The host sends nothing more; what is kept goes first. Before the answer it means nothing."""
        if self.done or not self._acked or self._trailers is not None:
            return
        self._trailers = trailers
        if not self._kept:
            self._tell_end()

    def stopped(self, reason: str) -> None:
        """The host ended the tunnel; what is kept goes first, unless the response is cut short anyway."""
        if self.done or self._stopped is not None:
            return
        self._stopped = reason
        self._voice.drop()
        if self._trailers is None or self._told:
            self._finish()
            self._browser.closed(reason)

    def stalled(self) -> None:
        """The browser takes nothing and keeps memory that others need."""
        log.warn("a browser took nothing of tunnel {id} for too long; closed", id=self.id)
        self.broken(STALLED, "the browser reads too slowly")

    def broken(self, code: int, reason: str) -> None:
        """Neither side ended it, but it cannot go on; `code` is one of wire.mux's."""
        if not self.done:
            self.close(reason, code)
            self._browser.closed(reason)

    # ---- ends

    def _silent(self) -> bool:
        """Whether nothing may be sent any more."""
        return self.done or self._ended or self._stopped is not None

    def _took(self, size: int) -> None:
        # Nothing more comes of a response that is whole.
        if self._trailers is None:
            self._voice.took(size)

    def _tell_end(self) -> None:
        if not self._told and not self.done:
            assert self._trailers is not None
            self._told = True
            self._browser.ended(self._trailers)
            self._settle()

    def _settle(self) -> None:
        """What was received has its end: is the rest over too?"""
        if self.done:
            return
        if self._ended:
            self._finish()
        elif self._stopped is not None:
            self._finish()
            self._browser.closed(self._stopped)

    def _finish(self) -> None:
        self.done = True
        self._kept.clear()
        self._size = 0
        self._voice.keeps(0)
        self._voice.over()
