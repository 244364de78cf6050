"""One task's channel while it is open: its crew's sessions, its people's words, what becomes of both.

A word is stored, with its event and with the queue entries of those who hear it, in one transaction; only
then does anybody act on it. It knows agents by their sessions and no agent's language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any

import attrs
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from uaihost.agents.adapter import PermissionAsked, PermissionWithdrawn, Start, Usage
from uaihost.agents.progress import (
    Activity,
    Decided,
    Happening,
    Note,
    PermissionsOrphaned,
    Said,
    TurnBegan,
    TurnFinished,
)
from uaihost.agents.session import Session
from uaihost.agents.turn import IN_TURN, State
from uaihost.channel import governor, orders, routing
from uaihost.channel.books import Books, Requests
from uaihost.channel.deltas import Deltas
from uaihost.channel.effects import Effects
from uaihost.channel.governor import Budgets
from uaihost.channel.history import history
from uaihost.channel.launch import Launcher
from uaihost.channel.permissions import Permissions
from uaihost.channel.reviewing import Changes, Reviewing
from uaihost.channel.transcript import Repeated, Transcripts, refuse_repeat
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import AgentStatus, Journal, Store
from uaihost.state import channel as table
from uaihost.state.channel import ChannelRow, PermissionRow
from uaihost.wire import events

log = Logger()

# Messages that are read to tell an agent what was said; history keeps the newest of them.
REMEMBERED = 2000


@attrs.frozen
class Around:
    """What all rooms share."""

    clock: Any
    store: Store
    journal: Journal
    transcripts: Transcripts
    launcher: Launcher
    changes: Changes
    budgets: Budgets


@attrs.frozen
class Kept:
    """What is stored of a channel when it is opened."""

    row: ChannelRow
    partners: Mapping[str, str]
    permissions: Permissions
    reviewers: Sequence[str]


class Room:
    """The open channel of one task."""

    def __init__(self, around: Around, kept: Kept) -> None:
        self.row = kept.row
        self.sessions: dict[str, Session] = {}
        self._clock = around.clock
        self._store = around.store
        self._journal = around.journal
        self._transcripts = around.transcripts
        self._launcher = around.launcher
        self._partners = dict(kept.partners)
        self._requests = Requests(self.task_id, kept.permissions)
        self._books = Books(self.task_id, around.budgets, kept.row.spent)
        self.reviewing = Reviewing(
            self.task_id,
            kept.row.review,
            kept.reviewers,
            around.changes,
            lambda: self.crew,
            self._effects,
            self._commit,
        )
        self._deltas = Deltas(around.clock, self._delta)
        self._timer: IDelayedCall | None = None
        self._closed = False

    @property
    def task_id(self) -> str:
        return self.row.task_id

    @property
    def crew(self) -> list[str]:
        return sorted(self.sessions, key=lambda agent_id: self.sessions[agent_id].row.position)

    @property
    def author(self) -> str:
        """Whose changes are reviewed: the first of the crew."""
        return next(iter(self.crew), "")

    def session(self, agent_id: str) -> Session:
        """HostError `not_found` naming the crew."""
        try:
            return self.sessions[agent_id]
        except KeyError:
            crew = ", ".join(f"@{known}" for known in self.crew) or "nobody"
            raise HostError(
                ErrorCode.NOT_FOUND, f"no agent {agent_id[:40]!r} in this task; here are: {crew}"
            ) from None

    def states(self) -> list[AgentStatus]:
        return [AgentStatus(agent_id, self.sessions[agent_id].activity) for agent_id in self.crew]

    def resume(self) -> None:
        """What waits for a time, or was cut off, goes on."""
        self.reviewing.resume(self.author)
        self._watch()

    # ---- people

    async def deliver(self, author: str, text: str, message_id: str) -> list[str]:
        """Store a person's word and pass it on; the ids of those who hear it."""
        order = routing.slash(text)
        targets = [] if order else routing.route(text, self.crew, self._partners.get(author))
        attached = [] if order else await self._store.run(lambda db: table.attached(db, self.task_id))
        text = "\n".join([text, *(_attached(path, size) for path, size in attached)])
        person, paused = events.Author("user", author, author), bool(self._books.spent.paused)
        effects = self._effects()
        effects.writes.append(lambda db: refuse_repeat(db, self.task_id, message_id))
        effects.message(self._transcripts.message(self.task_id, person, text, message_id, targets))
        for note in await self._replies(order) if order else self._warnings(targets):
            effects.note(note)
        now = self._now()
        self._books.spend(lambda spent, budgets: governor.spoken(now), effects)

        def store(db: Connection) -> None:
            table.forget_attached(db, self.task_id, [path for path, _ in attached])
            for agent_id in targets:
                table.enqueue(db, self.task_id, agent_id, text, origin=f"user:{author}")
            if targets:
                table.set_partner(db, self.task_id, author, targets[-1])

        effects.writes.append(store)
        # One word lets everybody go on whom a budget held.
        effects.heard += self.crew if paused else targets
        try:
            await self._commit(effects)
        except Repeated as repeated:
            return list(repeated.row.routed_to)
        if targets:
            self._partners[author] = targets[-1]
        if order:
            await self._obey(order)
        return targets

    async def resolve(
        self,
        agent_id: str,
        request_id: str,
        decision: str,
        by: str,
        scope: str = "once",
        answers: Mapping[str, str] | None = None,
    ) -> None:
        def decide() -> Decided | None:
            row = self._requests.rows.decide(
                agent_id, request_id, decision, by, self._now(), scope=scope, answers=answers
            )
            return Decided(row) if row else None

        await self.session(agent_id).answer(decide)

    async def _replies(self, order: routing.Slash) -> list[str]:
        """What the channel says at once to an order."""
        unknown = [f"@{name}" for name in order.agents if name not in self.sessions]
        match order.verb:
            case "help":
                return [orders.HELP]
            case "status":
                return [await self._status()]
            case "rules":
                return [orders.rules(list(self._requests.rows.rules.values()))]
            case "ask":
                return await self._ask_again(order.agents)
            case "retry-gh":
                return ["There is nothing to try again: this host has no GitHub support yet."]
            case "restart" | "retry" if not order.agents:
                return [f"Say whom: /{order.verb} @id"]
        return [f"No such agent here: {', '.join(unknown)}"] if unknown else []

    async def _status(self) -> str:
        waiting, used = await self._store.run(
            lambda db: (table.queue_lengths(db, self.task_id), table.usage(db, self.task_id))
        )
        crew = [(self.sessions[name].row, self.sessions[name].activity) for name in self.crew]
        by_agent = {row.agent_id: row for row in used}
        return orders.status(crew, waiting, by_agent, self._books.spent, self._books.budgets)

    async def _ask_again(self, words: Sequence[str]) -> list[str]:
        tool, rules = " ".join(words), self._requests.rows.rules
        if tool not in rules:
            return [orders.rules(list(rules.values()))]
        await self._store.run(lambda db: table.remove_rule(db, self.task_id, tool))
        del rules[tool]
        return [f"From now on agents ask again before they use {tool}."]

    async def _obey(self, order: routing.Slash) -> None:
        named = [self.sessions[name] for name in order.agents if name in self.sessions]
        if order.verb == "interrupt":
            for session in named if order.agents else list(self.sessions.values()):
                await session.interrupt()
        elif order.verb == "restart":
            for session in named:
                await session.restart()
        elif order.verb == "retry":
            for session in named:
                try:
                    await session.retry()
                except HostError as error:
                    await self._transcripts.note(self.task_id, error.message)

    def _warnings(self, targets: Sequence[str]) -> list[str]:
        """About those who cannot answer now."""
        failed = [agent_id for agent_id in targets if self.sessions[agent_id].state is State.FAILED]
        return [f"@{name} is down and will read this after: /restart @{name}" for name in failed]

    # ---- agents (the Room of agents.progress)

    async def start(self, agent_id: str, start: Start) -> None:
        await self._launcher.start(self.task_id, self.sessions[agent_id].row, self.row.cwd, start)

    async def fill(self, agent_id: str, line: bytes, renew: bool) -> bytes:
        return await self._launcher.fill(self.sessions[agent_id].row.kind, line, renew)

    async def history(self, agent_id: str) -> str:
        return history(await self._store.run(lambda db: table.last_messages(db, self.task_id, REMEMBERED)))

    def may_begin(self, agent_id: str, origin: str) -> bool:
        return governor.may_begin(self._books.spent, origin)

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        self._deltas.add(agent_id, message_id, text)

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        effects = self._effects()
        effects.writes.append(write)
        for happening in happened:
            self._translate(agent_id, happening, effects)
        await self._commit(effects)
        return [Decided(row) for row in self._requests.rows.due(agent_id)]

    async def _commit(self, effects: Effects) -> None:
        """Store it all and tell it; then wake who hears it."""
        try:
            if effects.told:
                await self._journal.record(*effects.told, write=effects.store)
            else:
                await self._store.run(effects.store)
        except BaseException:
            # Nothing was stored: what is in memory must not run ahead of the rows.
            effects.undo()
            raise
        for follows in effects.after:
            follows()
        for agent_id in dict.fromkeys(effects.heard):
            if agent_id in self.sessions:
                self.sessions[agent_id].pump()
        self._watch()
        if any(isinstance(event, events.ChannelMessage) for event in effects.told):
            await self._transcripts.follow(self.task_id)

    def _translate(self, agent_id: str, happening: Happening, effects: Effects) -> None:
        now = self._now()
        match happening:
            case Said():
                self._say(agent_id, happening, effects)
            case Note(text=text):
                effects.note(text)
            case Activity(state=state, detail=detail, until=until):
                told = events.ChannelActivity(self.task_id, now, agent_id, state, detail, until)
                effects.told.append(told)
            case Usage():
                self._books.used(agent_id, happening, now, effects)
            case Decided(row=row, given=given):
                self._requests.decided(row, now, effects, given)
            case PermissionWithdrawn(request_id=request_id):
                self._requests.withdraw(agent_id, request_id, now, effects)
            case PermissionsOrphaned(request_ids=names):
                self._requests.orphan(agent_id, names, effects)
            case PermissionAsked():
                self._requests.ask(agent_id, happening, now, effects)
            case TurnBegan(origin=origin):
                self._books.spend(lambda spent, budgets: governor.began(spent, budgets, origin, now), effects)
                if agent_id == self.author:
                    effects.after.append(lambda: self.reviewing.turn_began(agent_id))
            case TurnFinished():
                self._finished(agent_id, happening, now, effects)

    def _finished(self, agent_id: str, ended: TurnFinished, now: int, effects: Effects) -> None:
        self._requests.give_up(agent_id, now, effects)
        self._books.spend(
            lambda spent, budgets: governor.ended(spent, budgets, ended.origin, ended.tools), effects
        )
        self.reviewing.turn_ended(self.author, agent_id, ended, effects)

    def _say(self, agent_id: str, said: Said, effects: Effects) -> None:
        """An agent's message, passed on to those it mentions; what a budget holds waits in their queues."""
        task_id = self.task_id
        self._deltas.drop(said.message_id)
        wanted = [each for each in routing.mentions(said.text, self.crew) if each != agent_id]
        author = events.Author("agent", agent_id, self.sessions[agent_id].row.label)
        effects.message(self._transcripts.message(task_id, author, said.text, said.message_id, wanted))
        self._books.spend(lambda spent, budgets: governor.hop(spent, budgets, len(wanted)), effects)
        text = f"@{agent_id} says:\n{said.text}"

        def store(db: Connection) -> None:
            for target in wanted:
                table.enqueue(db, task_id, target, text, origin=f"agent:{agent_id}")

        effects.writes.append(store)
        effects.heard += wanted

    # ---- time

    def _watch(self) -> None:
        """Be there when the next request expires, and when the crew has worked long enough."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        times = [self._requests.rows.next_expiry()]
        spent, minutes = self._books.spent, self._books.budgets.minutes
        if minutes and spent.since and not spent.paused and self._working():
            times.append(spent.since + minutes * 60_000)
        due = [time for time in times if time is not None]
        if due and not self._closed:
            delay = max(0.0, (min(due) - self._now()) / 1000)
            self._timer = self._clock.callLater(min(delay, 86_400.0), self._tick)

    def _tick(self) -> None:
        done = ensureDeferred(self._due())
        done.addErrback(lambda failure: log.failure("the clock of task {task}", failure, task=self.task_id))

    async def _due(self) -> None:
        now = self._now()
        for row in self._requests.rows.expired(now):
            await self._expire(row, now)
        before, effects = self._books.spent.paused, self._effects()
        if self._working():
            self._books.spend(lambda spent, budgets: governor.timed(spent, budgets, now), effects)
        await self._commit(effects)
        if self._books.spent.paused == "minutes" and not before:
            for session in self._working():
                await session.interrupt()

    async def _expire(self, row: PermissionRow, now: int) -> None:
        def decide() -> Decided | None:
            found = self._requests.rows.expire(row, now)
            return Decided(found) if found else None

        if row.agent_id in self.sessions:
            await self.sessions[row.agent_id].answer(decide)
            return
        # Its agent has left the crew.
        effects, decided = self._effects(), decide()
        if decided is not None:
            self._requests.decided(decided.row, now, effects)
            await self._commit(effects)

    def _working(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.state in IN_TURN]

    # ---- both

    async def renew(self, provider: str, provider_of: Callable[[str], str | None]) -> None:
        """The provider's account has changed."""
        for session in list(self.sessions.values()):
            if provider_of(session.row.kind) == provider:
                await session.renew()

    async def stop(self) -> None:
        """End every agent."""
        self._close()
        await gatherResults([ensureDeferred(each.stop()) for each in self.sessions.values()])

    async def detach(self) -> None:
        """Let go of every agent; they live on."""
        self._close()
        await gatherResults([ensureDeferred(each.detach()) for each in self.sessions.values()])

    def _close(self) -> None:
        self._deltas.close()
        self._closed = True
        self._watch()

    def _delta(self, agent_id: str, message_id: str, text: str) -> None:
        self._journal.fleeting(events.ChannelDelta(self.task_id, self._now(), message_id, agent_id, text))

    def _effects(self) -> Effects:
        return Effects(lambda text: self._transcripts.notice(self.task_id, text))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _attached(path: str, size: int) -> str:
    return f"Attached file: {path} ({size:,} bytes)"
