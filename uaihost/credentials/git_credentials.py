"""What git asks a credential helper and what it is answered; which repository an address is of.

Pure. Source: git-credential(1), "INPUT/OUTPUT FORMAT".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

import attrs

from uaihost.credentials.graphql_rules import Repository

# Bytes of one question: a host, a path, a name and a secret.
LONGEST = 16 << 10
# GitHub's name for whoever comes with a token.
USERNAME = "x-access-token"

_NAME = r"[A-Za-z0-9_.-]{1,100}"
# Large files are asked for below the repository (git-lfs).
_PATH = re.compile(rf"/?({_NAME})/({_NAME}?)(?:\.git)?(?:/info/lfs(?:/.*)?)?/?\Z")
_SCP = re.compile(r"(?:[^@/:]+@)?([^/:@\[\]]+):(?!//)(.+)\Z")

Action = Literal["get", "store", "erase"]


@attrs.frozen
class Question:
    """What git asks. host: with its port when it is not the usual one; password: only to store or erase."""

    protocol: str
    host: str
    path: str
    password: str | None = attrs.field(default=None, repr=False)


def question(data: bytes) -> Question:
    """
    Raises:
        ValueError: it is none; the text says why.
    """
    if len(data) > LONGEST:
        raise ValueError("it is too long")
    found: dict[str, str] = {}
    for line in data.decode("utf-8").split("\n"):
        if not line:
            continue
        name, separator, value = line.partition("=")
        if not separator or not line.isprintable():
            raise ValueError("a line is not NAME=VALUE")
        if not name.endswith("[]"):
            found[name] = value
    return Question(
        found.get("protocol", ""), found.get("host", "").lower(), found.get("path", ""), found.get("password")
    )


def answer(token: str) -> bytes:
    return f"username={USERNAME}\npassword={token}\n".encode()


def repository(path: str) -> Repository | None:
    """The repository at a path of an https address, in small letters; None when it is no repository's."""
    found = _PATH.match(path)
    if found is None:
        return None
    owner, name = found[1].lower(), found[2].lower()
    return None if {owner, name} & {".", "..", ".git"} else (owner, name)


def granted(addresses: Iterable[str], host: str) -> frozenset[Repository]:
    """The repositories among these addresses that lie on `host`, whether they are reached by https or ssh.

    host: of https, with its port when that is not 443; ssh has a port of its own.
    """
    found = (_located(address, host) for address in addresses)
    return frozenset(one for one in found if one is not None)


def _located(address: str, host: str) -> Repository | None:
    if "\\" in address:
        # Readers of addresses do not agree on what it ends.
        return None
    bare = host.partition(":")[0]
    scp = None if "://" in address else _SCP.match(address)
    if scp is not None:
        return repository(scp[2]) if scp[1].lower() == bare else None
    try:
        parts = urlsplit(address)
        there = (parts.hostname or "").lower()
        port = parts.port
    except ValueError:
        return None
    if parts.scheme == "https" and there + (f":{port}" if port not in (None, 443) else "") == host:
        return repository(parts.path)
    return repository(parts.path) if parts.scheme == "ssh" and there == bare else None
