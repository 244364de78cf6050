"""An answer that is sent piece by piece, no faster than the other end takes it."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.web.http import Request
from zope.interface import implementer


@implementer(IPushProducer)
class Flow:
    """Of one request. Each wait ends by a cancellation when whoever asked is gone."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._room: Deferred[None] | None = None
        self.held = False
        request.registerProducer(self, True)

    async def room(self) -> None:
        """Returns when more can be sent."""
        if self.held:
            self._room = Deferred()
            await self._room

    def close(self) -> None:
        """Nothing more is sent through this."""
        self._request.unregisterProducer()

    # IPushProducer

    def pauseProducing(self) -> None:
        self.held = True

    def resumeProducing(self) -> None:
        self.held = False
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)

    def stopProducing(self) -> None:
        """The request's own end cancels what waits."""
