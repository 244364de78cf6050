"""The channels of all tasks: what commands ask of them, and which of them are open.

It starts and stops the crews as they are wanted and finds them again after a restart of the daemon. What
happens in one channel is the room's business (channel.room).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import attrs
from twisted.internet.defer import DeferredLock, ensureDeferred, gatherResults
from twisted.logger import Logger

from uaihost.agents.adapter import Adapter
from uaihost.agents.process import AgentProcess, Listener, Process, Starter
from uaihost.agents.registry import AgentRegistry
from uaihost.agents.session import Session
from uaihost.agents.turn import State
from uaihost.blocking import Blocking
from uaihost.channel import members
from uaihost.channel.admission import check_crew, check_task, unknown, words
from uaihost.channel.governor import Budgets
from uaihost.channel.launch import Launcher
from uaihost.channel.permissions import Permissions
from uaihost.channel.reviewing import Changes, Unwatched
from uaihost.channel.room import Around, Kept, Room
from uaihost.channel.transcript import Transcripts
from uaihost.counts import Lifecycle
from uaihost.errors import ErrorCode, HostError
from uaihost.ids import new_id
from uaihost.interfaces import Account, Accounts, AgentStatus, Engine, Journal, Store
from uaihost.proofs import Recovery
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, ChannelRow
from uaihost.wire.inputs import ChannelEnsure

log = Logger()

# How long a request for leave waits for a person, seconds.
EXPIRY = 7 * 24 * 3600.0


class NoAccounts:
    """interfaces.Accounts where nobody is signed in."""

    def account(self, provider: str) -> Account:
        return Account()

    async def secret(self, provider: str, name: str, *, renew: bool = False) -> str:
        raise HostError(ErrorCode.UNAVAILABLE, f"nobody is signed in to {provider}")

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        return lambda: None


@attrs.frozen
class Rules:
    """What crews are held to. expiry: of requests for leave, seconds; co_author: whether commits name
    the agent that made them."""

    budgets: Budgets = attrs.field(factory=Budgets)
    expiry: float = EXPIRY
    co_author: bool = False


class Channels:
    """The one object of this room.

    tasks: the folder that holds `<task id>/run`, mounted in the task's container as /run/uai, and
    `<task id>/control`; transcripts: the folder for `<task id>.jsonl`.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        engine: Engine,
        reactor: Any,
        registry: AgentRegistry,
        blocking: Blocking,
        tasks: Path,
        transcripts: Path,
        accounts: Accounts | None = None,
        changes: Changes | None = None,
        rules: Rules | None = None,
        recovery: Recovery | None = None,
        turns: Lifecycle | None = None,
    ) -> None:
        self._store = store
        self._reactor = reactor
        self._registry = registry
        self._tasks = tasks
        self._rules = rules or Rules()
        self._transcripts = Transcripts(reactor, store, journal, blocking, transcripts)
        accounts = accounts or NoAccounts()
        self._launcher = Launcher(engine, blocking, tasks, accounts, self._provider, self._rules.co_author)
        self._around = Around(
            reactor,
            store,
            journal,
            self._transcripts,
            self._launcher,
            changes or Unwatched(),
            self._rules.budgets,
            recovery,
            turns or Lifecycle(),
        )
        self._forget_accounts = accounts.on_change(self._account_changed)
        self._rooms: dict[str, Room] = {}
        self._locks: dict[str, DeferredLock] = {}

    # ---- which channels are open

    async def ensure(self, input: ChannelEnsure) -> list[AgentStatus]:
        """The channel is open and its crew is what `input` says: missing agents start, others stop.

        Raises:
            HostError: `invalid_args` for an agent id that is bad or stands twice, or an unknown kind.
        """
        check_task(input.taskId)
        check_crew(input, self._registry)
        async with _Held(self._locks, input.taskId):
            room, rows = await self._save(input)
            try:
                wanted = {row.agent_id: row for row in rows}
                gone = [agent_id for agent_id in room.sessions if agent_id not in wanted]
                for agent_id in gone:
                    session = room.sessions[agent_id]
                    await session.configure(attrs.evolve(session.row, present=False))
                    # It may say the last words it had begun.
                    await session.stop()
                    del room.sessions[agent_id]
                for agent_id, row in wanted.items():
                    await self._bring_up(room, agent_id, row)
            finally:
                room.resume()
            return room.states()

    async def teardown(self, task_id: str) -> None:
        """Stop the crew and close the channel; its history stays. One that is not open is no error."""
        async with _Held(self._locks, task_id):
            room = self._rooms.pop(task_id, None)
            if room is not None:
                await room.stop()
            await self._store.run(lambda db: table.close_channel(db, task_id))

    async def resume(self, task_ids: Iterable[str]) -> None:
        """After a restart of the daemon: go on with the channels of these tasks that were open."""
        for task_id in task_ids:
            async with _Held(self._locks, task_id):
                await self._resume(task_id)

    async def stop(self) -> None:
        """The daemon goes away: let go of every agent; they live on."""
        self._forget_accounts()
        rooms, self._rooms = list(self._rooms.values()), {}
        await gatherResults([ensureDeferred(room.detach()) for room in rooms])

    # ---- what happens in one

    async def deliver(
        self, task_id: str, author: str, text: str, message_id: str | None = None
    ) -> tuple[str, list[str]]:
        """A person's word: (its id, the ids of the agents who hear it). A known id is not delivered again."""
        text = words(text)
        message_id = message_id or new_id()
        return message_id, await self._room(task_id).deliver(author, text, message_id)

    async def append(self, task_id: str, author: str, text: str, message_id: str | None = None) -> int:
        """A line of the transcript that no agent hears; its number. HostError `not_found`."""
        text = words(text)
        if await self._store.run(lambda db: table.channel(db, task_id)) is None:
            raise unknown(task_id)
        return await self._transcripts.append(task_id, author, text, message_id or new_id())

    async def note(self, task_id: str, text: str) -> None:
        """A system note, whether the channel is open or not."""
        check_task(task_id)
        await self._transcripts.note(task_id, text)

    async def resolve(
        self,
        task_id: str,
        agent_id: str,
        request_id: str,
        decision: str,
        by: str,
        scope: str = "once",
        answers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer an agent's request: `decision` is accept or decline, `by` who says so.

        scope: `task` accepts the tool from now on; answers: to the questions it asked.

        Raises:
            HostError: `not_found`; `conflict` when it was answered otherwise or withdrawn.
        """
        await self._room(task_id).resolve(agent_id, request_id, decision, by, scope, answers)

    async def interrupt(self, task_id: str, agent_id: str) -> None:
        """End the agent's turn and keep its session; idle agents are left alone. HostError `not_found`."""
        await self._room(task_id).session(agent_id).interrupt()

    def hold(self, held: bool) -> None:
        """Begin no turn of any agent, or begin those that wait."""
        if held:
            self._around.held.add("drain")
            return
        self._around.held.discard("drain")
        for room in self._rooms.values():
            for session in room.sessions.values():
                session.pump()

    async def interrupt_all(self) -> None:
        """End the turns under way; sessions stay."""
        for room in list(self._rooms.values()):
            for session in list(room.sessions.values()):
                await session.interrupt()

    def busy(self) -> int:
        """How many agents are in a turn."""
        states = [each.state for room in self._rooms.values() for each in room.sessions.values()]
        return sum(state in (State.BUSY, State.AWAITING) for state in states)

    async def attached(self, task_id: str, path: str, size: int) -> None:
        """A person gave the task a file: the next word of a person names it."""
        check_task(task_id)
        await self._store.run(lambda db: table.attach(db, task_id, path, size))

    async def set_reviewers(self, task_id: str, reviewers: Sequence[str], crew: Sequence[str]) -> None:
        """Who reviews, in order; who is not in the crew is told of in the channel."""
        check_task(task_id)

        def write(db: Connection) -> bool:
            same = table.reviewers(db, task_id) == list(reviewers)
            table.set_reviewers(db, task_id, reviewers)
            return same

        same = await self._store.run(write)
        room = self._rooms.get(task_id)
        if room is not None:
            room.reviewing.reviewers = list(reviewers)
        strangers = ", ".join(f"@{name[:40]}" for name in reviewers if name not in crew)
        if strangers and not same:
            await self.note(task_id, f"The reviewer order names {strangers}, who is not in the crew.")

    def states(self, task_id: str) -> list[AgentStatus]:
        """Each agent and what it does; none when the channel is not open."""
        room = self._rooms.get(task_id)
        return room.states() if room else []

    # ---- within

    def _room(self, task_id: str) -> Room:
        try:
            return self._rooms[task_id]
        except KeyError:
            raise unknown(task_id) from None

    async def _save(self, given: ChannelEnsure) -> tuple[Room, list[AgentRow]]:
        channel, rows = await self._store.run(lambda db: members.save(db, given))
        room = self._rooms.get(given.taskId)
        if room is None:
            room = await self._open(channel)
        room.row = channel
        return room, rows

    async def _resume(self, task_id: str) -> None:
        """Open it if it is not; whoever was given up, with the container or before, tries again."""
        await self._reopen(task_id)
        room = self._rooms.get(task_id)
        for session in list(room.sessions.values()) if room else ():
            await session.revive()

    async def _reopen(self, task_id: str) -> None:
        row, agents = await self._store.run(
            lambda db: (table.channel(db, task_id), table.agents(db, task_id))
        )
        if row is None or not row.open or task_id in self._rooms:
            return
        room = await self._open(row)
        for agent in agents:
            try:
                if agent.present:
                    await self._join(room, agent)
            except HostError as error:
                await self.note(task_id, f"@{agent.agent_id} cannot go on: {error.message}")
        room.resume()

    async def _open(self, row: ChannelRow) -> Room:
        task_id = row.task_id
        partners, permissions, rules, reviewers = await self._store.run(
            lambda db: (
                table.partners(db, task_id),
                table.permissions(db, task_id),
                table.rules(db, task_id),
                table.reviewers(db, task_id),
            )
        )
        asked = Permissions(task_id, permissions, rules, int(self._rules.expiry * 1000))
        room = Room(self._around, Kept(row, partners, asked, reviewers))
        self._rooms[row.task_id] = room
        return room

    async def _bring_up(self, room: Room, agent_id: str, wanted: AgentRow) -> None:
        """The agent runs, or is starting, as `wanted` says."""
        session = room.sessions.get(agent_id)
        if session is not None:
            changed = (session.row.kind, session.row.model) != (wanted.kind, wanted.model)
            await session.configure(wanted)
            if changed:
                await session.restart()
            await session.revive()
            return

        await self._join(room, await self._store.run(lambda db: members.bring_back(db, wanted)))

    async def _join(self, room: Room, row: AgentRow) -> None:
        session = Session(self._reactor, self._store, room, row, self._adapter, self._process(room.task_id))
        room.sessions[row.agent_id] = session
        await session.open()

    def _adapter(self, row: AgentRow) -> Adapter:
        room = self._rooms[row.task_id]
        # One whose kind does not work now is kept, and says why when it is to start.
        kind = self._registry.known(row.kind) or self._registry.get(row.kind)
        return kind.make(self._launcher.settings(row, room.row.cwd), row.memory)

    def _provider(self, kind: str) -> str | None:
        known = self._registry.known(kind)
        return known.provider if known else None

    def _account_changed(self, provider: str) -> None:
        for room in list(self._rooms.values()):
            done = ensureDeferred(room.renew(provider, self._provider))
            done.addErrback(lambda failure: log.failure("agents cannot be given an account", failure))

    def _process(self, task_id: str) -> Any:
        folder = self._tasks / task_id / "run"

        def make(agent_id: str, starter: Starter, listener: Listener) -> Process:
            return AgentProcess(self._reactor, folder, agent_id, starter, listener)

        return make


class _Held:
    """One thing at a time for each task: `async with`, since a lock of its own is made on first use."""

    def __init__(self, locks: dict[str, DeferredLock], task_id: str) -> None:
        self._lock = locks.setdefault(task_id, DeferredLock())

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *ignored: object) -> None:
        self._lock.release()
