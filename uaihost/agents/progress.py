"""What an agent's events do to its durable row, and what the channel is to hear of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Protocol

import attrs

from uaihost.agents import turn
from uaihost.agents.adapter import (
    AgentEvent,
    Fault,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Ready,
    Reason,
    Start,
    TextDelta,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Usage,
)
from uaihost.agents.turn import Input, State
from uaihost.ids import new_id
from uaihost.state.channel import AgentRow, PermissionRow
from uaihost.wire.events import AgentState

# The longest message that is kept whole, characters; the same as for people's words.
MESSAGE_LIMIT = 256 << 10
DETAIL_LIMIT = 200

STATES: dict[State, AgentState] = {
    State.STARTING: "starting",
    State.IDLE: "idle",
    State.BUSY: "thinking",
    State.AWAITING: "awaiting-permission",
    State.INTERRUPTING: "thinking",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}


@attrs.frozen
class Said:
    """A whole message of the agent."""

    message_id: str
    text: str


@attrs.frozen
class Activity:
    state: AgentState
    detail: str | None = None


@attrs.frozen
class Note:
    """For the people in the channel, from the system."""

    text: str


@attrs.frozen
class Decided:
    """This request is decided, and the agent is told so now."""

    row: PermissionRow


@attrs.frozen
class PermissionsOrphaned:
    """The process that asked these, by its own names, is gone, and its turn will go on: they stay open.

    The next process may use the same names for something else. One that asks exactly the same is bound to the
    row that is there; `TurnFinished` gives up what is left.
    """

    request_ids: tuple[str, ...]


@attrs.frozen
class TurnBegan:
    """origin: who the words are from: `user:<author>`, `agent:<id>`, `system`."""

    origin: str
    text: str


@attrs.frozen
class TurnFinished:
    """A turn has ended, whatever way; said before the agent's next one begins.

    One that only lost its process goes on: that is no end. One that met a usage limit ends and begins again.
    tools: how many it used. fault: set when `reason` is failed. answer: its last whole message, "" for none.
    """

    origin: str
    reason: Reason
    fault: Fault | None
    tools: int
    answer: str


Happening = (
    TurnBegan
    | TurnFinished
    | Said
    | Activity
    | Note
    | Decided
    | PermissionAsked
    | PermissionWithdrawn
    | PermissionsOrphaned
    | Usage
)


class Room(Protocol):
    """What a session needs of its channel."""

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        """One transaction: `write` and all that `happened` means to the channel. Then it is published.

        Returns what this agent's process waits for and is decided already: by a rule, or by a person while it
        was gone. Each is returned again until it is recorded as `Decided`, whose transaction holds the line
        that tells the agent: so none is lost and each is used up once.
        """

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        """The next piece of a message that will be `Said`."""

    async def start(self, agent_id: str, start: Start) -> None:
        """Start the keeper with this in the task's container. HostError if that cannot be."""

    async def fill(self, agent_id: str, line: bytes, renew: bool) -> bytes:
        """`line` with each `{{name}}` replaced by that secret of the agent's account, a fresh one with
        `renew`. HostError `unavailable`, with what the owner has to type."""

    async def history(self, agent_id: str) -> str:
        """What was said in the task, for one that remembers nothing of it; "" if nothing."""

    def may_begin(self, agent_id: str, origin: str) -> bool:
        """Whether words from `origin` may begin a turn now; if not they wait until the session is pumped."""


class Progress:
    """An agent's row as it changes.

    asked: the agent's names of the requests that it waits for; pieces: (message id, text) of what it has
    streamed of a message that has not come whole; whoever publishes them empties it.
    """

    def __init__(self, row: AgentRow) -> None:
        self.row = row
        self.asked = set(row.asked)
        self.activity: AgentState = STATES[State(row.state)]
        self.pieces: list[tuple[str, str]] = []

    @property
    def state(self) -> State:
        return State(self.row.state)

    def apply(self, event: AgentEvent) -> list[Happening]:
        match event:
            case Ready(session_id=session_id):
                self.row = attrs.evolve(self.row, session_id=session_id)
                return [self.step(Input.READY)]
            case TextDelta(text=text):
                room = MESSAGE_LIMIT - len(self.row.partial)
                self.row = attrs.evolve(self.row, partial=self.row.partial + text[: max(0, room)])
                self.pieces.append((self.row.answer_id, text))
                return []
            case Message(text=text):
                self.pieces.clear()
                return self._say(text)
            case ToolStarted(name=name, detail=detail):
                return [self._activity("tool", f"{name}: {detail}"[:DETAIL_LIMIT])]
            case ToolEnded():
                return [self._activity(STATES[self.state])]
            case PermissionAsked(request_id=request_id):
                self.asked.add(request_id)
                return [event, self.step(Input.ASKED)]
            case PermissionWithdrawn(request_id=request_id):
                self.asked.discard(request_id)
                settled = not self.asked and self.state is State.AWAITING
                return [event, self.step(Input.SETTLED)] if settled else [event]
            case TurnEnded(fault=fault):
                return self._end_turn(fault)
            case Usage():
                return [event]
            case _:
                return []

    def _say(self, text: str) -> list[Happening]:
        if len(text) > MESSAGE_LIMIT:
            text = text[:MESSAGE_LIMIT] + f"\n[cut: {len(text) - MESSAGE_LIMIT} more characters]"
        said = Said(self.row.answer_id, text)
        self.row = attrs.evolve(self.row, answer_id=new_id(), partial="")
        return [said] if text.strip() else []

    def _end_turn(self, fault: Fault | None) -> list[Happening]:
        happened = self.unfinished()
        if fault:
            happened.append(Note(f"@{self.row.agent_id} could not finish: {fault.text}"))
        return [*happened, self.step(Input.ENDED)]

    def unfinished(self) -> list[Happening]:
        """What it had said of a message that never came whole, and the requests nobody waits for now."""
        happened = self._say(self.row.partial)
        happened += [PermissionWithdrawn(request_id) for request_id in sorted(self.asked)]
        self.asked.clear()
        return happened

    def step(self, given: Input) -> Activity:
        self.row = attrs.evolve(self.row, state=turn.step(self.state, given).value)
        return self._activity(STATES[self.state])

    def _activity(self, state: AgentState, detail: str | None = None) -> Activity:
        self.activity = state
        return Activity(state, detail)
