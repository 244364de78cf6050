"""The container engine: one that answers, that this user may use, that keeps limits; and the task image."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from pathlib import Path
from typing import Any

from uaihost.blocking import Threads
from uaihost.containers.client import SYSTEM_SOCKET, connect
from uaihost.containers.firewall import Firewall
from uaihost.containers.setup import ROOT_SOCKET, Machine, look
from uaihost.doctor.model import Finding, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient
from uaihost.doctor.service import filters as filters_itself
from uaihost.errors import HostError
from uaihost.rooms import engine_address, task_images
from uaihost.services.description import USER

# Seconds for one answer: an engine that is well needs milliseconds.
PATIENCE = 8.0
# The Engine API that containers/spec.py is written for.
API = (1, 41)
# Storage drivers that copy the whole image for each container.
COPIES = frozenset(("vfs",))


async def engine(patient: Patient) -> Finding:
    """It answers, and can keep what is asked of it."""
    address = engine_address(patient.settings)
    machine = await patient.blocking.call(look, patient.environ)
    return await patient.blocking.call(look_at_engine, address, machine)


def look_at_engine(address: str, machine: Machine) -> Finding:
    """Blocks."""
    try:
        client = connect(address, PATIENCE)
    except HostError as error:
        return no_engine(address, machine, error.message)
    try:
        version, info = client.version(), client.info()
    except Exception as error:
        return fail(
            f"the engine at {address} answers and then fails: {error}",
            "docker info",
            "sudo journalctl -u docker -n 50",
        )
    finally:
        client.close()
    return judged(address, version, info)


def no_engine(address: str, machine: Machine, said: str) -> Finding:
    """What to do where none answers at `address`."""
    path = Path(address.removeprefix("unix://")) if address.startswith("unix://") else None
    if path is None:
        return fail(
            f"no engine answers at {address}: {said}",
            "unset DOCKER_HOST   # then one of this machine is used",
        )
    start = "sudo systemctl start docker" if machine.systemd else "sudo service docker start"
    try:
        there = stat.S_ISSOCK(path.stat().st_mode)
    except PermissionError:
        return _no_right(path, machine)
    except OSError:
        there = False
    if there and not os.access(path, os.R_OK | os.W_OK):
        return _no_right(path, machine)
    again = start.replace("start", "restart")
    if there and _listens(path):
        return fail(
            f"the engine at {path} takes connections and answers nothing: it hangs",
            again,
            "sudo journalctl -u docker -n 50",
        )
    usual = address == SYSTEM_SOCKET
    if not usual and not there:
        return fail(
            f"there is no engine at {address}, which DOCKER_HOST names or `uaihost up` once started",
            "unset DOCKER_HOST   # then the engine of this machine is used",
            "uaihost up   # starts one where none is",
        )
    if there and not usual:
        return fail(
            f"{path} is there and nothing answers: its engine does not run any more",
            "unset DOCKER_HOST   # then the engine of this machine is used",
            "uaihost up   # starts one where none is",
        )
    if machine.dockerd is not None:
        return fail("Docker is installed and does not run", start, "sudo journalctl -u docker -n 50")
    if machine.apt:
        return fail(
            "no container engine is installed",
            "sudo apt-get install --no-install-recommends docker.io",
            *(
                []
                if machine.root
                else [f"sudo usermod -aG docker {machine.user}   # this is root, in effect"]
            ),
        )
    return fail(
        "no container engine is installed",
        "# install Docker Engine: docs.docker.com/engine/install",
    )


def _listens(path: Path) -> bool:
    """Whether somebody takes connections there. Blocks for a moment."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(1)
        try:
            made.connect(str(path))
        except OSError:
            return False
    return True


def _no_right(path: Path, machine: Machine) -> Finding:
    return fail(
        f"an engine is there ({path}), and the user {machine.user} may not use it. Who may use it is root on "
        "this machine: that is so with every Docker, and tasks themselves cannot",
        f"sudo usermod -aG docker {machine.user}",
        # A service's user never logs in.
        "sudo uaihost restart" if machine.user == USER else "newgrp docker   # or log in again",
    )


def judged(address: str, version: dict[str, Any], info: dict[str, Any]) -> Finding:
    """version, info: the engine's answers (`GET /version`, `GET /info`)."""
    rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or [])
    facts = {
        "address": address,
        "version": str(version.get("Version")),
        "api": str(version.get("ApiVersion")),
        "driver": str(info.get("Driver")),
        "cgroups": str(info.get("CgroupVersion") or "1"),
        "rootless": rootless,
        "containers": info.get("ContainersRunning"),
    }
    said = f"{facts['version']} at {address}, {facts['driver']}, cgroups v{facts['cgroups']}"
    findings = [ok(said + (", rootless" if rootless else ""), **facts)]
    numbers = tuple(int(part) for part in str(facts["api"]).split(".") if part.isdigit())
    if numbers < API:
        findings.append(
            fail(
                f"the engine speaks API {facts['api']}, which is too old: Docker 20.10 has 1.41",
                "sudo apt-get update && sudo apt-get install --only-upgrade docker.io",
            )
        )
    if info.get("OSType") not in (None, "linux"):
        findings.append(
            fail("the engine runs Windows containers", "# in Docker Desktop: Switch to Linux containers")
        )
    limits = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "processor time"}
    missing = [what for name, what in limits.items() if info.get(name) is False]
    if missing:
        findings.append(
            fail(
                f"the engine keeps no limit of {', '.join(missing)}: a task could take all of it",
                "docker info 2>&1 | grep -i warning",
                "# rootless: give the user its control groups (docs.docker.com/engine/security/rootless)",
            )
        )
    if facts["driver"] in COPIES:
        findings.append(
            warn(
                f"the engine's storage driver {facts['driver']} copies the image for every task: slow, and "
                "much disk",
                "# the data folder of the engine must lie on a file system with overlayfs: ext4, xfs, btrfs",
            )
        )
    return together(findings)


