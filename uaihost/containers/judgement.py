"""From what a probe saw inside a container to a report on it. Pure.

A check passes when what it forbids was tried and did not work, or when what it wants is there. Whatever is
missing in the probe's answer counts against the container. It must not know how the answer was got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs
import msgspec

from uaihost.containers.report import Check, Outcome, Report
from uaihost.interfaces import Limits

# Bytes of the probe's answer: a few kB, more with many mounts.
ANSWER_LIMIT = 1 << 20
# Of what is found where nothing should be, as many are named.
NAMED = 4
# Characters of one such name.
NAME_LIMIT = 120

# Mounted by the engine itself: targets, and folders whose parts it masks.
ENGINE_MOUNTS = frozenset(
    (
        *("/", "/proc", "/sys", "/run", "/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/dev/console"),
        *("/etc/resolv.conf", "/etc/hostname", "/etc/hosts", "/run/.containerenv", "/run/podman-init"),
        *("/sbin/docker-init", "/usr/sbin/docker-init", "/usr/bin/docker-init"),
    )
)
MASKED = ("/proc/", "/sys/")
KERNEL_FILES = frozenset(("proc", "sysfs", "tmpfs", "cgroup", "cgroup2", "devtmpfs"))
# Mounted by this host: what a task may write, below which everything is its own, and what it may read.
WRITABLE = ("/workspace", "/home/dev", "/tmp", "/run/uai")
READABLE = ("/attachments", "/run/host", "/opt/uai-tools")
# Device nodes of every container (OCI runtime specification, "Default Devices").
DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts/ptmx")
)


class Granted(msgspec.Struct, frozen=True):
    """What the control groups grant; None: without limit."""

    memory: int | None
    memory_and_swap: int | None
    pids: int | None
    cpus: float | None


class Seen(msgspec.Struct, frozen=True):
    """The probe's answer (shim/probe.py). Capabilities are hexadecimal words."""

    uid: int
    gid: int
    groups: list[int]
    capabilities: dict[str, str | None]
    no_new_privileges: str | None
    seccomp: str | None
    namespaces: dict[str, str | None]
    mounts: list[tuple[str, str, bool]]
    sockets: list[str]
    devices: list[str]
    limits: Granted
    interfaces: list[str] | None
    gateway: str | None
    reached: list[Literal["open", "refused", "blocked", "silent"]]


@attrs.frozen
class Target:
    """One address that the probe tries to reach.

    kind: a name of REACH; address: `gateway` for the container's own; permitted: the owner lets tasks there.
    """

    kind: str
    address: str
    port: int
    permitted: bool = False

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'its gateway' if self.address == 'gateway' else host}:{self.port}"


@attrs.frozen
class Asked:
    """What the container should be, and what the probe was given.

    network: `own` or `none`; namespaces: the host's own, by name; proven: the kinds of targets that answered
    the host just before; filtered: the packet filter's rules are in force; why: when not, a sentence.
    """

    uid: int
    gid: int
    network: str
    namespaces: Mapping[str, str]
    targets: Sequence[Target]
    proven: frozenset[str]
    filtered: bool
    why: str = ""
    limits: Limits | None = None


