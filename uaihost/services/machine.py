"""What the machine is, as far as installing a service depends on it; and how its programs are run.

Looked at once, by whoever types a command; everything here may block.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError

# Seconds for one program of a service manager: `systemctl start` waits for a start that may take long, and
# `stop` for results to leave.
LIMIT = 900.0


@attrs.frozen
class Ran:
    """How a program ended. status 127: there is none of that name."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its last words, in one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[-400:]


Run = Callable[[Sequence[str]], Ran]


@attrs.frozen
class Machine:
    """The machine, who asks, and the installation that runs.

    system: `linux` or `darwin`. booted: whether systemd manages it (sd_booted(3)). wsl: the distribution's
    name in the Windows Subsystem for Linux, else None. programs: the folder of this installation's programs;
    needs: folders that its Python is made of. root: the file system's, for tests.
    """

    system: str
    booted: bool
    wsl: str | None
    user: str
    uid: int
    gid: int
    home: Path
    environ: Mapping[str, str]
    programs: Path
    needs: tuple[Path, ...]
    root: Path = Path("/")


def look(environ: Mapping[str, str]) -> Machine:
    """This machine, and this installation.

    Raises:
        HostError: twistd does not lie where this Python looks for programs.
    """
    uid = os.geteuid()
    person = pwd.getpwuid(uid)
    return Machine(
        "darwin" if sys.platform == "darwin" else "linux",
        Path("/run/systemd/system").is_dir(),
        environ.get("WSL_DISTRO_NAME"),
        person.pw_name,
        uid,
        person.pw_gid,
        Path(person.pw_dir),
        environ,
        programs(),
        needs(),
    )


def programs() -> Path:
    """The folder of this installation's `twistd`: a venv's, pipx's, the user's or the machine's."""
    places = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts")), Path(sys.argv[0]).parent]
    for place in places:
        if os.access(place / "twistd", os.X_OK):
            return place.absolute()
    raise HostError(
        ErrorCode.NOT_FOUND,
        f"twistd is not in {places[0]}: install uaihost again, into a virtual environment or with pipx",
    )


def needs() -> tuple[Path, ...]:
    """Folders that must be readable so that this Python runs: of the venv, its base, and this package."""
    package = Path(__file__).resolve().parents[2]
    base = Path(sys.executable).resolve().parents[1]
    return tuple(dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix), base, package)))


def run(argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Ran:
    """Run a program of the machine to its end, without a shell. It asks nothing and nobody answers."""
    program = shutil.which(argv[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        return Ran(127, "", f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            check=False,
            env=None if environ is None else dict(environ),
        )
    except subprocess.TimeoutExpired:
        return Ran(124, "", f"{argv[0]} did not end within {LIMIT:.0f} s")
    return Ran(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
