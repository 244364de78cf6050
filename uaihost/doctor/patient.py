"""What is examined: the settings as they are here, the data folder, and the host that may run on it.

It is gathered before the first check, so that every check has it whatever is broken.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from uaihost.blocking import Blocking
from uaihost.config import DEFAULT_UI_PORT, Settings
from uaihost.errors import HostError
from uaihost.paths import Folders

# Method and path of the local API -> the running host's answer, None when none runs; blocks. Raises HostError
# as cli.local.ask does, or OSError.
Ask = Callable[[str, str, Any], Any]


@attrs.frozen
class Running:
    """What the daemon says. status: None when none runs; problem: why it could not be asked."""

    status: Mapping[str, Any] | None = None
    problem: str = ""


@attrs.frozen
class Patient:
    """problems: what is wrong with the settings, whose legal ones are in `settings`. environ, root: of this
    process. blocking: where everything goes that blocks, some at a time. ask: of the daemon."""

    reactor: Any
    blocking: Blocking
    settings: Settings
    problems: tuple[str, ...]
    environ: Mapping[str, str]
    root: bool
    ask: Ask
    running: Running = Running()

    @property
    def folders(self) -> Folders:
        return Folders(self.settings.data_dir)

    @property
    def stranger(self) -> str:
        """The user whose host this is, where root looks at it; empty otherwise. Blocks for a moment."""
        try:
            uid = self.settings.data_dir.stat().st_uid
            return pwd.getpwuid(uid).pw_name if self.root and uid != 0 else ""
        except (OSError, KeyError):
            return ""

    @property
    def lives(self) -> bool:
        """Whether a daemon answers on this data folder."""
        return self.running.status is not None

    @property
    def url(self) -> str:
        """The bridge that counts: the running host's, else the one that is set."""
        status = self.running.status
        if status is not None and isinstance(status.get("bridge"), Mapping):
            return str(status["bridge"].get("url") or self.settings.cloud_url)
        return self.settings.cloud_url

    @property
    def alone(self) -> bool:
        """Nothing runs and nothing is set of a bridge: `uaihost up` would start its own."""
        own = f"ws://127.0.0.1:{self.settings.bridge_port}/host"
        return not self.lives and not self.settings.token and self.settings.cloud_url == own

    @property
    def bridge(self) -> tuple[str, int, bool]:
        """Host, port and whether TLS is used."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "wss"
        return parts.hostname or "", parts.port or (443 if secure else 80), secure


def running(ask: Ask) -> Running:
    """What a daemon on this data folder says now. Blocks."""
    try:
        return Running(ask("GET", "/api/status", None))
    except HostError as error:
        return Running(None, error.message)
    except (OSError, ValueError) as error:
        return Running(None, str(error) or type(error).__name__)


def page(folders: Folders) -> int:
    """The port of the local page; its usual one when nothing says another. Blocks for a small file."""
    try:
        return int((folders.root / "ui-port").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return DEFAULT_UI_PORT


def readable(path: Path) -> str:
    """A path as a word of a shell."""
    text = str(path)
    return text if all(sign.isalnum() or sign in "/._-+:@%" for sign in text) else f"'{text}'"
