"""What tests of services share: a machine that is not there, and a manager that notes what it is asked."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uaihost.services.description import Kind, Places
from uaihost.services.machine import Machine, Ran

PROGRAMS = Path("/opt/venv/bin")


def places(kind: Kind = "system", **more: object) -> Places:
    """At the usual places of a kind."""
    if kind == "user":
        return Places(kind, Path("/home/al/.config/uaihost"), Path("/home/al/data"), **more)  # type: ignore[arg-type]
    given = {"user": "uaihost", **more}
    return Places(kind, Path("/etc/uaihost"), Path("/var/lib/uaihost"), **given)  # type: ignore[arg-type]


class Programs:
    """The machine's programs. answers: by the beginning of a command line; the longest counts."""

    def __init__(self, answers: Mapping[str, Ran | Callable[[], Ran]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str]) -> Ran:
        line = " ".join(argv)
        self.asked.append(line)
        for begin in sorted(self.answers, key=len, reverse=True):
            if line.startswith(begin):
                answer = self.answers[begin]
                return answer if isinstance(answer, Ran) else answer()
        return Ran(0, "", "")

    def changes(self) -> list[str]:
        """What was asked that is no question."""
        questions = ("show", "--version", "getent", "id ", "loginctl show-user", "print", "/Query", "pgrep")
        return [line for line in self.asked if not any(word in line for word in questions)]


class Units(Programs):
    """A systemd that knows which of its units run and are enabled; `systemctl` is all that it understands.

    states: what it says of units that are in another state.
    """

    def __init__(self, answers: Mapping[str, Ran | Callable[[], Ran]] | None = None) -> None:
        super().__init__({"loginctl show-user": Ran(0, "Linger=yes\n", ""), **(answers or {})})
        self.enabled: set[str] = set()
        self.running: set[str] = set()
        self.states: dict[str, str] = {}

    def __call__(self, argv: Sequence[str]) -> Ran:
        ran = super().__call__(argv)
        if argv[0] != "systemctl" or ran.status != 0:
            return ran
        words = [word for word in argv[1:] if not word.startswith("--") or word == "--now"]
        verb, name = words[0] if words else "", words[-1].removesuffix(".service") if words else ""
        if verb == "enable":
            self.enabled.add(name)
        elif verb in ("start", "restart"):
            self.running.add(name)
        elif verb == "stop":
            self.running.discard(name)
        elif verb == "disable":
            self.enabled.discard(name)
            self.running.discard(name)
        elif verb == "show" and name in self.states:
            return Ran(0, self.states[name], "")
        elif verb == "show":
            state = "active" if name in self.running else "inactive"
            file = "enabled" if name in self.enabled else "disabled"
            return Ran(0, f"UnitFileState={file}\nActiveState={state}\nSubState=x\nResult=success\n", "")
        elif "--version" in argv:
            return Ran(0, "systemd 252 (252.38-1~deb12u1)\n", "")
        return ran


def machine(root: Path, *, system: str = "linux", uid: int = 1000, **environ: str) -> Machine:
    """A machine whose files lie below `root`; whoever runs the test is its user."""
    programs = root / "venv/bin"
    programs.mkdir(parents=True, exist_ok=True)
    twistd = programs / "twistd"
    twistd.write_text("#!/bin/sh\n")
    twistd.chmod(0o755)
    home = root / "home"
    home.mkdir(exist_ok=True)
    me = pwd.getpwuid(os.geteuid())
    return Machine(
        system, system == "linux", None, me.pw_name, uid, me.pw_gid, home, environ, programs, (), root
    )
