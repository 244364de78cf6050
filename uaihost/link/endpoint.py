"""How the host reaches a bridge: TCP or TLS, then the WebSocket handshake, as one Twisted endpoint.

`connect()` fires when messages can be sent and not before, so that a service on top of it sees no half-open
connections. It does not know what is said afterwards.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from OpenSSL.crypto import Error as CertificateError
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.errors import SettingError
from uaihost.link.protocol import ClientSocketFactory
from uaihost.link.socket import MessageSocket
from uaihost.proxy import Proxies

# Seconds for all of name lookup, TCP, TLS and the WebSocket handshake. A SYN that was lost twice is sent a
# third time after 3 s and a fourth time after 7 s (RFC 6298): much less would give a bad line up.
OPEN_TIMEOUT = 20.0

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class NotOpened(Exception):
    """No WebSocket came about; the text says why."""


class Closed(ConnectionLost):
    """An open WebSocket ended. code and reason: as for `link.socket.Receiver.closed`."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def bridge_endpoint(
    reactor: Any, url: str, *, ca_file: Path | None = None, proxies: Proxies | None = None
) -> WebSocketEndpoint:
    """The endpoint of a bridge.

    reactor: must offer TCP, name resolution and time. ca_file: the only certificates (PEM) that may vouch for
    the bridge, instead of the machine's. With wss, certificate and name are verified (RFC 6125). proxies:
    what may lie on the way; TLS is with the bridge all the same.

    Raises:
        SettingError: the URL, the file or the proxy cannot be used; the message says what can.
    """
    host, port, secure = _parse(url)
    endpoint = (proxies or Proxies()).endpoint(reactor, host, port, secure=secure, timeout=OPEN_TIMEOUT)
    if secure:
        trust = platformTrust() if ca_file is None else _trust(ca_file)
        endpoint = wrapClientTLS(optionsForClientTLS(host, trustRoot=trust), endpoint)
    return WebSocketEndpoint(reactor, url, endpoint)


@implementer(IStreamClientEndpoint)
class WebSocketEndpoint:
    """Opens a WebSocket to `url` over the byte stream that `endpoint` connects.

    The protocol that `connect` is given gets the open MessageSocket as its transport and connectionLost with
    `Closed` at its end.
    """

    def __init__(self, clock: IReactorTime, url: str, endpoint: IStreamClientEndpoint) -> None:
        self._clock = clock
        self._url = url
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with an open connection; fails with NotOpened or as the byte stream's endpoint does."""
        return _Opening(self._clock, self._url, self._endpoint, protocolFactory).result

    def __repr__(self) -> str:
        # Without query and user: they may hold what does not belong into a log.
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}{parts.path}"


class _Opening:
    """One attempt, and afterwards the way by which the end of the connection is told."""

    def __init__(
        self,
        clock: IReactorTime,
        url: str,
        endpoint: IStreamClientEndpoint,
        factory: IProtocolFactory,
    ) -> None:
        self.result: Deferred[IProtocol] = Deferred(self._cancelled)
        self._factory = factory
        self._socket: MessageSocket | None = None
        self._protocol: IProtocol | None = None
        self._attempt: Deferred[IProtocol] | None = None
        self._given_up = False
        self._timeout = clock.callLater(OPEN_TIMEOUT, self._expired)
        self._attempt = endpoint.connect(ClientSocketFactory(url, clock, self._opened, self._lost))
        self._attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, socket: Any) -> None:
        self._socket = socket
        if self._given_up:
            socket.abort()

    def _opened(self, socket: MessageSocket) -> None:
        self._socket = socket
        if self._given_up:
            return
        try:
            protocol = self._factory.buildProtocol(socket.transport.getPeer())
            assert protocol is not None, "the factory refused the connection"
            protocol.makeConnection(socket)  # type: ignore[arg-type]
        except Exception:
            # Whoever called must hear of it, or would wait for this attempt for ever.
            self._give_up(Failure())
            return
        self._timeout.cancel()
        self._protocol = protocol
        self.result.callback(protocol)

    def _lost(self, socket: MessageSocket, code: int | None, reason: str) -> None:
        if self._protocol is not None:
            self._protocol.connectionLost(Failure(Closed(code, reason)))
        elif not self._given_up:
            self._give_up(Failure(NotOpened(_why(socket, reason))))

    def _failed(self, failure: Failure) -> None:
        if not self._given_up:
            self._give_up(failure)

    def _expired(self) -> None:
        self._give_up(Failure(NotOpened(f"the bridge did not answer within {OPEN_TIMEOUT:.0f} s")))

    def _cancelled(self, result: Deferred[IProtocol]) -> None:
        # Twisted fires `result` with CancelledError itself.
        self._stop()

    def _give_up(self, failure: Failure) -> None:
        self._stop()
        self.result.errback(failure)

    def _stop(self) -> None:
        self._given_up = True
        if self._timeout.active():
            self._timeout.cancel()
        if self._socket is not None:
            self._socket.abort()
        elif self._attempt is not None:
            self._attempt.cancel()


def _parse(url: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS is wanted."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    secure = parts.scheme == "wss"
    if (
        parts.scheme not in ("ws", "wss")
        or not parts.hostname
        or parts.fragment
        or parts.username
        or port == 0
    ):
        raise SettingError(
            "the bridge's URL cannot be used; legal forms are ws://HOST[:PORT][/PATH] and "
            "wss://HOST[:PORT][/PATH], PORT 1 to 65535, without user name and fragment"
        )
    return parts.hostname, port or (443 if secure else 80), secure


def _trust(ca_file: Path) -> Any:
    try:
        found = [Certificate.loadPEM(pem) for pem in _CERTIFICATE.findall(ca_file.read_bytes())]
    except (OSError, CertificateError) as error:
        raise SettingError(f"the bridge's CA file {ca_file} cannot be read: {error}") from None
    if not found:
        raise SettingError(f"the bridge's CA file {ca_file} holds no PEM certificate")
    return trustRootFromCertificates(found)


def _why(socket: MessageSocket, reason: str) -> str:
    """What a person can act on."""
    error = socket.lost_by
    if isinstance(error, VerificationError):
        return "the bridge's certificate is for another name"
    if isinstance(error, TLSError):
        return f"TLS with the bridge failed: {error}"
    return reason
