"""What the host reports unasked (docs/protocol.md, section 6): each event with its exact fields.

`at` is milliseconds since the epoch. Only `ChannelDelta` and `TaskResources` are not kept when the link is
down: a delta is repeated whole by the message that follows it, and resources are measured again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from uaihost.wire.inputs import PreviewPort
from uaihost.wire.reasons import Waiting

AgentState = Literal["starting", "idle", "thinking", "tool", "awaiting-permission", "stopped", "failed"]


class Author(msgspec.Struct, frozen=True):
    kind: Literal["user", "agent", "system"]
    id: str
    label: str


class TaskStatus(msgspec.Struct, frozen=True, tag_field="type", tag="task.status", omit_defaults=True):
    taskId: str
    at: int
    status: str
    message: str | None = None
    waiting: Waiting | None = None


class TaskProgress(msgspec.Struct, frozen=True, tag_field="type", tag="task.progress", omit_defaults=True):
    taskId: str
    at: int
    step: str
    state: Literal["started", "done", "failed"]
    message: str | None = None
    elapsedMs: int | None = None


class ChannelMessage(msgspec.Struct, frozen=True, tag_field="type", tag="channel.message"):
    taskId: str
    at: int
    messageId: str
    author: Author
    text: str


class ChannelDelta(msgspec.Struct, frozen=True, tag_field="type", tag="channel.delta"):
    taskId: str
    at: int
    messageId: str
    agentId: str
    text: str


class ChannelActivity(
    msgspec.Struct, frozen=True, tag_field="type", tag="channel.activity", omit_defaults=True
):
    taskId: str
    at: int
    agentId: str
    state: AgentState
    detail: str | None = None
    # Set while a usage limit holds it: when it goes on by itself, milliseconds since the epoch.
    until: int | None = None


class Option(msgspec.Struct, frozen=True):
    label: str
    description: str = ""


class Question(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an agent asks a person; the answer is a label, several joined by `, ` if `many`, or any text."""

    question: str
    options: list[Option]
    many: bool = False


class PermissionRequested(
    msgspec.Struct, frozen=True, tag_field="type", tag="permission.requested", omit_defaults=True
):
    taskId: str
    at: int
    agentId: str
    requestId: str
    tool: str
    title: str
    # The tool's input, a JSON object.
    input: dict[str, object]
    questions: list[Question] | None = None
    # When nobody's decision becomes a decline, milliseconds since the epoch.
    expiresAt: int | None = None


class PermissionResolved(msgspec.Struct, frozen=True, tag_field="type", tag="permission.resolved"):
    taskId: str
    at: int
    agentId: str
    requestId: str
    decision: Literal["accept", "decline"]
    by: str


class AgentUsage(msgspec.Struct, frozen=True, tag_field="type", tag="agent.usage", omit_defaults=True):
    taskId: str
    at: int
    agentId: str
    inputTokens: int
    outputTokens: int
    costUsd: float | None = None


class TaskResources(msgspec.Struct, frozen=True, tag_field="type", tag="task.resources"):
    taskId: str
    at: int
    memoryBytes: int
    cpuPercent: float


class PortsChanged(msgspec.Struct, frozen=True, tag_field="type", tag="ports.changed"):
    taskId: str
    at: int
    previewPorts: list[PreviewPort]


Event = (
    TaskStatus
    | TaskProgress
    | ChannelMessage
    | ChannelDelta
    | ChannelActivity
    | PermissionRequested
    | PermissionResolved
    | AgentUsage
    | TaskResources
    | PortsChanged
)

# Reported for the moment only; everything else is a row before it is sent.
Fleeting = ChannelDelta | TaskResources
