"""The turn of one agent: states, inputs and the whole table. Pure; nothing happens here."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """PARKED: a usage limit is met; no turn begins before it is over."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    AWAITING = "awaiting"
    INTERRUPTING = "interrupting"
    PARKED = "parked"
    STOPPED = "stopped"
    FAILED = "failed"


class Input(StrEnum):
    """READY: the agent takes prompts; SETTLED: its last open permission is decided or withdrawn; EXITED: its
    process is gone and will be started again; GAVE_UP: it will not; PARK, UNPARK: a usage limit begins and
    is over."""

    READY = "ready"
    PROMPT = "prompt"
    ASKED = "asked"
    SETTLED = "settled"
    INTERRUPT = "interrupt"
    ENDED = "ended"
    EXITED = "exited"
    GAVE_UP = "gave up"
    STOP = "stop"
    RESTART = "restart"
    PARK = "park"
    UNPARK = "unpark"


# In these the agent owes the end of a turn.
IN_TURN = frozenset({State.BUSY, State.AWAITING, State.INTERRUPTING})

_S, _I, _B, _A, _X, _P, _O, _F = State
# READY PROMPT ASKED SETTLED INTERRUPT ENDED EXITED GAVE_UP STOP RESTART PARK UNPARK
_ROWS = {
    _S: (_I, _S, _S, _S, _S, _S, _S, _F, _O, _S, _S, _S),
    # A request outside a turn can be answered, but it is no turn: nothing would end it.
    _I: (_I, _B, _I, _I, _I, _I, _S, _F, _O, _S, _P, _I),
    _B: (_B, _B, _A, _B, _X, _I, _S, _F, _O, _S, _B, _B),
    _A: (_A, _A, _A, _B, _X, _I, _S, _F, _O, _S, _A, _A),
    _X: (_X, _X, _X, _X, _X, _I, _S, _F, _O, _S, _X, _X),
    _P: (_P, _P, _P, _P, _P, _P, _S, _F, _O, _S, _P, _I),
    _O: (_O, _O, _O, _O, _O, _O, _O, _O, _O, _S, _O, _O),
    _F: (_F, _F, _F, _F, _F, _F, _F, _F, _O, _S, _F, _F),
}
TABLE: dict[tuple[State, Input], State] = {
    (state, given): after for state, row in _ROWS.items() for given, after in zip(Input, row, strict=True)
}


def step(state: State, given: Input) -> State:
    """The state after `given`; an input that means nothing in a state leaves it."""
    return TABLE[state, given]
