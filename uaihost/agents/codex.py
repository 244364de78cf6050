"""Codex' language: its app-server's JSON-RPC, one object a line, without the "jsonrpc" field. Pure.

Written for and tried with 0.169.0. It asks before every command and every change of files (approval policy
`untrusted`), which its own sandbox could not replace: that one does not start inside a container. Every
folder it may work in is marked untrusted, or it would take up the repository's own configuration, and run the
programs named there, unasked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from uaihost.agents import codex_lines
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
    TextVoid,
    ToolEnded,
    ToolStarted,
    TurnEnded,
    Unknown,
    Usage,
)

NAME = "codex"
TITLE = "Codex"
PROGRAM = "codex"
# `default` leaves the choice to the program and the account.
MODELS = ("default", "gpt-6.1-sol", "gpt-5.6-sol", "gpt-5.5")

POLICY, SANDBOX = "untrusted", "danger-full-access"
KEY = "UAI_CODEX_KEY"
VENDOR = "https://api.openai.com/v1"
# What a command in the container can have written into the home folder: programs to start, and rules by which
# later commands are not asked about. Options merge with those settings; gone they cannot count.
CLEAN = (
    'cd "${CODEX_HOME:-$HOME/.codex}" 2>/dev/null && rm -rf config.toml hooks.json hooks rules; '
    'cd "$0" && exec "$@"'
)
ARGUMENTS = (
    "app-server",
    "--disable", "plugins", "--disable", "apps",
    # Without a connection it would try for ever, silently.
    "--disable", "unbounded_connection_retries",
    # The tool by which it asks people; else it has that in plan mode only.
    "--enable", "default_mode_request_user_input",
)  # fmt: skip
RETRIES = 3
_KEPT = 64
_REFUSED = -32601


@attrs.define
class _Memory:
    """What one line leaves for the next.

    next: number of the next request; waits: our requests' numbers to their methods; asks: request id to what
    its answer needs; changes: an item's id to its changes of files; session, turn: ids; stop: interrupt the
    turn as soon as its id is known; open: the item whose text is streamed; used: tokens told so far, read and
    made; limit: when the limit that is nearest ends, milliseconds; told: kinds of lines that were not known.
    """

    next: int = 1
    waits: dict[str, str] = attrs.field(factory=dict)
    asks: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    changes: dict[str, list[Any]] = attrs.field(factory=dict)
    session: str | None = None
    resumed: bool = False
    turn: str | None = None
    stop: bool = False
    open: str | None = None
    used: list[int] = attrs.field(factory=lambda: [0, 0])
    limit: int | None = None
    told: list[str] = attrs.field(factory=list)


class CodexAdapter:
    """memory: JSON of `_Memory`."""

    def __init__(self, settings: AgentSettings, memory: str = "") -> None:
        self._settings = settings
        self._memory = _Memory(**json.loads(memory)) if memory else _Memory()

    def start(self, session_id: str | None) -> Start:
        settings, account = self._settings, self._settings.account
        argv = [
            "/bin/sh",
            "-c",
            CLEAN,
            settings.cwd,
            PROGRAM,
            *ARGUMENTS,
            "-c",
            f"projects={codex_lines.untrusted(settings.cwd)}",
        ]
        secrets = {}
        if account.form == "key":
            provider = {
                "name": "OpenAI", "base_url": account.base_url or VENDOR, "wire_api": "responses",
                "env_key": KEY, "request_max_retries": RETRIES, "stream_max_retries": RETRIES,
            }  # fmt: skip
            argv += ["-c", 'model_provider="uai"', "-c", f"model_providers.uai={codex_lines.toml(provider)}"]
            secrets = {KEY: "key"}
        elif account.base_url:
            argv += ["-c", f"chatgpt_base_url={codex_lines.toml(account.base_url)}"]
        return Start(tuple(argv), {"OPENAI_API_KEY": "", "CODEX_API_KEY": ""}, secrets)

    def open(self, session_id: str | None) -> bytes:
        self._memory = _Memory(session=session_id)
        client = {"name": "uaihost", "title": "uaihost", "version": "1"}
        # The experimental part holds what ends the commands of an interrupted turn.
        able = {"experimentalApi": True, "requestAttestation": False}
        return self._request("initialize", {"clientInfo": client, "capabilities": able})

    def prompt(self, text: str) -> bytes:
        self._memory.turn, self._memory.stop = None, False
        given = [{"type": "text", "text": text}]
        return self._request("turn/start", {"threadId": self._memory.session, "input": given})

    def answer(self, request_id: str, answer: Answer) -> bytes:
        asked = self._memory.asks.pop(request_id, None)
        if asked is None:
            # Withdrawn meanwhile: a note to the server that means nothing.
            return _line({"method": "initialized"})
        if "questions" in asked:
            chosen = {
                number: {
                    "answers": [answer.answers[text]] if answer.accept and text in answer.answers else []
                }
                for text, number in asked["questions"].items()
            }
            return _line({"id": asked["id"], "result": {"answers": chosen}})
        return _line({"id": asked["id"], "result": {"decision": "accept" if answer.accept else "decline"}})

    def interrupt(self) -> Sequence[bytes]:
        if self._memory.turn is None:
            # Its number is on the way.
            self._memory.stop = True
            return [self._clean()]
        return self._stop(self._memory.turn)

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
        told: dict[str, Callable[[dict[str, Any]], list[AgentEvent]]] = {
            "turn/started": self._turn_started,
            "turn/completed": self._turn_ended,
            "item/started": lambda given: self._item_started(given["item"]),
            "item/completed": lambda given: self._item_ended(given["item"]),
            "item/agentMessage/delta": self._text,
            "thread/tokenUsage/updated": self._used,
            "serverRequest/resolved": self._settled,
            "account/rateLimits/updated": self._limits,
            "error": self._failing,
        }
        if method in told:
            return told[method](params)
        return [] if method in codex_lines.SILENT else self._odd(method, line)

    # ---- the conversation

    def _answered(self, asked: str, line: dict[str, Any]) -> list[AgentEvent]:
        error = line.get("error")
        if error is not None:
            return self._refused(asked, str(error.get("message", "no reason was given"))[:1000])
        result = line["result"]
        match asked:
            case "initialize":
                sends = [Send(_line({"method": "initialized"}))]
                return [*sends, self._log_in() if self._settings.account.form == "login" else self._thread()]
            case "account/login/start":
                return [self._thread()]
            case "thread/start" | "thread/resume":
                return self._threaded(asked, result)
            case "turn/start":
                return self._turn_started(result)
            case _:
                return []

    def _refused(self, asked: str, why: str) -> list[AgentEvent]:
        match asked:
            case "thread/resume" if "no rollout found" in why or "not found" in why:
                return [SessionLost(why)]
            case "account/login/start":
                return [TurnEnded("failed", Fault("signed-out", why))]
            case "initialize" | "thread/start" | "thread/resume" | "turn/start":
                return [TurnEnded("failed", Fault("refused", why))]
            case _:
                # Nothing to interrupt or to clean any more.
                return []

    def _log_in(self) -> Send:
        given = {
            "type": "chatgptAuthTokens",
            "accessToken": "{{access}}",
            "chatgptAccountId": "{{account_id}}",
        }
        return Send(self._request("account/login/start", given), secret=True)

    def _thread(self) -> Send:
        settings, session = self._settings, self._memory.session
        model = None if settings.model in (None, MODELS[0]) else settings.model
        given: dict[str, Any] = {
            "cwd": settings.cwd,
            "approvalPolicy": POLICY,
            "sandbox": SANDBOX,
            "model": model,
            "developerInstructions": settings.instructions or None,
        }
        if session is None:
            return Send(self._request("thread/start", given))
        return Send(self._request("thread/resume", {**given, "threadId": session, "excludeTurns": True}))

    def _threaded(self, asked: str, result: dict[str, Any]) -> list[AgentEvent]:
        if result["approvalPolicy"] != POLICY:
            policy = f"{result['approvalPolicy']!r:.80}"
            text = (
                f"this Codex does not ask before it runs commands (its policy is {policy}); build the "
                "task image again with the pinned version: uaihost image build"
            )
            return [TurnEnded("failed", Fault("refused", text))]
        self._memory.session = str(result["thread"]["id"])
        return [Ready(self._memory.session, asked == "thread/resume")]

    # ---- turns

    def _turn_started(self, given: dict[str, Any]) -> list[AgentEvent]:
        if given["turn"].get("status") not in (None, "inProgress"):
            return []
        self._memory.turn = str(given["turn"]["id"])
        events: list[AgentEvent] = []
        if self._memory.stop:
            self._memory.stop = False
            events += map(Send, self._stop(self._memory.turn))
        return events

    def _turn_ended(self, given: dict[str, Any]) -> list[AgentEvent]:
        memory, turn = self._memory, given["turn"]
        withdrawn = [PermissionWithdrawn(request_id) for request_id in memory.asks]
        memory.turn, memory.stop, memory.open = None, False, None
        memory.asks.clear()
        memory.changes.clear()
        match turn["status"]:
            case "completed":
                return [*withdrawn, TurnEnded("done")]
            case "interrupted":
                return [*withdrawn, TurnEnded("cancelled")]
            case _:
                fault = codex_lines.fault(turn.get("error") or {}, memory.limit)
                return [*withdrawn, TurnEnded("failed", fault)]

    def _stop(self, turn: str) -> list[bytes]:
        stop = self._request("turn/interrupt", {"threadId": self._memory.session, "turnId": turn})
        return [stop, self._clean()]

    def _clean(self) -> bytes:
        """Ends the commands that an interrupted turn leaves running."""
        return self._request("thread/backgroundTerminals/clean", {"threadId": self._memory.session})

    # ---- what it says and does

    def _text(self, given: dict[str, Any]) -> list[AgentEvent]:
        began = [TextVoid()] if self._memory.open not in (None, given["itemId"]) else []
        self._memory.open = str(given["itemId"])
        return [*began, TextDelta(codex_lines.text(given["delta"]))]

    def _item_started(self, item: dict[str, Any]) -> list[AgentEvent]:
        if item["type"] == "fileChange":
            self._memory.changes[str(item["id"])] = item["changes"]
        name = codex_lines.TOOLS.get(item["type"])
        if name is None:
            return [] if item["type"] in codex_lines.QUIET else self._odd(f"item {item['type']}", item)
        return [ToolStarted(str(item["id"]), name, codex_lines.detail(item))]

    def _item_ended(self, item: dict[str, Any]) -> list[AgentEvent]:
        if item["type"] == "agentMessage":
            self._memory.open = None
            return [Message(codex_lines.text(item["text"]))]
        if item["type"] in codex_lines.TOOLS:
            return [ToolEnded(str(item["id"]), item.get("status") in (None, "completed"))]
        return []

    def _used(self, given: dict[str, Any]) -> list[AgentEvent]:
        total = given["tokenUsage"]["total"]
        now = [int(total["inputTokens"]), int(total["outputTokens"])]
        read, made = (max(0, after - before) for after, before in zip(now, self._memory.used, strict=True))
        self._memory.used = now
        return [Usage(read, made)] if read or made else []

    def _limits(self, given: dict[str, Any]) -> list[AgentEvent]:
        self._memory.limit = codex_lines.limit(given["rateLimits"])
        return []

    def _failing(self, given: dict[str, Any]) -> list[AgentEvent]:
        if given.get("willRetry") is not True:
            # The end of the turn says it again.
            return []
        return [codex_lines.retrying(given["error"])]

    # ---- what it asks

    def _asked(self, method: str, number: Any, given: dict[str, Any]) -> list[AgentEvent]:
        if method == "account/chatgptAuthTokens/refresh":
            result = {
                "accessToken": "{{access}}",
                "chatgptAccountId": "{{account_id}}",
                "chatgptPlanType": None,
            }
            return [Send(_line({"id": number, "result": result}), secret=True, renew=True)]
        if method == "mcpServer/elicitation/request":
            return [Send(_line({"id": number, "result": {"action": "decline", "content": None}}))]
        asked = codex_lines.asked(method, given, self._memory.changes)
        if asked is None:
            # Unanswered it would hold the turn for ever.
            error = {"code": _REFUSED, "message": f"this client does not do {method[:80]}"}
            return [Send(_line({"id": number, "error": error}))]
        # Numbers begin anew with each process; items do not.
        request_id = f"{given['itemId']}:{number}"
        waits: dict[str, Any] = {"id": number}
        if asked.questions:
            waits["questions"] = {codex_lines.text(q["question"]): str(q["id"]) for q in given["questions"]}
        self._memory.asks[request_id] = waits
        return [PermissionAsked(request_id, asked.tool, asked.title, asked.input, asked.questions)]

    def _settled(self, given: dict[str, Any]) -> list[AgentEvent]:
        gone = [name for name, asked in self._memory.asks.items() if asked["id"] == given["requestId"]]
        for name in gone:
            del self._memory.asks[name]
        return [PermissionWithdrawn(name) for name in gone]

    # ---- lines

    def _request(self, method: str, params: dict[str, Any]) -> bytes:
        number, self._memory.next = self._memory.next, self._memory.next + 1
        self._memory.waits[str(number)] = method
        return _line({"method": method, "id": number, "params": params})

    def _odd(self, kind: str, line: dict[str, Any]) -> list[AgentEvent]:
        kind = kind[:80]
        if kind in self._memory.told or len(self._memory.told) >= _KEPT:
            return []
        self._memory.told.append(kind)
        return [Unknown(kind, json.dumps(line)[:500])]


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
