"""A service's description as a unit file (systemd.unit(5), systemd.service(5), systemd.exec(5)). Pure.

Every directive that is not set, and why, is a row in docs/services.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from uaihost.services import description
from uaihost.services.description import Description, Kind, Places

# What a unit may say depends on the version: 252 is Debian 12's, and what the package is written for.
OLDEST = 252
# Since then the delay between restarts can grow (RestartSteps=).
GROWING = 254

# In how many steps the delay between two restarts grows to its longest.
STEPS = 6

# The names by which a unit's file says what comes first.
_UNITS = {"network-online": "network-online.target", "docker": "docker.service"}

# Of the sets of systemd.exec(5) the one for services, and what keeps git in its walls (landlock(7)).
_CALLS = (
    "@system-service",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
)

# What a manager of one user can hold too: it may make no namespaces.
_EVERYWHERE = (
    ("NoNewPrivileges", "yes"),
    ("LockPersonality", "yes"),
    ("RestrictRealtime", "yes"),
    # Not RestrictSUIDSGID: it takes openat2(2) away, by which the walls around git are built.
    ("RestrictNamespaces", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
)
_MACHINE = (
    ("ProtectSystem", "strict"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectProc", "invisible"),
    ("PrivateDevices", "yes"),
    ("PrivateMounts", "yes"),
    ("DevicePolicy", "closed"),
    ("KeyringMode", "private"),
    ("RemoveIPC", "yes"),
)

# Folders of people; what lies there is not there for the service unless it is named.
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))
# Sockets of engines: whoever can speak there is root.
_ENGINES = ("-/run/docker.sock", "-/run/podman", "-/run/containerd")

Lines = list[tuple[str, str]]


def unit(kind: Kind, name: str, *, programs: Path = Path("/opt/uaihost/bin"), version: int = OLDEST) -> str:
    """A unit at the usual places of a kind. name: description.HOST or BRIDGE."""
    system = Places(kind, Path("/etc/uaihost"), Path("/var/lib/uaihost"), description.USER)
    own = Places(kind, Path("~/.config/uaihost"), Path("~/.local/share/uaihost"))
    make = {description.HOST: description.host, description.BRIDGE: description.bridge}[name]
    return text(make(own if kind == "user" else system, programs), version)


def text(service: Description, version: int = OLDEST) -> str:
    """The unit file of a service for a systemd of this version."""
    sections = {
        "Unit": _unit(service),
        "Service": _service(service, version) + _hardening(service),
        "Install": _install(service),
    }
    blocks = []
    for title, lines in sections.items():
        blocks.append("\n".join([f"[{title}]", *(f"{key}={value}" for key, value in lines)]))
    head = (
        "" if service.places.kind == "package" else "# Written by `uaihost install`, which overwrites it.\n"
    )
    return head + "\n\n".join(blocks) + "\n"


def _unit(service: Description) -> Lines:
    # A manager of one user knows no units of the machine.
    known = (
        [] if service.places.kind == "user" else [_UNITS[name] for name in service.after if name in _UNITS]
    )
    first = known + [f"{name}.service" for name in service.after if name not in _UNITS]
    lines: Lines = [("Description", service.purpose), ("Documentation", "man:uaihost(1)")]
    wanted = [name for name in known if name.endswith(".target")]
    if wanted:
        lines.append(("Wants", " ".join(wanted)))
    if first:
        lines.append(("After", " ".join(first)))
    # A machine whose network or engine comes back after a night must find the service trying.
    lines.append(("StartLimitIntervalSec", "0"))
    return lines


def _service(service: Description, version: int) -> Lines:
    restart, limits, places = service.restart, service.limits, service.places
    lines: Lines = [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", " ".join(_word(word) for word in service.command)),
    ]
    if places.user is not None:
        lines += [("User", places.user), ("Group", places.user)]
    lines += [("Environment", _assignment(name, value)) for name, value in service.environment.items()]
    lines += [
        ("EnvironmentFile", f"-{_path(places.variables)}"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", " ".join(map(str, restart.never_on))),
        ("RestartSec", str(restart.delay)),
    ]
    if version >= GROWING:
        lines += [("RestartSteps", str(STEPS)), ("RestartMaxDelaySec", str(restart.longest))]
    lines += [
        ("WatchdogSec", str(limits.watchdog)),
        # SIGABRT, the watchdog's first word, makes the process say where it hangs; a stopped one cannot.
        ("TimeoutAbortSec", str(limits.abort)),
        ("TimeoutStartSec", str(limits.start)),
        ("TimeoutStopSec", str(limits.stop)),
        # The daemon ends its children in order; what is left goes with it. Containers are the engine's.
        ("KillMode", "mixed"),
        ("LimitNOFILE", str(limits.descriptors)),
        # A dump of its memory would hold tokens.
        ("LimitCORE", "0"),
        ("OOMPolicy", "continue"),
    ]
    return lines


def _hardening(service: Description) -> Lines:
    places = service.places
    lines: Lines = list(_EVERYWHERE)
    families = ["AF_UNIX", "AF_INET", "AF_INET6"] + (["AF_NETLINK"] if service.rights else [])
    lines.append(("RestrictAddressFamilies", " ".join(families)))
    lines.append(("SystemCallFilter", " ".join(_CALLS)))
    if not places.root:
        # What root makes for tasks is for another user to read.
        lines.append(("UMask", "0077"))
    if places.kind == "user":
        return lines
    lines += _MACHINE
    lines += [("ProtectHome", _homes(places.reads)), *_binds(places.reads)]
    # An installation or a data folder in /tmp, as of a trial, must be seen there.
    shared = any(path.is_relative_to(tmp) for path in (*places.reads, places.data) for tmp in _TEMPORARY)
    lines.append(("PrivateTmp", "no" if shared else "yes"))
    lines += _folders(service)
    lines.append(("CapabilityBoundingSet", " ".join(service.rights)))
    if not places.root:
        lines.append(("AmbientCapabilities", " ".join(service.rights)))
    if not service.engine:
        lines += [
            ("InaccessiblePaths", " ".join(_ENGINES)),
            ("PrivateUsers", "yes"),
            ("ProcSubset", "pid"),
            ("RestrictSUIDSGID", "yes"),
            # It starts no program and changes nobody's files.
            ("SystemCallFilter", "~@privileged @resources"),
        ]
    return lines


def _folders(service: Description) -> Lines:
    """The one folder that is written. Made by systemd where it lies at the usual place."""
    places = service.places
    if places.data == Path("/var/lib") / places.data.name:
        return [("StateDirectory", places.data.name), ("StateDirectoryMode", "0700")]
    return [("ReadWritePaths", _path(places.data))]


def _homes(reads: Iterable[Path]) -> str:
    return "tmpfs" if any(_at_home(path) for path in reads) else "yes"


def _binds(reads: Iterable[Path]) -> Lines:
    """Of people's folders, what the service needs and nothing else, and that to read only."""
    return [("BindReadOnlyPaths", _path(path)) for path in dict.fromkeys(reads) if _at_home(path)]


