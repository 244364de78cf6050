"""Drives a task's rounds of review: looks at the files around the author's turns, and asks reviewers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, DeferredLock, ensureDeferred
from twisted.logger import Logger

from uaihost.agents.progress import TurnFinished
from uaihost.channel import reviews, routing
from uaihost.channel.effects import Effects
from uaihost.channel.reviews import Round
from uaihost.errors import HostError
from uaihost.state import channel as table

log = Logger()


class Changes(Protocol):
    """The work copies of a task (workspaces)."""

    async def fingerprint(self, task_id: str) -> str:
        """Differs when their files, ignored ones aside, or commits do. HostError when they cannot be read."""


class Unwatched:
    """No work copies: nothing ever changes, so nobody reviews."""

    async def fingerprint(self, task_id: str) -> str:
        return ""


class Reviewing:
    """One task's rounds. effects: makes empty ones; store: commits them and wakes who is asked."""

    def __init__(
        self,
        task_id: str,
        row: str,
        reviewers: Sequence[str],
        changes: Changes,
        crew: Callable[[], Sequence[str]],
        effects: Callable[[], Effects],
        store: Callable[[Effects], Awaitable[None]],
    ) -> None:
        fields: dict[str, Any] = json.loads(row) if row else {}
        self.reviewers = list(reviewers)
        self._round = Round(**{**fields, "left": tuple(fields.get("left", ()))})
        self._task_id = task_id
        self._changes = changes
        self._crew = crew
        self._effects = effects
        self._store = store
        # Looks follow one another, in the order of the turns they belong to.
        self._lock = DeferredLock()

    def turn_began(self, author: str) -> None:
        """The author works from here on."""
        if self._who(author):
            self._later(self._begin())

    def turn_ended(self, author: str, agent_id: str, ended: TurnFinished, effects: Effects) -> None:
        """Stored with the end of the turn: after a crash the look is made up for."""
        if agent_id == author:
            if ended.reason == "done" and self._who(author):
                self._change(reviews.look(self._round, ended.answer), effects)
                effects.after.append(lambda: self._later(self._look(author)))
        elif ended.reason == "done":
            addressed = author in routing.mentions(ended.answer, [author])
            after = reviews.answered(self._round, agent_id, addressed)
            if after != self._round:
                self._change(after, effects)
                self._ask(author, effects)

    def resume(self, author: str) -> None:
        """After a start of the daemon."""
        if self._round.stage == "looking":
            self._later(self._look(author))

    def _who(self, author: str) -> list[str]:
        return [name for name in self.reviewers if name != author and name in self._crew()]

    async def _begin(self) -> None:
        mark = await self._changes.fingerprint(self._task_id)
        effects = self._effects()
        self._change(reviews.begun(mark), effects)
        await self._store(effects)

    async def _look(self, author: str) -> None:
        if self._round.stage != "looking":
            return
        mark = await self._changes.fingerprint(self._task_id)
        effects = self._effects()
        self._change(reviews.found(self._round, mark, self._who(author)), effects)
        self._ask(author, effects)
        await self._store(effects)

    def _ask(self, author: str, effects: Effects) -> None:
        if self._round.stage != "asked":
            return
        reviewer, task_id = self._round.left[0], self._task_id
        text = reviews.request(author, self._round.answer)
        effects.writes.append(lambda db: table.enqueue(db, task_id, reviewer, text, origin="system"))
        effects.heard.append(reviewer)
        effects.note(f"@{reviewer} is asked to review what @{author} has changed.")

    def _change(self, after: Round, effects: Effects) -> None:
        before, self._round = self._round, after
        effects.undoing.append(lambda: self._back(before))
        stored = json.dumps(attrs.asdict(after))
        effects.writes.append(lambda db: table.set_review(db, self._task_id, stored))

    def _back(self, before: Round) -> None:
        self._round = before

    def _later(self, work: Any) -> None:
        async def one_at_a_time() -> None:
            await self._lock.acquire()
            try:
                await work
            except HostError as error:
                log.warn("task {task} cannot be reviewed: {why}", task=self._task_id, why=error.message)
            finally:
                self._lock.release()

        done: Deferred[None] = ensureDeferred(one_at_a_time())
        done.addErrback(lambda failure: log.failure("a review of task {task}", failure, task=self._task_id))
