"""Service managers: where each keeps a service's file, what is written there, and what it is asked to do.

One seam, three of them: systemd, launchd, and Windows' Task Scheduler as it is reached from WSL. A manager
raises HostError with the program's own last words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.services import launchd, systemd, windows
from uaihost.services.description import Description, Kind
from uaihost.services.files import File
from uaihost.services.machine import Machine, Ran, Run

# What systemctl(1) is asked about a unit.
SHOWN = ("LoadState", "FragmentPath", "UnitFileState", "ActiveState", "SubState", "StatusText", "Result")

# Where Debian's and other packages keep units.
PACKAGED = ("lib/systemd/system", "usr/lib/systemd/system")


@attrs.frozen
class State:
    """How a service is.

    enabled: starts by itself. detail: one line for people. again: it has failed and waits to be started anew.
    masked: its owner forbade it to start (systemctl(1)). file: that its manager goes by, where it says so.
    """

    enabled: bool
    running: bool
    detail: str = ""
    again: bool = False
    masked: bool = False
    file: Path | None = None


class Manager(Protocol):
    """What installing needs of a service manager. name: of the services, as description.HOST."""

    title: str

    def path(self, name: str) -> Path:
        """Where the service's file lies."""

    def file(self, service: Description, variables: Mapping[str, str]) -> File:
        """That file."""

    def program(self, content: bytes) -> Path | None:
        """The program that a file of this kind starts."""

    def state(self, name: str) -> State:
        """How the service is now."""

    def reload(self, name: str) -> None:
        """Its file was written."""

    def enable(self, name: str) -> None:
        """From now on it starts by itself."""

    def start(self, name: str) -> None: ...

    def stop(self, name: str) -> None: ...

    def restart(self, name: str) -> None: ...

    def disable(self, name: str) -> None:
        """It ends, and does not start by itself any more. Its file is deleted afterwards."""

    def forget(self, name: str) -> None:
        """Its file is gone."""


def checked(ran: Ran, what: str) -> Ran:
    """What a program said, if it did what it should."""
    if ran.status != 0:
        said = f": {ran.said}" if ran.said else ""
        raise HostError(ErrorCode.UNAVAILABLE, f"{what} failed with status {ran.status}{said}")
    return ran


