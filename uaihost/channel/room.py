"""One task's channel while it is open: its crew's sessions, its people's words, what becomes of both.

A word is stored, with its event and with the queue entries of those who hear it, in one transaction; only
then does anybody act on it. It knows agents by their sessions and no agent's language.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from sqlite3 import Connection
from typing import Any, Literal, cast

import attrs
from twisted.internet.defer import ensureDeferred, gatherResults

from uaihost.agents.adapter import PermissionAsked, PermissionWithdrawn, Start, Usage
from uaihost.agents.progress import Activity, Decided, Happening, Note, Said
from uaihost.agents.session import Session
from uaihost.agents.turn import State
from uaihost.channel import governor, routing
from uaihost.channel.deltas import Deltas
from uaihost.channel.permissions import Permissions
from uaihost.channel.transcript import Repeated, Transcripts, entry, refuse_repeat
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import AgentStatus, Engine, Journal, Store
from uaihost.state import channel as table
from uaihost.state.channel import ChannelRow, MessageRow
from uaihost.wire import events

# The keeper in the container and where it keeps an agent's things there (the task's run folder).
KEEPER = ("python3", "/opt/uai/agentd.py")
AGENTS = "/run/uai/agents"

Write = Callable[[Connection], object]

HELP = """@id addresses one agent or several; without it the agent you spoke with last hears you.
/status: what each agent does    /interrupt [@id]: stop a turn    /restart @id: start an agent anew
/help: this text"""


@attrs.define
class _Effects:
    """What one piece of an agent's work means: events, rows, who hears it, and how to take it back."""

    told: list[events.Event] = attrs.field(factory=list)
    writes: list[Write] = attrs.field(factory=list)
    heard: list[str] = attrs.field(factory=list)
    undoing: list[Callable[[], None]] = attrs.field(factory=list)

    def message(self, row: MessageRow) -> None:
        event, write = entry(row)
        self.told.append(event)
        self.writes.append(write)

    def store(self, db: Connection) -> None:
        for write in self.writes:
            write(db)


