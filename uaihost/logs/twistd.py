"""The process's log under twistd: where its options say, in the settings' format, and without secrets.

twistd asks the application for its observer (twisted.application.app.AppLogger); the service tells it. Only
`--logger`, an observer of somebody's own, stays in the place that it asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TextIO, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python import syslog
from twisted.python.logfile import LogFile

from uaihost.logs.observers import ProcessLog, stdout


class LogSettings(Protocol):
    """What of the settings counts here."""

    @property
    def log_format(self) -> str: ...

    @property
    def log_level(self) -> str: ...


class Logged(MultiService):
    """A service whose application logs as this process does."""

    def __init__(self, service: IService, process_log: ProcessLog) -> None:
        super().__init__()
        self._log = process_log
        cast(Any, service).setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        if hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self._log)
        super().setServiceParent(parent)


def console_log(options: Any, settings: LogSettings) -> ProcessLog:
    """The log of a process that twistd runs with these options of a service.

    `-n` writes to standard output, `--logfile` to a file, `--syslog` to the system's log. A daemon without
    any of them writes the data folder's file alone.
    """
    process_log = ProcessLog(settings.log_level)
    outer: Mapping[str, Any] = options.parent or {}
    name = outer.get("logfile")
    if outer.get("syslog"):
        system = syslog.SyslogObserver(outer.get("prefix") or "uaihost")
        process_log.to(lambda made: system.emit(_older(made)))
    elif name and name != "-":
        process_log.to_stream(cast(TextIO, LogFile.fromFullPath(name)), settings.log_format)
    elif outer.get("nodaemon", True):
        process_log.to_stream(stdout(), settings.log_format)
    return process_log


def _older(made: Mapping[str, Any]) -> dict[str, Any]:
    """A record as an event of Twisted's older interface, which the observer of syslog takes."""
    return {
        "message": (made["message"], *([made["trace"]] if "trace" in made else [])),
        "isError": made["level"] in ("error", "critical"),
        "system": made["logger"],
        "time": 0.0,
    }
