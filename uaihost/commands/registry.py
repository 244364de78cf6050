"""The commands of the protocol (docs/protocol.md, section 4): name -> argument types, lane and coroutine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from enum import Enum
from typing import Any

import attrs

from uaihost.commands.channel import ChannelCommands
from uaihost.commands.files import FileCommands
from uaihost.commands.push import PushCommands
from uaihost.commands.tasks import Tasks
from uaihost.wire import inputs


class Lane(Enum):
    """What a command waits for, within its task. Different tasks never wait for one another."""

    LIFECYCLE = "life cycle commands run one after another"
    CHANNEL = "what is written to the channel keeps its order"
    FREE = "never waits"


@attrs.frozen
class Row:
    """One command.

    types: of its arguments, for wire.inputs.parse.
    run: given the command's id and the arguments; the id keys what it stores, so that a second run adds
        nothing. Its result is JSON-able; HostError is a failure for the caller to see.
    reads: it changes nothing, so that it may be asked again.
    bulky: its arguments hold a file.
    first: is given the arguments as soon as the command is there, before it waits for its turn.
    """

    types: tuple[type, ...]
    lane: Lane
    run: Callable[..., Awaitable[Any]]
    reads: bool = False
    bulky: bool = False
    first: Callable[..., None] | None = None


def registry(
    tasks: Tasks, channel: ChannelCommands, files: FileCommands, pushes: PushCommands
) -> dict[str, Row]:
    """The whole surface."""
    return {
        "taskUp": Row((inputs.TaskUp,), Lane.LIFECYCLE, tasks.up),
        "taskDown": Row(
            (inputs.TaskDown,), Lane.LIFECYCLE, tasks.down, first=lambda down: tasks.give_up(down.taskId)
        ),
        "taskStatus": Row((str,), Lane.FREE, tasks.status, reads=True),
        "channelEnsure": Row((inputs.ChannelEnsure,), Lane.LIFECYCLE, channel.ensure),
        "channelTeardown": Row((str,), Lane.LIFECYCLE, channel.teardown),
        "channelDeliver": Row((str, str, str), Lane.CHANNEL, channel.deliver),
        "channelResolvePermission": Row((str, str, str, inputs.Decision), Lane.FREE, channel.resolve),
        "channelInterrupt": Row((str, str), Lane.FREE, channel.interrupt),
        "cloneRepo": Row((inputs.CloneRepo,), Lane.FREE, files.clone),
        "taskDiff": Row((inputs.TaskDiff,), Lane.FREE, files.diff, reads=True),
        # It changes nothing here, and the remote refuses what does not follow on what it has.
        "taskPush": Row((inputs.TaskPush,), Lane.FREE, pushes.push),
        # Before the word that speaks of it: a file and a message keep their order.
        "attachmentWrite": Row((inputs.AttachmentWrite,), Lane.CHANNEL, files.write, bulky=True),
        "attachmentRead": Row((inputs.AttachmentRead,), Lane.FREE, files.read, reads=True),
        "appendTranscript": Row((str, str, str), Lane.CHANNEL, channel.append),
    }


def lane_of(row: Row, args: tuple[Any, ...]) -> Hashable | None:
    """The key under which the command takes its turn; None when it does not wait."""
    if row.lane is Lane.FREE:
        return None
    first = args[0]
    task_id = (
        first
        if isinstance(first, str)
        else first.task.id
        if isinstance(first, inputs.TaskUp)
        else first.taskId
    )
    return (row.lane, task_id)


def lifecycle_key(task_id: str) -> Hashable:
    """For others that must not run beside a task's life cycle commands."""
    return (Lane.LIFECYCLE, task_id)


def task_in(key: Hashable) -> str | None:
    """The task whose life cycle commands take their turn under `key`; None for another key."""
    if isinstance(key, tuple) and len(key) == 2 and key[0] is Lane.LIFECYCLE:
        return str(key[1])
    return None
