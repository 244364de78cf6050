"""OpenAI's Responses API, as Codex uses it, and chat completions. Pure."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from .script import Step, Turn, script, unescape

USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 120,
}
CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
KINDS = {
    400: ("invalid_request_error", "invalid_request", "scripted: a bad request"),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist"),
    429: ("requests", "rate_limit_exceeded", "scripted: too many requests"),
    503: ("server_error", "server_is_overloaded", "The server is overloaded"),
    529: ("server_error", "server_is_overloaded", "The server is overloaded"),
}


def read(path: str, body: dict[str, Any]) -> tuple[str, list[str]]:
    """The last text of a user that has a script (else the last one), and the results of tools since."""
    items = body.get("messages" if path.endswith("completions") else "input", ())
    items = [{"role": "user", "content": items}] if isinstance(items, str) else items
    said = [(number, text) for number, item in enumerate(items) if (text := _typed(item))]
    scripted = [each for each in said if script(each[1])]
    at, text = (said or [(0, "")])[-1]
    if scripted and not script(text) and text.lstrip().startswith("<"):
        at, text = scripted[-1]
    results = [_text(item.get("output") or item.get("content")) for item in items[at:] if _is_result(item)]
    return text, results


def failure(made: Turn) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body of an error."""
    if made.limit:
        error = {
            "type": "usage_limit_reached",
            "message": "The usage limit has been reached",
            "plan_type": "plus",
            "resets_at": int(time.time()) + made.limit,
            "resets_in_seconds": made.limit,
        }
        headers = {
            "x-codex-primary-used-percent": "100",
            "x-codex-primary-window-minutes": "300",
            "x-codex-primary-reset-at": str(error["resets_at"]),
            "x-codex-primary-reset-after-seconds": str(made.limit),
        }
        return 429, headers, {"error": error}
    kind, code, text = KINDS.get(made.fail, ("server_error", "server_error", "scripted: a server error"))
    status = 503 if made.fail == 529 else made.fail
    return status, {}, {"error": {"message": text, "type": kind, "param": None, "code": code}}


def whole(path: str, body: dict[str, Any], made: Turn) -> dict[str, Any]:
    if path.endswith("completions"):
        message: dict[str, Any] = {"role": "assistant", "content": "".join(made.pieces) or None}
        if made.call:
            message["tool_calls"] = [_chat_call(made.call)]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if made.call else "stop"}
        return {**_chat(body), "object": "chat.completion", "choices": [choice], "usage": CHAT_USAGE}
    return {**_response(body), "status": "completed", "output": _items(body, made), "usage": USAGE}


def stream(path: str, body: dict[str, Any], made: Turn) -> Iterator[tuple[str, Any]]:
    """The events of a streamed answer; `pause` and `cut` are for the server."""
    yield from _chat_stream(body, made) if path.endswith("completions") else _events(body, made)


def _events(body: dict[str, Any], made: Turn) -> Iterator[tuple[str, Any]]:
    number = 0

    def event(kind: str, **more: Any) -> tuple[str, Any]:
        nonlocal number
        number += 1
        return kind, {"type": kind, "sequence_number": number, **more}

    response, items = _response(body), _items(body, made)
    yield event("response.created", response=response)
    for index, item in enumerate(items):
        where = {"item_id": item["id"], "output_index": index}
        started = {**item, "content": []} if item["type"] == "message" else item
        yield event("response.output_item.added", output_index=index, item=started)
        if item["type"] == "message":
            part = {"type": "output_text", "text": "", "annotations": []}
            yield event("response.content_part.added", part=part, content_index=0, **where)
            for count, piece in enumerate(made.pieces):
                if count and made.pause:
                    yield "pause", {}
                yield event("response.output_text.delta", delta=piece, content_index=0, **where)
            if made.cut:
                yield "cut", {}
                return
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(
        "response.completed", response={**response, "status": "completed", "output": items, "usage": USAGE}
    )


