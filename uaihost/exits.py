"""How the process ends: signals that drain first, and an exit status that says what happened."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from uaihost import children

log = Logger()

# Exit status of a service that only its owner can put right: a refused token, a bad setting. Service managers
# leave it ended (docs/services.md); the protocol names it for close 4001.
REFUSED = 1
# Of a service that could not start or go on, and that may be able to later (sysexits.h, EX_TEMPFAIL).
FAILED = 75


class Exits:
    """SIGTERM and SIGINT stop the reactor and lead to status 0; a second one ends the process, and
    what it runs on this machine, at once.

    Twisted's own handlers make a process that was asked to stop die of the signal, which service managers
    read as a failure.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._stopping = False

    def watch_signals(self) -> None:
        """From the moment the reactor runs, signals are ours."""
        self._reactor.callWhenRunning(self._install)

    def refuse(self, reason: str) -> None:
        """End the process for good, with the status that keeps service managers from starting it again."""
        self.fail(reason, REFUSED)

    def fail(self, reason: str, status: int = FAILED) -> None:
        """End the process with this status; `reason` is logged."""
        log.error("{reason}", reason=reason)
        # twistd decides the exit status itself and knows no failure of a running service.
        atexit.register(_exit_with, status)
        self._stop()

    def _install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if self._stopping:
            children.kill_all()
            os._exit(128 + number)
        self._stopping = True
        self._reactor.callFromThread(self._announce, signal.Signals(number).name)

    def _announce(self, name: str) -> None:
        log.info("{name}: shutting down; a second signal ends at once", name=name)
        self._stop()

    def _stop(self) -> None:
        self._stopping = True
        if not self._reactor.running:
            # twistd is still putting things together: a service may fail before the reactor runs.
            self._reactor.callWhenRunning(self._stop)
            return
        try:
            self._reactor.stop()
        except ReactorNotRunning:
            log.debug("already on the way out")


def _exit_with(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
