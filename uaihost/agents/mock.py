"""The scripted agent's language (uaihost/shim/mock.py says what its lines are). Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from uaihost.agents.adapter import (
    AgentEvent,
    AgentSettings,
    Answer,
    Fault,
    FaultKind,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Question,
    Ready,
    Reason,
    Retrying,
    SessionLost,
    Start,
    TextDelta,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)

NAME = "mock"
# careful asks before it changes anything; free does not ask.
MODELS = ("careful", "free")
PROGRAM = ("python3", "/opt/uai/mock.py")


class MockAdapter:
    """memory: the number of prompts given so far."""

    def __init__(self, settings: AgentSettings, memory: str = "", program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._program = program
        self._prompts = int(memory) if memory else 0

    def start(self, session_id: str | None) -> Start:
        argv = [*self._program, "--state", f"{self._settings.folder}/session.json"]
        # Whatever is not known to be free asks first.
        argv += ["--model", "free" if self._settings.model == "free" else "careful"]
        return Start((*argv, "--resume", session_id) if session_id else tuple(argv))

    def open(self, session_id: str | None) -> bytes:
        return _line("start", session=session_id, instructions=self._settings.instructions)

    def prompt(self, text: str) -> bytes:
        self._prompts += 1
        return _line("prompt", turn=self._prompts, text=text)

    def answer(self, request_id: str, answer: Answer) -> bytes:
        chosen = {"answers": dict(answer.answers)} if answer.answers else {}
        return _line("answer", request=request_id, accept=answer.accept, **chosen)

    def interrupt(self) -> Sequence[bytes]:
        return [_line("cancel")]

    def memory(self) -> str:
        return str(self._prompts)

    def feed(self, line: bytes) -> list[AgentEvent]:
        try:
            return _events(msgspec.json.decode(line, type=_Line), line)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []


class _Line(msgspec.Struct):
    """Any line; the fields of other kinds keep their defaults."""

    type: str
    session: str = ""
    resumed: bool = False
    text: str = ""
    id: str = ""
    name: str = ""
    detail: str = ""
    state: str = ""
    ok: bool | None = None
    request: str = ""
    tool: str = ""
    title: str = ""
    input: Any = None
    output: int = 0
    reason: str = ""
    error: str | None = None
    fault: str | None = None
    resets: int | None = None
    questions: Any = None
    attempt: int = 0
    most: int | None = None


class _Question(msgspec.Struct):
    text: str
    options: list[str]


# Kinds of lines that have a meaning, if their fields have it too.
_KINDS = frozenset(
    ("session", "lost", "delta", "message", "tool", "permission", "withdrawn", "retry", "usage", "end")
)
_FAULTS: dict[str | None, FaultKind] = {
    "quota": "quota",
    "signed-out": "signed-out",
    "overloaded": "overloaded",
}


def _events(line: _Line, raw: bytes) -> list[AgentEvent]:
    match line.type:
        case "session" if line.session:
            return [Ready(line.session, line.resumed)]
        case "lost":
            return [SessionLost(line.text)]
        case "retry":
            return [Retrying(line.text, line.attempt, line.most)]
        case "delta" if line.text:
            return [TextDelta(line.text)]
        case "message" if line.text:
            return [Message(line.text)]
        case "tool" if line.state == "started":
            return [ToolStarted(line.id, line.name, line.detail)]
        case "tool" if line.state == "ended":
            return [ToolEnded(line.id, line.ok is True)]
        case "permission" if line.request and isinstance(line.input, dict):
            questions = _questions(line.questions)
            return [PermissionAsked(line.request, line.tool, line.title, line.input, questions)]
        case "withdrawn" if line.request:
            return [PermissionWithdrawn(line.request)]
        case "usage" if isinstance(line.input, int):
            return [Usage(line.input, line.output)]
        case "end":
            reasons: dict[str, Reason] = {"done": "done", "cancelled": "cancelled"}
            reason = reasons.get(line.reason, "failed")
            fault = Fault(_FAULTS.get(line.fault, "other"), line.error or "", line.resets)
            return [TurnEnded(reason, fault if reason == "failed" else None)]
        case kind if kind and kind not in _KINDS:
            return [Unknown(kind, raw.decode("utf-8", "replace"))]
        case _:
            return []


def _questions(given: Any) -> tuple[Question, ...]:
    """[{"text": TEXT, "options": [TEXT, ...]}]; what has another shape is none."""
    try:
        asked = msgspec.convert(given or [], type=list[_Question])
    except msgspec.ValidationError:
        return ()
    return tuple(Question(each.text, tuple((option, "") for option in each.options)) for each in asked)


def _line(kind: str, **fields: object) -> bytes:
    return json.dumps({"type": kind, **fields}, ensure_ascii=False).encode("utf-8", "replace")
