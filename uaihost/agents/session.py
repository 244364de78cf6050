"""One agent of a crew: what it is told next, what it says, how it is kept alive.

It owns the turn machine, the agent's process and the agent's durable row. Everything that happens runs one
piece at a time, and each piece of output is stored together with its offset: after a restart of the daemon
the same row, the same offset and the lines not yet acknowledged are where it goes on. It knows its channel
only as a `Room`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Any

import attrs
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from uaihost.agents import turn
from uaihost.agents.adapter import Adapter, Answer, TurnEnded
from uaihost.agents.backlog import AgentRows, Backlog
from uaihost.agents.framing import Hello
from uaihost.agents.process import Listener, Process, Starter
from uaihost.agents.progress import DETAIL_LIMIT, Decided, Happening, Note, Progress, Room
from uaihost.agents.recovery import SOON, Crashes, exit_reason
from uaihost.agents.serial import Serial
from uaihost.agents.turn import Input, State
from uaihost.errors import HostError
from uaihost.ids import new_id
from uaihost.interfaces import Store
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow, LineRow
from uaihost.wire.events import AgentState

log = Logger()

# How long the agent's own interrupt may take, and then its end by TERM, seconds.
INTERRUPT_LIMIT = 5.0
KILL_AFTER = 2.0
# Between TERM and KILL at a stop, seconds.
STOP_GRACE = 3.0
# Before the session is opened anew after a fault of ours (a full disk), seconds.
FAULT_PAUSE = 5.0
# How long streamed text, told at once, may wait to be stored, seconds: a transaction is a disk's flush.
LAZY = 0.25

MakeProcess = Callable[[str, Starter, Listener], Process]


class Session:
    """One agent, from `open` until `detach` or `stop`."""

    def __init__(
        self,
        clock: Any,
        store: Store,
        room: Room,
        row: AgentRow,
        make_adapter: Callable[[AgentRow], Adapter],
        make_process: MakeProcess,
    ) -> None:
        self._progress = Progress(row)
        self._clock = clock
        self._rows = AgentRows(store, row.task_id, row.agent_id)
        self._room = room
        self._make_adapter = make_adapter
        self._make_process = make_process
        self._adapter = make_adapter(row)
        self._process: Process | None = None
        self._serial = Serial(f"agent {row.agent_id} of task {row.task_id}", self._fault)
        self._backlog = Backlog()
        self._lazy: IDelayedCall | None = None
        self._dead_run: str | None = None
        self._prompt = -1
        self._crashes = Crashes()
        self._planned = False
        self._timer: IDelayedCall | None = None

    # ---- what the channel asks for

    @property
    def row(self) -> AgentRow:
        """Its durable state, as stored or about to be."""
        return self._progress.row

    @property
    def state(self) -> State:
        return self._progress.state

    @property
    def activity(self) -> AgentState:
        return self._progress.activity

    async def open(self) -> None:
        """Go on from the stored row: attach to what lives, start what does not."""
        await self._serial.run(self._open)

    def pump(self) -> None:
        """Something may wait for the agent."""
        self._serial.later(self._next_prompt)

    async def interrupt(self) -> None:
        """End the turn, by force if it takes longer than INTERRUPT_LIMIT; the session is kept."""
        await self._serial.run(self._interrupt)

    async def answer(self, decide: Callable[[], Decided | None]) -> None:
        """Give the agent a decision.

        `decide` is called when nothing else happens; it may raise, or say by None that nothing is to be done.
        """

        refused: list[HostError] = []

        async def give() -> None:
            try:
                decided = decide()
            except HostError as error:
                refused.append(error)
                return
            if decided is None:
                return
            happened: list[Happening] = [decided]
            self._progress.asked.discard(decided.row.asked_as)
            if not self._progress.asked and self.state is State.AWAITING:
                happened.append(self._progress.step(Input.SETTLED))
            line = self._adapter.answer(decided.row.asked_as, Answer(decided.row.decision == "accept"))
            await self._commit(happened, [(line, None)])

        await self._serial.run(give)
        if refused:
            raise refused[0]

    async def configure(self, row: AgentRow) -> None:
        """Take over what the crew's list says of it; a restart makes kind, model and instructions count."""

        async def work() -> None:
            if row.kind != self.row.kind:
                self._change(session_id=None)
            names = ("position", "present", "label", "kind", "model", "instructions")
            self._change(**{name: getattr(row, name) for name in names})
            await self._commit([])

        await self._serial.run(work)

    async def restart(self) -> None:
        """End the agent whatever it does and start it anew with its session."""

        async def work() -> None:
            happened = [*self._lose_turn(), self._progress.step(Input.RESTART)]
            self._crashes.count = 0
            self._let_go(quit_keeper=True)
            self._change(memory="")
            self._adapter = self._make_adapter(self.row)
            await self._commit(happened)
            self._start_in(SOON)

        await self._serial.run(work)

    async def stop(self) -> None:
        """End the agent for good. Bounded in time."""
        self._serial.closed = True
        self._cancel_timer()
        process, self._process = self._process, None
        if process is not None:
            await process.stop(STOP_GRACE)

        async def work() -> None:
            happened = [*self._lose_turn(), self._progress.step(Input.STOP)]
            await self._commit(happened, write=self._drop_all_lines)

        await self._serial.last(work)

    async def detach(self) -> None:
        """The daemon goes away: let go of the agent, which lives on, once what runs has been stored."""
        self._serial.closed = True
        self._cancel_timer()
        if self._process is not None:
            self._process.detach()
        await self._serial.last(self._catch_up)

    # ---- what the process tells (Listener)

    def greeted(self, hello: Hello) -> None:
        assert self._process is not None
        if hello.run == self._dead_run:
            self._process.renew()
            return
        if hello.out_end < self.row.cursor:
            log.warn("the output of agent {agent} has been cut short", agent=self.row.agent_id)
            self._change(cursor=hello.out_end)
        if hello.run == self.row.run:
            self._serial.later(self._reattached)
        else:
            self._process.forget_lines()
            self._backlog.new_run = hello
            self._serial.later(self._begin_run)

    def line_received(self, line: bytes | None, end: int) -> None:
        self._backlog.add(line, end)
        if self._backlog.full and self._process is not None:
            self._process.pause()
        if len(self._backlog) == 1:
            self._serial.later(self._drain)

    def agent_exited(self, status: int, err: str) -> None:
        process, why = self._process, exit_reason(status, err)
        self._serial.later(lambda: self._down(process, why))

    def process_lost(self, reason: str) -> None:
        process, why = self._process, f"It cannot be reached: {reason}"
        self._serial.later(lambda: self._down(process, why))

    # ---- its rows

    def _fault(self) -> None:
        """What was in memory may not be what is stored: begin again from the store."""
        self._let_go(quit_keeper=False)
        if not self._serial.closed:
            self._cancel_timer()
            self._timer = self._clock.callLater(FAULT_PAUSE, self._serial.later, self._open)

    def _change(self, **fields: Any) -> None:
        self._progress.row = attrs.evolve(self.row, **fields)

    async def _open(self) -> None:
        row, lines = await self._rows.load()
        self._progress = Progress(row or self.row)
        self._adapter = self._make_adapter(self.row)
        if self.state not in (State.STOPPED, State.FAILED):
            self._attach(lines)

    def _attach(self, lines: Sequence[LineRow] = ()) -> None:
        self._process = self._make_process(self.row.agent_id, self._start, self)
        for line in lines:
            if line.prompt is not None:
                self._prompt = line.number
            self._process.write_line(line.number, line.line)
        self._process.attach(self.row.cursor)

    async def _start(self) -> None:
        await self._room.start(self.row.agent_id, self._adapter.start(self.row.session_id))

    # ---- the agent's output

    async def _drain(self) -> None:
        while self._backlog and not self._serial.closed:
            await self._begin_run()
            happened = self._apply(self._backlog.take(self.row.cursor))
            if happened:
                await self._commit(happened)
            elif self._lazy is None:
                self._lazy = self._clock.callLater(LAZY, self._serial.later, self._catch_up)
            for message_id, text in self._progress.pieces:
                self._room.streamed(self.row.agent_id, message_id, text)
            self._progress.pieces.clear()
        await self._begin_run()
        if self._process is not None:
            self._process.resume()
        await self._next_prompt()

    def _apply(self, lines: Sequence[tuple[bytes | None, int]]) -> list[Happening]:
        happened: list[Happening] = []
        for line, end in lines:
            self._change(cursor=end)
            for event in self._adapter.feed(line) if line is not None else ():
                happened += self._progress.apply(event)
                if isinstance(event, TurnEnded):
                    self._cancel_timer()
                    self._crashes.count = 0
                    self._planned = False
        return happened

    async def _catch_up(self) -> None:
        """Store the streamed text that has only been told."""
        if self._lazy is not None:
            await self._commit([])

    # ---- the agent's input

    async def _next_prompt(self) -> None:
        process = self._process
        if self.state is not State.IDLE or process is None or self._backlog.new_run is not None:
            return
        task_id, agent_id = self.row.task_id, self.row.agent_id
        waiting = await self._rows.queued()
        if waiting is None:
            return
        position, text, _ = waiting
        line = self._adapter.prompt(text)
        self._prompt = self.row.next_line
        await self._commit(
            [self._progress.step(Input.PROMPT)],
            [(line, text)],
            lambda db: table.dequeue(db, task_id, agent_id, position),
        )

    async def _interrupt(self) -> None:
        if self.state not in (State.BUSY, State.AWAITING) or self._process is None:
            return
        lines = self._adapter.interrupt()
        self._progress.step(Input.INTERRUPT)
        await self._commit([], [(line, None) for line in lines])
        if not lines:
            self._process.signal("INT")
        self._watch_interrupt()

    def _watch_interrupt(self) -> None:
        self._cancel_timer()
        self._timer = self._clock.callLater(INTERRUPT_LIMIT, self._force, "TERM")

    def _force(self, name: str) -> None:
        self._planned = True
        if self._process is not None:
            self._process.signal(name)
        self._timer = self._clock.callLater(KILL_AFTER, self._force, "KILL")

    # ---- the agent's process

    async def _reattached(self) -> None:
        """The process that was left is there still."""
        if self.state is State.INTERRUPTING:
            self._watch_interrupt()
        await self._next_prompt()

    async def _begin_run(self) -> None:
        """A new process: once all output of the last one has taken effect, open the conversation."""
        hello = self._backlog.new_run
        if hello is None or not self._backlog.begins(self.row.cursor):
            return
        self._backlog.new_run = None
        task_id, agent_id = self.row.task_id, self.row.agent_id
        lines = await self._rows.lines()
        # A word that the last process never got is said to this one.
        again = [line.prompt for line in lines if line.prompt and line.number >= hello.stdin_next]
        happened: list[Happening] = []
        if self.state in turn.IN_TURN:
            happened = self._lose_turn()
            if not again:
                happened.append(
                    Note(f"@{agent_id} was started anew in the middle of its turn. Say it again.")
                )
        happened.append(self._progress.step(Input.EXITED))
        self._prompt = -1
        self._change(run=hello.run, answer_id=self.row.answer_id or new_id(), memory="")
        self._change(next_line=max(self.row.next_line, hello.stdin_next))
        self._adapter = self._make_adapter(self.row)

        def write(db: Connection) -> None:
            self._drop_all_lines(db)
            for text in reversed(again):
                table.enqueue(db, task_id, agent_id, text, first=True)

        await self._commit(happened, [(self._adapter.open(self.row.session_id), None)], write)

    async def _down(self, process: Process | None, why: str) -> None:
        """The process is gone: say so, and start it again while that makes sense."""
        if process is None or process is not self._process:
            return
        lost = self.state in turn.IN_TURN and not process.holds(self._prompt)
        planned, self._planned = self._planned, False
        then = self._crashes.follow(self.row.agent_id, why, planned=planned, lost=lost)
        happened = [*self._lose_turn(), Note(then.text)]
        if then.delay is None:
            happened.append(attrs.evolve(self._progress.step(Input.GAVE_UP), detail=why[:DETAIL_LIMIT]))
        else:
            happened.append(self._progress.step(Input.EXITED))
        self._let_go(quit_keeper=True)
        await self._commit(happened)
        if then.delay is not None:
            self._start_in(then.delay)

    def _lose_turn(self) -> list[Happening]:
        self._cancel_timer()
        return self._progress.unfinished()

    def _let_go(self, *, quit_keeper: bool) -> None:
        process, self._process = self._process, None
        self._backlog.clear()
        self._cancel_lazy()
        if process is not None and quit_keeper:
            self._dead_run = self.row.run
            process.quit()
        elif process is not None:
            process.detach()

    def _start_in(self, delay: float) -> None:
        async def again() -> None:
            if self._process is None:
                self._attach(await self._rows.lines())

        self._cancel_timer()
        self._timer = self._clock.callLater(delay, self._serial.later, again)

    # ---- storing

    def _drop_all_lines(self, db: Connection) -> None:
        table.drop_lines(db, self.row.task_id, self.row.agent_id, below=1 << 62)

    async def _commit(
        self,
        happened: Sequence[Happening],
        lines: Sequence[tuple[bytes, str | None]] = (),
        write: Callable[[Connection], None] = lambda db: None,
    ) -> None:
        """Store the row, what happened, and lines for the agent with the prompt each carries; send those."""
        self._cancel_lazy()
        process = self._process
        first = self.row.next_line
        numbered = [LineRow(first + n, line, prompt) for n, (line, prompt) in enumerate(lines)]
        self._change(next_line=first + len(numbered), memory=self._adapter.memory())
        self._change(asked=tuple(sorted(self._progress.asked)))
        row = self.row
        acknowledged = 0
        if process is not None and self._backlog.new_run is None:
            acknowledged = process.first_unacknowledged(first)

        def store(db: Connection) -> None:
            table.save_agent(db, row)
            table.drop_lines(db, row.task_id, row.agent_id, below=acknowledged)
            write(db)
            for line in numbered:
                table.add_line(db, row.task_id, row.agent_id, line)

        await self._room.record(row.agent_id, happened, store)
        if self._process is not None and self._process is process:
            for line in numbered:
                process.write_line(line.number, line.line)

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _cancel_lazy(self) -> None:
        if self._lazy is not None and self._lazy.active():
            self._lazy.cancel()
        self._lazy = None
