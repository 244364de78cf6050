"""The doors of the local API: a Unix socket for the CLI, a TCP port on loopback for a look.

The TCP door is best effort: that it cannot be opened never stops the service.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from uaihost.web.site import Daemon, LocalApi

log = Logger()

# How many ports after the wanted one are tried, as people run two or three hosts on one machine, not more.
PORTS_TRIED = 20


class LocalListeners(Service):
    """Both doors.

    socket: path of the Unix socket; port: first TCP port to try on 127.0.0.1; port_file: where the port
    that was taken is written for others to find.
    """

    def __init__(self, reactor: Any, daemon: Daemon, *, socket: Path, port: int, port_file: Path) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._socket = socket
        self._first_port = port
        self._port_file = port_file
        self._open: list[IListeningPort] = []
        self.port: int | None = None

    def startService(self) -> None:
        super().startService()
        # The data folder is locked by this process, so a socket that lies there is a dead one's.
        self._socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            everything = LocalApi(self._daemon, readable_only=False).site(self._reactor)
            self._open.append(self._reactor.listenUNIX(str(self._socket), everything))
        finally:
            os.umask(before)
        self._listen_tcp()

    async def stopService(self) -> None:
        super().stopService()
        for port in self._open:
            stopping = port.stopListening()
            if stopping is not None:
                await stopping
        self._open.clear()
        self._port_file.unlink(missing_ok=True)

    def _listen_tcp(self) -> None:
        site = LocalApi(self._daemon, readable_only=True).site(self._reactor)
        for number in range(self._first_port, min(self._first_port + PORTS_TRIED, 65536)):
            try:
                port = self._reactor.listenTCP(number, site, interface="127.0.0.1")
            except CannotListenError:
                continue
            self._open.append(port)
            self.port = port.getHost().port
            self._port_file.write_text(f"{self.port}\n", encoding="ascii")
            log.info("local status on http://127.0.0.1:{port}/api/status", port=self.port)
            return
        log.warn("no free port for the local status pages from {port} on", port=self._first_port)
