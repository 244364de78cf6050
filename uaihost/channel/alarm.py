"""When a channel has to act by itself: a request for leave expires, or the crew has worked long enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from uaihost.agents.progress import Decided
from uaihost.agents.session import Session
from uaihost.agents.turn import IN_TURN
from uaihost.channel import governor
from uaihost.channel.books import Books, Requests
from uaihost.channel.effects import Effects
from uaihost.state.channel import PermissionRow

log = Logger()

# The longest that one call to come may wait, seconds: the clock of the machine may be set meanwhile.
LONGEST = 86_400.0


@attrs.define
class Alarm:
    """One task's. effects: makes empty ones; commit: stores and tells them."""

    task_id: str
    clock: Any
    requests: Requests
    books: Books
    sessions: Mapping[str, Session]
    effects: Callable[[], Effects]
    commit: Callable[[Effects], Awaitable[None]]
    _call: IDelayedCall | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def watch(self) -> None:
        """Be there when the next thing is due, as it is known now."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        times = [self.requests.rows.next_expiry()]
        spent, minutes = self.books.spent, self.books.budgets.minutes
        if minutes and spent.since and not spent.paused and self._working():
            times.append(spent.since + minutes * 60_000)
        due = [time for time in times if time is not None]
        if due and not self._closed:
            delay = max(0.0, (min(due) - self._now()) / 1000)
            self._call = self.clock.callLater(min(delay, LONGEST), self._ring)

    def close(self) -> None:
        """Nothing rings any more."""
        self._closed = True
        self.watch()

    def _ring(self) -> None:
        done = ensureDeferred(self._due())
        done.addErrback(lambda failure: log.failure("the clock of task {task}", failure, task=self.task_id))

    async def _due(self) -> None:
        now = self._now()
        for row in self.requests.rows.expired(now):
            await self._expire(row, now)
        before, effects = self.books.spent.paused, self.effects()
        if self._working():
            self.books.spend(lambda spent, budgets: governor.timed(spent, budgets, now), effects)
        await self.commit(effects)
        if self.books.spent.paused == "minutes" and not before:
            for session in self._working():
                await session.interrupt()

    async def _expire(self, row: PermissionRow, now: int) -> None:
        def decide() -> Decided | None:
            found = self.requests.rows.expire(row, now)
            return Decided(found) if found else None

        if row.agent_id in self.sessions:
            await self.sessions[row.agent_id].answer(decide)
            return
        # Its agent has left the crew.
        effects, decided = self.effects(), decide()
        if decided is not None:
            self.requests.decided(decided.row, now, effects)
            await self.commit(effects)

    def _working(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.state in IN_TURN]

    def _now(self) -> int:
        return int(self.clock.seconds() * 1000)
