"""The one interface under which every kind of agent sits; shaped like the Agent Client Protocol.

Pure: an adapter turns what the channel wants into lines for the agent's stdin, and the agent's lines into
events. It does no input or output, and it knows neither the turn machine nor the channel. What it must
remember from line to line it gives out as `memory`, which is stored with the offset of the line, so that a
new adapter goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import attrs

from uaihost.interfaces import Account

# What ends a turn: it was done; it was interrupted; it could not go on.
Reason = Literal["done", "cancelled", "failed"]

# signed-out: the vendor does not know who asks; quota: a usage limit, over at `resets_at`; overloaded: the
# model has no room now; network: the model is not reached; session-lost: the conversation to go on with is
# not there; refused: the request itself (an unknown model, too long a conversation); other: read the text.
FaultKind = Literal["signed-out", "quota", "overloaded", "network", "session-lost", "refused", "other"]


@attrs.frozen
class AgentSettings:
    """What an agent is started with.

    folder: the agent's own folder inside the container, where it may keep what a later start needs; control:
    one there that only the host writes, which holds `Start.files`; cwd: where it works. instructions: its
    standing instructions. account: how it proves to its vendor who it is.
    """

    agent_id: str
    model: str | None
    folder: str
    instructions: str
    control: str = "/run/host/agents/agent"
    cwd: str = "/workspace"
    account: Account = attrs.field(factory=Account)


@attrs.frozen
class Start:
    """What starts an agent.

    env: added to the container's own environment; an empty value takes a variable away. secrets: variable to
    the name of a secret of the account (interfaces.Accounts.secret): the values are never seen here. files:
    name to text, written to `AgentSettings.control` before the start, readable to the agent; no secrets.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, str] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Question:
    """One that a person answers by choosing. options: (label, description)."""

    text: str
    options: tuple[tuple[str, str], ...]
    many: bool = False


@attrs.frozen
class Answer:
    """A person's decision. answers: question's text to what was chosen, for `PermissionAsked.questions`."""

    accept: bool
    answers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Fault:
    """Why a turn failed. text: one sentence for people, the vendor's words included; resets_at: milliseconds
    since the epoch, for a quota whose end was told; sign_in: what a person does where the account has not the
    agent's kind for a name."""

    kind: FaultKind
    text: str
    resets_at: int | None = None
    sign_in: str = ""


@attrs.frozen
class Ready:
    """It takes prompts. session_id: its conversation, None while that has no name; resumed: the agent
    remembers what was said in it before."""

    session_id: str | None
    resumed: bool


@attrs.frozen
class SessionNamed:
    """From now on `session_id` is what a later start goes on with."""

    session_id: str


@attrs.frozen
class SessionLost:
    """The conversation that it was started with is not there; it must be started without one."""

    text: str


@attrs.frozen
class TextDelta:
    """The next piece of the answer; `Message` repeats all of it."""

    text: str


@attrs.frozen
class TextVoid:
    """The pieces since the last `Message` are void: the agent begins that message again."""


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
    """The agent waits until `request_id` is answered. input: exactly what the tool would be given; tool: what
    an `always` counts for."""

    request_id: str
    tool: str
    title: str
    input: dict[str, Any]
    questions: tuple[Question, ...] = ()


@attrs.frozen
class PermissionWithdrawn:
    request_id: str


@attrs.frozen
class Retrying:
    """Its request to the model failed and it tries again by itself. most: None when nobody knows."""

    text: str
    attempt: int
    most: int | None = None


@attrs.frozen
class Usage:
    """Tokens since the last `Usage`; cost in US dollars, where the agent tells it, for the same time."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None = None


@attrs.frozen
class Unknown:
    """A line of a kind that the adapter does not know. kind: its own name for it; line: its beginning."""

    kind: str
    line: str


@attrs.frozen
class Send:
    """A line that the adapter owes the agent.

    secret: `{{name}}` in it stands for a secret of the account, filled in as it leaves and never stored;
    renew: the vendor has refused that secret, a fresh one is needed.
    """

    line: bytes
    secret: bool = False
    renew: bool = False


@attrs.frozen
class TurnEnded:
    """fault: set when `reason` is failed."""

    reason: Reason
    fault: Fault | None = None


AgentEvent = (
    Ready
    | SessionNamed
    | SessionLost
    | TextDelta
    | TextVoid
    | Message
    | ToolStarted
    | ToolEnded
    | PermissionAsked
    | PermissionWithdrawn
    | Retrying
    | Usage
    | Unknown
    | Send
    | TurnEnded
)


class Adapter(Protocol):
    """One agent's knowledge of its program's language. Every `bytes` is one line without its end."""

    def start(self, session_id: str | None) -> Start:
        """What starts it, going on with `session_id` if there is one."""

    def open(self, session_id: str | None) -> bytes:
        """The first line for a fresh process; in the end the agent answers with `Ready` or `SessionLost`."""

    def feed(self, line: bytes) -> list[AgentEvent]:
        """What a line of its stdout means. Never raises; noise, which is no JSON object, means nothing."""

    def prompt(self, text: str) -> bytes:
        """Begin a turn. The text is a person's or another agent's and is never a command to the program."""

    def answer(self, request_id: str, answer: Answer) -> bytes:
        """The decision on a `PermissionAsked`."""

    def interrupt(self) -> Sequence[bytes]:
        """The lines that end the turn; none if only a signal does."""

    def memory(self) -> str:
        """All that a new adapter must be given to understand the next line."""
