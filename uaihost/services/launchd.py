"""A service's description as a property list of launchd, macOS's service manager (launchd.plist(5)). Pure.

launchd has no watchdog and cannot tell one exit status from another: a refused host is tried again, once in
`THROTTLE`. It hands over no file of variables, so those are in the list itself, which is why it is mode 0600.
"""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uaihost.services.description import Description

# Before the services' names: a label is unique on the machine.
PREFIX = "local"
# Seconds between two starts at least.
THROTTLE = 60


def label(name: str) -> str:
    """The name of a service for launchctl(1)."""
    return f"{PREFIX}.{name}"


def text(service: Description, variables: Mapping[str, str]) -> bytes:
    """The property list. variables: settings from the environment of the installation."""
    places, limits = service.places, service.limits
    output = str(places.data / f"{service.name}.out")
    keys: dict[str, Any] = {
        "Label": label(service.name),
        "ProgramArguments": list(service.command),
        "EnvironmentVariables": {**variables, **service.environment},
        "WorkingDirectory": str(places.data),
        "RunAtLoad": True,
        # Status 0 is what a stop ends with.
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": THROTTLE,
        "ExitTimeOut": limits.stop,
        "ProcessType": "Interactive",
        "StandardOutPath": output,
        "StandardErrorPath": output,
        "SoftResourceLimits": {"NumberOfFiles": limits.descriptors, "Core": 0},
        "HardResourceLimits": {"NumberOfFiles": limits.descriptors, "Core": 0},
        "Umask": 0o077,
    }
    if places.user is not None:
        keys |= {"UserName": places.user, "GroupName": "wheel" if places.root else places.user}
    return plistlib.dumps(keys, sort_keys=True)


def program(written: bytes) -> Path | None:
    """The program that a property list starts; None for one that is not of ours."""
    try:
        words = plistlib.loads(written)["ProgramArguments"]
        return Path(words[0])
    except (plistlib.InvalidFileException, ValueError, KeyError, IndexError, TypeError):
        return None
