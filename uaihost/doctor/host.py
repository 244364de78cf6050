"""This process and this machine: settings, interpreter, compiled parts, open files, memory, proxies."""

from __future__ import annotations

import importlib
import platform
import resource
import sys
from typing import Any
from urllib.parse import urlsplit

import twisted
from uaihost import __version__
from uaihost.containers import admission
from uaihost.descriptors import WANTED
from uaihost.doctor.model import Finding, fail, ok, together, warn
from uaihost.doctor.patient import Patient
from uaihost.errors import SettingError
from uaihost.proxy import Proxies
from uaihost.rooms import limits_of

# The oldest that the package says it runs on (setup.py).
PYTHON = (3, 11)
# Descriptors with which a host of a few tasks still does its work: two for each connection of a task.
FEW = 4096

# What must be compiled: where the object lies that is used, the module that makes it so, the package that
# brings it, and what is slow without it.
COMPILED = (
    ("autobahn.websocket.protocol", "Utf8Validator", "autobahn", "checking what comes over the WebSocket"),
    ("autobahn.websocket.protocol", "create_xor_masker", "autobahn", "masking what goes over the WebSocket"),
    ("isal.isal_zlib", "", "isal", "compression"),
    ("msgspec._core", "", "msgspec", "reading and writing frames"),
)
# Autobahn's compiled parts (its own loader chooses between these and Python).
NATIVE = "autobahn.nvx"
PROXIES = ("https_proxy", "http_proxy", "all_proxy")


async def settings(patient: Patient) -> Finding:
    """Every bad value, with where it stands."""
    if patient.problems:
        first = patient.problems[0].partition(":")[0]
        return fail(
            "; ".join(patient.problems),
            *(fix_of(problem) for problem in patient.problems),
            problems=list(patient.problems),
            first=first,
        )
    return ok("every setting is legal")


def fix_of(problem: str) -> str:
    """What to type about a sentence of `config`."""
    source = problem.partition(":")[0]
    if source.startswith("UAI_") or source == "DOCKER_HOST":
        return f"unset {source}   # or give it a legal value: docs/settings.md"
    for word in problem.split():
        path = word.strip(":,;`")
        if path.startswith("/") and path.endswith(".toml"):
            return f"${{EDITOR:-nano}} {path}   # then: uaihost doctor --only settings"
    return "env | grep ^UAI_   # one of these names it"


async def python(patient: Patient) -> Finding:
    """Versions of what it runs on."""
    facts = {
        "uaihost": __version__,
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "reactor": type(patient.reactor).__name__,
    }
    said = f"uaihost {__version__}, Python {facts['python']}, Twisted {twisted.__version__}"
    if sys.version_info < PYTHON:
        wanted = ".".join(map(str, PYTHON))
        return fail(
            f"{said}: Python {wanted} is the oldest that works",
            f"sudo apt-get install python{wanted} python{wanted}-venv",
            **facts,
        )
    return ok(said, **facts)


async def accelerations(patient: Patient) -> Finding:
    """Whether the hot paths run compiled."""
    found = {f"{module}.{name}".rstrip("."): compiled(module, name) for module, name, _, _ in COMPILED}
    reactor = type(patient.reactor).__name__
    facts: dict[str, Any] = {**found, "reactor": reactor}
    missing = [row for row, here in zip(COMPILED, found.values(), strict=True) if not here]
    if missing:
        slow = ", ".join(what for _, _, _, what in missing)
        packages = " ".join(dict.fromkeys(package for _, _, package, _ in missing))
        return warn(
            f"not compiled here, so several times slower: {slow}",
            f"{sys.executable} -m pip install --force-reinstall --no-cache-dir {packages}",
            **facts,
        )
    if sys.platform == "linux" and reactor == "SelectReactor":
        return warn(
            "the reactor is select(2), which holds 1,024 files at most", "pip install -U twisted", **facts
        )
    return ok(f"all {len(COMPILED)} hot paths are compiled, {reactor}", **facts)


def compiled(module: str, name: str) -> bool:
    """Whether what is used there is machine code: of an extension, or of Autobahn's own library."""
    try:
        found: Any = importlib.import_module(module)
    except ImportError:
        return False
    if name:
        return str(getattr(getattr(found, name, None), "__module__", "")).startswith(NATIVE)
    return not str(getattr(found, "__file__", "") or ".py").endswith((".py", ".pyc"))


async def descriptors(patient: Patient) -> Finding:
    """How many files and sockets a host may hold that is started as this is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = WANTED if hard == resource.RLIM_INFINITY else hard
    if most < FEW:
        return warn(
            f"at most {most} files and sockets may be open at once; many previews at once will be refused",
            f"ulimit -n {WANTED}   # for this shell; of a service: LimitNOFILE={WANTED} in its unit",
            soft=soft,
            hard=hard,
        )
    return ok(f"up to {min(most, WANTED)} files and sockets may be open", soft=soft, hard=hard)


async def memory(patient: Patient) -> Finding:
    """Whether one more task would be let in, and whether a task's limit is one."""
    folder = patient.settings.data_dir
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    room = await patient.blocking.call(admission.look, folder)
    limits = limits_of(patient.settings)
    if room.memory is None or room.total is None:
        return ok("this system does not say how much memory is free")
    facts = {"free": room.memory, "total": room.total, "task": limits.memory}
    said = f"{_gib(room.memory)} of {_gib(room.total)} are free, a task may use {_gib(limits.memory)}"
    findings = [ok(said, **facts)]
    if limits.memory > room.total:
        part = max(1, int(room.total * 0.75) >> 30)
        findings.append(
            warn(
                f"a task may use more memory ({_gib(limits.memory)}) than this machine has "
                f"({_gib(room.total)}): one can push everything else out",
                f"export UAI_TASK_MEMORY={part}G",
            )
        )
    short = admission.obstacle(room, limits, 0)
    if short is not None and short.reason.value == "memory":
        findings.append(
            warn(f"a task would have to wait: {short.text}", "ps -eo pid,rss,args --sort=-rss | head")
        )
    return together(findings)


async def proxies(patient: Patient) -> Finding:
    """Proxies of the environment: who uses them here and who does not."""
    named: dict[str, str] = {}
    bad: list[str] = []
    for name, value in sorted(patient.environ.items()):
        if value and name.lower() in PROXIES:
            shown = _without_password(value)
            if shown is not None:
                named[name] = shown
            else:
                bad.append(name)
    if bad:
        return warn(
            f"{', '.join(bad)} cannot be understood as a proxy's address",
            *(f"unset {name}" for name in bad),
        )
    if not named:
        return ok("none is set")
    said = ", ".join(f"{name}={value}" for name, value in named.items())
    try:
        proxy = Proxies(patient.environ).towards(*patient.bridge)
    except SettingError as error:
        return fail(f"the bridge is not reached: {error.message}", "env | grep -i _proxy   # one of these")
    link = f"goes through {proxy}" if proxy is not None else "goes directly"
    return ok(f"{said}: git and image builds use it; the link to the bridge {link}", proxies=named)


def _without_password(value: str) -> str | None:
    """A proxy's address of what a variable says, or None. It is put together anew: without `http://`, or with
    an @ or a / in it, a password is not where patterns look for one."""
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host:
        return None
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
