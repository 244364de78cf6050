"""Finds a Docker engine or, where it may, installs and starts one that belongs to uaihost.

An engine that answers is always preferred: two daemons in one network namespace disturb each other. It
knows nothing of images, tasks or the daemon's settings.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.task import deferLater

from uaihost import children
from uaihost.blocking import Blocking, Threads
from uaihost.containers import apt
from uaihost.containers.client import SYSTEM_SOCKET, answers
from uaihost.errors import ErrorCode, HostError

# Seconds for dockerd to answer: measured 0.4 on an idle machine; a cold disk and many containers need more.
START_LIMIT = 30.0
# Seconds for dockerd to end after TERM: measured 1; it waits up to 15 for its containers.
STOP_LIMIT = 30.0
POLL = 0.1
# An engine that root's daemon with the default data folder started; one with another folder uses it too.
ROOT_SOCKET = "unix:///var/lib/uaihost/engine/docker.sock"
# Unix socket names hold 107 bytes (unix(7)); the engine makes `exec/containerd/containerd.sock.ttrpc`.
LONGEST_FOLDER = 107 - len("/exec/containerd/containerd.sock.ttrpc")


@attrs.frozen
class EngineHandle:
    """An engine that answers. pid: of the daemon that we started, else None."""

    docker_host: str
    started_by_us: bool
    pid: int | None = None


@attrs.frozen
class Machine:
    """What decides whether an engine can be had here. Made by `look`."""

    root: bool
    apt: bool
    dockerd: str | None
    system_socket: bool
    socket_open: bool
    systemd: bool
    user: str


def look(environ: Mapping[str, str]) -> Machine:
    """This machine as it is now."""
    path = f"{environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    socket = SYSTEM_SOCKET.removeprefix("unix://")
    return Machine(
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get", path=path) is not None and Path("/etc/debian_version").exists(),
        dockerd=shutil.which("dockerd", path=path),
        system_socket=Path(socket).exists(),
        socket_open=os.access(socket, os.R_OK | os.W_OK),
        systemd=Path("/run/systemd/system").is_dir(),
        user=environ.get("USER") or str(os.getuid()),
    )


def advice(machine: Machine) -> str:
    """What a person has to do so that there is an engine which this user may use."""
    if machine.system_socket and not machine.socket_open:
        return (
            f"Docker is there, but user {machine.user} may not use it: "
            f"run `sudo usermod -aG docker {machine.user}` and log in again"
        )
    if machine.dockerd is not None:
        start = "systemctl start docker" if machine.systemd else "service docker start"
        return f"Docker is installed but does not run: start it with `sudo {start}`, or run this as root"
    if machine.apt:
        return (
            "Docker is not installed: run `sudo apt-get install --no-install-recommends docker.io` and "
            f"`sudo usermod -aG docker {machine.user}`, log in again; or run this as root"
        )
    return (
        "Docker is not installed: install Docker Engine (docs.docker.com/engine/install), "
        "or set DOCKER_HOST to one that runs"
    )


def alive(pid: int, name: str | None = None, proc: Path = Path("/proc")) -> bool:
    """Whether process `pid` runs, and is the program `name` when one is given.

    One that ended counts as gone, though nobody may have reaped it.
    """
    try:
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # proc(5): the state follows the command's name, which may itself hold parentheses.
    head, _, rest = text.rpartition(")")
    return rest.split()[0] not in ("Z", "X") and name in (None, head.partition("(")[2])


def running(pid_file: Path, name: str) -> int | None:
    """The process that a pid file names, if it runs and is the program `name`; else the file is removed.

    dockerd refuses to start, and containerd is waited for in vain, while the number in a pid file exists,
    be it a zombie's or another program's.
    """
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        pid = 0
    if pid > 0 and alive(pid, name):
        return pid
    pid_file.unlink(missing_ok=True)
    return None


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a text file; empty when there is none."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Setup:
    """One search for an engine.

    folder: our own engine's data, socket and log lie here. answers: blocking; whether an engine is at an
    address. look: what this machine has.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        folder: Path,
        progress: Callable[[str], None],
        environ: Mapping[str, str],
        *,
        answers: Callable[[str], bool] = answers,
        look: Callable[[Mapping[str, str]], Machine] = look,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._folder = folder
        self._progress = progress
        self._environ = environ
        self._answers = answers
        self._look = look

    @property
    def own(self) -> str:
        return f"unix://{self._folder}/docker.sock"

    @property
    def log(self) -> Path:
        return self._folder / "dockerd.log"

    async def engine(self) -> EngineHandle:
        """Find or start; see `find_or_start_engine`."""
        found = await self._find()
        if found is None:
            machine = self._look(self._environ)
            if not machine.root or (machine.dockerd is None and not machine.apt):
                raise HostError(ErrorCode.UNAVAILABLE, f"no container engine answers. {advice(machine)}")
            async with self._alone():
                found = await self._find() or await self._make(machine)
        return found

    async def _find(self) -> EngineHandle | None:
        given = self._environ.get("DOCKER_HOST")
        candidates = [given] if given else []
        for address in dict.fromkeys((*candidates, SYSTEM_SOCKET, self.own, ROOT_SOCKET)):
            if await self._blocking.call(self._answers, address):
                self._progress(f"using the engine at {address}")
                return EngineHandle(address, started_by_us=False)
            if address == given:
                self._progress(f"no engine answers at DOCKER_HOST {given}")
        return None

    async def _make(self, machine: Machine) -> EngineHandle:
        program = machine.dockerd
        if program is None:
            await apt.install(self._reactor, ["docker.io"], self._progress, self._environ)
            machine = self._look(self._environ)
            program = machine.dockerd
            if program is None:
                raise HostError(
                    ErrorCode.UNAVAILABLE, "docker.io was installed but brought no dockerd; install Docker"
                )
            # Where an init system runs, the package has started its own engine: that one is used.
            if machine.systemd and await self._wait(SYSTEM_SOCKET, None):
                return EngineHandle(SYSTEM_SOCKET, started_by_us=False)
        return await self._start(program)

    async def _start(self, program: str) -> EngineHandle:
        if len(os.fsencode(self._folder)) > LONGEST_FOLDER:
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"the folder {self._folder} is too long for an engine's sockets: choose a data folder whose "
                f"engine folder has at most {LONGEST_FOLDER} bytes",
            )
        earlier = running(self._folder / "docker.pid", "dockerd")
        if earlier is not None:
            self._progress("waiting for the engine that is starting")
            if await self._wait(self.own, None):
                return EngineHandle(self.own, started_by_us=False)
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"our engine (process {earlier}) runs but does not answer: end it and try again; its log is "
                f"{self.log}",
            )
        self._progress("starting the engine")
        child = await self._blocking.call(self._spawn, program)
        if await self._wait(self.own, child):
            return EngineHandle(self.own, started_by_us=True, pid=child.pid)
        await _end(self._reactor, child.pid)
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"the engine did not start; its log {self.log} ends with:\n{tail(self.log)}",
        )

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        running(self._folder / "exec" / "containerd" / "containerd.pid", "containerd")
        argv = [
            program,
            *("--data-root", str(self._folder / "data")),
            *("--exec-root", str(self._folder / "exec")),
            *("--pidfile", str(self._folder / "docker.pid")),
            *("--host", self.own),
            *("--log-level", "warn"),
        ]
        env = apt.environment(self._environ)
        with self.log.open("wb") as log:
            # In a session of its own Ctrl-C does not reach it: containers outlive the daemon.
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
            )

    async def _wait(self, address: str, child: subprocess.Popen[bytes] | None) -> bool:
        """Until an engine answers there; False when `child` ended or the time is over."""
        limit = self._reactor.seconds() + START_LIMIT
        while self._reactor.seconds() < limit:
            if await self._blocking.call(self._answers, address):
                return True
            if child is not None and child.poll() is not None:
                return False
            await deferLater(self._reactor, POLL)
        return False

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Only one process at a time installs and starts."""
        # Made here, the data folder is as closed as everything else that makes it leaves it.
        self._folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o711, exist_ok=True)
        with (self._folder / "lock").open("wb") as lock:
            limit = self._reactor.seconds() + apt.INSTALL_LIMIT
            while not _locked(lock.fileno()):
                if self._reactor.seconds() > limit:
                    raise HostError(
                        ErrorCode.TIMEOUT, f"another process holds {self._folder}/lock and sets an engine up"
                    )
                await deferLater(self._reactor, POLL)
            yield


async def find_or_start_engine(
    reactor: Any,
    folder: Path,
    progress: Callable[[str], None],
    environ: Mapping[str, str] | None = None,
) -> EngineHandle:
    """An engine that answers: DOCKER_HOST's, else the system's, else one of our own under `folder`.

    Args:
        reactor: threads, time and child processes.
        folder: of our own engine: `docker.sock`, `dockerd.log`, its data. Root alone can start one; on Debian
            and Ubuntu docker.io is installed when it is missing.
        progress: is told each step, one line.
        environ: the environment; the process's own by default.

    Raises:
        HostError: `unavailable`; the message says what to install or to start.
    """
    blocking = Threads(reactor, "engine-setup", 1)
    try:
        return await Setup(
            reactor, blocking, folder, progress, os.environ if environ is None else environ
        ).engine()
    finally:
        blocking.stop()


async def stop_engine(reactor: Any, handle: EngineHandle) -> None:
    """End the engine if `find_or_start_engine` started it; its containers end with it.

    Raises:
        HostError: `timeout` when it does not end.
    """
    if not handle.started_by_us or handle.pid is None:
        return
    if not await _end(reactor, handle.pid):
        raise HostError(
            ErrorCode.TIMEOUT, f"the engine (process {handle.pid}) did not end in {STOP_LIMIT:.0f} s"
        )
    # One that was killed before left mounts behind, and they would keep its folder from being removed.
    folder = Path(handle.docker_host.removeprefix("unix://")).parent
    left = mounts(folder, Path("/proc/mounts").read_text(encoding="utf-8", errors="surrogateescape"))
    if left:
        env = apt.environment(os.environ)
        await children.run(reactor, ["umount", "--lazy", *left], env=env, timeout=STOP_LIMIT)


def mounts(folder: Path, table: str) -> list[str]:
    """What is mounted below `folder`, the deepest first, in a table of mounts (fstab(5))."""
    found = []
    for line in table.splitlines():
        fields = line.split(" ")
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1]) if fields[1:] else ""
        if place.startswith(f"{folder}/"):
            found.append(place)
    return sorted(found, reverse=True)


async def _end(reactor: Any, pid: int) -> bool:
    """TERM, then wait until the process is gone; whether it is. A KILL would leave its containers' mounts."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    limit = reactor.seconds() + STOP_LIMIT
    while reactor.seconds() < limit:
        _reap(pid)
        if not alive(pid):
            return True
        await deferLater(reactor, POLL)
    return False


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # It was started by an earlier process of ours.


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