class Systemd:
    """systemd's manager of the machine, or the one of a user (systemctl(1))."""

    def __init__(self, machine: Machine, kind: Kind, run: Run) -> None:
        self.title = "systemd" if kind != "user" else "systemd --user"
        self._kind = kind
        self._machine = machine
        self._run = run
        self._scope = ["--user"] if kind == "user" else []

    def path(self, name: str) -> Path:
        machine = self._machine
        if self._kind == "user":
            config = Path(machine.environ.get("XDG_CONFIG_HOME") or machine.home / ".config")
            return config / "systemd" / "user" / f"{name}.service"
        if self._kind == "package":
            found = [machine.root / folder / f"{name}.service" for folder in PACKAGED]
            return next((path for path in found if path.exists()), found[-1])
        return machine.root / "etc/systemd/system" / f"{name}.service"

    def file(self, service: Description, variables: Mapping[str, str]) -> File:
        return File(self.path(service.name), systemd.text(service, self.version()).encode())

    def program(self, content: bytes) -> Path | None:
        return systemd.written(content.decode(errors="replace")).program

    def version(self) -> int:
        """systemd's, or the oldest that is written for."""
        found = re.match(r"systemd (\d+)", self._run(["systemctl", "--version"]).out)
        return int(found[1]) if found else systemd.OLDEST

    def state(self, name: str) -> State:
        shown = self._systemctl("show", f"{name}.service", f"--property={','.join(SHOWN)}")
        facts = dict(line.partition("=")[::2] for line in shown.out.splitlines())
        active, sub = facts.get("ActiveState", ""), facts.get("SubState", "")
        again = sub == "auto-restart"
        running = active in ("active", "activating", "reloading") and not again
        # What a process that has ended last said of itself stays there.
        words = [active, f"({sub})", facts.get("StatusText", "") if running else ""]
        if facts.get("Result", "success") != "success":
            words.append(f"[{facts['Result']}]")
        file = facts.get("FragmentPath")
        return State(
            facts.get("UnitFileState", "").startswith("enabled"),
            running,
            " ".join(word for word in words if word),
            again,
            facts.get("LoadState") == "masked",
            Path(file) if file else None,
        )

    def reload(self, name: str) -> None:
        self._systemctl("daemon-reload")

    def enable(self, name: str) -> None:
        self._systemctl("enable", f"{name}.service")

    def start(self, name: str) -> None:
        self._systemctl("reset-failed", f"{name}.service", may_fail=True)
        self._systemctl("start", f"{name}.service", hint=self._journal(name))

    def stop(self, name: str) -> None:
        self._systemctl("stop", f"{name}.service")

    def restart(self, name: str) -> None:
        self._systemctl("reset-failed", f"{name}.service", may_fail=True)
        self._systemctl("restart", f"{name}.service", hint=self._journal(name))

    def disable(self, name: str) -> None:
        self._systemctl("disable", "--now", f"{name}.service")

    def forget(self, name: str) -> None:
        self._systemctl("daemon-reload")
        self._systemctl("reset-failed", f"{name}.service", may_fail=True)

    def _journal(self, name: str) -> str:
        return f"; `journalctl {'--user ' if self._scope else ''}-u {name} -n 20` says why"

    def _systemctl(self, *words: str, hint: str = "", may_fail: bool = False) -> Ran:
        ran = self._run(["systemctl", *self._scope, "--no-pager", "--no-ask-password", *words])
        lost = ran.status != 0 and "connect to bus" in ran.err.lower()
        if lost and not self._scope:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "systemd answers nobody but root here, since the machine has no message bus (Debian's dbus)",
            )
        if lost:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"systemd's manager of {self._machine.user} does not run: type `sudo loginctl enable-linger "
                f"{self._machine.user}`, log in anew (not by su or sudo), and try again; or install for the "
                "machine with --system",
            )
        if may_fail:
            return ran
        try:
            return checked(ran, f"systemctl {' '.join([*self._scope, *words])}")
        except HostError as error:
            raise HostError(error.code, error.message + hint) from None


class Launchd:
    """macOS's launchd: agents of a user who is logged in, daemons of the machine (launchctl(1))."""

    title = "launchd"

    def __init__(self, machine: Machine, kind: Kind, run: Run) -> None:
        self._machine = machine
        self._run = run
        self._system = kind != "user"
        self._domain = "system" if self._system else f"gui/{machine.uid}"

    def path(self, name: str) -> Path:
        folder = (
            self._machine.root / "Library/LaunchDaemons"
            if self._system
            else self._machine.home / "Library" / "LaunchAgents"
        )
        return folder / f"{launchd.label(name)}.plist"

    def file(self, service: Description, variables: Mapping[str, str]) -> File:
        return File(self.path(service.name), launchd.text(service, variables), 0o600)

    def program(self, content: bytes) -> Path | None:
        return launchd.program(content)

    def state(self, name: str) -> State:
        ran = self._run(["launchctl", "print", self._target(name)])
        if ran.status != 0:
            return State(False, False, "not loaded")
        running = re.search(r"^\s*state = running$", ran.out, re.MULTILINE) is not None
        last = re.search(r"^\s*last exit code = (.+)$", ran.out, re.MULTILINE)
        return State(
            True, running, "running" if running else f"not running; last exit: {last[1] if last else '-'}"
        )

    def reload(self, name: str) -> None:
        """launchd reads a file when it is loaded: what is loaded goes first."""
        self._run(["launchctl", "bootout", self._target(name)])

    def enable(self, name: str) -> None:
        self._launchctl("enable", self._target(name))
        self._launchctl("bootstrap", self._domain, str(self.path(name)))

    def start(self, name: str) -> None:
        self._launchctl("kickstart", self._target(name))

    def stop(self, name: str) -> None:
        """It ends with status 0, after which it is not started again before the next log-in."""
        self._launchctl("kill", "SIGTERM", self._target(name))

    def restart(self, name: str) -> None:
        """Out and in again: `kickstart -k` would leave no time to end in order."""
        self.reload(name)
        self.enable(name)

    def disable(self, name: str) -> None:
        self._launchctl("bootout", self._target(name))

    def forget(self, name: str) -> None:
        """Nothing remembers it."""

    def _target(self, name: str) -> str:
        return f"{self._domain}/{launchd.label(name)}"

    def _launchctl(self, *words: str) -> Ran:
        return checked(self._run(["launchctl", *words]), f"launchctl {' '.join(words)}")