def parsed(answer: bytes) -> Seen:
    """
    Raises:
        ValueError: it is no answer of the probe; the text says why.
    """
    if len(answer) > ANSWER_LIMIT:
        raise ValueError(f"the probe printed more than {ANSWER_LIMIT >> 10} KiB")
    try:
        return msgspec.json.decode(answer, type=Seen, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the probe's answer is none: {error}") from None


def judged(seen: Seen, asked: Asked, at: int) -> Report:
    """Every check, in the order of the card."""
    inside = [Check(name, *test(seen, asked)) for name, test in INSIDE]
    return Report((*inside, *(_reach(kind, seen, asked) for kind in REACH)), at)


# ---- what it is -------------------------------------------------------------------------------------------

_Finding = tuple[Outcome, bool, str]


def _wants(good: bool, detail: str, fault: str, required: bool = True) -> _Finding:
    return ("ok" if good else "open"), required, detail if good else fault


def _none(found: Sequence[str], detail: str, fault: str) -> _Finding:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return _wants(not found, detail, f"{fault}: {', '.join(map(_plain, found[:NAMED]))}{more}")


def _plain(text: str) -> str:
    """A name from inside as part of a line."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:NAME_LIMIT])


def _user(seen: Seen, asked: Asked) -> _Finding:
    plain = seen.uid == asked.uid != 0 and seen.gid == asked.gid and set(seen.groups) <= {asked.gid}
    said = f"user {seen.uid}, group {seen.gid}"
    return _wants(plain, said, f"it runs as {said}, groups {seen.groups[:NAMED]}, not as {asked.uid}")


def _capabilities(seen: Seen, _: Asked) -> _Finding:
    names = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    left = [name for name in names if (seen.capabilities.get(name) or "?").strip("0")]
    return _none(left, "all dropped", "it has capabilities")


def _privileges(seen: Seen, _: Asked) -> _Finding:
    good = seen.no_new_privileges == "1"
    return _wants(good, "no program gains any", "programs may gain privileges (no-new-privileges is off)")


def _seccomp(seen: Seen, _: Asked) -> _Finding:
    return _wants(seen.seccomp == "2", "system calls are filtered", "system calls are not filtered (seccomp)")


def _privileged(seen: Seen, _: Asked) -> _Finding:
    held = [path for path in seen.devices if path not in DEVICES]
    if held:
        return _none(held, "", "it has devices of the machine")
    # A privileged container may write there; every other has these read-only.
    wanted = {"/sys": False, "/proc/sys": False}
    found = {target: writable for target, _, writable in seen.mounts if target in wanted}
    return _wants(
        found == wanted, "no devices, kernel settings read-only", "/sys or /proc/sys can be written"
    )


def _sockets(seen: Seen, _: Asked) -> _Finding:
    return _none(seen.sockets, "none inside", "sockets of the machine are inside")


def _namespaces(seen: Seen, asked: Asked) -> _Finding:
    shared = [
        name
        for name in ("pid", "mnt", "ipc", "uts")
        if not seen.namespaces.get(name) or seen.namespaces.get(name) == asked.namespaces.get(name)
    ]
    return _none(shared, "processes, files, memory and name are its own", "it shares with the machine")


def _own_network(seen: Seen, asked: Asked) -> _Finding:
    mine = seen.namespaces.get("net")
    others = None if seen.interfaces is None else [name for name in seen.interfaces if name != "lo"]
    most = 1 if asked.network == "own" else 0
    if not mine or mine == asked.namespaces.get("net") or others is None:
        return _wants(False, "", "it uses the machine's network")
    said = f"its own, {', '.join(map(_plain, others))}" if others else "none, only loopback"
    return _wants(
        len(others) <= most,
        said,
        f"it has more interfaces than expected: {', '.join(map(_plain, others[:NAMED]))}",
    )


def _root(seen: Seen, _: Asked) -> _Finding:
    modes = [writable for target, _, writable in seen.mounts if target == "/"]
    fault = "programs of the image can be changed inside; the changes end with the container"
    return _wants(modes == [False], "read-only", fault, required=False)


def _mounts(seen: Seen, _: Asked) -> _Finding:
    strange = []
    for target, kind, writable in seen.mounts:
        if target in ENGINE_MOUNTS:
            continue
        # Control groups that can be written would lift the limits.
        harmless = kind in KERNEL_FILES and not (writable and kind.startswith("cgroup"))
        if target.startswith(MASKED) and harmless:
            continue
        if any(target == place or target.startswith(place + "/") for place in WRITABLE):
            continue
        if target in READABLE and not writable:
            continue
        strange.append(f"{target} ({kind}, {'writable' if writable else 'read-only'})")
    return _none(strange, "only what the host gives it", "more of the machine is mounted")


def _limits(seen: Seen, asked: Asked) -> _Finding:
    granted = seen.limits
    missing = [name for name in ("memory", "pids", "cpus") if getattr(granted, name) is None]
    if missing:
        return _none(missing, "", "without limit")
    assert granted.memory is not None and granted.pids is not None and granted.cpus is not None
    said = f"{granted.memory / (1 << 30):.3g} GiB memory, {granted.cpus:.3g} cores, {granted.pids} processes"
    wanted = asked.limits
    if wanted is None:
        return _wants(True, said, "")
    # The kernel keeps bytes as whole pages and cores as thousandths.
    within = (
        granted.memory <= wanted.memory
        and granted.pids <= wanted.pids
        and granted.cpus <= wanted.cpus + 0.01
        and (granted.memory_and_swap or 0) <= wanted.memory + wanted.swap
    )
    return _wants(within, said, f"more than was set: {said}")


# Names are part of the report.
INSIDE: tuple[tuple[str, Callable[[Seen, Asked], _Finding]], ...] = (
    ("no engine socket", _sockets),
    ("not privileged", _privileged),
    ("ordinary user", _user),
    ("capabilities", _capabilities),
    ("no new privileges", _privileges),
    ("seccomp", _seccomp),
    ("own namespaces", _namespaces),
    ("own network", _own_network),
    ("mounts", _mounts),
    ("read-only image", _root),
    ("limits", _limits),
)


# ---- what it reaches --------------------------------------------------------------------------------------


@attrs.frozen
class Reach:
    """A kind of destination.

    always: required whatever the packet filter does; proof: it counts only when the same targets answered
    the host; route: a closed port's answer counts as reached, since the way there is what is forbidden.
    """

    always: bool = False
    proof: bool = False
    route: bool = False


HOST = "services of this host"
LOOPBACK = "loopback services of this host"
DAEMON = "bridge and status page"
TASKS = "other tasks"
LAN = "private network"
METADATA = "cloud metadata"

REACH: dict[str, Reach] = {
    TASKS: Reach(always=True, route=True),
    LOOPBACK: Reach(always=True, proof=True),
    DAEMON: Reach(always=True),
    HOST: Reach(proof=True),
    LAN: Reach(route=True),
    METADATA: Reach(route=True),
}


def _reach(kind: str, seen: Seen, asked: Asked) -> Check:
    how = REACH[kind]
    required = how.always or asked.filtered or asked.network != "own"
    if len(seen.reached) != len(asked.targets):
        return Check(kind, "unknown", True, "the probe did not try everything")
    tried = [
        (target, word)
        for target, word in zip(asked.targets, seen.reached, strict=True)
        if target.kind == kind
    ]
    if not tried:
        return _untried(kind)
    bad = ("open", "refused") if how.route else ("open",)
    through = [target for target, word in tried if word in bad]
    forbidden = [target for target in through if not target.permitted]
    if forbidden:
        more = f" and {len(forbidden) - NAMED} more" if len(forbidden) > NAMED else ""
        detail = f"reached at {', '.join(str(target) for target in forbidden[:NAMED])}{more}"
        return Check(kind, "open", required, detail if required else f"{detail}; {asked.why}".rstrip("; "))
    if how.proof and kind not in asked.proven:
        return Check(kind, "unknown", True, "nothing answered the host itself, so nothing is proven")
    if through:
        return Check(kind, "open", False, f"{through[0]} is let through by egress_allow")
    return Check(kind, "blocked", required, f"not reached, {len(tried)} tried")


def _untried(kind: str) -> Check:
    absent = {
        TASKS: "no other task runs now; its network is its own",
        LAN: "this machine has no gateway to try",
        DAEMON: "none of the daemon's own on this machine",
    }
    if kind in absent:
        return Check(kind, "ok", False, absent[kind])
    # The absence of the others is a defect of the check itself.
    return Check(kind, "unknown", True, "it was not tried")
