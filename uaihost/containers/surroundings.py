"""What is around tasks on this machine: its addresses, its gateways, other tasks' networks, its namespaces.

Read from /proc and /sys, so on Linux alone; elsewhere nothing is found. Parsing is pure. It must not know
what is done with it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import attrs

from uaihost.containers.spec import BRIDGE_PREFIX

NAMESPACES = ("pid", "net", "mnt", "ipc", "uts")
# The engine's bridges; what lies behind them is not the network around the machine.
_BRIDGES = ("docker", "br-", BRIDGE_PREFIX)
# A tunnel takes half of the internet or all of it as attached: that is no network around a machine.
_WIDEST = 8
# route(8), flag G: the way leads through a gateway.
_GATEWAY = 2


@attrs.frozen
class Route:
    """A line of the routing table. gateway: None where the network is attached itself."""

    interface: str
    network: ipaddress.IPv4Network
    gateway: str | None


@attrs.frozen
class Surroundings:
    """addresses: this machine's own (IPv4), without loopback; namespaces: of this process, by name; empty:
    the tasks' bridges that no container is behind."""

    addresses: tuple[str, ...]
    routes: tuple[Route, ...]
    namespaces: dict[str, str]
    empty: frozenset[str] = frozenset()

    def around(self) -> list[str]:
        """Addresses of the machine's gateways, nearest first: they stand for the networks around it."""
        found = [route.gateway for route in self.routes if route.gateway and not _bridge(route.interface)]
        return list(dict.fromkeys(found))

    def attached(self) -> list[str]:
        """The networks that the machine itself is in, the engine's left out."""
        found = [
            str(route.network)
            for route in self.routes
            if route.gateway is None and not _bridge(route.interface) and route.network.prefixlen >= _WIDEST
        ]
        return list(dict.fromkeys(found))

    def own(self) -> list[str]:
        """The machine's addresses, those of tasks' bridges last."""
        bridges = [route.network for route in self.routes if route.interface.startswith(BRIDGE_PREFIX)]

        def behind(address: str) -> bool:
            return any(ipaddress.IPv4Address(address) in network for network in bridges)

        return sorted(self.addresses, key=behind)

    def neighbours(self, bridge: str) -> list[str]:
        """Where containers of other tasks are, those of empty networks last: a network's first address is its
        bridge's, the next theirs.
        """
        others = [
            route
            for route in self.routes
            if route.interface.startswith(BRIDGE_PREFIX) and route.interface != bridge
        ]
        others.sort(key=lambda route: route.interface in self.empty)
        return [str(route.network.network_address + 2) for route in others]

    def has(self, interface: str) -> bool:
        """Whether a network of this machine is attached by `interface`."""
        return any(route.interface == interface for route in self.routes)


def _bridge(interface: str) -> bool:
    return interface.startswith(_BRIDGES)


def own_addresses(trie: str) -> tuple[str, ...]:
    """The machine's own addresses in the text of /proc/net/fib_trie, loopback's left out."""
    found = re.findall(r"\|-- ([0-9.]+)\n +/32 host LOCAL", trie)
    return tuple(address for address in dict.fromkeys(found) if not address.startswith("127."))


def routes(table: str) -> tuple[Route, ...]:
    """The lines of /proc/net/route; numbers there are in the machine's byte order."""
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        address, mask = (_address(word) for word in (words[1], words[7]))
        gateway = _address(words[2]) if int(words[3], 16) & _GATEWAY else None
        found.append(Route(words[0], ipaddress.IPv4Network((address, mask), strict=False), gateway))
    return tuple(found)


def _address(word: str) -> str:
    return socket.inet_ntoa(struct.pack("=I", int(word, 16)))


def look(root: Path = Path("/proc"), devices: Path = Path("/sys/class/net")) -> Surroundings:
    """What /proc and /sys say now. Blocks for a few files that the kernel makes up."""
    found = routes(_text(root / "net" / "route"))
    bridges = {route.interface for route in found if route.interface.startswith(BRIDGE_PREFIX)}
    empty = {name for name in bridges if _text(devices / name / "operstate").strip() == "down"}
    return Surroundings(
        own_addresses(_text(root / "net" / "fib_trie")),
        found,
        _namespaces(root / "self" / "ns", NAMESPACES),
        frozenset(empty),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _namespaces(folder: Path, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = str((folder / name).readlink())
        except OSError:
            continue
    return found
