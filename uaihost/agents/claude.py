"""Claude Code's language: stream-json on stdin and stdout, permission requests as control messages. Pure.

Written for and tried with 2.1.330. What it starts with decides who may make it run something: no settings are
loaded at all, neither the repository's nor those of the home folder, which commands in the container can
write; and no MCP servers. So no hook, no helper and no variable of theirs is ever in force.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from uaihost.agents import claude_lines
from uaihost.agents.adapter import (
    AgentEvent,
    AgentSettings,
    Answer,
    Message,
    PermissionAsked,
    PermissionWithdrawn,
    Ready,
    Retrying,
    Send,
    SessionLost,
    SessionNamed,
    Start,
    TextDelta,
    TextVoid,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)

NAME = "claude"
TITLE = "Claude Code"
PROGRAM = "claude"
# `default` leaves the choice to the program and the account.
MODELS = ("default", "opus", "sonnet", "haiku")

INSTRUCTIONS = "instructions.md"
_OPEN, _INTERRUPT = "uaihost-open", "uaihost-interrupt"
# Questions that wait for an answer and kinds that were told, at most.
_KEPT = 64

ARGUMENTS = (
    "-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose",
    "--include-partial-messages", "--permission-prompt-tool", "stdio", "--permission-mode", "manual",
    "--setting-sources", "", "--strict-mcp-config", "--system-prompt-snapshot", "off",
)  # fmt: skip
ENVIRONMENT = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    # Each try waits longer; three take some ten seconds, the program's own ten take minutes.
    "CLAUDE_CODE_MAX_RETRIES": "3",
    "CLAUDECODE": "",
}
# What decides whom it asks and as whom: the account's alone, whatever a repository's container sets.
_ACCOUNT = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_BASE_URL")

# Kinds of lines that say nothing a channel needs.
_SILENT = frozenset({"keep_alive", "command_lifecycle", "tool_progress", "auth_status", "conversation_reset"})

READ_FIRST = (
    "If the folder you work in, or one above it below /workspace, has a file CLAUDE.md or AGENTS.md, read it "
    "before you begin: it holds the project's own instructions."
)


@attrs.define
class _Memory:
    """What one line leaves for the next.

    questions: request id to the input of a question that waits; cost: of the session so far, US dollars, None
    when not known; open: text has been streamed that no message has repeated; limit: when a usage limit ends,
    milliseconds; told: kinds of lines that were not known; ready: the first line has been answered.
    """

    questions: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    cost: float | None = 0.0
    open: bool = False
    limit: int | None = None
    told: list[str] = attrs.field(factory=list)
    ready: bool = False
    session: str | None = None


class ClaudeAdapter:
    """memory: JSON of `_Memory`."""

    def __init__(self, settings: AgentSettings, memory: str = "") -> None:
        self._settings = settings
        self._memory = _Memory(**json.loads(memory)) if memory else _Memory()

    def start(self, session_id: str | None) -> Start:
        settings, account = self._settings, self._settings.account
        argv = [PROGRAM, *ARGUMENTS, "--append-system-prompt-file", f"{settings.control}/{INSTRUCTIONS}"]
        if settings.model and settings.model != MODELS[0]:
            argv += ["--model", settings.model]
        if session_id:
            argv += ["--resume", session_id]
        secrets = {"key": {"ANTHROPIC_API_KEY": "key"}, "token": {"CLAUDE_CODE_OAUTH_TOKEN": "token"}}
        env = {**ENVIRONMENT, **dict.fromkeys(_ACCOUNT, "")}
        if account.base_url:
            env["ANTHROPIC_BASE_URL"] = account.base_url
        files = {INSTRUCTIONS: f"{settings.instructions}\n\n{READ_FIRST}\n"}
        return Start(tuple(argv), env, secrets.get(account.form, {}), files)

    def open(self, session_id: str | None) -> bytes:
        self._memory = _Memory(session=session_id, cost=None if session_id else 0.0)
        return _control(_OPEN, {"subtype": "initialize", "hooks": None})

    def prompt(self, text: str) -> bytes:
        # `client_composed`: a text that begins with `/` or names `@file` is text and no command.
        message = {"role": "user", "content": text}
        return _line({"type": "user", "message": message, "client_composed": True})

    def answer(self, request_id: str, answer: Answer) -> bytes:
        given = self._memory.questions.pop(request_id, None)
        decided: dict[str, Any]
        if not answer.accept:
            decided = {"behavior": "deny", "message": "The user declined this."}
        elif given is not None:
            decided = {"behavior": "allow", "updatedInput": {**given, "answers": dict(answer.answers)}}
        else:
            # Without an input of ours it runs exactly what it asked for.
            decided = {"behavior": "allow"}
        response = {"subtype": "success", "request_id": request_id, "response": decided}
        return _line({"type": "control_response", "response": response})

    def interrupt(self) -> Sequence[bytes]:
        return [_control(_INTERRUPT, {"subtype": "interrupt", "cancel_queued": True})]

    def memory(self) -> str:
        return json.dumps(attrs.asdict(self._memory))

    def feed(self, line: bytes) -> list[AgentEvent]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return []
        if not isinstance(found, dict) or not isinstance(found.get("type"), str):
            return []
        try:
            return self._read(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            # A known kind in a shape that is not: told like a kind that is not known.
            return self._odd(f"{found['type']} of another shape", found)

    def _read(self, line: dict[str, Any]) -> list[AgentEvent]:
        match line["type"]:
            case "stream_event":
                return self._streamed(line)
            case "assistant":
                return self._assistant(line)
            case "user":
                return self._results(line)
            case "control_request":
                return self._asked(line["request_id"], line["request"])
            case "control_cancel_request":
                self._memory.questions.pop(line["request_id"], None)
                return [PermissionWithdrawn(line["request_id"])]
            case "control_response":
                return self._answered(line["response"])
            case "system":
                return self._system(line)
            case "rate_limit_event":
                self._memory.limit = claude_lines.limit(line["rate_limit_info"])
                return []
            case "result":
                return self._result(line)
            case kind if kind in _SILENT:
                return []
            case kind:
                return self._odd(kind, line)

    # ---- what it says

    def _streamed(self, line: dict[str, Any]) -> list[AgentEvent]:
        if line.get("parent_tool_use_id"):
            return []
        event = line["event"]
        if event["type"] == "message_start" and self._memory.open:
            self._memory.open = False
            return [TextVoid()]
        if event["type"] == "content_block_delta" and event["delta"].get("type") == "text_delta":
            self._memory.open = True
            return [TextDelta(claude_lines.text(event["delta"]["text"]))]
        return []

    def _assistant(self, line: dict[str, Any]) -> list[AgentEvent]:
        message, own = line["message"], not line.get("parent_tool_use_id")
        if line.get("is_api_error_message") or message.get("model") == "<synthetic>":
            # The end of the turn says it again, with what failed.
            return []
        found: list[AgentEvent] = []
        for block in message["content"]:
            if block["type"] == "text" and own:
                self._memory.open = False
                found.append(Message(claude_lines.text(block["text"])))
            elif block["type"] == "tool_use":
                detail = claude_lines.detail(block["name"], block["input"])
                found.append(ToolStarted(str(block["id"]), str(block["name"]), detail))
        return found

    def _results(self, line: dict[str, Any]) -> list[AgentEvent]:
        content = line["message"]["content"]
        return [
            ToolEnded(str(block["tool_use_id"]), block.get("is_error") is not True)
            for block in (content if isinstance(content, list) else ())
            if block["type"] == "tool_result"
        ]

    # ---- what it asks

    def _asked(self, request_id: str, request: dict[str, Any]) -> list[AgentEvent]:
        if request["subtype"] != "can_use_tool":
            error = f"this client does not do {str(request['subtype'])[:80]}"
            response = {"subtype": "error", "request_id": request_id, "error": error}
            return [Send(_line({"type": "control_response", "response": response}))]
        tool, given = str(request["tool_name"]), request["input"]
        questions = claude_lines.questions(given) if tool == "AskUserQuestion" else ()
        if questions:
            self._memory.questions[request_id] = given
            while len(self._memory.questions) > _KEPT:
                del self._memory.questions[next(iter(self._memory.questions))]
        title = claude_lines.title(tool, given)
        return [PermissionAsked(str(request_id), tool, title, dict(given), questions)]

    def _answered(self, response: dict[str, Any]) -> list[AgentEvent]:
        if response["request_id"] != _OPEN or self._memory.ready:
            return []
        self._memory.ready = True
        return [Ready(self._memory.session, self._memory.session is not None)]

    # ---- how it is

    def _system(self, line: dict[str, Any]) -> list[AgentEvent]:
        match line.get("subtype"):
            case "init":
                named = str(line["session_id"])
                if named == self._memory.session:
                    return []
                self._memory.session = named
                return [SessionNamed(named)]
            case "api_retry":
                text = claude_lines.retry(line)
                return [Retrying(text, int(line["attempt"]), int(line["max_retries"]))]
            case _:
                # Many, more with each release: how it is, never what it did.
                return []

    def _result(self, line: dict[str, Any]) -> list[AgentEvent]:
        self._memory.open = False
        self._memory.questions.clear()
        errors = line.get("errors")
        if isinstance(errors, list) and claude_lines.lost(errors):
            return [SessionLost(str(errors[0]))]
        cost, before = float(line.get("total_cost_usd") or 0.0), self._memory.cost
        self._memory.cost = cost
        # A resumed session goes on counting, so the cost of its first turn here is not told.
        spent = None if before is None else max(0.0, cost - before)
        usage = line["usage"]
        read = sum(int(usage.get(name) or 0) for name in claude_lines.READ)
        events: list[AgentEvent] = [Usage(read, int(usage.get("output_tokens") or 0), spent)]
        limit, self._memory.limit = self._memory.limit, None
        return [*events, _ended(line, limit)]

    def _odd(self, kind: str, line: dict[str, Any]) -> list[AgentEvent]:
        kind = kind[:80]
        if kind in self._memory.told or len(self._memory.told) >= _KEPT:
            return []
        self._memory.told.append(kind)
        return [Unknown(kind, json.dumps(line)[:500])]


def _ended(line: dict[str, Any], limit: int | None) -> TurnEnded:
    """Whether it went well is told by `is_error` alone: `subtype` says success of failures too."""
    if line.get("is_error") is not True:
        return TurnEnded("done")
    if str(line.get("terminal_reason")).startswith("aborted"):
        return TurnEnded("cancelled")
    return TurnEnded("failed", claude_lines.fault(line, limit))


def _control(request_id: str, request: dict[str, Any]) -> bytes:
    return _line({"type": "control_request", "request_id": request_id, "request": request})


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
