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
from uaihost.agents.turn import State
from uaihost.channel import governor, routing
from uaihost.channel.alarm import Alarm
from uaihost.channel.books import Books, Requests
from uaihost.channel.deltas import Deltas
from uaihost.channel.effects import Effects
from uaihost.channel.governor import Budgets
from uaihost.channel.history import history
from uaihost.channel.launch import Launcher
from uaihost.channel.permissions import Permissions
from uaihost.channel.reviewing import Changes, Reviewing, Surroundings
from uaihost.channel.transcript import Repeated, Transcripts, refuse_repeat
from uaihost.channel.verbs import Verbs
from uaihost.counts import Lifecycle, Run
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import AgentStatus, Journal, Store
from uaihost.proofs import Recovery
from uaihost.state import channel as table
from uaihost.state.channel import ChannelRow
from uaihost.wire import events

# Messages that are read to tell an agent what was said; history keeps the newest of them.
REMEMBERED = 2000

# How a turn that ended counts.
OUTCOME = {"done": "completed", "cancelled": "interrupted", "failed": "failed"}


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
    recovery: Recovery | None = None
    turns: Lifecycle = attrs.field(factory=Lifecycle)
    # Why no turn may begin anywhere now; empty when one may.
    held: set[str] = attrs.field(factory=set)


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
        surroundings = Surroundings(
            around.clock, around.changes, self.crew, self._effects, self._commit, self._wake
        )
        self.reviewing = Reviewing(self.task_id, kept.row.review, kept.reviewers, surroundings)
        self._verbs = Verbs(
            self.task_id,
            around.store,
            around.transcripts,
            self._requests,
            self._books,
            self.sessions,
            self.crew,
            around.recovery,
        )
        self._alarm = Alarm(
            self.task_id,
            around.clock,
            self._requests,
            self._books,
            self.sessions,
            self._effects,
            self._commit,
        )
        self._deltas = Deltas(around.clock, self._delta)
        self._turns = around.turns
        self._held = around.held
        # Of this process's count: what each agent is in the middle of.
        self._counted: dict[str, Run] = {}

    @property
    def task_id(self) -> str:
        return self.row.task_id

    def crew(self) -> list[str]:
        """The ids of those who are here, in order."""
        return sorted(self.sessions, key=lambda agent_id: self.sessions[agent_id].row.position)

    def session(self, agent_id: str) -> Session:
        """HostError `not_found` naming the crew."""
        try:
            return self.sessions[agent_id]
        except KeyError:
            crew = ", ".join(f"@{known}" for known in self.crew()) or "nobody"
            raise HostError(
                ErrorCode.NOT_FOUND, f"no agent {agent_id[:40]!r} in this task; here are: {crew}"
            ) from None

    def states(self) -> list[AgentStatus]:
        return [AgentStatus(agent_id, self.sessions[agent_id].activity) for agent_id in self.crew()]

    def resume(self) -> None:
        """The crew is together: what waits for a time, or was cut off, goes on."""
        self.reviewing.resume()
        self._alarm.watch()

    # ---- people

    async def deliver(self, author: str, text: str, message_id: str) -> list[str]:
        """Store a person's word and pass it on; the ids of those who hear it."""
        order = routing.slash(text)
        targets = [] if order else routing.route(text, self.crew(), self._partners.get(author))
        attached = [] if order else await self._store.run(lambda db: table.attached(db, self.task_id))
        text = "\n".join([text, *(_attached(path, size) for path, size in attached)])
        person, paused = events.Author("user", author, author), bool(self._books.spent.paused)
        effects = self._effects()
        effects.writes.append(lambda db: refuse_repeat(db, self.task_id, message_id))
        effects.message(self._transcripts.message(self.task_id, person, text, message_id, targets))
        for note in await self._verbs.replies(order) if order else self._warnings(targets):
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
        effects.heard += self.crew() if paused else targets
        try:
            await self._commit(effects)
        except Repeated as repeated:
            return list(repeated.row.routed_to)
        if targets:
            self._partners[author] = targets[-1]
        if order:
            await self._verbs.obey(order)
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
        return (
            not self._held
            and governor.may_begin(self._books.spent, origin)
            and self.reviewing.may_begin(agent_id)
        )

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        self._alarm.heard(agent_id)
        self._deltas.add(agent_id, message_id, text)

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        self._alarm.heard(agent_id)
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
            self._wake(agent_id)
        self._alarm.watch()
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
                self._counted[agent_id] = self._turns.begin()
                self.reviewing.turn_began(agent_id, effects)
            case TurnFinished():
                self._finished(agent_id, happening, now, effects)

    def _finished(self, agent_id: str, ended: TurnFinished, now: int, effects: Effects) -> None:
        # One that began before this process did counts from here.
        counted = self._counted.pop(agent_id, None) or self._turns.begin()
        counted.end(OUTCOME[ended.reason])
        self._requests.give_up(agent_id, now, effects)
        self._books.spend(
            lambda spent, budgets: governor.ended(spent, budgets, ended.origin, ended.tools), effects
        )
        self.reviewing.turn_ended(agent_id, ended, effects)

    def _say(self, agent_id: str, said: Said, effects: Effects) -> None:
        """An agent's message, passed on to those it mentions; what a budget holds waits in their queues."""
        task_id = self.task_id
        self._deltas.drop(said.message_id)
        wanted = [each for each in routing.mentions(said.text, self.crew()) if each != agent_id]
        author = events.Author("agent", agent_id, self.sessions[agent_id].row.label)
        effects.message(self._transcripts.message(task_id, author, said.text, said.message_id, wanted))
        self._books.spend(lambda spent, budgets: governor.hop(spent, budgets, len(wanted)), effects)
        text = f"@{agent_id} says:\n{said.text}"

        def store(db: Connection) -> None:
            for target in wanted:
                table.enqueue(db, task_id, target, text, origin=f"agent:{agent_id}")

        effects.writes.append(store)
        effects.heard += wanted

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
        for counted in self._counted.values():
            counted.end("interrupted")
        self._deltas.close()
        self._alarm.close()
        self.reviewing.close()

    def _delta(self, agent_id: str, message_id: str, text: str) -> None:
        self._journal.fleeting(events.ChannelDelta(self.task_id, self._now(), message_id, agent_id, text))

    def _wake(self, agent_id: str) -> None:
        if agent_id in self.sessions:
            self.sessions[agent_id].pump()

    def _effects(self) -> Effects:
        return Effects(lambda text: self._transcripts.notice(self.task_id, text))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _attached(path: str, size: int) -> str:
    return f"Attached file: {path} ({size:,} bytes)"
