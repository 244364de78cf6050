"""The journal: what happened is a row before anybody hears of it, and everybody hears it in the rows' order.

It knows the outbox table and who listens; it does not know the link, nor what an event means.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from uaihost.interfaces import Entry, Store
from uaihost.state import outbox
from uaihost.wire.codec import encode, encode_value
from uaihost.wire.events import Event, Fleeting
from uaihost.wire.frames import Result

T = TypeVar("T")

log = Logger()

Listener = Callable[[Entry], None]


class EventJournal:
    """interfaces.Journal on the database's outbox.

    clock: gives the time of each row; `seconds()` counts from the epoch.
    """

    def __init__(self, store: Store, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        # By a number of their own, so that one callable may listen twice.
        self._listeners: dict[int, Listener] = {}
        self._joined = 0
        self._untold: deque[Entry] = deque()
        self._telling = False

    async def record(self, *events: Event, write: Callable[[sqlite3.Connection], T]) -> T:
        """In one transaction `write` and a row per event; then the listeners are told."""
        return await self._commit([("event", encode_value(event)) for event in events], write)

    async def emit(self, *events: Event) -> None:
        """`record` with nothing else to write."""
        await self.record(*events, write=_nothing)

    async def record_result(
        self, command_id: str, result: bytes, write: Callable[[sqlite3.Connection], T]
    ) -> T:
        """In one transaction `write` and the row of a command's result frame; then the listeners are told.

        result: `{"ok": ...}` as JSON.
        """
        return await self._commit([("result", _result_frame(command_id, result))], write)

    def fleeting(self, event: Fleeting) -> None:
        """Tell the listeners now; nothing is stored."""
        self._tell([Entry(None, "event", encode_value(event))])

    def fleeting_result(self, command_id: str, result: bytes) -> None:
        """A result that cannot be stored, told now: without a database it is the only way to answer."""
        self._tell([Entry(None, "result", _result_frame(command_id, result))])

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """`listener` hears every later entry; one that raises is told no more. The result ends it."""
        self._joined += 1
        number = self._joined
        self._listeners[number] = listener

        def leave() -> None:
            self._listeners.pop(number, None)

        return leave

    async def _commit(
        self, rows: list[tuple[Literal["event", "result"], bytes]], write: Callable[[sqlite3.Connection], T]
    ) -> T:
        at = int(self._clock.seconds() * 1000)

        def work(connection: sqlite3.Connection) -> tuple[T, list[Entry]]:
            done = write(connection)
            return done, [Entry(outbox.append(connection, kind, text, at), kind, text) for kind, text in rows]

        # The store's answers come in the order of its transactions, so this is the order of the rows.
        done, entries = await self._store.run(work)
        self._tell(entries)
        return done

    def _tell(self, entries: list[Entry]) -> None:
        self._untold += entries
        if self._telling:
            # A listener caused this: whoever is behind it must hear the earlier entry first.
            return
        self._telling = True
        try:
            while self._untold:
                entry = self._untold.popleft()
                for number, listener in list(self._listeners.items()):
                    self._hear(number, listener, entry)
        finally:
            self._telling = False

    def _hear(self, number: int, listener: Listener, entry: Entry) -> None:
        if number not in self._listeners:
            return
        try:
            listener(entry)
        except Exception:
            log.failure("a listener of the journal failed and is not told any more")
            self._listeners.pop(number, None)


def _result_frame(command_id: str, result: bytes) -> bytes:
    return encode(Result(command_id, msgspec.Raw(result)))


def _nothing(connection: sqlite3.Connection) -> None:
    """Only the events are written."""
