"""Failures that a caller is told about: a stable code and a sentence that says what to do.

Anything else that is raised is a defect of ours and reaches the caller as `internal`.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """The codes of a failed command result (docs/protocol.md, section 3)."""

    INTERNAL = "internal"
    INVALID_ARGS = "invalid_args"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    CLONE_FAILED = "clone_failed"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class HostError(Exception):
    """A failure with a code for programs and a message for people.

    The message says what failed and what to do about it; it holds no secret and no traceback.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __repr__(self) -> str:
        return f"HostError({self.code.value!r}, {self.message!r})"


class OwnerNeeded(HostError):
    """A failure that trying again does not mend: the owner must put something right first."""


class SettingError(OwnerNeeded):
    """A setting has an illegal value; the message names its source and the legal range."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.INVALID_ARGS, message)
