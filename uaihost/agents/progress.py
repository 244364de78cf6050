"""What the channel hears of an agent, and what the agent's session needs of the channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from sqlite3 import Connection
from typing import Protocol

import attrs

from uaihost.agents.adapter import Fault, PermissionAsked, PermissionWithdrawn, Reason, Start, Usage
from uaihost.state.channel import PermissionRow
from uaihost.wire.events import AgentState


@attrs.frozen
class Said:
    """A whole message of the agent."""

    message_id: str
    text: str


@attrs.frozen
class Activity:
    """until: milliseconds since the epoch, for one that waits for the end of a usage limit."""

    state: AgentState
    detail: str | None = None
    until: int | None = None


@attrs.frozen
class Note:
    """For the people in the channel, from the system."""

    text: str


@attrs.frozen
class Decided:
    """This request is decided. given: the agent is told so now; if not, its process is not to be reached, and
    the decision waits like one that was made while it was gone."""

    row: PermissionRow
    given: bool = True

    @property
    def answers(self) -> dict[str, str]:
        """A question's text to what was chosen."""
        answers: dict[str, str] = json.loads(self.row.answers or "{}")
        return answers


@attrs.frozen
class PermissionsOrphaned:
    """The process that asked these, by its own names, is gone, and its turn will go on: they stay open.

    The next process may use the same names for something else. One that asks exactly the same is bound to the
    row that is there; `TurnFinished` gives up what is left.
    """

    request_ids: tuple[str, ...]


@attrs.frozen
class TurnBegan:
    """origin: who the words are from: `user:<author>`, `agent:<id>`, `system`."""

    origin: str
    text: str


@attrs.frozen
class TurnFinished:
    """A turn has ended, whatever way; said before the agent's next one begins.

    One that only lost its process goes on: that is no end. One that met a usage limit ends and begins again.
    tools: how many it used. fault: set when `reason` is failed. answer: its last whole message, "" for none.
    """

    origin: str
    reason: Reason
    fault: Fault | None
    tools: int
    answer: str


Happening = (
    TurnBegan
    | TurnFinished
    | Said
    | Activity
    | Note
    | Decided
    | PermissionAsked
    | PermissionWithdrawn
    | PermissionsOrphaned
    | Usage
)


class Room(Protocol):
    """What a session needs of its channel."""

    async def record(
        self, agent_id: str, happened: Sequence[Happening], write: Callable[[Connection], None]
    ) -> Sequence[Decided]:
        """One transaction: `write` and all that `happened` means to the channel. Then it is published.

        Returns what this agent's process waits for and is decided already: by a rule, or by a person while it
        was gone. Each is returned again until it is recorded as `Decided`, whose transaction holds the line
        that tells the agent: so none is lost and each is used up once.
        """

    def streamed(self, agent_id: str, message_id: str, text: str) -> None:
        """The next piece of a message that will be `Said`."""

    async def start(self, agent_id: str, start: Start) -> None:
        """Start the keeper with this in the task's container. HostError if that cannot be."""

    async def fill(self, agent_id: str, line: bytes, renew: bool) -> bytes:
        """`line` with each `{{name}}` replaced by that secret of the agent's account, a fresh one with
        `renew`. HostError `unavailable`, with what the owner has to type."""

    async def history(self, agent_id: str) -> str:
        """What was said in the task, for one that remembers nothing of it; "" if nothing."""

    def may_begin(self, agent_id: str, origin: str) -> bool:
        """Whether words from `origin` may begin a turn now; if not they wait until the session is pumped."""