def _chat_stream(body: dict[str, Any], made: Turn) -> Iterator[tuple[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return "", {**_chat(body), "object": "chat.completion.chunk", "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for count, piece in enumerate(made.pieces):
        if count and made.pause:
            yield "pause", {}
        yield chunk({"content": piece})
    if made.cut:
        yield "cut", {}
        return
    if made.call:
        yield chunk({"tool_calls": [{"index": 0, **_chat_call(made.call)}]})
    yield chunk({}, "tool_calls" if made.call else "stop")
    yield "", {**_chat(body), "object": "chat.completion.chunk", "choices": [], "usage": CHAT_USAGE}
    yield "", "[DONE]"


def _items(body: dict[str, Any], made: Turn) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if made.thought:
        summary = [{"type": "summary_text", "text": made.thought}]
        items.append({"type": "reasoning", "id": f"rs_{uuid.uuid4().hex}", "summary": summary})
    if made.pieces:
        content = [{"type": "output_text", "text": "".join(made.pieces), "annotations": []}]
        named = {"id": f"msg_{uuid.uuid4().hex}", "role": "assistant", "status": "completed"}
        items.append({"type": "message", **named, "content": content})
    if made.call:
        items.append(_called(made.call, _offered(body)))
    return items


def _offered(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tools by their names: in the request itself, or in an item of its input, in namespaces."""
    found: dict[str, dict[str, Any]] = {}

    def add(tools: Any, namespace: str | None = None) -> None:
        for tool in tools or ():
            if tool.get("type") == "namespace":
                add(tool.get("tools"), tool.get("name"))
            else:
                found[str(tool.get("name") or tool.get("type"))] = {**tool, "namespace": namespace}

    add(body.get("tools"))
    given = body.get("input")
    for item in given if isinstance(given, list) else ():
        if item.get("type") == "additional_tools":
            add(item.get("tools"))
    return found


def _called(step: Step, offered: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The step as a call of a tool that is offered: by itself, or by a program for `exec`."""
    name, given = _call(step)
    text = None
    if name not in offered and offered.get("exec", {}).get("type") == "custom":
        text = f"const found = await tools.{name}({json.dumps(given)});\ntext(JSON.stringify(found));\n"
        name = "exec"
    item = {"call_id": f"call_{uuid.uuid4().hex[:20]}", "status": "completed", "name": name}
    space = offered.get(name, {}).get("namespace")
    if space:
        item["namespace"] = space
    if text is None:
        arguments = json.dumps(given)
        return {**item, "type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "arguments": arguments}
    return {**item, "type": "custom_tool_call", "id": f"ctc_{uuid.uuid4().hex}", "input": text}


def _call(step: Step) -> tuple[str, dict[str, Any]]:
    """The step as a tool of Codex."""
    if step.verb == "run":
        return "exec_command", {"cmd": unescape(step.rest), "yield_time_ms": 10_000}
    if step.verb == "write":
        path, _, text = step.rest.partition(":")
        lines = "".join(f"+{line}\n" for line in unescape(text).splitlines())
        patch = f"*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch\n"
        return "exec_command", {"cmd": f"apply_patch <<'EOF'\n{patch}EOF\n", "yield_time_ms": 10_000}
    if step.verb == "ask":
        question, *labels = step.rest.split("|")
        options = [{"label": label, "description": label} for label in labels]
        asked = {"id": "q1", "header": "Question", "question": question, "options": options}
        return "request_user_input", {"questions": [asked]}
    name, _, given = step.rest.partition(":")
    return name, json.loads(given or "{}")


def _chat_call(step: Step) -> dict[str, Any]:
    """The step as a tool of OpenCode."""
    if step.verb == "run":
        name, given = "bash", {"command": unescape(step.rest), "description": "Run a command"}
    elif step.verb == "write":
        path, _, text = step.rest.partition(":")
        name, given = "write", {"filePath": path, "content": unescape(text)}
    else:
        name, given = _call(step)
    function = {"name": name, "arguments": json.dumps(given)}
    return {"id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}


def _response(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"resp_{uuid.uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "model": body.get("model"),
        "output": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
    }


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": f"chat_{uuid.uuid4().hex}", "created": int(time.time()), "model": body.get("model")}


def _is_result(item: dict[str, Any]) -> bool:
    return str(item.get("type", "")).endswith("_call_output") or item.get("role") == "tool"


def _typed(item: dict[str, Any]) -> str:
    if item.get("role") != "user":
        return ""
    return _text(item.get("content"))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return str(content.get("content", content))
    texts = [str(part.get("text", "")) for part in content or () if isinstance(part, dict)]
    return texts[-1] if texts else ""
