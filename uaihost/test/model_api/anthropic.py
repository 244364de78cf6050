"""Anthropic's Messages API, as Claude Code uses it. Pure."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from .script import Step, Turn, script, unescape

USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 20,
}
KINDS = {
    400: ("invalid_request_error", "scripted: a bad request"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "scripted: not permitted"),
    404: ("not_found_error", "model: scripted"),
    429: ("rate_limit_error", "scripted: too many requests"),
    529: ("overloaded_error", "Overloaded"),
}


def read(path: str, body: dict[str, Any]) -> tuple[str, list[str]]:
    """The last text of a user that has a script (else the last one), and the results of tools since."""
    said = [(number, text) for number, text in enumerate(map(_typed, body.get("messages", ()))) if text]
    scripted = [each for each in said if script(each[1])]
    at, text = (scripted or said or [(0, "")])[-1]
    if said and not script(said[-1][1]) and not _reminder(said[-1][1]):
        at, text = said[-1]
    # Results in the message of the text itself are of a turn that was interrupted before.
    results = [
        _text(block.get("content"))
        for message in body.get("messages", ())[at + 1 :]
        if message["role"] == "user" and isinstance(message["content"], list)
        for block in message["content"]
        if block.get("type") == "tool_result"
    ]
    return text, results


def failure(made: Turn) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of an error."""
    if made.limit:
        until = str(int(time.time()) + made.limit)
        headers = {
            "anthropic-ratelimit-unified-status": "rejected",
            "anthropic-ratelimit-unified-reset": until,
            "anthropic-ratelimit-unified-representative-claim": "five_hour",
            "anthropic-ratelimit-unified-5h-status": "rejected",
            "anthropic-ratelimit-unified-5h-reset": until,
            "x-should-retry": "false",
        }
        return 429, headers, _error("rate_limit_error", "This request would exceed your usage limit.")
    kind, text = KINDS.get(made.fail, ("api_error", "Internal server error"))
    headers = {"x-should-retry": "false"} if made.fail in (401, 403) else {}
    return made.fail, headers, _error(kind, text)


def whole(path: str, body: dict[str, Any], made: Turn) -> dict[str, Any]:
    return _message(body, _blocks(made), "tool_use" if made.call else "end_turn", USAGE)


def stream(path: str, body: dict[str, Any], made: Turn) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a streamed answer; `pause` and `cut` are for the server."""

    def event(kind: str, **more: Any) -> tuple[str, dict[str, Any]]:
        return kind, {"type": kind, **more}

    yield event("message_start", message=_message(body, [], None, {**USAGE, "output_tokens": 1}))
    for index, block in enumerate(_blocks(made)):
        empty: dict[str, dict[str, Any]] = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        yield event("content_block_start", index=index, content_block=block | empty[block["type"]])
        for number, delta in enumerate(_deltas(block, made)):
            if number and made.pause and block["type"] == "text":
                yield "pause", {}
            yield event("content_block_delta", index=index, delta=delta)
        if made.cut and block["type"] == "text":
            yield "cut", {}
            return
        yield event("content_block_stop", index=index)
    stop = {"stop_reason": "tool_use" if made.call else "end_turn", "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": USAGE["output_tokens"]})
    yield event("message_stop")


def _blocks(made: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if made.thought:
        blocks.append({"type": "thinking", "thinking": made.thought, "signature": "c2lnbmVk"})
    if made.pieces:
        blocks.append({"type": "text", "text": "".join(made.pieces)})
    if made.call:
        name, given = _call(made.call)
        blocks.append(
            {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": name, "input": given}
        )
    return blocks


def _deltas(block: dict[str, Any], made: Turn) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in made.pieces)
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}


def _call(step: Step) -> tuple[str, dict[str, Any]]:
    """The step as a tool of Claude Code."""
    if step.verb == "run":
        return "Bash", {"command": unescape(step.rest), "description": "Run a command"}
    if step.verb == "write":
        path, _, text = step.rest.partition(":")
        return "Write", {"file_path": path, "content": unescape(text)}
    if step.verb == "ask":
        question, *labels = step.rest.split("|")
        options = [{"label": label, "description": label} for label in labels]
        asked = {"question": question, "header": "Question", "options": options, "multiSelect": False}
        return "AskUserQuestion", {"questions": [asked]}
    name, _, given = step.rest.partition(":")
    return name, json.loads(given or "{}")


def _message(
    body: dict[str, Any], content: list[dict[str, Any]], stop: str | None, usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _typed(message: dict[str, Any]) -> str:
    """What a user has typed in a message; programs add reminders of their own."""
    if message.get("role") != "user":
        return ""
    content = message["content"]
    texts = [content] if isinstance(content, str) else [b["text"] for b in content if b.get("type") == "text"]
    own = [text for text in texts if not _reminder(text)]
    return own[-1] if own else ""


def _reminder(text: str) -> bool:
    return text.lstrip().startswith(("<system-reminder>", "[Request interrupted"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(block.get("text", "")) for block in content or ())


def _error(kind: str, text: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": text}}
