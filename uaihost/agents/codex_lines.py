"""What fields of Codex' lines mean: faults, limits, approvals, configuration. Pure."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any

import attrs

from uaihost.agents.adapter import Fault, FaultKind, Question, Retrying

# Kinds of items that are tools, as people read them.
TOOLS = {
    "commandExecution": "command",
    "fileChange": "file change",
    "mcpToolCall": "mcp tool",
    "dynamicToolCall": "tool",
    "webSearch": "web search",
    "imageView": "image",
    "collabAgentToolCall": "agent",
}
# Kinds of items that are neither tools nor answers.
QUIET = frozenset(
    {"userMessage", "agentMessage", "reasoning", "plan", "hookPrompt", "contextCompaction", "sleep",
     "enteredReviewMode", "exitedReviewMode", "imageGeneration", "subAgentActivity"}
)  # fmt: skip
# Notifications that say nothing a channel needs: state that other lines tell too, pieces of output, settings.
_SILENT = """
    thread/started thread/status/changed thread/readState/changed thread/archived thread/unarchived
    thread/closed thread/name/updated thread/goal/updated thread/goal/cleared thread/settings/updated
    thread/environment/connected thread/environment/disconnected thread/queue/changed thread/compacted
    thread/prediction/updated thread/attachment/updated thread/project/updated thread/section/changed
    thread/reverted thread/deleted project/changed skills/changed app/list/updated fs/changed hook/started
    hook/completed turn/diff/updated turn/plan/updated turn/moderationMetadata
    item/reasoning/summaryTextDelta item/reasoning/summaryPartAdded item/reasoning/textDelta item/plan/delta
    item/commandExecution/outputDelta item/commandExecution/terminalInteraction item/fileChange/outputDelta
    item/fileChange/patchUpdated item/mcpToolCall/progress rawResponseItem/completed rawResponse/completed
    command/exec/outputDelta process/outputDelta process/exited item/autoApprovalReview/started
    item/autoApprovalReview/completed autoApprovalReview/strictReviewRequired mcpServer/oauthLogin/completed
    mcpServer/startupStatus/updated mcpServer/event/stream/notification account/updated
    account/login/completed account/gatewayOAuth/changed remoteControl/status/changed model/rerouted
    model/verification model/safetyBuffering/updated modelProvider/authRecoveryStarted
    modelProvider/authRecoveryCompleted warning guardianWarning deprecationNotice configWarning
    externalAgentConfig/import/progress externalAgentConfig/import/completed
"""
SILENT = frozenset(_SILENT.split())
_TITLE = 200
_TRIES = re.compile(r"(\d+)/(\d+)")


@attrs.frozen
class Asked:
    """One request for leave, or for answers."""

    tool: str
    title: str
    input: dict[str, Any]
    questions: tuple[Question, ...] = ()


def text(value: object) -> str:
    """JSON can name lone halves of surrogate pairs, which can be neither stored nor sent."""
    return str(value).encode("utf-8", "replace").decode("utf-8")


def toml(value: Any) -> str:
    """A value as TOML on one line; JSON's strings and numbers are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}={toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def untrusted(cwd: str) -> str:
    """Every folder from `cwd` up, as a TOML table that keeps the repositories' own configuration out."""
    path = PurePosixPath(cwd)
    return toml({str(each): {"trust_level": "untrusted"} for each in (path, *path.parents)})


def detail(item: dict[str, Any]) -> str:
    """What an item does, in one line."""
    match item["type"]:
        case "commandExecution":
            said = item["command"]
        case "fileChange":
            said = ", ".join(str(change["path"]) for change in item["changes"])
        case "mcpToolCall":
            said = f"{item.get('server')}: {item.get('tool')}"
        case _:
            said = item.get("query") or item.get("tool") or item.get("path") or ""
    return " ".join(text(said).split())[:_TITLE]


def asked(method: str, given: dict[str, Any], changes: dict[str, list[Any]]) -> Asked | None:
    """What a request of the server asks a person; None for what is not for people."""
    match method:
        case "item/commandExecution/requestApproval":
            shown = {
                name: given[name] for name in ("command", "cwd", "reason") if given.get(name) is not None
            }
            return Asked("command", f"command: {text(given.get('command') or '')}"[:_TITLE], shown)
        case "item/fileChange/requestApproval":
            files = changes.get(str(given["itemId"]), [])
            paths = ", ".join(text(change["path"]) for change in files)
            return Asked("file change", f"file change: {paths}"[:_TITLE], {"changes": files})
        case "item/tool/requestUserInput":
            questions = tuple(
                Question(
                    text(each["question"]),
                    tuple((text(o["label"]), text(o.get("description", ""))) for o in each["options"] or ()),
                )
                for each in given["questions"]
            )
            return Asked("question", questions[0].text[:_TITLE], {"questions": given["questions"]}, questions)
        case _:
            return None


def limit(limits: dict[str, Any]) -> int | None:
    """When the limits that are used up end, milliseconds; None when none is."""
    windows = [limits.get(name) or {} for name in ("primary", "secondary")]
    ends = [
        each["resetsAt"] for each in windows if each.get("usedPercent", 0) >= 100 and each.get("resetsAt")
    ]
    return int(max(ends) * 1000) if ends else None


def retrying(error: dict[str, Any]) -> Retrying:
    said = text(error.get("additionalDetails") or error.get("message") or "")
    tries = _TRIES.search(str(error.get("message", "")))
    attempt, most = (int(tries[1]), int(tries[2])) if tries else (1, None)
    return Retrying(" ".join(said.split())[:_TITLE], attempt, most)


def fault(error: dict[str, Any], limited_until: int | None) -> Fault:
    """Why a turn failed. limited_until: of the limits that were told before."""
    info = error.get("codexErrorInfo")
    said = text(error.get("message") or "no reason was given")
    if error.get("additionalDetails"):
        said = f"{said} ({text(error['additionalDetails'])})"
    name, status = _name(info)
    kind = _kind(name, status, said)
    return Fault(kind, said[:1000], limited_until if kind == "quota" else None)


def _name(info: Any) -> tuple[str, int | None]:
    if isinstance(info, dict) and info:
        name, given = next(iter(info.items()))
        status = given.get("httpStatusCode") if isinstance(given, dict) else None
        return str(name), status if isinstance(status, int) else None
    return str(info), None


def _kind(name: str, status: int | None, said: str) -> FaultKind:
    if name in ("usageLimitExceeded", "sessionBudgetExceeded"):
        return "quota"
    if name == "unauthorized" or status in (401, 403) or "Missing environment variable" in said:
        return "signed-out"
    if name in ("serverOverloaded", "rateLimitExceeded", "flexUnavailable", "internalServerError"):
        return "overloaded"
    if status is not None and (status == 429 or status >= 500):
        return "overloaded"
    if name in ("httpConnectionFailed", "responseStreamConnectionFailed", "responseStreamDisconnected"):
        return "network"
    if name in ("modelNotFound", "badRequest", "contextWindowExceeded", "cyberPolicy"):
        return "refused"
    return "other"
