"""What fields of Claude Code's lines mean: faults, limits, titles, questions. Pure."""

from __future__ import annotations

import re
from typing import Any

from uaihost.agents.adapter import Fault, FaultKind, Question

# Tokens that were read: new ones, and from or into the vendor's cache.
READ = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
# Of a tool's input, what says most about it in one line.
_TELLING = (
    "command",
    "file_path",
    "path",
    "notebook_path",
    "pattern",
    "url",
    "query",
    "prompt",
    "description",
)
_TITLE = 200

# "Claude AI usage limit reached|1767225600" and newer sentences without a time that can be read safely.
_LIMIT = re.compile(r"(?:usage|session|weekly|5-hour|hour) limit|limit reached|hit your .*limit", re.I)
_EPOCH = re.compile(r"\|\s*(\d{9,11})\b")
_SIGN_IN = re.compile(
    r"not logged in|/login|invalid (?:api key|x-api-key|bearer token)|oauth token|authenticat", re.I
)


def text(value: object) -> str:
    """JSON can name lone halves of surrogate pairs, which can be neither stored nor sent."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def detail(tool: str, given: Any) -> str:
    """What a tool is about to do, in one line."""
    for name in _TELLING:
        if isinstance(given, dict) and isinstance(given.get(name), str):
            return " ".join(text(given[name]).split())[:_TITLE]
    return ""


def title(tool: str, given: Any) -> str:
    said = detail(tool, given)
    return f"{tool}: {said}" if said else tool


def questions(given: dict[str, Any]) -> tuple[Question, ...]:
    """Those of AskUserQuestion's input."""
    return tuple(
        Question(
            text(each["question"]),
            tuple((text(option["label"]), text(option.get("description", ""))) for option in each["options"]),
            each.get("multiSelect") is True,
        )
        for each in given["questions"]
    )


def limit(info: dict[str, Any]) -> int | None:
    """When a usage limit that is in force ends, milliseconds; None when none is."""
    resets = info.get("resetsAt")
    if info.get("status") != "rejected" or not isinstance(resets, int | float):
        return None
    return int(resets * 1000)


def retry(line: dict[str, Any]) -> str:
    status = line.get("error_status")
    said = {"rate_limit": "too many requests", "overloaded": "overloaded", "server_error": "a server error"}
    why = said.get(str(line.get("error")), "no connection" if status is None else str(line.get("error")))
    return f"{why} ({status})" if status is not None else why


def lost(errors: list[Any]) -> bool:
    return any(str(error).startswith("No conversation found") for error in errors)


def fault(line: dict[str, Any], limited_until: int | None) -> Fault:
    """Why a turn failed. limited_until: of the rate limit event that came before, if one did."""
    said = line.get("result") or "; ".join(str(error) for error in line.get("errors") or ())
    said = text(said or line.get("subtype") or "no reason was given")[:1000]
    status = line.get("api_error_status")
    epoch = _EPOCH.search(said)
    if limited_until is not None or epoch or (_LIMIT.search(said) and status in (None, 429)):
        until = limited_until if limited_until is not None else int(epoch[1]) * 1000 if epoch else None
        return Fault("quota", said, until)
    return Fault(_kind(status, said, str(line.get("terminal_reason"))), said)


def _kind(status: object, said: str, why: str) -> FaultKind:
    if status in (401, 403) or (status is None and _SIGN_IN.search(said)):
        return "signed-out"
    if status == 429 or (isinstance(status, int) and status >= 500):
        return "overloaded"
    if isinstance(status, int) and status >= 400:
        return "refused"
    return "network" if why == "api_error" else "other"