class Room:
    """The open channel of one task."""

    def __init__(
        self,
        clock: Any,
        store: Store,
        journal: Journal,
        engine: Engine,
        transcripts: Transcripts,
        row: ChannelRow,
        partners: Mapping[str, str],
        permissions: Permissions,
    ) -> None:
        self.row = row
        self.sessions: dict[str, Session] = {}
        self._clock = clock
        self._store = store
        self._journal = journal
        self._engine = engine
        self._transcripts = transcripts
        self._partners = dict(partners)
        self._permissions = permissions
        self._hops = row.hops_left
        self._deltas = Deltas(clock, self._delta)

    @property
    def task_id(self) -> str:
        return self.row.task_id

    @property
    def crew(self) -> list[str]:
        return sorted(self.sessions, key=lambda agent_id: self.sessions[agent_id].row.position)

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

    # ---- people

    async def deliver(self, author: str, text: str, message_id: str) -> list[str]:
        """Store a person's word and pass it on; the ids of those who hear it."""
        order = routing.slash(text)
        targets = [] if order else routing.route(text, self.crew, self._partners.get(author))
        notes = self._replies(order) if order else self._warnings(targets)
        person = events.Author("user", author, author)
        said = self._transcripts.message(self.task_id, person, text, message_id, targets)
        stored = [entry(said), *(entry(self._transcripts.notice(self.task_id, note)) for note in notes)]

        def write(db: Connection) -> None:
            refuse_repeat(db, self.task_id, message_id)
            for _, store in stored:
                store(db)
            table.set_hops(db, self.task_id, governor.HOPS)
            for agent_id in targets:
                table.enqueue(db, self.task_id, agent_id, text)
            if targets:
                table.set_partner(db, self.task_id, author, targets[-1])

        try:
            await self._journal.record(*(event for event, _ in stored), write=write)
        except Repeated as repeated:
            return list(repeated.row.routed_to)
        self._hops = governor.HOPS
        if targets:
            self._partners[author] = targets[-1]
        await self._stored(targets)
        if order:
            await self._obey(order)
        return targets

    async def resolve(self, agent_id: str, request_id: str, decision: str, by: str) -> None:
        session = self.session(agent_id)

        def decide() -> Decided | None:
            row = self._permissions.decide(agent_id, request_id, decision, by, self._now())
            return Decided(row) if row else None

        await session.answer(decide)

    def _replies(self, order: routing.Slash) -> list[str]:
        """What the channel says at once to an order."""
        unknown = [f"@{name}" for name in order.agents if name not in self.sessions]
        match order.verb:
            case "help":
                return [HELP]
            case "status":
                lines = [f"@{each.id}: {each.state}" for each in self.states()]
                return ["\n".join(lines) or "No agent is in this task."]
            case "retry-gh":
                return ["There is nothing to try again: this host has no GitHub support yet."]
            case "restart" if not order.agents:
                return ["Say whom: /restart @id"]
        return [f"No such agent here: {', '.join(unknown)}"] if unknown else []

    async def _obey(self, order: routing.Slash) -> None:
        named = [self.sessions[name] for name in order.agents if name in self.sessions]
        if order.verb == "interrupt":
            for session in named if order.agents else list(self.sessions.values()):
                await session.interrupt()
        elif order.verb == "restart":
            for session in named:
                await session.restart()

    def _warnings(self, targets: Sequence[str]) -> list[str]:
        """About those who cannot answer now."""
        failed = [agent_id for agent_id in targets if self.sessions[agent_id].state is State.FAILED]
        return [f"@{name} is down and will read this after: /restart @{name}" for name in failed]

    # ---- agents (the Room of agents.progress)

    async def start(self, agent_id: str, start: Start) -> None:
        folder = f"{AGENTS}/{agent_id}"
        await self._engine.start_process(
            self.task_id, [*KEEPER, "--dir", folder, "--cwd", self.row.cwd, "--", *start.argv]
        )

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        self._deltas.add(agent_id, message_id, text)

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        effects = _Effects(writes=[write])
        for happening in happened:
            self._translate(agent_id, happening, effects)
        try:
            if effects.told:
                await self._journal.record(*effects.told, write=effects.store)
            else:
                await self._store.run(effects.store)
        except BaseException:
            # Nothing was stored: what is in memory must not run ahead of the rows.
            for undo in reversed(effects.undoing):
                undo()
            raise
        if any(isinstance(event, events.ChannelMessage) for event in effects.told):
            await self._stored(effects.heard)
        return ()

    async def fill(self, agent_id: str, line: bytes, renew: bool) -> bytes:
        return line

    async def history(self, agent_id: str) -> str:
        return ""

    def may_begin(self, agent_id: str, origin: str) -> bool:
        return True

    def _translate(self, agent_id: str, happening: Happening, effects: _Effects) -> None:
        task_id, now = self.task_id, self._now()
        match happening:
            case Said():
                self._say(agent_id, happening, effects)
            case Note(text=text):
                effects.message(self._transcripts.notice(task_id, text))
            case Activity(state=state, detail=detail):
                effects.told.append(events.ChannelActivity(task_id, now, agent_id, state, detail))
            case Usage(input_tokens=read, output_tokens=made, cost_usd=cost):
                effects.told.append(events.AgentUsage(task_id, now, agent_id, read, made, cost))
            case Decided(row=row):
                self._settle(row, effects)
            case PermissionWithdrawn(request_id=request_id):
                self._settle(self._permissions.withdraw(agent_id, request_id, now), effects)
            case PermissionAsked():
                self._ask(agent_id, happening, effects)

    def _say(self, agent_id: str, said: Said, effects: _Effects) -> None:
        """An agent's message, passed on to those it mentions as far as the budget allows."""
        task_id = self.task_id
        self._deltas.drop(said.message_id)
        wanted = [each for each in routing.mentions(said.text, self.crew) if each != agent_id]
        grant = governor.spend(self._hops, wanted)
        author = events.Author("agent", agent_id, self.sessions[agent_id].row.label)
        effects.message(self._transcripts.message(task_id, author, said.text, said.message_id, grant.granted))
        if grant.notice:
            effects.message(self._transcripts.notice(task_id, grant.notice))
        if not grant.granted:
            return
        self._hops = grant.left

        def refund() -> None:
            self._hops += len(grant.granted)

        def store(db: Connection) -> None:
            table.set_hops(db, task_id, grant.left)
            for target in grant.granted:
                table.enqueue(db, task_id, target, f"@{agent_id} says:\n{said.text}")

        effects.undoing.append(refund)
        effects.writes.append(store)
        effects.heard += grant.granted

    def _ask(self, agent_id: str, asked: PermissionAsked, effects: _Effects) -> None:
        if self._permissions.is_open(agent_id, asked):
            return
        # The agent waits for one thing by one name: an earlier one by the same name is given up.
        now = self._now()
        self._settle(self._permissions.withdraw(agent_id, asked.request_id, now), effects)
        row = self._permissions.ask(agent_id, asked, now)
        effects.undoing.append(lambda: self._permissions.forget(row))
        effects.writes.append(lambda db: table.add_permission(db, row))
        effects.told.append(
            events.PermissionRequested(
                self.task_id, now, agent_id, row.request_id, asked.tool, asked.title, asked.input
            )
        )

    def _settle(self, row: table.PermissionRow | None, effects: _Effects) -> None:
        if row is None:
            return
        decision = cast(Literal["accept", "decline"], row.decision)
        effects.undoing.append(lambda: self._permissions.reopen(row))
        effects.writes.append(lambda db: table.decide(db, row))
        effects.told.append(
            events.PermissionResolved(
                self.task_id, self._now(), row.agent_id, row.request_id, decision, row.decided_by or ""
            )
        )

    # ---- both

    async def stop(self) -> None:
        """End every agent."""
        self._deltas.close()
        await gatherResults([ensureDeferred(each.stop()) for each in self.sessions.values()])

    async def detach(self) -> None:
        """Let go of every agent; they live on."""
        self._deltas.close()
        await gatherResults([ensureDeferred(each.detach()) for each in self.sessions.values()])

    async def _stored(self, heard: Sequence[str]) -> None:
        for agent_id in heard:
            if agent_id in self.sessions:
                self.sessions[agent_id].pump()
        await self._transcripts.follow(self.task_id)

    def _delta(self, agent_id: str, message_id: str, text: str) -> None:
        self._journal.fleeting(events.ChannelDelta(self.task_id, self._now(), message_id, agent_id, text))

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
