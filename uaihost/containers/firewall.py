"""What tasks' networks may reach of this machine and of the private networks around it: packet filter rules.

The engine's own networks keep tasks apart and leave services of the host, the LAN and metadata addresses
open. Two chains of ours close that: UAIHOST-IN for what is addressed to the host itself, UAIHOST-FWD for what
it would pass on. Only packets that come in by tasks' bridges enter them, and they only refuse or return: they
never let through what the owner's rules forbid. It must not know tasks.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from uaihost import children
from uaihost.blocking import Blocking
from uaihost.containers.spec import BRIDGE_PREFIX
from uaihost.containers.surroundings import Surroundings, look

log = Logger()

CHAIN_IN = "UAIHOST-IN"
CHAIN_FORWARD = "UAIHOST-FWD"
# The engine keeps this chain for its owner's rules, before its own (docs.docker.com, "Packet filtering").
ENGINE_CHAIN = "DOCKER-USER"

# Not reachable from the public internet, or not one machine: "this network", RFC 1918, RFC 6598, loopback,
# link-local with the clouds' metadata, Azure's and Oracle's services for their machines, multicast, reserved;
# IPv4 in IPv6, unique local and link-local IPv6 (RFC 6890).
PRIVATE = {
    4: (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.168.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ),
    6: ("::1/128", "::ffff:0.0.0.0/96", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8"),
}
# Whoever is refused hears so at once. A closed port answers a TCP connection to the host: the kernel limits
# how many ICMP answers it gives. Passing on is refused by ICMP, which a program tells from a closed port.
_REFUSED = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}
_PROHIBITED = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}

# Seconds for a program that waits for the tables' lock; it takes milliseconds alone.
LIMIT = 20.0
# Seconds between two looks at the rules: what loads a firewall anew takes ours away.
KEEP = 30.0
# Attempts when somebody changes the tables between our reading and our writing.
TRIES = 3
# Where these programs are, whatever the PATH of a daemon says.
ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin", "LC_ALL": "C"}

Family = Literal[4, 6]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen
class FirewallState:
    """applied: the rules are in force; why: when not, a sentence for people, with what to do."""

    applied: bool
    why: str = ""


@attrs.frozen
class Allowed:
    """An address or a network that tasks may reach though it is private. port 0: all."""

    network: Network
    port: int = 0

    def covers(self, address: str, port: int) -> bool:
        """Whether a connection there is let through."""
        found = ipaddress.ip_address(address)
        inside = found.version == self.network.version and found in self.network
        return inside and self.port in (0, port)


def allowed(entries: Sequence[str]) -> tuple[Allowed, ...]:
    """The addresses and networks among the entries of the setting `egress_allow`; names are not for here."""
    found = []
    for entry in entries:
        match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", entry)
        host, port = (match[1] or match[3], match[2] or match[4]) if match else (entry, "0")
        try:
            found.append(Allowed(ipaddress.ip_network(host, strict=False), int(port)))
        except ValueError:
            continue
    return tuple(found)


def host_allows(allow: Sequence[Allowed]) -> list[Allowed]:
    """Those that also open the host itself: a single address. A network means the machines around it."""
    return [entry for entry in allow if entry.network.num_addresses == 1]


def rules(
    family: Family, resolvers: Sequence[str], allow: Sequence[Allowed] = (), attached: Sequence[str] = ()
) -> dict[str, list[str]]:
    """The rules of our chains, by chain, spelled as iptables-save spells them.

    resolvers: the machine's, asked by containers themselves: the engine's resolver sends queries from the
    container's own network. attached: networks that the machine is in, whatever their addresses.
    """
    known = ["-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"]
    names = [
        f"-d {network} -p {protocol} -m {protocol} --dport 53 -j RETURN"
        for network in _of(family, (ipaddress.ip_network(address) for address in resolvers))
        for protocol in ("udp", "tcp")
    ]
    # Neighbour discovery (RFC 4861) is to IPv6 what ARP is to IPv4, which no such rule concerns.
    neighbours = [f"-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN" for kind in (135, 136)]
    discovery = neighbours if family == 6 else []
    closed = _of(family, map(ipaddress.ip_network, [*PRIVATE[family], *attached]))
    return {
        CHAIN_IN: [
            *known,
            *discovery,
            *names,
            *_passes(family, host_allows(allow)),
            "-p tcp -j REJECT --reject-with tcp-reset",
            f"-j REJECT --reject-with {_REFUSED[family]}",
        ],
        CHAIN_FORWARD: [
            *known,
            # Before what is allowed: a network that is must not open another task's.
            f"-o {BRIDGE_PREFIX}+ -j REJECT --reject-with {_PROHIBITED[family]}",
            *names,
            *_passes(family, allow),
            *(f"-d {network} -j REJECT --reject-with {_PROHIBITED[family]}" for network in closed),
        ],
    }


def _passes(family: Family, allow: Sequence[Allowed]) -> list[str]:
    found = []
    for entry in allow:
        if entry.network.version == family:
            where = f"-d {entry.network} " if entry.network.prefixlen else ""
            ports = [f"-p {name} -m {name} --dport {entry.port} " for name in ("tcp", "udp")]
            found += [f"{where}{port}-j RETURN" for port in (ports if entry.port else [""])]
    return found


def _of(family: Family, networks: Any) -> list[Network]:
    return [network for network in dict.fromkeys(networks) if network.version == family]


def jumps(saved: str) -> dict[str, str]:
    """The chain that sends packets of tasks' bridges to each of ours.

    Where the engine made no chain for its owner's rules, the kernel's own chain does.
    """
    hook = ENGINE_CHAIN if f"\n:{ENGINE_CHAIN} " in saved else "FORWARD"
    return {CHAIN_IN: "INPUT", CHAIN_FORWARD: hook}


def in_force(saved: str, wanted: dict[str, list[str]]) -> bool:
    """Whether `saved`, what iptables-save printed, holds our chains whole and asks them first."""
    for chain, before in jumps(saved).items():
        if _chain(saved, chain) != wanted[chain] or _chain(saved, before)[:1] != [_jump(chain)]:
            return False
    return True


def script(saved: str, wanted: dict[str, list[str]]) -> str:
    """Input of `iptables-restore --noflush` that puts `wanted` in force, in one transaction."""
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in wanted), *_unhooked(saved)]
    for chain, before in jumps(saved).items():
        lines += [f"-A {chain} {rule}" for rule in wanted[chain]]
        lines.append(f"-I {before} 1 {_jump(chain)}")
    return "\n".join([*lines, "COMMIT", ""])


def removal(saved: str) -> str:
    """Input of `iptables-restore --noflush` that removes all that is ours; empty when nothing is there."""
    ours = [chain for chain in (CHAIN_IN, CHAIN_FORWARD) if f"\n:{chain} " in saved]
    if not ours:
        return ""
    empty = [f":{chain} - [0:0]" for chain in ours]
    return "\n".join(["*filter", *empty, *_unhooked(saved), *(f"-X {chain}" for chain in ours), "COMMIT", ""])


def _jump(chain: str) -> str:
    return f"-i {BRIDGE_PREFIX}+ -j {chain}"


def _unhooked(saved: str) -> list[str]:
    """A removal for each rule of another chain that leads to ours."""
    found = re.findall(rf"^-A (.+ -j (?:{CHAIN_IN}|{CHAIN_FORWARD}))$", saved, re.MULTILINE)
    return [f"-D {rule}" for rule in found]


def _chain(saved: str, chain: str) -> list[str]:
    return re.findall(rf"^-A {chain} (.+)$", saved, re.MULTILINE)


def machine_resolvers(root: Path = Path("/")) -> list[str]:
    """Addresses of the name servers that containers' queries are sent to. Blocks for a few small files.

    The engine's own setting, else resolv.conf; behind systemd's local resolver its list, as the engine does.
    """
    found: list[str] = []
    try:
        found += json.loads((root / "etc/docker/daemon.json").read_text()).get("dns") or []
    except (OSError, ValueError, AttributeError):
        pass
    for name in ("etc/resolv.conf", "run/systemd/resolve/resolv.conf"):
        try:
            found += re.findall(r"^nameserver\s+(\S+)", (root / name).read_text(), re.MULTILINE)
        except (OSError, ValueError):
            continue
    usable = []
    for text in found:
        try:
            address = ipaddress.ip_address(str(text).partition("%")[0])
        except ValueError:
            continue
        if not address.is_loopback:
            usable.append(str(address))
    return list(dict.fromkeys(usable))


class Firewall:
    """The rules of this machine, the same for every task.

    docker_host: of the engine; allow: as the setting `egress_allow`; resolvers, look: of the machine; tables:
    how the programs of IPv4 and of IPv6 begin, before `-save` and `-restore`; those that the engine finds.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        docker_host: str,
        *,
        allow: Sequence[str] = (),
        resolvers: Callable[[], Sequence[str]] = machine_resolvers,
        look: Callable[[], Surroundings] = look,
        tables: tuple[str, str] = ("iptables", "ip6tables"),
        run: Callable[..., Any] = children.run,
    ) -> None:
        self.allow = allowed(allow)
        self._reactor = reactor
        self._blocking = blocking
        self._docker_host = docker_host
        self._resolvers = resolvers
        self._look = look
        self._tables = tables
        self._run = run
        self._lock = DeferredLock()
        self._state: FirewallState | None = None
        self._looking = LoopingCall(lambda: Deferred.fromCoroutine(self._look_after()))
        self._looking.clock = reactor

    def keep(self) -> None:
        """Put the rules in force now, and again whenever somebody took them away; until `release`."""
        if self._looking.running:
            self._looking.stop()
        self._looking.start(KEEP)

    def release(self) -> None:
        """Look after them no more. They stay, as tasks do."""
        if self._looking.running:
            self._looking.stop()

    async def apply(self) -> FirewallState:
        """Put the rules in force where they are not; cheap where they are: two programs that read."""
        await self._lock.acquire()
        try:
            state = await self._apply()
        finally:
            self._lock.release()
        if state != self._state and not state.applied:
            log.warn("tasks' networks are not filtered: {why}", why=state.why)
        self._state = state
        return state

    async def seen(self) -> FirewallState:
        """Whether they are in force now, and nothing is changed. `why` is empty when they just are not."""
        if not self._docker_host.startswith("unix://"):
            return FirewallState(False, f"the engine at {self._docker_host} is on another machine")
        resolvers = await self._blocking.call(self._resolvers)
        saved, why = await self._output([f"{self._tables[0]}-save", "-t", "filter"], "")
        wanted = rules(4, resolvers, self.allow, self._look().attached())
        return FirewallState(not why and in_force(saved, wanted), why)

    async def _apply(self) -> FirewallState:
        if not self._docker_host.startswith("unix://"):
            return FirewallState(
                False,
                f"the engine at {self._docker_host} is on another machine, where the daemon may not set "
                "firewall rules: run the daemon there",
            )
        resolvers = await self._blocking.call(self._resolvers)
        wanted = rules(4, resolvers, self.allow, self._look().attached())
        why = await self._put(self._tables[0], lambda saved: _wanted(saved, wanted))
        if why:
            return FirewallState(False, f"the daemon may not set firewall rules: {why}")
        six = rules(6, resolvers, self.allow)
        why = await self._put(self._tables[1], lambda saved: _wanted(saved, six))
        if why:
            # Tasks' networks have no IPv6 of their own; the check from inside tells if one has.
            log.debug("no IPv6 rules: {why}", why=why)
        return FirewallState(True)

    async def _look_after(self) -> None:
        try:
            await self.apply()
        except Exception:
            log.failure("cannot look after the packet filter")

    async def remove(self) -> None:
        """Take away all that `apply` put there; where nothing is or nothing may be done, nothing happens."""
        await self._lock.acquire()
        try:
            for table in self._tables:
                why = await self._put(table, removal)
                if why:
                    log.debug("no rules removed: {why}", why=why)
        finally:
            self._lock.release()

    async def _put(self, table: str, change: Callable[[str], str]) -> str:
        """Read the table and make `change` to it until nothing is left to do; what is wrong, or nothing."""
        why = ""
        for _ in range(TRIES):
            saved, why = await self._output([f"{table}-save", "-t", "filter"], "")
            if why:
                return why
            wanted = change(saved)
            if not wanted:
                return ""
            # Fails as a whole when somebody removed meanwhile what it removes; then we look again.
            _, why = await self._output([f"{table}-restore", "--wait", "10", "--noflush"], wanted)
        saved, wrong = await self._output([f"{table}-save", "-t", "filter"], "")
        if wrong or not change(saved):
            return wrong
        return why or f"somebody else changes the rules of {table} all the time"

    async def _output(self, argv: list[str], stdin: str) -> tuple[str, str]:
        """What a program printed, and what is wrong, or nothing."""
        try:
            ended = await self._run(
                self._reactor,
                argv,
                env=ENVIRONMENT,
                stdin=stdin.encode(),
                timeout=LIMIT,
                limit=16 << 20,
                rights=True,
            )
        except FileNotFoundError:
            return "", f"{argv[0]} is not installed; install the package iptables"
        if ended.status != 0 or ended.truncated:
            said = ended.err.decode("utf-8", "replace").strip().splitlines()
            hint = said[0] if said else f"{argv[0]} ended with status {ended.status}"
            return "", f"{hint}; run it as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
        return ended.out.decode("utf-8", "replace"), ""


def _wanted(saved: str, wanted: dict[str, list[str]]) -> str:
    return "" if in_force(saved, wanted) else script(saved, wanted)
