"""Drives a task's rounds of review: looks at the files around the author's turns, and asks reviewers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.defer import ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from uaihost.agents.progress import TurnFinished
from uaihost.channel import reviews, routing
from uaihost.channel.effects import Effects
from uaihost.channel.reviews import Round
from uaihost.errors import HostError
from uaihost.state import channel as table

log = Logger()

# Seconds that the author's turn waits for a look at the files; the largest work copies take a few.
LOOK_LIMIT = 60.0
# Before a look is tried again whose outcome could not be stored (a full disk), seconds.
FAULT_PAUSE = 5.0
# Whose words a request for a review is.
ORIGIN = "system"


class Changes(Protocol):
    """The work copies of a task (workspaces)."""

    async def fingerprint(self, task_id: str) -> str:
        """Differs when their files, ignored ones aside, or commits do. HostError when they cannot be read."""


class Unwatched:
    """No work copies: nothing ever changes, so nobody reviews."""

    async def fingerprint(self, task_id: str) -> str:
        return ""


@attrs.frozen
class Surroundings:
    """crew: its ids, the author first; effects: makes empty ones; store: commits them; wake: an agent may
    begin now."""

    clock: Any
    changes: Changes
    crew: Callable[[], Sequence[str]]
    effects: Callable[[], Effects]
    store: Callable[[Effects], Awaitable[None]]
    wake: Callable[[str], None]


class Reviewing:
    """One task's rounds. The author's turns begin when its files are known, so that no change is missed."""

    def __init__(self, task_id: str, row: str, reviewers: Sequence[str], around: Surroundings) -> None:
        self.reviewers = list(reviewers)
        self._round = reviews.restored(json.loads(row) if row else {})
        self._task_id = task_id
        self._around = around
        # Of the files now, for the turn that is about to begin; '' when it cannot be told, None: not asked.
        self._mark: str | None = None
        self._busy = False
        self._again: IDelayedCall | None = None
        self._together = False
        self._closed = False

    def may_begin(self, agent_id: str) -> bool:
        """Whether the agent's turn may begin; if not it is woken when it may."""
        if agent_id != self._author or not self._watched:
            return True
        if not self._together:
            return False
        if self._round.looking:
            self._make_up()
            return False
        if self._round.mark or self._mark is not None:
            return True
        self._later(self._measure)
        return False

    def turn_began(self, agent_id: str, effects: Effects) -> None:
        if agent_id == self._author and self._watched:
            mark, self._mark = self._mark or "", None
            self._change(reviews.begun(self._round, mark), effects)

    def turn_ended(self, agent_id: str, ended: TurnFinished, effects: Effects) -> None:
        """Stored with the end of the turn: after a crash the look is made up for."""
        done = ended.reason == "done"
        if agent_id == self._author:
            if done and self._watched:
                self._change(reviews.look(self._round, ended.answer), effects)
                effects.after.append(self._make_up)
        elif ended.origin == ORIGIN:
            addressed = self._author in routing.mentions(ended.answer, [self._author])
            after, asks = reviews.answered(self._round, agent_id, done, addressed, self._who())
            if after != self._round:
                self._change(after, effects)
                self._ask(asks, effects)

    def resume(self) -> None:
        """The crew is together: nobody is passed over now, so looks that are owed are made up for."""
        self._together = True
        self._make_up()
        self._around.wake(self._author)

    def close(self) -> None:
        """The channel goes away: what is owed is made up for when it is open again."""
        self._closed = True
        if self._again is not None and self._again.active():
            self._again.cancel()

    def _make_up(self) -> None:
        if self._round.looking and self._together:
            self._later(self._look)

    @property
    def _author(self) -> str:
        return next(iter(self._around.crew()), "")

    @property
    def _watched(self) -> bool:
        # Whoever is named: while a crew begins its reviewers may not be here yet.
        return any(name != self._author for name in self.reviewers)

    def _who(self) -> list[str]:
        author, crew = self._author, self._around.crew()
        return [name for name in dict.fromkeys(self.reviewers) if name != author and name in crew]

    async def _measure(self) -> None:
        self._mark, why = await self._fingerprint()
        if why:
            log.warn("the files of task {task} are not known: {why}", task=self._task_id, why=why)

    async def _look(self) -> None:
        effects = self._around.effects()
        mark, why = await self._fingerprint()
        if self._closed:
            return
        if why:
            effects.note(
                f"Nobody was asked to review what @{self._author} did: its files cannot be looked at ({why})"
            )
        after, asks = reviews.found(self._round, mark, self._who())
        self._change(after, effects)
        self._ask(asks, effects)
        await self._around.store(effects)

    async def _fingerprint(self) -> tuple[str, str]:
        """The mark of the files, and why there is none."""
        looking = ensureDeferred(self._around.changes.fingerprint(self._task_id))
        looking.addTimeout(LOOK_LIMIT, self._around.clock)
        try:
            return await looking, ""
        except TookTooLong:
            return "", f"that takes longer than {LOOK_LIMIT:.0f} s"
        except HostError as error:
            return "", error.message
        except Exception as error:
            # A fault of ours costs the review, not the author's next turn.
            log.failure("the files of task {task}", task=self._task_id)
            return "", type(error).__name__

    def _ask(self, asks: bool, effects: Effects) -> None:
        if not asks:
            return
        reviewer, task_id = self._round.left[0], self._task_id
        text = reviews.request(self._author, self._round.answer)
        effects.writes.append(lambda db: table.enqueue(db, task_id, reviewer, text, origin=ORIGIN))
        effects.heard.append(reviewer)
        effects.note(f"@{reviewer} is asked to review what @{self._author} has changed.")

    def _change(self, after: Round, effects: Effects) -> None:
        before, self._round = self._round, after
        effects.undoing.append(lambda: self._back(before))
        stored = json.dumps(attrs.asdict(after))
        effects.writes.append(lambda db: table.set_review(db, self._task_id, stored))

    def _back(self, before: Round) -> None:
        self._round = before

    def _later(self, work: Callable[[], Awaitable[None]]) -> None:
        """One look at a time; the author waits for it."""
        if self._busy or self._closed:
            return
        self._busy = True

        async def alone() -> None:
            try:
                await work()
            finally:
                self._busy = False

        done = ensureDeferred(alone())
        done.addCallbacks(lambda _: self._around.wake(self._author), self._failed)
        done.addErrback(lambda failure: log.failure("a review of task {task}", failure, task=self._task_id))

    def _failed(self, failure: Any) -> None:
        """It could not be stored: it is owed still."""
        log.failure("a review of task {task}", failure, task=self._task_id)
        if not self._closed:
            self._again = self._around.clock.callLater(FAULT_PAUSE, self._make_up)
