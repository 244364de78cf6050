"""What is said where no host answers: how this person starts one, or whose the one of this machine is."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.services.description import HOST, USER
from uaihost.services.managers import PACKAGED

# Where units of the machine lie.
UNITS = (*PACKAGED, "etc/systemd/system")


def nobody(root: Path = Path("/"), user: str | None = None, home: Path | None = None) -> HostError:
    """The failure of a verb that needs a running host. root: of all files; user, home: whose verb it is."""
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    home = home or Path.home()
    booted = (root / "run/systemd/system").is_dir()
    shared = booted and any((root / folder / f"{HOST}.service").exists() for folder in UNITS)
    own = booted and (home / ".config/systemd/user" / f"{HOST}.service").exists()
    if own or (shared and user in ("root", USER)):
        how = "`uaihost start` starts the service, and `uaihost doctor` says what keeps it from running"
    elif shared:
        how = "this machine's own answers root: type this with sudo. `uaihost up` starts one of yours"
    else:
        how = "start one with `uaihost up`"
    return HostError(ErrorCode.UNAVAILABLE, f"no host is running here; {how}")
