"""Why a task does not move: the codes, the same in events, API, CLI, pages and metrics (docs/tasks.md)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """What a task waits for. Every one has a deadline but where a person is waited for."""

    QUEUED = "queued"  # an earlier command of the same task
    ENGINE = "engine-unreachable"  # the container engine does not answer
    MEMORY = "memory"  # not enough free memory, or too much pressure on it
    DISK = "disk"  # not enough free disk
    CLONING = "cloning"  # the repository comes from its remote
    COPYING = "copying"  # the work copy is made from the mirror
    IMAGE_PULLING = "image-pulling"  # the base image comes from a registry
    IMAGE_BUILDING = "image-building"  # the task image is built
    TOOLS = "tools"  # the tool versions that the repository names are installed
    CONTAINER = "container-starting"
    ISOLATION = "isolation-check"  # what the container can reach is looked at
    SETUP = "setup"  # the repository's own set-up commands
    EDITOR = "editor-starting"
    APPROVAL = "waiting-for-approval"  # a person is asked
    AGENTS = "agents-stopping"
    SAVING = "saving"  # its work is put away
    REMOVING = "removing"
    RESTART = "restart"  # its container ended; it is started again
    PARKED = "parked"  # not running since the machine was restarted; starts when it is used


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task waits for now.

    text: for people, one line; percent: 0 to 100 where it is known; since, deadline: milliseconds since the
    epoch; at the deadline the wait ends as a failure that says what to do.
    """

    reason: Reason
    text: str
    since: int
    percent: int | None = None
    deadline: int | None = None
