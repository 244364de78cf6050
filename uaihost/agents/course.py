"""What events do to an agent's durable row and to its turn, and what the channel is to hear of it. Pure.

A turn begins with words, and has ended when its `TurnFinished` is told. What ends a process is no end of the
turn: the words stay in the row (`doing`), and `pending` says how they are given to the next process.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from uaihost.agents import faults, turn
from uaihost.agents.adapter import (
    AgentEvent,
    Fault,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Ready,
    Reason,
    Retrying,
    SessionLost,
    SessionNamed,
    TextDelta,
    TextVoid,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)
from uaihost.agents.progress import (
    Activity,
    Happening,
    Note,
    PermissionsOrphaned,
    Said,
    TurnBegan,
    TurnFinished,
)
from uaihost.agents.turn import Input, State
from uaihost.ids import new_id
from uaihost.state.channel import AgentRow
from uaihost.wire.events import AgentState

# The longest message that is kept whole, characters; the same as for people's words.
MESSAGE_LIMIT = 256 << 10
DETAIL_LIMIT = 200
# How often a turn goes on by itself after it has lost its process.
TRIES = 2
# Kinds of unknown lines that one process may tell people of, and the characters shown of each.
ODD_LIMIT = 20
ODD_SHOWN = 300

STATES: dict[State, AgentState] = {
    State.STARTING: "starting",
    State.IDLE: "idle",
    State.BUSY: "thinking",
    State.AWAITING: "awaiting-permission",
    State.INTERRUPTING: "thinking",
    State.PARKED: "idle",
    State.STOPPED: "stopped",
    State.FAILED: "failed",
}

# Before the words of a turn that has lost its process in the middle.
GO_ON = (
    "You were stopped in the middle of your turn. See what is done already, do not do it twice, and go on. "
    "What you had been told was:\n"
)


class Course:
    """An agent's row as it changes.

    now: milliseconds since the epoch; pieces: (message id, text) of what it has streamed of a message that
    has not come whole; whoever publishes them empties it.
    """

    def __init__(self, row: AgentRow, now: Callable[[], int]) -> None:
        self.row = row
        self.activity: AgentState = STATES[State(row.state)]
        self.pieces: list[tuple[str, str]] = []
        self._now = now

    @property
    def state(self) -> State:
        return State(self.row.state)

    @property
    def in_turn(self) -> bool:
        return self.state in turn.IN_TURN

    def change(self, **fields: object) -> None:
        # attrs cannot type this; each caller names fields of AgentRow.
        self.row = attrs.evolve(self.row, **fields)  # type: ignore[arg-type]

    def step(self, given: Input, detail: str | None = None) -> Activity:
        self.change(state=turn.step(self.state, given).value)
        return self._doing(detail)

    # ---- what the agent says

    def apply(self, event: AgentEvent) -> list[Happening]:
        match event:
            case TextDelta(text=text):
                room = MESSAGE_LIMIT - len(self.row.partial)
                self.change(partial=self.row.partial + text[: max(0, room)])
                self.pieces.append((self.row.answer_id, text))
                return []
            case TextVoid():
                self.pieces.clear()
                self.change(partial="")
                return []
            case Message(text=text):
                self.pieces.clear()
                return self._say(text)
            case ToolStarted(name=name, detail=detail):
                self.change(tools=self.row.tools + 1)
                self.activity = "tool"
                return [Activity("tool", f"{name}: {detail}"[:DETAIL_LIMIT])]
            case ToolEnded():
                return [self._doing()]
            case PermissionAsked(request_id=request_id):
                self.change(asked=(*(each for each in self.row.asked if each != request_id), request_id))
                return [event, self.step(Input.ASKED)]
            case PermissionWithdrawn(request_id=request_id):
                return [event, *self.settle(request_id)]
            case Usage():
                return [event]
            case TurnEnded(reason=reason, fault=fault):
                return self.end(reason, fault)
            case _:
                return self._about_itself(event)

    def _about_itself(self, event: AgentEvent) -> list[Happening]:
        """What is neither words nor work."""
        match event:
            case Ready(session_id=session_id):
                self.change(session_id=session_id or self.row.session_id)
                return self._ready()
            case SessionNamed(session_id=session_id):
                self.change(session_id=session_id)
            case SessionLost(text=text) if self.row.session_id is not None:
                self.change(session_id=None)
                return [Note(faults.forgotten(self.row.agent_id, text))]
            case Retrying(text=text, attempt=attempt, most=most):
                of = f" of {most}" if most is not None else ""
                return [self._doing(f"retry {attempt}{of}: {text}"[:DETAIL_LIMIT])]
            case Unknown(kind=kind, line=line):
                kind = kind[:DETAIL_LIMIT]
                if kind not in self.row.odd and len(self.row.odd) < ODD_LIMIT:
                    self.change(odd=(*self.row.odd, kind))
                    text = f"@{self.row.agent_id} sent something that this host does not know ({kind}): "
                    return [Note(text + line[:ODD_SHOWN])]
        return []

    def _ready(self) -> list[Happening]:
        ready = self.step(Input.READY)
        until = self.row.parked_until
        if until is not None and until > self._now():
            return [self.step(Input.PARK)]
        self.change(parked_until=None)
        return [ready]

    def settle(self, request_id: str) -> list[Happening]:
        """That request is out of the world."""
        self.change(asked=tuple(each for each in self.row.asked if each != request_id))
        settled = not self.row.asked and self.state is State.AWAITING
        return [self.step(Input.SETTLED)] if settled else []

    # ---- a turn's course

    def begin(self, text: str, origin: str) -> list[Happening]:
        """New words."""
        self.change(doing=text, origin=origin, begun=True, pending="again", fault="")
        self.change(tries=0, parks=0, tools=0, answer="")
        return [TurnBegan(origin, text), self.step(Input.PROMPT)]

    def begin_again(self) -> list[Happening]:
        """The words that are pending."""
        began = [] if self.row.begun else [TurnBegan(self.row.origin, self.row.doing or "")]
        self.change(begun=True, fault="")
        return [*began, self.step(Input.PROMPT)]

    def words(self) -> str:
        """What is to be said for `begin_again`."""
        said = self.row.doing or ""
        return GO_ON + said if self.row.pending == "continue" else said

    def try_again(self) -> None:
        """Its last words are pending anew; what it had done of them is not asked for twice."""
        worked = self.row.tools or self.row.answer
        self.change(pending="continue" if worked else "again", tries=0)

    def end(self, reason: Reason, fault: Fault | None = None) -> list[Happening]:
        """The agent says that its turn is over."""
        if not self.in_turn:
            return []
        if self.state is State.INTERRUPTING:
            reason, fault = "cancelled", None
        if fault is not None and fault.kind == "session-lost" and self.row.session_id is not None:
            return self._forget_session(fault)
        happened = [*self.unsaid(), *self._withdrawn(), *self.finish(reason, fault)]
        if fault is None:
            return [*happened, self.step(Input.ENDED)]
        if fault.kind == "quota":
            return [*happened, *self._park(fault)]
        detail = "not signed in" if fault.kind == "signed-out" else None
        note = Note(faults.advice(self.row.agent_id, self.row.kind, fault))
        return [*happened, note, self.step(Input.ENDED, detail)]

    def finish(self, reason: Reason, fault: Fault | None = None) -> list[Happening]:
        """The turn is over. Its words stay, for a retry, unless it was done."""
        row = self.row
        self.change(begun=False, pending="", fault=fault.kind if fault else "")
        if reason == "done":
            self.change(doing=None)
        return [TurnFinished(row.origin, reason, fault, row.tools, row.answer)] if row.begun else []

    def drop(self) -> list[Happening]:
        """People end it, whatever it does. What it has printed and nobody has read yet is still heard."""
        return [*self._withdrawn(), *(self.finish("cancelled") if self.row.begun else [])]

    def lose(self, *, got: bool) -> list[Happening]:
        """Its process is gone and all that it printed is heard. got: it had been given the words of the turn.

        A turn that was waiting for a person did nothing that could have ended the process: it is not counted.
        """
        unsaid, row = self.unsaid(), self.row
        if not self.in_turn:
            return [*unsaid, *self._withdrawn()]
        if self.state is State.INTERRUPTING:
            return [*unsaid, *self._withdrawn(), *self.finish("cancelled")]
        counts = got and self.state is State.BUSY
        if counts and row.tries >= TRIES:
            fault = Fault("other", f"it was stopped {row.tries + 1} times in this turn")
            note = Note(faults.advice(row.agent_id, row.kind, fault))
            return [*unsaid, *self._withdrawn(), *self.finish("failed", fault), note]
        self.change(tries=row.tries + counts, asked=(), pending="continue" if got else row.pending)
        return [*unsaid, *([PermissionsOrphaned(row.asked)] if row.asked else [])]

    def unpark(self) -> list[Happening]:
        """The usage limit is over, or somebody wants to know."""
        self.change(parked_until=None)
        return [self.step(Input.UNPARK)] if self.state is State.PARKED else []

    # ---- within

    def _park(self, fault: Fault) -> list[Happening]:
        until = faults.until(fault, self._now(), self.row.parks)
        told = faults.clock_time(until, self._now())
        note = Note(faults.advice(self.row.agent_id, self.row.kind, fault, told))
        self.try_again()
        self.change(parked_until=until, parks=self.row.parks + 1)
        self.step(Input.ENDED)
        return [note, self.step(Input.PARK)]

    def _forget_session(self, fault: Fault) -> list[Happening]:
        """The turn goes on in a new conversation."""
        self.change(session_id=None, pending="continue", tries=self.row.tries + 1)
        if self.row.tries > TRIES:
            return [*self._withdrawn(), *self.finish("failed", fault), self.step(Input.ENDED)]
        note = Note(faults.forgotten(self.row.agent_id, fault.text))
        return [*self.unsaid(), *self._withdrawn(), note, self.step(Input.EXITED)]

    def _say(self, text: str) -> list[Happening]:
        if len(text) > MESSAGE_LIMIT:
            text = text[:MESSAGE_LIMIT] + f"\n[cut: {len(text) - MESSAGE_LIMIT} more characters]"
        said = Said(self.row.answer_id, text)
        self.change(answer_id=new_id(), partial="")
        if not text.strip():
            return []
        self.change(answer=text)
        return [said]

    def unsaid(self) -> list[Happening]:
        """What it had said of a message that never came whole."""
        return self._say(self.row.partial)

    def _withdrawn(self) -> list[Happening]:
        """The requests that nobody waits for now."""
        asked = self.row.asked
        self.change(asked=())
        return [PermissionWithdrawn(request_id) for request_id in asked]

    def _doing(self, detail: str | None = None) -> Activity:
        self.activity = STATES[self.state]
        if self.state is State.PARKED and self.row.parked_until is not None:
            until = self.row.parked_until
            told = faults.clock_time(until, self._now())
            return Activity(self.activity, f"usage limit until {told}", until)
        return Activity(self.activity, detail)
