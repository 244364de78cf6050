"""Autobahn's two ends of the bridge WebSocket, with every option set here and nowhere else.

It knows how a connection is made and opened; what is said on it belongs to `session` and to the bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from autobahn.websocket.types import ConnectingRequest
from twisted.internet.interfaces import IReactorTime

from uaihost.link import compression
from uaihost.link.socket import MAX_MESSAGE, MessageSocket

Opened = Callable[[MessageSocket], None]
Lost = Callable[[MessageSocket, int | None, str], None]

_COMMON: dict[str, Any] = {
    # JSON is UTF-8 and a text message that is not fails the connection (RFC 6455, section 8.1).
    "utf8validateIncoming": True,
    "applyMask": True,
    "maxMessagePayloadSize": MAX_MESSAGE,
    # The peer may send a message in one frame.
    "maxFramePayloadSize": MAX_MESSAGE,
    "autoFragmentSize": 0,
    # A peer that breaks RFC 6455 is not parsed any further.
    "failByDrop": True,
    "echoCloseCodeReason": False,
    "tcpNoDelay": True,
    # Autobahn's timers count whole seconds of the global reactor; ours run on the injected clock.
    "openHandshakeTimeout": 0,
    "closeHandshakeTimeout": 0,
    "autoPingInterval": 0,
    "autoPingTimeout": 0,
    "autoPingSize": 12,
    "autoPingRestartOnAnyTraffic": False,
}


class ClientSocket(MessageSocket, WebSocketClientProtocol):  # type: ignore[misc]
    """The host's end."""

    def onConnecting(self, transport_details: object) -> ConnectingRequest:
        factory = self.factory
        # An IPv6 address stands in brackets in a Host header (RFC 3986, section 3.2.2).
        host = f"[{factory.host}]" if ":" in factory.host else factory.host
        return ConnectingRequest(
            host=host, port=factory.port, resource=factory.resource, useragent=factory.useragent
        )


class ServerSocket(MessageSocket, WebSocketServerProtocol):  # type: ignore[misc]
    """The bridge's end."""


class ClientSocketFactory(WebSocketClientFactory):
    """Makes the host's end of one connection.

    Raises:
        Exception: Autobahn's, when `url` is no WebSocket URL.
    """

    protocol = ClientSocket
    noisy = False

    def __init__(self, url: str, clock: IReactorTime, opened: Opened, lost: Lost) -> None:
        super().__init__(url=url, useragent="uaihost", reactor=clock)
        self.clock = clock
        self.opened = opened
        self.lost = lost
        self.setProtocolOptions(
            **_COMMON,
            version=18,
            acceptMaskedServerFrames=False,
            maskClientFrames=True,
            serverConnectionDropTimeout=0,
            perMessageCompressionOffers=compression.offers(),
            perMessageCompressionAccept=compression.accept_response,
        )


class ServerSocketFactory(WebSocketServerFactory):
    """Makes the bridge's ends.

    clock: for the time-outs; opened and lost: told about every connection. The opening handshake has no
    time-out of its own: whoever listens bounds it.
    """

    protocol = ServerSocket
    noisy = False

    def __init__(self, clock: IReactorTime, opened: Opened, lost: Lost) -> None:
        super().__init__(server="uaihost", reactor=clock)
        self.clock = clock
        self.opened = opened
        self.lost = lost
        self.setProtocolOptions(
            **_COMMON,
            versions=[13],
            # No status page on a plain GET.
            webStatus=False,
            requireMaskedClientFrames=True,
            maskServerFrames=False,
            perMessageCompressionAccept=compression.accept_offer,
            serveFlashSocketPolicy=False,
            # Hosts are no browsers and prove themselves by their token, so an origin says nothing.
            allowedOrigins=["*"],
            allowNullOrigin=True,
            maxConnections=0,
            trustXForwardedFor=0,
        )
