"""What a remote says that it has: the answer of git ls-remote --symref. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

# How a mirror names a remote's branches, and its tags.
ORIGIN = "refs/remotes/origin/"
TAGS = "refs/tags/"
_HEADS = "refs/heads/"


@attrs.frozen
class Offer:
    """default: its HEAD's branch, commit: HEAD's, each None when it does not say; refs: as a mirror would
    name them; None when they were too many to be listed."""

    default: str | None
    commit: str | None
    refs: Mapping[str, str] | None


def offered(out: bytes, truncated: bool) -> Offer:
    """out: what git printed, `object TAB name` lines, or its beginning."""
    default = commit = None
    refs: dict[str, str] = {}
    for line in out.decode("utf-8", "surrogateescape").split("\n"):
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith(f"ref: {_HEADS}"):
            default = value.removeprefix(f"ref: {_HEADS}")
        elif name == "HEAD":
            commit = value
        elif name.startswith(_HEADS):
            refs[ORIGIN + name.removeprefix(_HEADS)] = value
        elif name.startswith(TAGS) and not name.endswith("^{}"):
            refs[name] = value
    return Offer(default, commit, None if truncated else refs)