class TaskScheduler:
    """Windows' Task Scheduler, asked from within WSL (schtasks.exe)."""

    title = "Windows' Task Scheduler"

    def __init__(self, machine: Machine, folder: Path, run: Run) -> None:
        self._machine = machine
        self._folder = folder
        self._run = run

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.task.xml"

    def file(self, service: Description, variables: Mapping[str, str]) -> File:
        account = checked(self._run(["whoami.exe"]), "whoami.exe").out.strip()
        where = windows.Subsystem(self._machine.wsl or "", self._machine.user, account)
        return File(self.path(service.name), windows.text(service, variables, where), 0o600)

    def program(self, content: bytes) -> Path | None:
        return windows.program(content)

    def state(self, name: str) -> State:
        ran = self._run(["schtasks.exe", "/Query", "/TN", name, "/FO", "CSV", "/NH"])
        # The words of its answer are in Windows' language; that it runs is seen on this side.
        return State(ran.status == 0, ran.status == 0 and self._processes(name), ran.out.strip())

    def reload(self, name: str) -> None:
        """Its file is read when it is registered, in `enable`."""

    def enable(self, name: str) -> None:
        there = checked(self._run(["wslpath", "-w", str(self.path(name))]), "wslpath").out.strip()
        self._schtasks("/Create", "/TN", name, "/XML", there, "/F")

    def start(self, name: str) -> None:
        self._schtasks("/Run", "/TN", name)

    def stop(self, name: str) -> None:
        """Asked on this side, where it ends in order; the task then has ended too."""
        self._run(["pkill", "--uid", str(self._machine.uid), "--full", "--exact", self._pattern(name)])

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def disable(self, name: str) -> None:
        self.stop(name)
        self._schtasks("/Delete", "/TN", name, "/F")

    def forget(self, name: str) -> None:
        """Nothing remembers it."""

    def _processes(self, name: str) -> bool:
        words = ["pgrep", "--uid", str(self._machine.uid), "--full", "--exact", self._pattern(name)]
        return self._run(words).status == 0

    def _pattern(self, name: str) -> str:
        return rf"\S*python\S* \S*/twistd --nodaemon --pidfile= {name}"

    def _schtasks(self, *words: str) -> Ran:
        return checked(self._run(["schtasks.exe", *words]), f"schtasks.exe {' '.join(words)}")


def manager_of(machine: Machine, kind: Kind, config: Path, run: Run) -> Manager:
    """The service manager of this machine.

    Raises:
        HostError: there is none that is known here.
    """
    if machine.system == "darwin":
        return Launchd(machine, kind, run)
    if machine.booted:
        return Systemd(machine, kind, run)
    if machine.wsl and kind == "user":
        return TaskScheduler(machine, config, run)
    raise HostError(
        ErrorCode.UNAVAILABLE,
        "no service manager runs here (systemd, launchd or, in WSL, Windows' Task Scheduler): let yours run "
        "`uaihost run`, which stays in the foreground, ends in order at SIGTERM, and is not to be started "
        "again when it ends with status 1 or 2",
    )
