"""How one agent is kept alive: its process started, heard, lost and started again.

Everything that happens runs one piece at a time, and each piece of output is stored together with its offset:
after a restart of the daemon the same row, the same offset and the lines not yet acknowledged are where it
goes on. What begins a turn is not decided here but in agents.session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from sqlite3 import Connection
from typing import Any

from twisted.logger import Logger

from uaihost.agents.adapter import Answer, Fault, Send, TurnEnded
from uaihost.agents.backlog import Backlog
from uaihost.agents.course import DETAIL_LIMIT, Course
from uaihost.agents.framing import Hello
from uaihost.agents.given import Given
from uaihost.agents.ledger import Ledger, Line, MakeAdapter, nothing
from uaihost.agents.outgoing import Outgoing
from uaihost.agents.process import Listener, Process, Starter
from uaihost.agents.progress import Activity, Decided, Happening, Note, Room
from uaihost.agents.recovery import SOON, Crashes, exit_reason
from uaihost.agents.serial import Serial
from uaihost.agents.timers import Timers
from uaihost.agents.turn import Input, State
from uaihost.ids import new_id
from uaihost.interfaces import Store
from uaihost.state.channel import AgentRow, LineRow

log = Logger()

# How long the agent's own interrupt may take, and then its end by TERM, seconds.
INTERRUPT_LIMIT = 5.0
KILL_AFTER = 2.0
# How long a process may take until it takes prompts, seconds; slow machines read a long conversation.
START_LIMIT = 180.0
# Before the session is opened anew after a fault of ours (a full disk), seconds.
FAULT_PAUSE = 5.0
# How long streamed text may wait to be stored, seconds: a transaction is a disk's flush.
LAZY = 0.25
# Before the name of a process that is not to be gone on with, wherever it is met.
DEAD = "dead "

MakeProcess = Callable[[str, Starter, Listener], Process]


class Life:
    """One agent's process and rows; `_next_prompt` says what follows when nothing happens."""

    def __init__(
        self,
        clock: Any,
        store: Store,
        room: Room,
        row: AgentRow,
        make_adapter: MakeAdapter,
        make_process: MakeProcess,
    ) -> None:
        self._room = room
        self._ledger = Ledger(clock, store, room, row, make_adapter)
        self._make_process = make_process
        self._process: Process | None = None
        self._out: Outgoing | None = None
        self._serial = Serial(row.task_id, row.agent_id, self._fault, self._ledger.reload)
        self._backlog = Backlog()
        self._timers = Timers(clock)
        self._crashes = Crashes()
        # The number of the line that began the turn.
        self._prompt = -1
        # Ended by us, since it did not obey; or why it was, if not.
        self._planned = False
        self._verdict = ""
        self._given = Given()

    @property
    def row(self) -> AgentRow:
        """Its durable state, as stored or about to be."""
        return self._ledger.row

    @property
    def state(self) -> State:
        return self._course.state

    @property
    def _course(self) -> Course:
        return self._ledger.course

    @property
    def _hears(self) -> bool:
        """Whether a line that is given now reaches the process that has said what took effect last."""
        here = self._process is not None and self._process.connected
        return here and self._backlog.new_run is None and not (self.row.run or "").startswith(DEAD)

    async def _next_prompt(self) -> None:
        raise NotImplementedError

    # ---- what the process tells (Listener)

    def greeted(self, hello: Hello) -> None:
        assert self._process is not None and self._out is not None
        if self.row.run == DEAD + hello.run:
            self._process.renew()
            return
        held = min(max(self.row.cursor, hello.base), hello.out_end)
        if held != self.row.cursor:
            log.warn("the output of agent {agent} is not what it was", agent=self.row.agent_id)
            self._course.change(cursor=held)
        if hello.run == self.row.run:
            self._serial.later(self._reattached)
        else:
            self._out.forget()
            self._backlog.new_run = hello
            self._serial.later(self._begin_run)

    def line_received(self, line: bytes | None, end: int) -> None:
        self._backlog.add(line, end)
        if self._backlog.full and self._process is not None:
            self._process.pause()
        if len(self._backlog) == 1:
            self._serial.later(self._drain)

    def agent_exited(self, status: int, err: str) -> None:
        self._serial.later(partial(self._down, self._process, exit_reason(status, err), reached=True))

    def process_lost(self, reason: str) -> None:
        self._serial.later(
            partial(self._down, self._process, f"It cannot be reached: {reason}", reached=False)
        )

    # ---- from the store

    def _fault(self) -> None:
        """What was in memory may not be what is stored: begin again from the store."""
        self._let_go(quit_keeper=False)
        if not self._serial.closed:
            self._timers.cancel()
            self._timers.set("fault", FAULT_PAUSE, lambda: self._serial.later(self._open))

    async def _open(self) -> None:
        # After a fault somebody may have had it started anew meanwhile.
        self._let_go(quit_keeper=False)
        self._timers.cancel("start")
        lines = await self._ledger.reload()
        self._given = await self._ledger.rows.given(lines)
        if self.state in (State.STOPPED, State.FAILED):
            return
        if self.row.fault == "signed-out" and not self._course.in_turn:
            # Nobody heard whether somebody signed in while the daemon was away.
            self._try_anew()
        self._attach(lines)
        self._watch()

    def _try_anew(self) -> None:
        """With the account as it is now; its last words again if there are any."""
        self._course.change(stale=True)
        if self.row.doing is not None:
            self._course.try_again()
        else:
            self._course.change(fault="")

    # ---- the process

    def _attach(self, lines: Sequence[LineRow] = ()) -> None:
        process = self._make_process(self.row.agent_id, self._start, self)
        self._process = process
        self._out = Outgoing(
            process,
            partial(self._room.fill, self.row.agent_id),
            lambda what: self._serial.later(partial(self._unfilled, process, what)),
        )
        for line in lines:
            if line.prompt is not None:
                self._prompt = line.number
            self._out.add(line)
        process.attach(self.row.cursor)

    async def _start(self) -> None:
        self._course.change(stale=False)
        adapter = await self._ledger.fresh_adapter()
        await self._room.start(self.row.agent_id, adapter.start(self.row.session_id))

    async def _reattached(self) -> None:
        """The process that was left is there still. It may wait for what was decided meanwhile."""
        if self.row.asked or self._course.in_turn:
            await self._record([])
        self._watch()
        if self.state is State.STARTING:
            self._timers.set("ready", START_LIMIT, self._late)
        await self._next_prompt()

    async def _begin_run(self) -> None:
        """A new process: once all output of the last one has taken effect, open the conversation."""
        hello = self._backlog.new_run
        if hello is None or not self._backlog.begins(self.row.cursor):
            return
        self._backlog.new_run = None
        lines = await self._ledger.rows.lines()
        got = not any(line.prompt is not None and line.number >= hello.stdin_next for line in lines)
        said = self._course.in_turn and got
        happened = [*self._take_back(lambda n: n >= hello.stdin_next), *self._course.lose(got=got)]
        if said and self.row.pending:
            text = "was started anew in the middle of its turn and goes on with what it was doing."
            happened.append(Note(f"@{self.row.agent_id} {text}"))
        happened.append(self._course.step(Input.EXITED))
        self._prompt, number = -1, max(self.row.next_line, hello.stdin_next)
        self._course.change(run=hello.run, answer_id=self.row.answer_id or new_id(), memory="")
        self._course.change(next_line=number, odd=(), asked=())
        self._ledger.adapter = await self._ledger.fresh_adapter()
        self._timers.set("ready", START_LIMIT, self._late)
        opening = Line(self._ledger.adapter.open(self.row.session_id))
        await self._record(happened, [opening], self._ledger.drop_all_lines)

    def _late(self) -> None:
        if self._process is not None and self.state is State.STARTING:
            self._verdict = f"It did not get ready in {START_LIMIT:.0f} s and was ended."
            self._process.signal("KILL")

    async def _down(self, process: Process | None, why: str, *, reached: bool) -> None:
        """The process is gone: say so, and start it again while that makes sense."""
        if process is None or process is not self._process or self._out is None:
            return
        planned, self._planned = self._planned, False
        why, self._verdict = self._verdict or why, ""
        # One that is not reached may live, and has said what is not heard yet: see when it is back.
        happened: list[Happening] = []
        got = not self._out.holds(self._prompt)
        if reached:
            happened = [*self._take_back(self._out.holds), *self._course.lose(got=got)]
        then = self._crashes.follow(self.row.agent_id, why, planned=planned, goes_on=self.row.begun)
        if then.text:
            happened.append(Note(then.text))
        if not reached and then.delay is None:
            # To be told to go on does no harm to one that had not begun.
            happened += self._course.lose(got=True)
        if then.delay is None:
            if reached and self.row.begun:
                happened += self._course.finish("failed", Fault("other", why))
            happened.append(self._course.step(Input.GAVE_UP, why[:DETAIL_LIMIT]))
        elif reached:
            happened.append(self._course.step(Input.EXITED))
        else:
            happened.append(Activity("starting"))
        self._let_go(quit_keeper=reached)
        await self._record(happened, write=self._ledger.drop_all_lines if reached else nothing)
        if then.delay is not None:
            self._start_in(then.delay)

    async def _unfilled(self, process: Process, what: str) -> None:
        """A line that needs a secret cannot leave, and none after it."""
        if process is not self._process:
            return
        if not self._course.in_turn:
            await self._down(process, what, reached=False)
            return
        await self._launch_anew(self._course.end("failed", Fault("signed-out", what)))

    async def _launch_anew(self, happened: Sequence[Happening]) -> None:
        """End the process and start another with the same conversation."""
        happened = [*happened, self._course.step(Input.RESTART)]
        self._let_go(quit_keeper=True)
        await self._record(happened, write=self._ledger.drop_all_lines)
        self._start_in(SOON)

    def _let_go(self, *, quit_keeper: bool) -> None:
        process, self._process, self._out = self._process, None, None
        self._backlog.clear()
        self._timers.cancel("lazy", "force", "ready")
        run = self.row.run
        if quit_keeper and run is not None and not run.startswith(DEAD):
            # It may not hear of it now, and this daemon not live to tell it later.
            self._course.change(run=DEAD + run)
        if process is not None and quit_keeper:
            process.quit()
        elif process is not None:
            process.detach()

    def _start_in(self, delay: float) -> None:
        async def again() -> None:
            if self._process is None:
                self._attach(await self._ledger.rows.lines())

        self._timers.set("start", delay, lambda: self._serial.later(again))

    # ---- its output

    async def _drain(self) -> None:
        while self._backlog and not self._serial.closed:
            await self._begin_run()
            happened, lines, lost = self._apply(self._backlog.take(self.row.cursor))
            if lost:
                again = self._course.lose(got=True) if self._course.in_turn else []
                await self._launch_anew([*happened, *again])
                return
            if happened or lines:
                await self._record(happened, lines if self._hears else [])
            elif "lazy" not in self._timers:
                self._timers.set("lazy", LAZY, lambda: self._serial.later(self._catch_up))
            for message_id, text in self._course.pieces:
                self._room.streamed(self.row.agent_id, message_id, text)
            self._course.pieces.clear()
        await self._begin_run()
        if self._process is not None:
            self._process.resume()
        await self._next_prompt()

    def _apply(self, lines: Sequence[tuple[bytes | None, int]]) -> tuple[list[Happening], list[Line], bool]:
        """What happened, what is owed, and whether the conversation to go on with was not there."""
        happened: list[Happening] = []
        owed: list[Line] = []
        for line, end in lines:
            self._course.change(cursor=end)
            for event in self._ledger.adapter.feed(line) if line is not None else ():
                known = self.row.session_id
                happened += self._course.apply(event)
                if known is not None and self.row.session_id is None:
                    return happened, [], True
                if isinstance(event, Send):
                    owed.append(Line(event.line, None, (1 + event.renew) * event.secret))
                elif isinstance(event, TurnEnded):
                    self._crashes.clear()
                    self._planned = False
        return happened, owed, False

    async def _catch_up(self) -> None:
        """Store the streamed text that has only been told."""
        self._timers.cancel("lazy")
        await self._record([])

    # ---- storing

    async def _record(
        self,
        happened: Sequence[Happening],
        lines: Sequence[Line] = (),
        write: Callable[[Connection], None] = nothing,
    ) -> None:
        """Store, send the lines, and give the agent what is decided already."""
        self._timers.cancel("lazy")
        process, out = self._process, self._out
        below = out.first(self.row.next_line) if out is not None and self._backlog.new_run is None else 0
        self._given.read(below)
        due, numbered = await self._ledger.commit(happened, lines, write, below)
        if out is not None and self._out is out and process is not None:
            for line in numbered:
                out.add(line)
            process.acknowledge(self.row.cursor)
        self._watch()
        for decided in due:
            if decided.row.asked_as in self.row.asked and self._hears:
                await self._decide(decided)

    async def _decide(self, decided: Decided) -> None:
        """Tell the agent, if it waits for this. What nobody waits for is only recorded."""
        row = decided.row
        # An orphan's name may meanwhile be that of another request.
        waits = row.asked_as in self.row.asked and not row.orphaned
        happened: list[Happening] = [Decided(row, given=self._hears or not waits)]
        lines: list[Line] = []
        if waits and self._hears:
            happened += self._course.settle(row.asked_as)
            answer = Answer(row.decision == "accept", decided.answers)
            lines = [Line(self._ledger.adapter.answer(row.asked_as, answer), request=row.request_id)]
            self._given.add(self.row.next_line, row)
        await self._record(happened, lines)

    def _take_back(self, missed: Callable[[int], bool]) -> list[Happening]:
        """The process is gone: decisions in lines that it `missed` are for the next one."""
        rows = self._given.take(missed)
        if not self._course.in_turn:
            return []
        self._course.change(asked=(*self.row.asked, *(row.asked_as for row in rows)))
        return [Decided(row, given=False) for row in rows]

    def _watch(self) -> None:
        """The calls to come are those of the state."""
        if self.state is State.PARKED and self.row.parked_until is not None:
            rest = max(0.0, (self.row.parked_until - self._ledger.now()) / 1000)
            self._timers.set("park", rest, lambda: self._serial.later(self._unpark))
        else:
            self._timers.cancel("park")
        if self.state is not State.INTERRUPTING:
            self._timers.cancel("force")
        elif "force" not in self._timers and self._process is not None:
            self._timers.set("force", INTERRUPT_LIMIT, partial(self._force, "TERM"))
        if self.state is not State.STARTING:
            self._timers.cancel("ready")

    async def _unpark(self) -> None:
        await self._record(self._course.unpark())
        await self._next_prompt()

    def _force(self, name: str) -> None:
        self._planned = True
        if self._process is not None:
            self._process.signal(name)
        self._timers.set("force", KILL_AFTER, partial(self._force, "KILL"))
