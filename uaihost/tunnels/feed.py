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

# Bytes up to which pieces that wait are joined: a flood of tiny ones must not cost a hundred times its bytes.
PIECE = 16 * 1024


@implementer(IPushProducer)
class Feed:
    """A queue that is a push producer for the socket it is attached to.

    ended: the bridge has said that nothing follows; begun: at least one byte has come.
    """

    __slots__ = (
        "_account",
        "_consumer",
        "_end",
        "_end_told",
        "_room",
        "_waiting",
        "_write",
        "begun",
        "ended",
    )

    def __init__(self, account: Account, write: Callable[[bytes], None], end: Callable[[], None]) -> None:
        self.begun = False
        self.ended = False
        self._account = account
        self._write = write
        self._end = end
        # Made when something has to wait: most tunnels are idle, and an empty one takes half a KiB.
        self._waiting: deque[bytes | bytearray] | None = None
        self._consumer: IConsumer | None = None
        self._room = False
        self._end_told = False

    @property
    def drained(self) -> bool:
        """Everything up to the end has gone out."""
        return self._end_told

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
            for data in self._waiting or ():
                self._write(bytes(data))
        self.close()

    def close(self) -> None:
        """Drop what waits and take no more."""
        self.detach()
        self.ended = True
        self._waiting = None
        self._account.close()

    def put(self, data: bytes) -> None:
        """Bytes from the bridge; those after the end are dropped."""
        if self.ended or not data:
            return
        self.begun = True
        if self._room and not self._waiting:
            self._write(data)
            self._account.passed(len(data))
        else:
            self._keep(data)
            self._account.add(len(data))

    def end(self) -> None:
        """Nothing follows; the upstream is told once everything before has gone out."""
        if not self.ended:
            self.ended = True
            self._go_on()

    def _keep(self, data: bytes) -> None:
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = deque()
        # The first piece may be on its way out just now.
        if len(waiting) > 1 and len(waiting[-1]) + len(data) <= PIECE:
            last = waiting[-1]
            if not isinstance(last, bytearray):
                last = waiting[-1] = bytearray(last)
            last += data
        else:
            waiting.append(data)

    def _go_on(self) -> None:
        while self._room and self._waiting:
            data = self._waiting[0]
            # Still at its place while it is written: what comes meanwhile must not overtake it, and a write
            # that closes the feed empties it.
            self._write(bytes(data))
            if self._waiting:
                self._waiting.popleft()
                self._account.remove(len(data))
        if not self._waiting:
            self._waiting = None
            if self._room and self.ended and not self._end_told:
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
