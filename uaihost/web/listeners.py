"""The doors of the local API: a Unix socket for the CLI, a TCP port on loopback for the owner's browser.

The TCP door is best effort: that it cannot be opened never stops the service.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from uaihost.web.door import Door, installed_token
from uaihost.web.pages import Pages
from uaihost.web.site import Daemon, LocalApi

log = Logger()

# How many ports after the wanted one are tried, as people run two or three hosts on one machine, not more.
PORTS_TRIED = 20
# Connections to the page at once. A browser keeps six; whoever opens thousands, as any user of this machine
# may, must not take the descriptors that bridge and tasks need.
MOST = 256


class Few(WrappingFactory[ProtocolWrapper]):
    """Takes MOST connections at once; what is more is closed at once."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return super().buildProtocol(addr) if len(self.protocols) < MOST else None

    def drop(self) -> None:
        """End them all: browsers keep connections, and would go on to be answered."""
        for protocol in list(self.protocols):
            protocol.abortConnection()


class LocalListeners(Service):
    """Both doors.

    socket: path of the Unix socket; port: first TCP port to try on 127.0.0.1; port_file: where the port
    that was taken is written for others to find; token_file: of the token that opens the page.
    learn: told the token, which no log may hold.
    """

    def __init__(
        self,
        reactor: Any,
        daemon: Daemon,
        *,
        socket: Path,
        port: int,
        port_file: Path,
        token_file: Path,
        learn: Callable[[str], object] = lambda token: None,
        pages: Pages | None = None,
    ) -> None:
        self._reactor = reactor
        self._daemon = daemon
        self._socket = socket
        self._first_port = port
        self._port_file = port_file
        self._token_file = token_file
        self._learn = learn
        self._pages = Pages() if pages is None else pages
        self._open: list[IListeningPort] = []
        self._door: Door | None = None
        self._page: Few | None = None

    @property
    def port(self) -> int | None:
        """The TCP port; None when there is none."""
        return self._door.port if self._door is not None else None

    @property
    def link(self) -> str | None:
        """What the owner opens in a browser, with the token; None when there is no page."""
        return self._door.link if self._door is not None else None

    def startService(self) -> None:
        super().startService()
        # The data folder is locked by this process, so a socket that lies there is a dead one's.
        self._socket.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            api = LocalApi(self._daemon, self._reactor, door=None, pages=self._pages, link=lambda: self.link)
            self._open.append(self._reactor.listenUNIX(str(self._socket), api.site()))
        finally:
            os.umask(before)
        try:
            self._listen_tcp()
        except Exception:
            log.failure("the local page could not be opened; the host goes on without it")

    async def stopService(self) -> None:
        super().stopService()
        for port in self._open:
            stopping = port.stopListening()
            if stopping is not None:
                await stopping
        self._open.clear()
        if self._page is not None:
            self._page.drop()
        self._door = self._page = None
        self._port_file.unlink(missing_ok=True)

    def _listen_tcp(self) -> None:
        token = installed_token(self._token_file)
        self._learn(token)
        door = Door(token)
        page = Few(LocalApi(self._daemon, self._reactor, door=door, pages=self._pages).site())
        for number in range(self._first_port, min(self._first_port + PORTS_TRIED, 65536)):
            try:
                port = self._reactor.listenTCP(number, page, interface="127.0.0.1")
            except CannotListenError:
                continue
            self._open.append(port)
            door.port = port.getHost().port
            self._door, self._page = door, page
            self._port_file.write_text(f"{door.port}\n", encoding="ascii")
            log.info("the local page is at {origin}/; `uaihost status` shows its link", origin=door.origin)
            return
        log.warn("no free port for the local page from {port} on", port=self._first_port)
