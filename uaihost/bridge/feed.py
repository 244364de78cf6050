"""What happened, in order: events are stored first and told afterwards, to whoever listens.

One queue for everything, so that a streamed piece of an answer never comes before the word it answers.
It knows neither sockets nor the API.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from uaihost.bridge import store
from uaihost.bridge.store import Arrival, TaskRecord
from uaihost.interfaces import Store

log = Logger()

# Told live, never stored: a delta is repeated whole by its message, resources are measured again.
FLEETING = frozenset({"channel.delta", "task.resources"})

# Events stored in one transaction.
BATCH = 500


@attrs.frozen
class News:
    """What a listener hears.

    kind: `event` (a host's event), `task` (a task's record changed) or `hosts` (a host came, left, changed).
    id: the event's row; None for what cannot be asked for again. task_id: whose it is; None for `hosts`.
    data: a JSON object.
    """

    kind: Literal["event", "task", "hosts"]
    id: int | None
    task_id: str | None
    data: str


Listener = Callable[[News], None]
_Item = Arrival | News | Deferred


class Feed:
    """The bridge's event log.

    on_task: is given every task record that an event changed, before the event is told.
    on_failure: called when events could not be stored. No host may believe that they were.
    """

    def __init__(self, database: Store) -> None:
        self._database = database
        self.on_task: Callable[[TaskRecord], None] = _nothing
        self.on_failure: Callable[[], None] = _nothing
        self._listeners: dict[object, Listener] = {}
        self._queue: list[_Item] = []
        self._writing = False

    def __len__(self) -> int:
        """How many items wait."""
        return len(self._queue)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` hears all later news, in order; it must not wait or raise. The result ends that."""
        key = object()
        self._listeners[key] = listener

        def cancel() -> None:
            self._listeners.pop(key, None)

        return cancel

    def arrived(self, host_id: str, event: Any) -> None:
        """An event came from a host; one that is no event is dropped with a warning."""
        arrival = read_event(host_id, event)
        if arrival is None:
            log.warn("an event of host {host} without type, taskId or at was dropped", host=shown(host_id))
            return
        self._put(arrival)

    def tell(self, news: News) -> None:
        """News of the bridge itself, in order with the events."""
        self._put(news)

    def settled(self) -> Deferred[None]:
        """Fires when everything that was put before is stored and told; fails when it could not be."""
        done: Deferred[None] = Deferred()
        self._put(done)
        return done

    def _put(self, item: _Item) -> None:
        self._queue.append(item)
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())

    async def _write(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
            try:
                await self._write_batch(batch)
            except Exception as error:
                log.failure("{count} items of the event log could not be stored", count=len(batch))
                self.on_failure()
                for item in batch:
                    if isinstance(item, Deferred):
                        item.errback(error)
        self._writing = False

    async def _write_batch(self, batch: list[_Item]) -> None:
        durable = [item for item in batch if isinstance(item, Arrival) and item.type not in FLEETING]
        stored = iter(await self._database.run(lambda db: store.add_arrivals(db, durable)) if durable else ())
        for item in batch:
            if isinstance(item, Deferred):
                item.callback(None)
            elif isinstance(item, News):
                self._tell(item)
            elif item.type in FLEETING:
                self._tell(News("event", None, item.task_id, json.dumps(item.body)))
            else:
                kept = next(stored)
                if kept is not None:
                    if kept.task is not None:
                        self.on_task(kept.task)
                    self._tell(News("event", kept.id, item.task_id, json.dumps(item.body)))

    def _tell(self, news: News) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(news)
            except Exception:
                log.failure("a listener of the event log failed")


def _nothing(*ignored: object) -> None:
    """Nobody asked to be told."""


def shown(host_id: str) -> str:
    """A host in a log: enough to tell hosts apart, and not the id by which it is known."""
    return hashlib.sha256(host_id.encode()).hexdigest()[:8]


def read_event(host_id: str, event: Any) -> Arrival | None:
    """The parts of an event that the bridge needs (protocol, section 6); None when one is missing."""
    if not isinstance(event, dict):
        return None
    kind, task_id, at, seq = (event.get(key) for key in ("type", "taskId", "at", "seq"))
    if not isinstance(kind, str) or not isinstance(task_id, str) or not 0 < len(task_id) <= 128:
        return None
    if not isinstance(at, int | float) or isinstance(at, bool):
        return None
    number = seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 <= seq < 1 << 63 else None
    if not 0 <= at < 1 << 53:
        return None
    return Arrival(host_id, number, int(at), task_id, kind, event)