async def engines(patient: Patient) -> Finding:
    """No two engines in one network: each takes the other's packet filter for its own."""
    folders = patient.folders
    runtime = patient.environ.get("XDG_RUNTIME_DIR")
    places = [
        engine_address(patient.settings),
        SYSTEM_SOCKET,
        f"unix://{folders.engine / 'docker.sock'}",
        ROOT_SOCKET,
        *([f"unix://{runtime}/docker.sock"] if runtime else []),
    ]
    found = await patient.blocking.call(_who_answers, list(dict.fromkeys(places)))
    # A rootless engine has a network of its own.
    real = {name: address for name, (address, rootless) in found.items() if not rootless}
    facts = {"engines": [address for address, _ in found.values()]}
    if len(real) > 1:
        used = engine_address(patient.settings)
        others = [address for address in real.values() if address != used]
        fix = (
            "sudo systemctl disable --now docker docker.socket"
            if SYSTEM_SOCKET in others
            else f"docker -H {others[0]} ps   # what runs there; then end it and start uaihost again"
        )
        return warn(
            f"{len(real)} engines run in one network and may take each other's rules away: "
            f"{', '.join(real.values())}; {used} is used",
            fix,
            **facts,
        )
    return ok("one" if found else "none answers", **facts)


def _who_answers(places: list[str]) -> dict[str, tuple[str, bool]]:
    """By the engine's own id: where it answers, and whether it is rootless. Blocks."""
    found: dict[str, tuple[str, bool]] = {}
    for place in places:
        if place.startswith("unix://") and not _is_there(place.removeprefix("unix://")):
            continue
        try:
            client = connect(place, 3)
        except HostError:
            continue
        try:
            info = client.info()
        except Exception:
            # It is looked at by the check of the engine.
            continue
        finally:
            client.close()
        rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or [])
        found.setdefault(str(info.get("ID") or place), (place, rootless))
    return found


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:
        return False


async def image(patient: Patient) -> Finding:
    """The task image as this version would build it."""
    if patient.stranger:
        # Its user's number is part of an image, and what a task writes is that user's.
        return skipped(f"the host is {patient.stranger}'s: sudo -u {patient.stranger} uaihost doctor")
    kind = patient.settings.task_image
    threads = Threads(patient.reactor, "doctor-image", 1)
    try:
        found = await task_images(patient.reactor, threads, patient.settings, kind).list()
    finally:
        threads.stop()
    current = next((info for info in found if info.current), None)
    if current is not None:
        days = (time.time() * 1000 - current.created) / 86_400_000
        said = f"{current.reference}, {current.size / 1e9:.2f} GB, {days:.0f} d old"
        return ok(said, reference=current.reference, size=current.size)
    older = f"; an older one is there ({found[0].reference})" if found else ""
    return warn(
        f"the {kind} image of this version is not built{older}: the first task waits minutes for it",
        "uaihost image build",
        reference=None,
    )


async def packet_filter(patient: Patient) -> Finding:
    """The rules that keep tasks from this machine and from the networks around it; only looked at."""
    address = engine_address(patient.settings)
    filters = Firewall(patient.reactor, patient.blocking, address, allow=patient.settings.reachable)
    seen = await filters.seen()
    if seen.applied:
        return ok("in force", applied=True)
    if shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin") is None:
        return warn(
            "iptables is missing, so tasks may reach services of this machine and of its network",
            "sudo apt-get install iptables",
            applied=False,
        )
    if not seen.why:
        if patient.lives:
            return warn(
                "the rules are not as the running host should have set them: somebody took them away, or its "
                "settings are others than these",
                "sudo iptables-save -t filter | grep UAIHOST   # the host looks every 30 s",
                "uaihost restart",
                applied=False,
            )
        return ok("not set yet: the host does so when it starts", applied=False)
    if not address.startswith("unix://"):
        return skipped(seen.why)
    if not patient.root and patient.lives:
        return skipped("the host alone may see the rules; `container` tries what they close")
    if not patient.root and await patient.blocking.call(filters_itself, patient):
        return skipped("the service may set and see the rules, and does not run")
    if not patient.root:
        return warn(
            "this user may not see the rules; a host that runs as this user cannot set them, and tasks then "
            "reach services of this machine and of its network",
            "sudo iptables-save -t filter | grep UAIHOST   # the rules of a host that may set them",
            "uaihost install --system   # a service with the right to set them",
            applied=None,
        )
    return warn(f"tasks are not filtered: {seen.why}", "sudo modprobe iptable_filter", applied=False)
