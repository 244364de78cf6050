"""A Debian machine with systemd as its first process, in a container: where services are really managed.

Tests drive it by commands inside, one after another, and block while they run. Every right that this machine
itself has is the container's too: systemd mounts, and makes namespaces and groups of processes.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import docker
import docker.errors
from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.base import BaseImages
from uaihost.containers.client import connect
from uaihost.test.integration.engine import ENGINE_FOLDER, docker_host
from uaihost.test.integration.packages import alone

reactor: Any = _reactor

# What every test of services wants: one image, made once on an engine.
PACKAGES = (
    "adduser",
    "ca-certificates",
    "curl",
    "dbus",
    "dbus-user-session",
    "docker.io",
    "git",
    "iptables",
    "libpam-systemd",
    "openssh-client",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
)
REPOSITORY = "uaihost-test/systemd"
# Seconds for packages to be installed, for systemd to come up, and for one command.
BUILD_LIMIT, BOOT_LIMIT, LIMIT = 900, 60.0, 180

# The engine mounts these read-only; systemd needs groups of its own.
BOOT = """
mount -o remount,rw /sys/fs/cgroup
for each in /sys/fs/cgroup/*; do mountpoint -q "$each" && mount -o remount,bind,rw "$each"; done
umount /proc/sys 2>/dev/null
exec /lib/systemd/systemd
"""

# Names of capability numbers (capabilities(7)).
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
)


class Failed(Exception):
    """A command inside ended otherwise than it should; the text is what it said."""


class SystemdMachine:
    """A machine that has booted. id: of its container; address: of the engine that runs it."""

    def __init__(self, client: docker.APIClient, container: str) -> None:
        self._client = client
        self.id = container

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, user: str = "", status: int | None = 0
    ) -> str:
        """What a command inside printed, both streams. status: as it must end; None takes any.

        Raises:
            Failed: it ended with another one.
        """
        made = self._client.exec_create(self.id, list(argv), environment=dict(env or {}), user=user)
        said = self._client.exec_start(made["Id"]).decode(errors="replace")
        ended = self._client.exec_inspect(made["Id"])["ExitCode"]
        if status is not None and ended != status:
            raise Failed(f"{' '.join(argv)}: status {ended}, not {status}:\n{said}")
        return str(said)

    def status(self, *argv: str) -> int:
        """How a command inside ends."""
        made = self._client.exec_create(self.id, list(argv))
        self._client.exec_start(made["Id"])
        return int(self._client.exec_inspect(made["Id"])["ExitCode"])

    def shell(self, script: str, *, status: int | None = 0) -> str:
        """What a shell script inside printed."""
        return self.run("sh", "-c", script, status=status)

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Write a file inside; its folder is there."""
        target = Path(path)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            entry = tarfile.TarInfo(target.name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
        self._client.put_archive(self.id, str(target.parent), packed.getvalue())

    def shown(self, unit: str) -> dict[str, str]:
        """Every property of a unit (systemctl(1), show)."""
        lines = self.run("systemctl", "show", "--no-pager", unit).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def journal(self, unit: str) -> str:
        """What the unit's processes and systemd said of it."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", "--unit", unit)

    def until(self, condition: Callable[[], object], what: str, limit: float = 30.0) -> None:
        """Wait until a condition holds.

        Raises:
            Failed: it never did.
        """
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise Failed(f"{what}: not within {limit:.0f} s")
            time.sleep(0.1)

    def until_active(self, unit: str, limit: float = 30.0) -> dict[str, str]:
        """Wait until a unit is active; its properties then. The journal is in the failure."""
        try:
            self.until(lambda: self.shown(unit)["ActiveState"] == "active", f"{unit} is active", limit)
        except Failed as failure:
            raise Failed(f"{failure}:\n{self.journal(unit)}") from None
        return self.shown(unit)

    def remove(self) -> None:
        """End it, with all that it holds."""
        self._client.remove_container(self.id, force=True, v=True)
        self._client.close()


async def machine(
    case: TestCase, *, binds: Sequence[str] = (), packages: Sequence[str] = PACKAGES
) -> SystemdMachine:
    """A machine for one test; it goes with it. binds: as `docker run --volume` takes them."""
    address = await docker_host()
    threads = Threads(reactor, "test-systemd", 1)
    case.addCleanup(threads.stop)
    base = await BaseImages(reactor, threads, address, ENGINE_FOLDER).ensure(lambda _: None)

    def boot() -> SystemdMachine:
        with alone("systemd-machine"):
            name = image(address, base.name, base.id, packages)
        return booted(address, name, binds)

    made: SystemdMachine = await deferToThread(boot)
    case.addCleanup(deferToThread, made.remove)
    return made


def image(address: str, base: str, base_id: str, packages: Sequence[str] = PACKAGES) -> str:
    """The image of such a machine, made when the engine has none of this base and these packages."""
    recipe = "\n".join(
        [
            f"FROM {base}",
            "RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "
            f"--no-install-recommends {' '.join(sorted(packages))} >/dev/null && rm -rf /var/lib/apt/lists/*",
            "ENV container=docker",
            "STOPSIGNAL SIGRTMIN+3",
            f"CMD {json.dumps(['sh', '-c', BOOT])}",
        ]
    )
    name = f"{REPOSITORY}:{hashlib.sha256((base_id + recipe).encode()).hexdigest()[:12]}"
    client = connect(address, BUILD_LIMIT)
    try:
        try:
            client.inspect_image(name)
        except docker.errors.ImageNotFound:
            said = list(client.build(fileobj=io.BytesIO(recipe.encode()), tag=name, rm=True, decode=True))
            problems = [entry["error"] for entry in said if "error" in entry]
            if problems:
                raise Failed(problems[0]) from None
    finally:
        client.close()
    return name


def booted(address: str, image_name: str, binds: Sequence[str] = ()) -> SystemdMachine:
    """A machine of an image, once systemd has started everything."""
    client = connect(address, LIMIT)
    limits = client.create_host_config(
        binds=list(binds),
        cap_add=own_capabilities(),
        security_opt=["seccomp=unconfined", "apparmor=unconfined"],
        tmpfs={"/run": "", "/run/lock": "", "/tmp": "exec"},
    )
    limits["CgroupnsMode"] = "private"
    made = client.create_container(
        image_name,
        name=f"uaihost-test-systemd-{secrets.token_hex(4)}",
        hostname="machine",
        host_config=limits,
        labels={"uaihost-test": "systemd"},
        tty=True,
    )
    found = SystemdMachine(client, made["Id"])
    try:
        client.start(made["Id"])
        # Some unit of a container may fail; what matters is that nothing is waited for any more.
        found.until(
            lambda: (
                found.run("systemctl", "is-system-running", status=None).strip() in ("running", "degraded")
            ),
            "systemd has started",
            BOOT_LIMIT,
        )
    except BaseException:
        found.remove()
        raise
    return found


def own_capabilities() -> list[str]:
    """The rights that this machine's processes can have at all: an engine cannot give others (proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return [name for number, name in enumerate(_CAPABILITIES.split()) if bits >> number & 1]
    raise Failed("/proc/self/status names no rights")
