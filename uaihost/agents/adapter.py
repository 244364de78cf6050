"""The one interface under which every kind of agent sits; shaped like the Agent Client Protocol.

Pure: an adapter turns what the channel wants into lines for the agent's stdin, and the agent's lines into
events. It does no input or output, and it knows neither the turn machine nor the channel. What it must
remember from line to line it gives out as `memory`, which is stored with the offset of the line, so that a
new adapter goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import attrs

# What ends a turn: it was done; it was interrupted; it could not go on.
Reason = Literal["done", "cancelled", "failed"]


@attrs.frozen
class AgentSettings:
    """What an agent is started with.

    folder: the agent's own folder inside the container, where it may keep what a later start needs.
    instructions: its standing instructions.
    """

    agent_id: str
    model: str | None
    folder: str
    instructions: str


@attrs.frozen
class SessionStarted:
    """Ready for a prompt. resumed: the agent remembers the conversation of `session_id`."""

    session_id: str
    resumed: bool


@attrs.frozen
class TextDelta:
    """The next piece of the answer; `Message` repeats all of it."""

    text: str


@attrs.frozen
class Message:
    """One whole message of the agent."""

    text: str


@attrs.frozen
class ToolStarted:
    tool_id: str
    name: str
    detail: str


@attrs.frozen
class ToolEnded:
    tool_id: str
    ok: bool


@attrs.frozen
class PermissionAsked:
    """The agent waits until `request_id` is answered. input: exactly what the tool would be given."""

    request_id: str
    tool: str
    title: str
    input: dict[str, Any]


@attrs.frozen
class PermissionWithdrawn:
    request_id: str


@attrs.frozen
class Usage:
    """Tokens of the turn; cost in US dollars where the agent tells it."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None = None


@attrs.frozen
class TurnEnded:
    """error: for people, set when `reason` is failed."""

    reason: Reason
    error: str | None = None


AgentEvent = (
    SessionStarted
    | TextDelta
    | Message
    | ToolStarted
    | ToolEnded
    | PermissionAsked
    | PermissionWithdrawn
    | Usage
    | TurnEnded
)


class Adapter(Protocol):
    """One agent's knowledge of its program's language. Every `bytes` is one line without its end."""

    def argv(self, session_id: str | None) -> Sequence[str]:
        """The command that starts it, going on with `session_id` if there is one."""

    def open(self, session_id: str | None) -> bytes:
        """The first line for a fresh process; the agent answers with `SessionStarted`."""

    def feed(self, line: bytes) -> list[AgentEvent]:
        """What a line of its stdout means; what cannot be understood means nothing."""

    def prompt(self, text: str) -> bytes:
        """Begin a turn."""

    def answer(self, request_id: str, accept: bool) -> bytes:
        """The decision on a `PermissionAsked`."""

    def interrupt(self) -> bytes | None:
        """The line that ends the turn, or None if only a signal does."""

    def memory(self) -> str:
        """All that a new adapter must be given to understand the next line."""
