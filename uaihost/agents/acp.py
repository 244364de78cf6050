"""The Agent Client Protocol, version 1, as any program may speak it: JSON-RPC 2.0, one object a line. Pure.

https://agentclientprotocol.com, schema v1. Programs differ in how they are started, in which mode they ask
before they act, and in what they call their own; that is a row (`AcpProgram`), this file is the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from uaihost.agents import acp_lines
from uaihost.agents.adapter import (
    AgentEvent,
    AgentSettings,
    Answer,
    Fault,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Ready,
    Send,
    SessionLost,
    Start,
    TextDelta,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)

VERSION = 1
_KEPT = 64
_UNKNOWN_METHOD = -32601


@attrs.frozen
class AcpProgram:
    """One program that speaks the protocol.

    start: what starts it, given the agent's settings and the conversation to go on with. mode: the session
    mode in which it asks before it acts, None where it does so by itself or by what it is started with.
    cwd: where its sessions are, in place of the task's first project. sign_in: what a person does when
    nobody is signed in.
    """

    name: str
    start: Callable[[AgentSettings], Start]
    mode: str | None = None
    cwd: str | None = None
    sign_in: str = ""


@attrs.define
class _Memory:
    """What one line leaves for the next.

    next: number of the next request; waits: our requests' numbers to their methods; asks: request id to the
    number and the options of a request for leave; session: its id; loads: the conversation is being read
    back, which is no news; said: of the message that is streamed; tools: those that run, id to kind and
    detail; cost: of the session so far; told: kinds of lines that were not known.
    """

    next: int = 1
    waits: dict[str, str] = attrs.field(factory=dict)
    asks: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    session: str | None = None
    loads: bool = False
    said: str = ""
    tools: dict[str, list[str]] = attrs.field(factory=dict)
    cost: float | None = None
    told: list[str] = attrs.field(factory=list)


class AcpAdapter:
    """memory: JSON of `_Memory`."""

    def __init__(self, settings: AgentSettings, memory: str, program: AcpProgram) -> None:
        self._settings = settings
        self._program = program
        self._memory = _Memory(**json.loads(memory)) if memory else _Memory()

    def start(self, session_id: str | None) -> Start:
        return self._program.start(self._settings)

    def open(self, session_id: str | None) -> bytes:
        self._memory = _Memory(session=session_id)
        # Files and terminals are the program's own: it is in the container, and we are not.
        able = {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
        client = {"name": "uaihost", "title": "uaihost", "version": "1"}
        given = {"protocolVersion": VERSION, "clientCapabilities": able, "clientInfo": client}
        return self._request("initialize", given)

    def prompt(self, text: str) -> bytes:
        # A text that begins with `/` would be one of the program's own commands.
        said = f"The message is:\n{text}" if text.lstrip().startswith("/") else text
        given = {"sessionId": self._memory.session, "prompt": [{"type": "text", "text": said}]}
        return self._request("session/prompt", given)

    def answer(self, request_id: str, answer: Answer) -> bytes:
        asked = self._memory.asks.pop(request_id, None)
        if asked is None:
            # Withdrawn meanwhile: to cancel what does not run means nothing.
            return _line({"method": "$/cancel_request", "params": {"requestId": request_id}})
        chosen = acp_lines.choose(asked["options"], answer.accept)
        outcome = {"outcome": "cancelled"} if chosen is None else {"outcome": "selected", "optionId": chosen}
        return _line({"id": asked["id"], "result": {"outcome": outcome}})

    def interrupt(self) -> Sequence[bytes]:
        # Whoever cancels owes an answer to all that was asked.
        withdrawn = [
            _line({"id": asked["id"], "result": {"outcome": {"outcome": "cancelled"}}})
            for asked in self._memory.asks.values()
        ]
        return [
            _line({"method": "session/cancel", "params": {"sessionId": self._memory.session}}),
            *withdrawn,
        ]

    def memory(self) -> str:
        return json.dumps(attrs.asdict(self._memory))

    def feed(self, line: bytes) -> list[AgentEvent]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(found, dict):
            return []
        try:
            return self._read(found)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            # A known kind in a shape that is not: told like a kind that is not known.
            return self._odd(f"{found.get('method', 'answer')} of another shape", found)

    def _read(self, line: dict[str, Any]) -> list[AgentEvent]:
        method = line.get("method")
        if method is None:
            asked = self._memory.waits.pop(str(line.get("id")), "") if "id" in line else ""
            return self._answered(asked, line)
        if not isinstance(method, str):
            return []
        params: dict[str, Any] = line.get("params") or {}
        if "id" in line:
            return self._asked(method, line["id"], params)
        if method == "session/update":
            return self._updated(params["update"])
        # Names that begin with an underscore are a program's own (Extensibility).
        return [] if method.startswith(("_", "$/")) else self._odd(method, line)

    # ---- the conversation

    def _answered(self, asked: str, line: dict[str, Any]) -> list[AgentEvent]:
        error = line.get("error")
        if error is not None:
            return self._refused(asked, error)
        result = line["result"]
        match asked:
            case "initialize":
                return [self._session(result)]
            case "session/new":
                self._memory.session = str(result["sessionId"])
                return self._opened(result)
            case "session/load":
                self._memory.loads = False
                return self._opened(result or {}, resumed=True)
            case "session/set_mode":
                return [Ready(self._memory.session, False)]
            case "session/set_mode resumed":
                return [Ready(self._memory.session, True)]
            case "session/prompt":
                return self._ended(result)
            case _:
                return []

    def _session(self, result: dict[str, Any]) -> Send:
        able = result.get("agentCapabilities") or {}
        given: dict[str, Any] = {"cwd": self._program.cwd or self._settings.cwd, "mcpServers": []}
        if self._memory.session is not None and able.get("loadSession") is True:
            self._memory.loads = True
            return Send(self._request("session/load", {**given, "sessionId": self._memory.session}))
        return Send(self._request("session/new", given))

    def _opened(self, result: dict[str, Any], resumed: bool = False) -> list[AgentEvent]:
        mode = self._program.mode or acp_lines.asking(result.get("modes"))
        if mode is None:
            return [Ready(self._memory.session, resumed)]
        given = {"sessionId": self._memory.session, "modeId": mode}
        label = "session/set_mode resumed" if resumed else "session/set_mode"
        return [Send(self._request("session/set_mode", given, label))]

    def _refused(self, asked: str, error: dict[str, Any]) -> list[AgentEvent]:
        fault = attrs.evolve(acp_lines.fault(error), sign_in=self._program.sign_in)
        match asked:
            case "session/load":
                return [SessionLost(fault.text)]
            case "session/set_mode" | "session/set_mode resumed":
                text = f"it does not take the mode in which it asks before it acts: {fault.text}"
                return [TurnEnded("failed", Fault("refused", text))]
            case "initialize" | "session/new":
                return [TurnEnded("failed", fault)]
            case "session/prompt":
                return [*self._closed(), TurnEnded("failed", fault)]
            case _:
                return []

    def _ended(self, result: dict[str, Any]) -> list[AgentEvent]:
        events = self._closed()
        usage = result.get("usage")
        if isinstance(usage, dict):
            events.append(Usage(int(usage.get("inputTokens") or 0), int(usage.get("outputTokens") or 0)))
        match result["stopReason"]:
            case "end_turn":
                return [*events, TurnEnded("done")]
            case "cancelled":
                return [*events, TurnEnded("cancelled")]
            case reason:
                return [*events, TurnEnded("failed", Fault("refused", acp_lines.stopped(str(reason))))]

    def _closed(self) -> list[AgentEvent]:
        """What is left of the turn: the message that was streamed, requests that nobody waits for."""
        events = self._whole()
        events += [PermissionWithdrawn(request_id) for request_id in self._memory.asks]
        self._memory.asks.clear()
        self._memory.tools.clear()
        return events

    def _whole(self) -> list[AgentEvent]:
        said, self._memory.said = self._memory.said, ""
        return [Message(said)] if said else []

    # ---- what it says and does

    def _updated(self, update: dict[str, Any]) -> list[AgentEvent]:
        kind = update["sessionUpdate"]
        if self._memory.loads:
            return []
        if kind == "agent_message_chunk":
            text = acp_lines.content(update["content"])
            self._memory.said += text
            return [TextDelta(text)] if text else []
        if kind == "tool_call":
            return [*self._whole(), *self._tool(update)]
        if kind == "tool_call_update":
            return self._tool(update)
        if kind == "usage_update":
            return self._spent(update)
        if kind in acp_lines.SILENT:
            return []
        return self._odd(f"update {kind}", update)

    def _tool(self, update: dict[str, Any]) -> list[AgentEvent]:
        tool_id, status = str(update["toolCallId"]), update.get("status")
        running = self._memory.tools
        if status in ("completed", "failed"):
            return (
                [ToolEnded(tool_id, status == "completed")] if running.pop(tool_id, None) is not None else []
            )
        known, before = running.get(tool_id, ["", ""])
        name, detail = self._name(update), acp_lines.detail(update) or before
        running[tool_id] = [name, detail]
        return [] if known and detail == before else [ToolStarted(tool_id, name, detail)]

    def _name(self, call: dict[str, Any]) -> str:
        """Updates leave out what has not changed."""
        known = self._memory.tools.get(str(call["toolCallId"]), [""])[0]
        return acp_lines.tool(call) or known or "tool"

    def _spent(self, update: dict[str, Any]) -> list[AgentEvent]:
        cost = update.get("cost")
        if not isinstance(cost, dict) or cost.get("currency") != "USD":
            return []
        now, before = float(cost["amount"]), self._memory.cost
        self._memory.cost = now
        return [Usage(0, 0, max(0.0, now - (before or 0.0)))] if now != before else []

    # ---- what it asks

    def _asked(self, method: str, number: Any, given: dict[str, Any]) -> list[AgentEvent]:
        if method != "session/request_permission":
            error = {"code": _UNKNOWN_METHOD, "message": f"this client does not do {method[:80]}"}
            return [Send(_line({"id": number, "error": error}))]
        call = given["toolCall"]
        # Numbers begin anew with each process; tool calls do not.
        request_id = f"{call['toolCallId']}:{number}"
        self._memory.asks[request_id] = {"id": number, "options": acp_lines.options(given["options"])}
        name, detail = self._name(call), acp_lines.detail(call)
        title = f"{name}: {detail}" if detail else name
        return [PermissionAsked(request_id, name, title, acp_lines.asked(call))]

    # ---- lines

    def _request(self, method: str, params: dict[str, Any], label: str | None = None) -> bytes:
        number, self._memory.next = self._memory.next, self._memory.next + 1
        self._memory.waits[str(number)] = label or method
        return _line({"id": number, "method": method, "params": params})

    def _odd(self, kind: str, line: Mapping[str, Any]) -> list[AgentEvent]:
        kind = kind[:80]
        if kind in self._memory.told or len(self._memory.told) >= _KEPT:
            return []
        self._memory.told.append(kind)
        return [Unknown(kind, json.dumps(line)[:500])]


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **value}, ensure_ascii=False).encode("utf-8", "replace")
