"""The log as it is written, for a page: Server-Sent Events (HTML standard, section 9.2).

Each event is one record of `logs.records` as JSON, with its number as the event's id: whoever comes again
with the last one it has (`after`) misses nothing that is still kept.
"""

from __future__ import annotations

import json

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web.http import Request

from uaihost.errors import ErrorCode, HostError
from uaihost.logs.recent import Recent, Record
from uaihost.logs.records import LEVELS, at_least
from uaihost.web.flow import Flow

TYPE = "text/event-stream"

# Pages that look at once: more would be a mistake, and each costs every record again.
STREAMS = 16
# Seconds between two looks at what was logged: records come from every thread, and in bursts.
PERIOD = 0.5
# Seconds of silence after which a comment shows that the stream lives.
BEAT = 15.0
_ALIVE = b": here\n\n"


class LogStreams:
    """recent: what was logged and will be. clock: for the comments."""

    def __init__(self, recent: Recent, clock: IReactorTime) -> None:
        self._recent = recent
        self._clock = clock
        self._open = 0

    async def follow(self, request: Request, after: int, level: str, task: str) -> None:
        """Send what was kept after number `after`, and then every record, until whoever asked is gone.

        level: the least that is sent; task: only records about this one, all when empty.

        Raises:
            HostError: `invalid_args`; `unavailable`, too many look already.
        """
        if level not in LEVELS:
            raise HostError(ErrorCode.INVALID_ARGS, f"`level` is one of {', '.join(LEVELS)}")
        if self._open >= STREAMS:
            raise HostError(ErrorCode.UNAVAILABLE, f"{STREAMS} pages look at the log; close one of them")
        request.setHeader("Content-Type", TYPE)
        one = _Stream(request, self._recent, self._clock, after, level, task)
        self._open += 1
        try:
            await one.run()
        finally:
            self._open -= 1


class _Stream:
    def __init__(
        self, request: Request, recent: Recent, clock: IReactorTime, after: int, level: str, task: str
    ) -> None:
        self._request = request
        self._recent = recent
        self._clock = clock
        self._after = after
        self._level = level
        self._task = task

    async def run(self) -> None:
        flow = Flow(self._request)
        self._request.write(_ALIVE)
        silent = 0.0
        while True:
            kept = self._recent.after(self._after)
            if kept:
                self._after = kept[-1][0]
            sent = b"".join(_event(number, record) for number, record in kept if self._wants(record))
            silent = 0.0 if sent else silent + PERIOD
            if silent >= BEAT:
                sent, silent = _ALIVE, 0.0
            if sent:
                self._request.write(sent)
                await flow.room()
            await deferLater(self._clock, PERIOD)

    def _wants(self, record: Record) -> bool:
        return at_least(record["level"], self._level) and self._task in ("", record.get("task"))


def _event(number: int, record: Record) -> bytes:
    return f"id: {number}\ndata: {json.dumps(record)}\n\n".encode()
