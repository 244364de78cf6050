"""When a channel has to act by itself: a request for leave expires, the crew has worked long enough, or an
agent that thinks gives no sign of life."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from uaihost.agents.progress import Decided
from uaihost.agents.session import Session
from uaihost.agents.turn import IN_TURN, State
from uaihost.channel import governor
from uaihost.channel.books import Books, Requests
from uaihost.channel.effects import Effects
from uaihost.state.channel import PermissionRow

log = Logger()

# The longest that one call to come may wait, seconds: the clock of the machine may be set meanwhile.
LONGEST = 86_400.0
# Milliseconds without a word from one that thinks, after which people are told: some programs try again in
# silence for as long as the model has no room.
SILENCE = 10 * 60 * 1000


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
    # When each agent was heard last, and whose silence is told.
    _heard: dict[str, int] = attrs.field(factory=dict, init=False)
    _told: set[str] = attrs.field(factory=set, init=False)

    def heard(self, agent_id: str) -> None:
        """It has given a sign of life."""
        self._heard[agent_id] = self._now()
        self._told.discard(agent_id)

    def watch(self) -> None:
        """Be there when the next thing is due, as it is known now."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        times = [self.requests.rows.next_expiry()]
        spent, minutes = self.books.spent, self.books.budgets.minutes
        if minutes and spent.since and not spent.paused and self._working():
            times.append(spent.since + minutes * 60_000)
        times += self._silences().values()
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
        too_long = self.books.spent.paused == "minutes" and not before
        for agent_id, at in self._silences().items():
            if at <= now and not too_long:
                self._tell(agent_id, effects)
        await self.commit(effects)
        if too_long:
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

    def _silences(self) -> dict[str, int]:
        """Who thinks and is not told of, and when that becomes too long."""
        now = self._now()
        return {
            agent_id: self._heard.setdefault(agent_id, now) + SILENCE
            for agent_id, session in self.sessions.items()
            if session.state is State.BUSY and session.activity == "thinking" and agent_id not in self._told
        }

    def _tell(self, agent_id: str, effects: Effects) -> None:
        self._told.add(agent_id)
        effects.undoing.append(lambda: self._told.discard(agent_id))
        effects.note(
            f"@{agent_id} has given no sign of life for {SILENCE // 60_000} min: perhaps the model has no "
            f"room, or a limit is met. It goes on waiting; to end its turn write: /interrupt @{agent_id}"
        )

    def _working(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.state in IN_TURN]

    def _now(self) -> int:
        return int(self.clock.seconds() * 1000)
