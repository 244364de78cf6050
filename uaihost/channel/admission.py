"""What may come into a channel: names of tasks, crews, words. Pure."""

from __future__ import annotations

import re

from uaihost.agents.registry import AgentRegistry
from uaihost.channel import routing
from uaihost.errors import ErrorCode, HostError
from uaihost.wire.inputs import ChannelEnsure

_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")
# A message, bytes: far beyond what a person types, far below what a frame may hold.
TEXT_LIMIT = 256 << 10


def check_task(task_id: str) -> None:
    """It becomes part of paths. HostError `invalid_args`."""
    if not _TASK_ID.match(task_id):
        raise HostError(ErrorCode.INVALID_ARGS, f"the task id {task_id[:40]!r} cannot name a folder")


def check_crew(given: ChannelEnsure, registry: AgentRegistry) -> None:
    """HostError `invalid_args`: an id that is bad or stands twice, or a kind that is not known."""
    seen = set()
    for agent in given.agents:
        if not routing.AGENT_ID.match(agent.id):
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"the agent id {agent.id[:40]!r} must be 1 to 32 of letters, digits, - and _",
            )
        if agent.id in seen:
            raise HostError(ErrorCode.INVALID_ARGS, f"the agent id {agent.id!r} stands twice")
        seen.add(agent.id)
        registry.get(agent.kind)


def words(text: str) -> str:
    """The text as it can be stored. HostError `too_large`, or `invalid_args` when it says nothing."""
    # A lone half of a surrogate pair can be neither stored nor sent.
    data = text.encode("utf-8", "replace")
    if len(data) > TEXT_LIMIT:
        raise HostError(
            ErrorCode.TOO_LARGE,
            f"the message has {len(data)} bytes, the limit is {TEXT_LIMIT}; attach it as a file instead",
        )
    if not text.strip():
        raise HostError(ErrorCode.INVALID_ARGS, "the message is empty; say something")
    return data.decode()


def unknown(task_id: str) -> HostError:
    """For a channel that is not open."""
    return HostError(
        ErrorCode.NOT_FOUND, f"the task {task_id[:64]!r} has no open channel; call channelEnsure first"
    )
