"""The states of a task and what may happen in each: one table, pure. Rows hold the state, not objects.

A task's life cycle commands run one after another, so `preparing`, `starting` and `stopping` are met by a
command only when the daemon was cut off there.
"""

from __future__ import annotations

from enum import Enum, StrEnum

from uaihost.errors import ErrorCode, HostError


class Status(StrEnum):
    """wire.inputs.TASK_STATUSES; `pending` is a task that this host has not begun."""

    PENDING = "pending"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Input(Enum):
    """What happens to a task, as the end of the sentence "it cannot ..."."""

    UP = "be brought up"
    PREPARED = "have its work copies and its container made"
    READY = "become ready"
    DOWN = "be taken down"
    NOT_SAVED = "fail to save its work"
    GONE = "be gone"
    # A step of the way up or down failed.
    BROKE = "fail"
    # Found after a restart of the daemon: its taskDown was cut off.
    LOST = "be lost"
    # Its container ended though nobody asked for it, or its start was cut off.
    ENDED = "be started again"
    # The machine was restarted.
    PARK = "be parked"
    # A parked one is used.
    WAKE = "be woken"


_WAY_UP = {Input.UP: Status.PREPARING, Input.DOWN: Status.STOPPING}

TABLE: dict[Status, dict[Input, Status]] = {
    Status.PENDING: _WAY_UP,
    Status.PREPARING: {**_WAY_UP, Input.BROKE: Status.FAILED, Input.PREPARED: Status.STARTING},
    Status.STARTING: {
        **_WAY_UP,
        Input.BROKE: Status.FAILED,
        Input.PREPARED: Status.STARTING,
        Input.READY: Status.RUNNING,
        Input.ENDED: Status.STARTING,
        Input.PARK: Status.STOPPED,
    },
    Status.RUNNING: {
        # Its container ended and nobody has noticed yet.
        **_WAY_UP,
        Input.BROKE: Status.FAILED,
        Input.ENDED: Status.STARTING,
        Input.PARK: Status.STOPPED,
    },
    # Not UP: its work copies may be half removed.
    Status.STOPPING: {
        Input.BROKE: Status.FAILED,
        Input.LOST: Status.FAILED,
        Input.DOWN: Status.STOPPING,
        Input.GONE: Status.STOPPED,
        Input.NOT_SAVED: Status.STOPPED,
    },
    Status.STOPPED: {**_WAY_UP, Input.WAKE: Status.STARTING},
    Status.FAILED: _WAY_UP,
}


def step(status: Status, happened: Input) -> Status:
    """The state after `happened`.

    Raises:
        HostError: `conflict`, this cannot happen in that state.
    """
    after = TABLE[status].get(happened)
    if after is None:
        hint = "; send taskDown to complete that first" if status is Status.STOPPING else ""
        raise HostError(ErrorCode.CONFLICT, f"a task that is {status} cannot {happened.value}{hint}")
    return after
