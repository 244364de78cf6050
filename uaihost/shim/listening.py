"""What listens in this network namespace, from the kernel's tables, and how the relay reports it.

Standard library only, Python 3.9 and later. Pure but for `bound`, which reads the tables.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Ports in one report: a program may open thousands.
PORT_LIMIT = 1024
# Of this network namespace.
TABLES = Path("/proc/net")

_LISTENING = "0A"
_MAPPED = bytes(10) + b"\xff\xff"


class Bound(NamedTuple):
    """A listening socket. address: as inet_pton(3) takes it; loopback: no other machine reaches it."""

    port: int
    address: str
    loopback: bool


def listening(table: str) -> Iterator[Bound]:
    """The listening sockets of a table like /proc/net/tcp or tcp6 (proc(5)); other lines are passed by."""
    for line in table.splitlines():
        words = line.split(None, 4)
        if len(words) < 4 or words[3] != _LISTENING:
            continue
        address, _, port = words[1].partition(":")
        with contextlib.suppress(ValueError):
            raw, number = bytes.fromhex(address), int(port, 16)
            if sys.byteorder == "little":
                # Words of 32 bits, each in the machine's own order.
                raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
            if 0 < number < 65536 and len(raw) in (4, 16):
                yield _bound(number, raw)


def _bound(port: int, raw: bytes) -> Bound:
    if len(raw) == 4:
        return Bound(port, socket.inet_ntop(socket.AF_INET, raw), raw[0] == 127)
    plain = raw.startswith(_MAPPED)
    loopback = raw[12] == 127 if plain else raw == bytes(15) + b"\x01"
    return Bound(port, socket.inet_ntop(socket.AF_INET6, raw), loopback)


def bound() -> list[Bound]:
    """All that listens now; a table that is not there is empty."""
    found: list[Bound] = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            found += listening((TABLES / name).read_text("ascii", "replace"))
    return found


def report(found: Iterable[Bound], hidden: Iterable[int] = ()) -> bytes:
    """The line for those who watch (relay.py). hidden: ports that are left out."""
    ports: dict[int, bool] = {}
    for one in found:
        ports[one.port] = ports.get(one.port, True) and one.loopback
    for port in hidden:
        ports.pop(port, None)
    every = [{"port": port, "loopback": ports[port]} for port in sorted(ports)[:PORT_LIMIT]]
    return json.dumps({"ports": every}).encode() + b"\n"
