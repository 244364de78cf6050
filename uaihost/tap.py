"""`twistd uaihost`: its options, and how the process ends.

Exit status: 0 after SIGTERM or SIGINT, once commands in flight have ended and their results are stored; 1
when the bridge refuses the token (close 4001) or a setting is bad, which only the owner can put right; 75
when the service cannot start or go on now. A second signal exits at once.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as _reactor
from twisted.python import usage

from uaihost import config
from uaihost.app import Host
from uaihost.errors import SettingError
from uaihost.exits import Exits
from uaihost.logs.twistd import Logged, console_log
from uaihost.supervision import supervised

reactor: Any = _reactor


class SettingOptions(usage.Options):
    """A flag for every setting of the table that is not a secret."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, str | None] = {}

    optParameters = [
        ["config", None, None, "The TOML file with settings"],
        *[
            [setting.flag[2:], None, None, f"{setting.meaning} ({setting.env})"]
            for setting in config.SETTINGS
            if not setting.secret
        ],
    ]

    def settings(self) -> config.Settings:
        """The settings in force.

        Raises:
            usage.UsageError: one is bad; twistd prints the sentence and exits with status 1.
        """
        flags = {s.name: self[s.flag[2:]] for s in config.SETTINGS if not s.secret}
        file = Path(self["config"]) if self["config"] else None
        try:
            return config.load(flags, os.environ, home=Path.home(), root=os.geteuid() == 0, config_file=file)
        except SettingError as error:
            raise usage.UsageError(error.message) from None


class Options(SettingOptions):
    synopsis = "[options]"
    longdesc = "Run coding agents on this machine, reached through one WebSocket to a bridge."

    def postOptions(self) -> None:
        try:
            self.settings().require_token()
        except SettingError as error:
            raise usage.UsageError(error.message) from None


def makeService(options: Options) -> IService:
    """The host as a service."""
    exits = Exits(reactor)
    settings = options.settings()
    process_log = console_log(options, settings)
    host = Host(reactor, settings, on_fatal=exits.fail, on_refused=exits.refuse, process_log=process_log)
    exits.watch_signals()
    reactor.callWhenRunning(settle)
    return Logged(supervised(reactor, host, os.environ), process_log)


def settle() -> None:
    """Let the garbage collector pass over what was made until now, which lives as long as the process.

    A tenth of the time of a busy tunnel went into looking at modules and classes again and again.
    """
    gc.collect()
    gc.freeze()
