"""Bytes of the bridge on their way into an upstream: passed on while it has room, else kept and counted.

Owns the order and the back-pressure of that direction. Knows the socket as a consumer only, and not what the
bytes mean: how they are framed is the upstream's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from uaihost.tunnels.budget import Account


@implementer(IPushProducer)
class Feed:
    """A queue that is a push producer for the socket it is attached to.

    ended: the bridge has said that nothing follows; begun: at least one byte has come.
    """

    def __init__(self, account: Account, write: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.begun = False
        self.ended = False
        self._account = account
        self._write = write
        self._end = end
        self._waiting: deque[bytes] = deque()
        self._consumer: IConsumer | None = None
        self._room = False
        self._end_told = False

    def attach(self, consumer: IConsumer) -> None:
        """From now on `consumer` says when to go on; what has waited goes out."""
        self._consumer = consumer
        self._room = True
        self._end_told = False
        consumer.registerProducer(self, True)
        self._go_on()

    def detach(self) -> None:
        """The socket is no longer ours; what comes is kept."""
        self._room = False
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            consumer.unregisterProducer()

    def flush(self) -> None:
        """Write out all that waits, room or not: the consumer is about to close."""
        if self._consumer is not None:
            for data in self._waiting:
                self._write(data)
        self.close()

    def close(self) -> None:
        """Drop what waits and take no more."""
        self.detach()
        self.ended = True
        self._waiting.clear()
        self._account.close()

    def put(self, data: bytes) -> None:
        """Bytes from the bridge; those after the end are dropped."""
        if self.ended or not data:
            return
        self.begun = True
        if self._room and not self._waiting:
            self._write(data)
        else:
            self._waiting.append(data)
            self._account.add(len(data))

    def end(self) -> None:
        """Nothing follows; the upstream is told once everything before has gone out."""
        if not self.ended:
            self.ended = True
            self._go_on()

    def _go_on(self) -> None:
        while self._room and self._waiting:
            data = self._waiting[0]
            # Still at its place while it is written: what comes meanwhile must not overtake it, and a write
            # that closes the feed empties it.
            self._write(data)
            if self._waiting:
                self._waiting.popleft()
                self._account.remove(len(data))
        if self._room and self.ended and not self._end_told and not self._waiting:
            self._end_told = True
            self._end()

    # IPushProducer, called by the socket.

    def pauseProducing(self) -> None:
        self._room = False

    def resumeProducing(self) -> None:
        self._room = self._consumer is not None
        self._go_on()

    def stopProducing(self) -> None:
        # The socket is gone and has let go of us.
        self._room = False
        self._consumer = None
