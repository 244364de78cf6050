"""Events as Server-Sent Events (HTML Living Standard, section 9.2): first what was missed, then live.

A listener that does not read is dropped when its share of memory is full; its browser comes back by itself
and names the last event it saw.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from uaihost.bridge import store
from uaihost.bridge.feed import Feed, News
from uaihost.bridge.hosts import spawn
from uaihost.interfaces import Store

log = Logger()

# Rows read from the database at once.
PAGE = 500

# News that wait while the missed ones are read.
LIVE_LIMIT = 10_000

# Bytes that wait for one listener.
LIMIT = 4 << 20

# Seconds between two comments on a silent stream, so that what lies between keeps the connection.
KEEP_ALIVE = 15.0


@implementer(IPushProducer)
class EventStream:
    """One listener.

    request: Twisted's. after: the id of the last event it knows. task_id: whose events; None for all.
    """

    def __init__(
        self,
        request: Any,
        database: Store,
        feed: Feed,
        clock: IReactorTime,
        after: int,
        task_id: str | None,
    ) -> None:
        self._request = request
        self._database = database
        self._feed = feed
        self._clock = clock
        self._sent = after
        self._task_id = task_id
        self._replaying = True
        self._live: list[News] = []
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._over = False
        self._resumed: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None

    def serve(self) -> Deferred[None]:
        """Fires when the listener is gone."""
        gone: Deferred[None] = Deferred()
        self._unsubscribe = self._feed.subscribe(self._heard)
        self._request.setHeader("Content-Type", "text/event-stream")
        # A proxy that collects would make a stream of one long silence.
        self._request.setHeader("X-Accel-Buffering", "no")
        self._request.registerProducer(self, True)
        self._request.write(b"retry: 1000\n\n")

        def ended(_: object) -> None:
            self._end()
            if not gone.called:
                gone.callback(None)

        self._request.notifyFinish().addBoth(ended)
        self._timer = self._clock.callLater(KEEP_ALIVE, self._comment)
        spawn(self._replay(), "events could not be read")
        return gone

    # ---- the listener's transport

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        while self._waiting and not self._paused:
            frame = self._waiting.popleft()
            self._size -= len(frame)
            self._request.write(frame)
        if not self._waiting and self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            resumed.callback(None)

    def stopProducing(self) -> None:
        self._end()

    # ---- what is sent

    async def _replay(self) -> None:
        """What was missed, a page at a time and at the listener's pace; what happens meanwhile waits."""
        while not self._over:
            rows = await self._database.run(lambda db: store.events(db, self._sent, PAGE, self._task_id))
            if not rows:
                break
            for id, body in rows:
                self._sent = id
                self._put(frame_of("event", body, id))
            if self._waiting and not self._over:
                self._resumed = Deferred()
                await self._resumed
        self._replaying = False
        live, self._live = self._live, []
        for news in live:
            self._pass_on(news)

    def _heard(self, news: News) -> None:
        if self._task_id is not None and news.task_id != self._task_id:
            return
        if not self._replaying:
            self._pass_on(news)
        elif len(self._live) < LIVE_LIMIT:
            self._live.append(news)
        else:
            self._drop()

    def _pass_on(self, news: News) -> None:
        if news.id is not None:
            if news.id <= self._sent:
                return
            self._sent = news.id
        self._put(frame_of(news.kind, news.data, news.id))

    def _put(self, frame: bytes) -> None:
        if self._over:
            return
        if not self._paused and not self._waiting:
            self._request.write(frame)
            return
        self._waiting.append(frame)
        self._size += len(frame)
        if self._size > LIMIT:
            self._drop()

    def _comment(self) -> None:
        self._timer = self._clock.callLater(KEEP_ALIVE, self._comment)
        if not self._waiting:
            self._put(b":\n\n")

    def _drop(self) -> None:
        log.info("a listener of events that does not read was dropped")
        self._end()
        self._request.unregisterProducer()
        self._request.loseConnection()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._unsubscribe()
        self._waiting.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._resumed is not None:
            resumed, self._resumed = self._resumed, None
            resumed.callback(None)


def frame_of(kind: str, data: str, id: int | None) -> bytes:
    """One event of the stream; `data` is JSON, which holds no line break."""
    head = "" if id is None else f"id: {id}\n"
    return f"{head}event: {kind}\ndata: {data}\n\n".encode()