def _at_home(path: Path) -> bool:
    return any(path.is_relative_to(home) for home in _HOMES)


def _install(service: Description) -> Lines:
    return [("WantedBy", "default.target" if service.places.kind == "user" else "multi-user.target")]


def _word(word: str) -> str:
    """A word of a command line: quoted where it must be; no variable and no specifier is meant."""
    word = word.replace("%", "%%").replace("$", "$$")
    return _quoted(word) if not word or any(c in word for c in " \t\"'\\;") else word


def _assignment(name: str, value: str) -> str:
    words = f"{name}={value}".replace("%", "%%")
    return _quoted(words) if any(c in words for c in " \t\"'\\") else words


def _path(path: Path) -> str:
    """A path among others in a list."""
    return _word(str(path)).replace("$$", "$")


def _quoted(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@attrs.frozen
class Written:
    """What a unit file that is there says of itself. program: the first word of its command."""

    program: Path | None
    ours: bool


def written(unit_text: str) -> Written:
    """Read a unit file as far as an installation must know it."""
    program = None
    for line in unit_text.splitlines():
        if line.startswith("ExecStart="):
            command = line.partition("=")[2].strip()
            word = command[1:].split('"')[0] if command.startswith('"') else command.split(" ")[0]
            program = Path(word.replace("%%", "%").replace("$$", "$"))
    return Written(program, unit_text.startswith("# Written by `uaihost install`"))
