"""Which names a branch may have: the rules of git-check-ref-format(1), known here so that no git is asked.

Pure: knows nothing of repositories.
"""

from __future__ import annotations

import re

from uaihost.errors import ErrorCode, HostError

# Bytes. A loose ref is a file named after the branch, with ".lock" beside it while it changes; file systems
# allow 255 bytes a name, and ours grows by a prefix when it is kept apart.
LONGEST = 200

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")


def fault(name: str) -> str | None:
    """What is wrong with `name` as the name of a branch, as the end of a sentence; None when nothing is."""
    if not name:
        return "is empty"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "holds half a character"
    if found := _FORBIDDEN.search(name):
        return f"holds {found.group()!r}, which no branch name may hold"
    if name.startswith("-"):
        return "starts with '-'"
    if name in ("@", "HEAD"):
        return "is a name that git keeps for itself"
    for part, why in (("..", "'..'"), ("@{", "'@{'"), ("//", "'//'")):
        if part in name:
            return f"holds {why}"
    if name.startswith("/") or name.endswith(("/", ".")):
        return "starts or ends with '/', or ends with '.'"
    for component in name.split("/"):
        if component.startswith(".") or component.endswith(".lock"):
            return "has a part that starts with '.' or ends with '.lock'"
    return None


def checked(name: str) -> str:
    """`name`, when it can be a branch.

    Raises:
        HostError: `invalid_args`; the message says what is wrong with the name.
    """
    if wrong := fault(name):
        raise HostError(
            ErrorCode.INVALID_ARGS, f"the branch name {name[:80]!r} {wrong}; choose another, like fix/login"
        )
    return name
