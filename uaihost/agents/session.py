"""One agent of a crew: what it is told next, and what people and the channel may ask of it.

It owns the agent's turns; how its process is kept is agents.life, what its output means agents.course. It
knows its channel only as a `Room`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from uaihost.agents.ledger import Line
from uaihost.agents.life import Life
from uaihost.agents.progress import Decided, Happening
from uaihost.agents.turn import Input, State
from uaihost.errors import ErrorCode, HostError
from uaihost.state import channel as table
from uaihost.state.channel import AgentRow
from uaihost.wire.events import AgentState

# Between TERM and KILL at a stop, seconds.
STOP_GRACE = 3.0

T = TypeVar("T")


class Session(Life):
    """One agent, from `open` until `detach` or `stop`."""

    @property
    def activity(self) -> AgentState:
        return self._course.activity

    async def open(self) -> None:
        """Go on from the stored row: attach to what lives, start what does not."""
        await self._serial.run(self._open)

    def pump(self) -> None:
        """Something may wait for the agent, or may begin now."""
        self._serial.later(self._next_prompt)

    async def answer(self, decide: Callable[[], Decided | None]) -> None:
        """Give the agent a decision; one that its process does not wait for is only recorded.

        `decide` is called when nothing else happens; it may raise, or say by None that nothing is to be done.
        """

        async def give(decided: Decided | None) -> None:
            if decided is not None:
                await self._decide(decided)

        await self._ordered(decide, give)

    async def interrupt(self) -> None:
        """End the turn, by force if it takes longer than INTERRUPT_LIMIT; the session is kept.

        One that would go on by itself, after a crash or a usage limit, does not.
        """

        async def work() -> None:
            if not self._course.in_turn and self.row.pending:
                await self._record(self._course.finish("cancelled"))
            elif self.state in (State.BUSY, State.AWAITING):
                lines = self._ledger.adapter.interrupt()
                self._course.step(Input.INTERRUPT)
                await self._record([], [Line(line) for line in lines])
                if not lines and self._process is not None:
                    self._process.signal("INT")

        await self._serial.run(work)

    async def retry(self) -> None:
        """Say again what it could not finish, or end its wait for a usage limit now.

        Raises:
            HostError: `conflict`: it is at work, or there is nothing to try again.
        """

        def check() -> None:
            agent_id = self.row.agent_id
            if self._course.in_turn or (self.state is State.STARTING and self.row.pending):
                raise HostError(
                    ErrorCode.CONFLICT, f"@{agent_id} is at work; /interrupt @{agent_id} ends that"
                )
            if self.row.doing is None and self.row.parked_until is None:
                raise HostError(
                    ErrorCode.CONFLICT, f"@{agent_id} has nothing to try again; tell it what to do"
                )

        async def work(_: None) -> None:
            if self.row.fault == "signed-out":
                self._course.change(stale=True)
            if self.row.doing is not None:
                self._course.try_again()
            await self._go()

        await self._ordered(check, work)

    async def renew(self) -> None:
        """Its account has changed: it starts anew, with its conversation, once it is in no turn."""

        async def work() -> None:
            self._course.change(stale=True)
            if self.row.fault == "signed-out":
                self._try_anew()
            await self._go()

        await self._serial.run(work)

    async def configure(self, row: AgentRow) -> None:
        """Take over what the crew's list says of it; a restart makes kind, model and instructions count."""

        async def work() -> None:
            if row.kind != self.row.kind:
                self._course.change(session_id=None, memory="")
            names = ("position", "present", "label", "kind", "model", "instructions")
            self._course.change(**{name: getattr(row, name) for name in names})
            await self._record([])

        await self._serial.run(work)

    async def restart(self) -> None:
        """A person's: end the agent whatever it does and start it anew with its session."""

        async def work() -> None:
            await self._from_the_start(self._course.drop())

        await self._serial.run(work)

    async def revive(self) -> None:
        """Start it again if it has been given up; it goes on with its turn."""

        async def work() -> None:
            if self.state in (State.STOPPED, State.FAILED):
                await self._from_the_start([])

        await self._serial.run(work)

    async def stop(self) -> None:
        """End the agent for good. Bounded in time."""
        self._serial.closed = True
        self._timers.cancel()
        process, self._process, self._out = self._process, None, None
        if process is not None:
            await process.stop(STOP_GRACE)

        async def work() -> None:
            happened = [*self._course.unsaid(), *self._course.drop(), self._course.step(Input.STOP)]
            await self._record(happened, write=self._ledger.drop_all_lines)

        await self._serial.last(work)

    async def detach(self) -> None:
        """The daemon goes away: let go of the agent, which lives on, once what runs has been stored."""
        self._serial.closed = True
        unstored = "lazy" in self._timers
        self._timers.cancel()
        if self._process is not None:
            self._process.detach()
        await self._serial.last(self._catch_up if unstored else self._nothing)
        self._timers.cancel()

    # ---- within

    async def _nothing(self) -> None:
        """What runs has ended."""

    async def _ordered(self, check: Callable[[], T], act: Callable[[T], Awaitable[None]]) -> None:
        """Both in their turn. That `check` refuses is no fault of the session."""
        refused: list[HostError] = []

        async def work() -> None:
            try:
                found = check()
            except HostError as error:
                refused.append(error)
                return
            await act(found)

        await self._serial.run(work)
        if refused:
            raise refused[0]

    async def _from_the_start(self, happened: Sequence[Happening]) -> None:
        self._crashes.clear()
        await self._launch_anew(happened)

    async def _go(self) -> None:
        """Whatever it waited for, it waits no more."""
        if self.state is State.FAILED:
            await self._from_the_start(self._course.unpark())
            return
        await self._record(self._course.unpark())
        await self._next_prompt()

    async def _next_prompt(self) -> None:
        row = self.row
        if self.state is not State.IDLE or self._process is None or self._backlog.new_run is not None:
            return
        if row.stale:
            await self._launch_anew([])
        elif row.pending:
            # A turn that has begun goes on; one that begins again asks like any other.
            if row.begun or self._room.may_begin(row.agent_id, row.origin):
                await self._say(self._course.words(), self._course.begin_again())
        elif row.fault != "signed-out":
            # Without a sign-in every word would be lost on the vendor's refusal: they wait.
            await self._next_word()

    async def _next_word(self) -> None:
        waiting = await self._ledger.rows.queued()
        if waiting is None:
            return
        position, text, origin = waiting
        if self._room.may_begin(self.row.agent_id, origin):
            happened = self._course.begin(text, origin)
            await self._say(text, happened, position)

    async def _say(self, text: str, happened: Sequence[Happening], position: int | None = None) -> None:
        """position: of the words in the queue, which they leave."""
        task_id, agent_id = self.row.task_id, self.row.agent_id
        self._prompt = self.row.next_line
        line = Line(self._ledger.adapter.prompt(text), text)
        if position is None:
            await self._record(happened, [line])
        else:
            await self._record(happened, [line], lambda db: table.dequeue(db, task_id, agent_id, position))
