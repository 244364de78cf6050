"""The commands of a task's channel: thin, the work is the channel's.

A message's id is made from the command's, so that a command that runs twice says its word once.
"""

from __future__ import annotations

from collections.abc import Awaitable
from hashlib import blake2s
from typing import Protocol

from uaihost.commands.neighbours import Channels
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Json
from uaihost.paths import checked_task
from uaihost.wire.inputs import ChannelEnsure, Decision

# Who resolved a permission: the protocol's command does not say which person it was.
BRIDGE_USER = "user"


class Wakes(Protocol):
    """Starts a task that is parked (commands.waking)."""

    def wake(self, task_id: str) -> Awaitable[None]: ...

    def wake_in_turn(self, task_id: str) -> Awaitable[None]: ...


class ChannelCommands:
    """waking: who starts a parked task that is spoken to; None when none ever is."""

    def __init__(self, channels: Channels, waking: Wakes | None = None) -> None:
        self._channels = channels
        self._waking = waking

    async def ensure(self, command_id: str, wanted: ChannelEnsure) -> Json:
        checked_task(wanted.taskId)
        ids = [agent.id for agent in wanted.agents]
        for agent_id in ids:
            if not agent_id or ids.count(agent_id) > 1:
                raise HostError(
                    ErrorCode.INVALID_ARGS, f"agents: the id {agent_id[:40]!r} is empty or stands twice"
                )
        if self._waking is not None:
            await self._waking.wake_in_turn(wanted.taskId)
        states = await self._channels.ensure(wanted)
        return {"agents": [{"id": agent.id, "state": agent.state} for agent in states]}

    async def teardown(self, command_id: str, task_id: str) -> Json:
        await self._channels.teardown(checked_task(task_id))
        return {}

    async def deliver(self, command_id: str, task_id: str, author: str, text: str) -> Json:
        checked_task(task_id)
        # An open channel keeps the word for its crew, whatever the container is at.
        if self._waking is not None and not self._channels.states(task_id):
            await self._waking.wake(task_id)
        message_id, routed = await self._channels.deliver(task_id, author, text, message_id_of(command_id))
        return {"messageId": message_id, "routedTo": routed}

    async def append(self, command_id: str, task_id: str, author: str, text: str) -> Json:
        message_id = message_id_of(command_id)
        return {"seq": await self._channels.append(checked_task(task_id), author, text, message_id)}

    async def resolve(
        self, command_id: str, task_id: str, agent_id: str, request_id: str, decision: Decision
    ) -> Json:
        checked_task(task_id)
        await self._channels.resolve(
            task_id, agent_id, request_id, decision.kind, BRIDGE_USER, decision.scope, decision.answers
        )
        return {}

    async def interrupt(self, command_id: str, task_id: str, agent_id: str) -> Json:
        await self._channels.interrupt(checked_task(task_id), agent_id)
        return {}


def message_id_of(command_id: str) -> str:
    """The same for every run of one command: 26 characters of a-f and 0-9."""
    return blake2s(command_id.encode(errors="replace"), digest_size=13).hexdigest()
