"""Installs, upgrades and removes services, starts and stops them: each step once, and only where it is due.

Said twice it changes nothing the second time, and says so. Removing leaves data, settings and token.
"""

from __future__ import annotations

import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from uaihost import config
from uaihost.config import sample
from uaihost.errors import ErrorCode, HostError
from uaihost.services import description
from uaihost.services.description import BRIDGE, HOST, USER, Description, Kind
from uaihost.services.files import File, Folder
from uaihost.services.given import Given, config_folder, given, variables_text
from uaihost.services.machine import Machine, Run
from uaihost.services.managers import Manager, Systemd, checked, manager_of

# Whose members speak to the engine; whoever can is root on this machine (docs/security.md).
ENGINE_GROUP = "docker"

# Tenths of a second for a user's manager to come up; it takes two.
MANAGER_WAIT = 50

# Programs that the host runs, and the Debian package of each.
NEEDED = {"git": "git", "ssh": "openssh-client"}


@attrs.frozen
class Step:
    """One thing that was done. changed: whether it was not so before."""

    action: str
    target: str
    changed: bool


@attrs.frozen
class Outcome:
    """What came of it. notes: sentences for people."""

    manager: str
    kind: Kind
    services: tuple[str, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    dry_run: bool

    @property
    def changed(self) -> bool:
        """Whether anything was changed, or would be."""
        return any(step.changed for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "manager": self.manager,
            "kind": self.kind,
            "services": list(self.services),
            "dryRun": self.dry_run,
            "changed": self.changed,
            "steps": [attrs.asdict(step) for step in self.steps],
            "notes": list(self.notes),
        }


class Installer:
    """Services of one kind on one machine. run: how programs are run; pause: for seconds."""

    def __init__(
        self,
        machine: Machine,
        kind: Kind,
        run: Run,
        *,
        dry_run: bool = False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._pause = pause
        self._machine = machine
        self._kind = kind
        self._run = run
        self._dry = dry_run
        self._config = config_folder(machine, kind)
        self.manager: Manager = manager_of(machine, kind, self._config, run)
        self._steps: list[Step] = []
        self._notes: list[str] = []

    def installed(self) -> list[str]:
        """The services whose files are there, the bridge first: the order in which they start."""
        return [name for name in (BRIDGE, HOST) if self.manager.path(name).exists()]

    def install(self, *, bridge: bool, cloud_url: str | None = None, token: str | None = None) -> Outcome:
        """Install the host, and with `bridge` one on this machine; or bring what is installed up to date.

        cloud_url, token: what the host dials and shows, where the settings do not say so.

        Raises:
            HostError: it cannot be done; what was done until then stays, and may be done again.
        """
        self._permitted()
        bridge = bridge or BRIDGE in self.installed()
        found = given(self._machine, self._kind, bridge=bridge, cloud_url=cloud_url, token=token)
        if found.places.user == USER:
            self._make_user()
        path = self._path()
        make = [description.host(found.places, self._machine.programs, path)]
        if bridge:
            make.insert(0, description.bridge(found.places, self._machine.programs, path))
        shared = self._prepare(found)
        if self._kind == "user" and isinstance(self.manager, Systemd):
            self._linger()
        for service in make:
            self._bring_up(service, found, shared)
        self._say_where(found, bridge)
        return self._outcome([service.name for service in make])

    def uninstall(self) -> Outcome:
        """End and remove what is installed. Data, settings and token stay."""
        self._permitted()
        names = self.installed()
        for name in reversed(names):
            path = self.manager.path(name)
            self._do("stop and disable", name, True, partial(self.manager.disable, name))
            self._do("delete", str(path), True, path.unlink)
            self._do("forget", name, True, partial(self.manager.forget, name))
        if not names:
            self._notes.append("no service is installed here; nothing was changed")
        loaded = config.load({}, self._machine.environ, home=self._machine.home, root=self._machine.uid == 0)
        left = [str(path) for path in (loaded.data_dir, self._config) if path.exists()]
        if left:
            self._notes.append(f"data, settings and token stay in {' and '.join(left)}")
        if HOST in names:
            self._notes.append(
                "containers of tasks go on until they are stopped: `docker ps` names them uai-*"
            )
        return self._outcome(names)

    def start(self) -> Outcome:
        """Start what is installed and does not run."""
        return self._each("start", lambda name: not self.manager.state(name).running, self.manager.start)

    def stop(self) -> Outcome:
        """Stop what runs, the host first; tasks and their agents go on."""

        def due(name: str) -> bool:
            state = self.manager.state(name)
            return state.running or state.again

        return self._each("stop", due, self.manager.stop, backwards=True)

    def restart(self) -> Outcome:
        """Stop what runs and start all."""
        return self._each("restart", lambda name: True, self.manager.restart)

    # steps

    def _each(
        self,
        action: str,
        due: Callable[[str], bool],
        do: Callable[[str], None],
        *,
        backwards: bool = False,
    ) -> Outcome:
        names = self.installed()
        if not names:
            raise HostError(ErrorCode.NOT_FOUND, self._none())
        for name in reversed(names) if backwards else names:
            if action != "stop":
                if name == BRIDGE and self._switched_off(name):
                    self._steps.append(Step(action, name, False))
                    continue
                self._not_moved(name)
            self._do(action, name, due(name), partial(do, name))
        return self._outcome(names)

    def _switched_off(self, name: str) -> bool:
        """Whether its owner wants none here: a host that dials a bridge elsewhere needs no second one."""
        state = self.manager.state(name)
        off = not (state.enabled or state.running or state.again)
        if off:
            how = f"systemctl enable --now {name}" if self._kind == "package" else "uaihost install --bridge"
            self._notes.append(f"{name} is switched off and stays so; `{how}` switches it on")
        return off

    def _do(self, action: str, target: str, due: bool, act: Callable[[], object]) -> bool:
        self._steps.append(Step(action, target, due))
        if due and not self._dry:
            act()
        return due

    def _put(self, what: File | Folder) -> bool:
        action = "write" if isinstance(what, File) else "make"
        return self._do(action, str(what.path), what.differs(), what.write)

    def _make_user(self) -> None:
        run = self._run
        there = run(["getent", "passwd", USER]).status == 0
        words = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        words += ["--home-dir", "/var/lib/uaihost", USER]
        self._do("add user", USER, not there, lambda: checked(run(words), "useradd"))
        if run(["getent", "group", ENGINE_GROUP]).status != 0:
            self._notes.append(
                f"there is no group {ENGINE_GROUP}: install a container engine, then type `uaihost install` "
                "again"
            )
            return
        member = ENGINE_GROUP in run(["id", "-nG", USER]).out.split()
        joining = ["usermod", "--append", "--groups", ENGINE_GROUP, USER]
        self._do(
            "add to group", f"{USER} {ENGINE_GROUP}", not member, lambda: checked(run(joining), "usermod")
        )

    def _prepare(self, found: Given) -> bool:
        """Folders, token, variables and settings; whether anything changed that a running service read."""
        places = found.places
        system = self._kind == "system"
        owner = self._owner(places.user) if places.user else None
        self._put(Folder(places.config, 0o750 if system else 0o700, owner, shared=not system))
        changed = False
        mode = 0o640 if system else 0o600
        if found.token is not None:
            changed |= self._put(File(places.token, f"{found.token}\n".encode(), mode, owner))
        if found.variables or places.variables.exists():
            changed |= self._put(File(places.variables, variables_text(found.variables).encode(), 0o600))
        if system and places.elsewhere is None:
            self._put(File(places.settings, sample.sample().encode(), mode, owner, kept=True))
        usual = Path("/var/lib") / places.data.name
        if not system or places.data != usual:
            self._put(Folder(places.data, 0o700, self._person(places.user) if places.user else None))
        self._put(Folder(self.manager.path(HOST).parent, 0o755, shared=True))
        return changed

    def _bring_up(self, service: Description, found: Given, shared: bool) -> None:
        manager, name = self.manager, service.name
        file = manager.file(service, found.variables)
        before = manager.program(file.path.read_bytes()) if file.path.exists() else None
        now = Path(service.command[0])
        if before not in (None, now):
            gone = "" if before is not None and before.exists() else ", which is gone"
            self._notes.append(f"{name} was started by {before}{gone}; now by {now}")
        changed = self._put(file)
        if changed:
            self._do("reload", name, True, lambda: manager.reload(name))
        state = manager.state(name)
        self._do("enable", name, changed or not state.enabled, lambda: manager.enable(name))
        if state.running:
            self._do("restart", name, changed or shared, lambda: manager.restart(name))
        else:
            self._do("start", name, True, lambda: manager.start(name))

    def _linger(self) -> None:
        """A user's services end when he logs out, unless he lingers (loginctl(1)); his manager then runs."""
        user, run = self._machine.user, self._run
        lingers = run(["loginctl", "show-user", user, "--property=Linger"]).out.strip() == "Linger=yes"

        def enable() -> None:
            ran = run(["loginctl", "--no-ask-password", "enable-linger", user])
            if ran.status != 0:
                self._notes.append(
                    f"the service ends when {user} logs out: type `sudo loginctl enable-linger {user}` "
                    f"({ran.said})"
                )
                return
            manager = self._machine.root / f"run/user/{self._machine.uid}/systemd/private"
            for _ in range(MANAGER_WAIT):
                if manager.exists():
                    break
                self._pause(0.1)

        self._do("enable lingering", user, not lingers, enable)

    # what is so

    def _permitted(self) -> None:
        machine = self._machine
        if self._kind == "package":
            raise HostError(
                ErrorCode.CONFLICT,
                "the Debian package of uaihost is installed, and its services with it: `systemctl enable "
                "--now uaihost` starts them, `apt remove uaihost` removes them",
            )
        if self._kind == "system":
            if machine.system == "darwin":
                raise HostError(
                    ErrorCode.INVALID_ARGS,
                    "on macOS the container engine belongs to a user who is logged in: install without "
                    "--system, as that user",
                )
            if machine.uid != 0:
                command = machine.programs / "uaihost"
                raise HostError(
                    ErrorCode.INVALID_ARGS, f"only root installs for the machine: sudo {command} ... --system"
                )

    def _not_moved(self, name: str) -> None:
        program = self.manager.program(self.manager.path(name).read_bytes())
        if program is not None and not program.exists():
            raise HostError(
                ErrorCode.NOT_FOUND,
                f"{program}, which the service {name} starts, is gone: its installation was moved or "
                f"removed. `{self._machine.programs / 'uaihost'} install` lets it start this one",
            )

    def _none(self) -> str:
        shared: tuple[Kind, ...] = ("package", "system")
        if self._kind == "user" and isinstance(self.manager, Systemd):
            for kind in shared:
                if Systemd(self._machine, kind, self._run).path(HOST).exists():
                    return "you have no service of your own; for the machine's type this as root (sudo)"
        return "no service is installed here; `uaihost install` installs one"

    def _path(self) -> tuple[str, ...]:
        """Folders of programs for the service: the usual ones, and where this shell finds what it needs."""
        usual: tuple[str, ...] = description.PROGRAMS
        if self._machine.system == "darwin":
            usual = description.HOMEBREW + usual
        found = list(usual)
        for program, package in NEEDED.items():
            if shutil.which(program, path=":".join(usual)):
                continue
            here = shutil.which(program, path=self._machine.environ.get("PATH", ""))
            if here is None:
                self._notes.append(f"{program} is not installed, and the host needs it: Debian's {package}")
            elif str(Path(here).parent) not in found:
                found.insert(0, str(Path(here).parent))
        return tuple(found)

    def _owner(self, user: str) -> tuple[int, int] | None:
        """root may write, the service's user reads."""
        person = self._person(user)
        return None if person is None else (0, person[1])

    def _person(self, user: str) -> tuple[int, int] | None:
        try:
            found = pwd.getpwnam(user)
        except KeyError:
            # Not made in a dry run.
            return None
        return found.pw_uid, found.pw_gid

    def _say_where(self, found: Given, bridge: bool) -> None:
        if bridge:
            key = found.places.data / "bridge.key"
            port = found.variables.get("UAI_HOST_BRIDGE_PORT", config.DEFAULT_BRIDGE_PORT)
            sudo = "sudo " if self._kind == "system" else ""
            self._notes.append(f'open "http://localhost:{port}/?key=$({sudo}cat {key})"')
        elif found.cloud_url:
            self._notes.append(f"the host dials {found.cloud_url}")

    def _outcome(self, names: Iterable[str]) -> Outcome:
        if not any(step.changed for step in self._steps) and self._steps:
            self._notes.insert(0, "everything was so already; nothing was changed")
        return Outcome(
            self.manager.title, self._kind, tuple(names), tuple(self._steps), tuple(self._notes), self._dry
        )


def kind_of(machine: Machine, run: Run, system: bool | None) -> Kind:
    """Which kind is meant. system: what the command line says, None for nothing.

    For root the machine's, else the user's; a package's where that is what is installed.
    """
    if system or (system is None and machine.uid == 0):
        if machine.booted and Systemd(machine, "package", run).path(HOST).exists():
            return "package"
        return "system"
    return "user"


def user_manager(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which `systemctl --user` finds its manager, also where no session set it up."""
    folder = f"/run/user/{os.geteuid()}"
    if "XDG_RUNTIME_DIR" not in environ and Path(folder).is_dir():
        return {**environ, "XDG_RUNTIME_DIR": folder}
    return environ
