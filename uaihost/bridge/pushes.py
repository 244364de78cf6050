"""What a person wants pushed, on its way to the host: the command taskPush."""

from __future__ import annotations

from typing import Any

import msgspec

from uaihost.bridge.calls import object_of
from uaihost.bridge.tasks import Tasks

# Seconds: a first push of a large repository is as slow as the network.
TIMEOUT = 900.0


class Wanted(msgspec.Struct, frozen=True):
    """pullRequest: whether one is to be opened as well, with a text that is made of the task."""

    pullRequest: bool = False


async def push(tasks: Tasks, task_id: str, wanted: Wanted) -> dict[str, Any]:
    """Push all of the task's projects: the value of taskPush.

    Raises:
        HostError: the host's refusal, or it is not connected.
    """
    body: dict[str, Any] = {"taskId": task_id}
    if wanted.pullRequest:
        body["pullRequest"] = {}
    return object_of(await tasks.ask(tasks.get(task_id), "taskPush", [body], TIMEOUT))
