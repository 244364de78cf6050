"""What fields of the Agent Client Protocol's lines mean. Pure."""

from __future__ import annotations

import re
from typing import Any

from uaihost.agents.adapter import Fault, FaultKind

# Updates that say nothing a channel needs: a thought, a plan, what a person said, settings and names.
SILENT = frozenset(
    {"agent_thought_chunk", "user_message_chunk", "plan", "available_commands_update", "current_mode_update",
     "config_option_update", "session_info_update"}
)  # fmt: skip
DEFAULT = "default"
_TITLE = 200
_AUTH_REQUIRED = -32000
_SIGN_IN = re.compile(r"\b401\b|api key|x-api-key|authenticat|unauthori[sz]ed|not logged in|/login", re.I)
_LIMIT = re.compile(r"usage limit|quota|limit reached|hit your .*limit", re.I)
_BUSY = re.compile(r"\b(?:429|500|502|503|529)\b|overloaded|rate.?limit|too many requests|server error", re.I)
_AWAY = re.compile(r"connect|network|timed? ?out|ENOTFOUND|ECONN|fetch failed|unable to reach", re.I)


def text(value: object) -> str:
    """JSON can name lone halves of surrogate pairs, which can be neither stored nor sent."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def content(block: dict[str, Any]) -> str:
    """A content block as text; what is none is named."""
    if block["type"] == "text":
        return text(block["text"])
    return f"[{text(block['type'])[:40]}]"


def tool(call: dict[str, Any]) -> str:
    """What kind of tool it is, which is what an `always` counts for; "" where it is not said."""
    return text(call.get("kind") or "")[:40]


def detail(call: dict[str, Any]) -> str:
    """What it does, in one line."""
    given = call.get("rawInput") or {}
    for name in ("command", "filePath", "file_path", "filepath", "path", "url", "query", "pattern"):
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return " ".join(text(given[name]).split())[:_TITLE]
    return " ".join(text(call.get("title") or "").split())[:_TITLE]


def asked(call: dict[str, Any]) -> dict[str, Any]:
    """The exact input that a person decides on."""
    found: dict[str, Any] = {name: call[name] for name in ("title", "kind", "rawInput") if call.get(name)}
    changes = [each for each in call.get("content") or () if each.get("type") == "diff"]
    return {**found, "content": changes} if changes else found


def options(given: list[dict[str, Any]]) -> dict[str, str]:
    """Kind of answer to the option's id, the first of each kind."""
    found: dict[str, str] = {}
    for option in given:
        found.setdefault(str(option["kind"]), str(option["optionId"]))
    return found


def choose(found: dict[str, str], accept: bool) -> str | None:
    """The option for one decision, never one for later ones; None for none."""
    return found.get("allow_once" if accept else "reject_once")


def asking(modes: Any) -> str | None:
    """The mode to set so that it asks before it acts: programs that have one call it `default`; some begin in
    another. None: it is in that one, or has none."""
    if not isinstance(modes, dict) or modes.get("currentModeId") == DEFAULT:
        return None
    names = [mode.get("id") for mode in modes.get("availableModes") or ()]
    return DEFAULT if DEFAULT in names else None


def stopped(reason: str) -> str:
    said = {
        "max_tokens": "the answer became too long",
        "max_turn_requests": "the turn took too many requests",
        "refusal": "the model refused to answer",
    }
    return said.get(reason, f"it stopped: {reason}")


def fault(error: dict[str, Any]) -> Fault:
    """Programs tell failures of their models as text alone."""
    data = error.get("data")
    more = data.get("message") or data.get("details") if isinstance(data, dict) else data
    said = text(error.get("message") or "no reason was given")
    if more and text(more) not in said:
        said = f"{said} ({text(more)})"
    return Fault(_kind(error.get("code"), said), said[:1000])


def _kind(code: object, said: str) -> FaultKind:
    if code == _AUTH_REQUIRED or _SIGN_IN.search(said):
        return "signed-out"
    if _LIMIT.search(said):
        return "quota"
    if _BUSY.search(said):
        return "overloaded"
    if _AWAY.search(said):
        return "network"
    return "other"
