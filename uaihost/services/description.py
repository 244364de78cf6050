"""What the services are, whatever manages them: one record each. Pure.

It must not know how a service manager spells any of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from uaihost.exits import REFUSED

HOST, BRIDGE = "uaihost", "uaibridge"

# The user that owns the data of a machine's own services.
USER = "uaihost"

# Whose services: of one user, of the machine, or of the machine as its package installs them.
Kind = Literal["user", "system", "package"]

# Where programs are, after this installation's own: the daemon runs git, ssh and iptables. Homebrew's folders
# are macOS's only.
PROGRAMS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
HOMEBREW = ("/opt/homebrew/bin", "/opt/local/bin")

# What filters the packets of tasks (iptables(8)) where the service is not root.
FILTER_RIGHTS = ("CAP_NET_ADMIN", "CAP_NET_RAW")
# What root needs besides: files of tasks belong to others, and git runs as their owner.
ROOT_RIGHTS = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
)


@attrs.frozen
class Restart:
    """When a service that ended is started again. Seconds.

    delay: before the first time; longest: to which that grows, where a manager can let it grow. never_on:
    exit statuses after which only the owner can help.
    """

    delay: int = 5
    longest: int = 120
    never_on: tuple[int, ...] = (REFUSED,)


@attrs.frozen
class Limits:
    """Seconds, and open files.

    watchdog: without a sign of life for this long, it is ended and started again; abort: how long it may take
    to say where it hangs. start: before its first sign that the start goes on; stop: likewise, for the stop.
    descriptors: each tunnel takes two, and each task some.
    """

    watchdog: int = 60
    abort: int = 10
    start: int = 60
    stop: int = 60
    descriptors: int = 65536


@attrs.frozen
class Places:
    """Where things lie: the same for both services of one kind.

    config: folder of the settings file, of the token and of `variables`. data: the data folder. user: whom a
    service of the machine runs as. reads: folders outside the usual ones that it must see: this
    installation's, and local repositories. given: whether there is a file at `settings`. shown: whether
    the token lies in the file `token`, not in the settings. elsewhere: a settings file at another place.
    """

    kind: Kind
    config: Path
    data: Path
    user: str | None = None
    reads: tuple[Path, ...] = ()
    given: bool = True
    shown: bool = True
    elsewhere: Path | None = None

    @property
    def root(self) -> bool:
        """Whether the service runs as root."""
        return self.user == "root"

    @property
    def token(self) -> Path:
        """Shared by host and bridge; one line."""
        return self.config / "host-token"

    @property
    def settings(self) -> Path:
        return self.elsewhere or self.config / "uaihost.toml"

    @property
    def variables(self) -> Path:
        """Settings that were in the environment when the service was installed: NAME=value lines."""
        return self.config / "service.env"


@attrs.frozen
class Description:
    """One service.

    command: an absolute program and its words. environment: without secrets. after: services that start first
    where they are there at all. rights: capabilities beyond an ordinary user's. engine: whether it asks the
    container engine.
    """

    name: str
    purpose: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    places: Places
    after: tuple[str, ...]
    rights: tuple[str, ...]
    engine: bool
    restart: Restart = Restart()
    limits: Limits = Limits()


def host(places: Places, programs: Path, path: tuple[str, ...] = PROGRAMS) -> Description:
    """The host. programs: the folder in which this installation's `twistd` lies; path: folders after it."""
    rights = () if places.kind == "user" else FILTER_RIGHTS + (ROOT_RIGHTS if places.root else ())
    return Description(
        HOST,
        "Coding agents in containers on this machine",
        _command(programs, HOST),
        _environment(places, programs, path),
        places,
        # With a bridge on the same machine the first attempt succeeds.
        ("network-online", "docker", BRIDGE),
        rights,
        engine=True,
    )


def bridge(places: Places, programs: Path, path: tuple[str, ...] = PROGRAMS) -> Description:
    """A bridge on the same machine, for which no right is needed at all."""
    return Description(
        BRIDGE,
        "A bridge for hosts, with a page for people",
        _command(programs, BRIDGE),
        _environment(places, programs, path),
        places,
        ("network-online",),
        (),
        engine=False,
    )


def _command(programs: Path, service: str) -> tuple[str, ...]:
    # A file with its number would be left behind by a process that is killed, and keep the next one away.
    return (str(programs / "twistd"), "--nodaemon", "--pidfile=", service)


def _environment(places: Places, programs: Path, path: tuple[str, ...]) -> dict[str, str]:
    folders = dict.fromkeys([str(programs), *path])
    settings = {"UAI_CONFIG": str(places.settings)} if places.given else {}
    token = {"UAI_HOST_TOKEN_FILE": str(places.token)} if places.shown else {}
    return {
        "PATH": ":".join(folders),
        # Text is UTF-8 whatever the machine's language: file names of repositories are.
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "UAI_DATA_DIR": str(places.data),
        **settings,
        **token,
    }
