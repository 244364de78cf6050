"""A browser's connection to editors and previews: HTTP/1.1 on this side, tunnels on the other.

Every request on it is judged by its own Host header. An upgraded one turns the connection into a pipe. A
response that was cut short ends the connection without its proper end, so that the browser can tell.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import h11
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.bridge import pages
from uaihost.bridge.names import App, Destination, Names, NoTask
from uaihost.bridge.tunnels import WHOLE, BridgeTunnel, Reading, TunnelTable
from uaihost.wire.frames import RequestLine, TunnelAck

log = Logger()

# Bytes of a request's head. nginx and Node allow 32 and 16 KiB; editors send long cookies.
MAX_HEAD = 64 << 10

# Seconds in which a browser may still send what nobody reads after an early answer. Closing at once would
# reset the connection and could take the answer with it (RFC 9112, section 9.6).
LINGER = 5.0

# Seconds for which an idle kept-alive connection stays open (nginx: 75).
IDLE = 75.0

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_BAD_VALUE = re.compile(rb"[\r\n\0]")


class Links(Protocol):
    """The hosts that are connected."""

    def tunnels(self, host_id: str) -> TunnelTable | None:
        """The tunnels of a host's connection; None while it has none."""


@implementer(IPushProducer)
class BrowserConnection(TwistedProtocol):
    """One connection of a browser. It is the producer of the tunnel's outlet: uploads pause with it."""

    transport: Any

    def __init__(self, names: Names, links: Links, clock: IReactorTime) -> None:
        self._names = names
        self._links = links
        self._clock = clock
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._tunnel: BridgeTunnel | None = None
        self._request: h11.Request | None = None
        self._upgrade = False
        self._acked = False
        # An upgraded connection: bytes both ways, no HTTP any more.
        self._piped = False
        # Whatever the browser still sends is thrown away.
        self._deaf = False
        self._timer: IDelayedCall | None = None

    # ---- the browser's transport

    def connectionMade(self) -> None:
        self._reading = Reading(self.transport.pauseProducing, self.transport.resumeProducing)
        self._timer = self._clock.callLater(IDLE, self._lose)

    def dataReceived(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._piped:
            if self._tunnel is not None:
                self._tunnel.write(data)
            return
        self._http.receive_data(data)
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()
        self._deaf = True
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.close("the browser is gone")

    def pauseProducing(self) -> None:
        self._reading.hold("outlet")

    def resumeProducing(self) -> None:
        self._reading.release("outlet")

    def stopProducing(self) -> None:
        """The way to the host is gone; the tunnel says so itself."""

    # ---- requests

    def _advance(self) -> None:
        while not self._deaf:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._drop_tunnel("the browser broke HTTP")
                self._answer(error.error_status_hint, "The request is not valid HTTP.", "Try again.")
                return
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue and self._tunnel is not None:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED:
                # A next request, or bytes before the upgrade is agreed, wait. While there are none, reading
                # goes on, since that is how a browser's leaving is seen.
                if self._http.trailing_data[0]:
                    self._reading.hold("turn")
                return
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data) and self._tunnel is not None:
                self._tunnel.write(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._tunnel is not None and not self._upgrade:
                self._tunnel.end_request()
            elif isinstance(event, h11.ConnectionClosed):
                self._lose()

    def _begin(self, request: h11.Request) -> None:
        self._stop_timer()
        self._request = request
        self._acked = False
        self._upgrade = _asks_upgrade(request)
        place = self._names.find(_header(request, b"host"))
        if isinstance(place, NoTask):
            self._answer(404, f"There is no task {place.label}.", "It may have been taken down.")
        elif not isinstance(place, Destination):
            what = "the app" if isinstance(place, App) else "a name that is not served here"
            self._answer(421, f"This connection is not for {what}.", "Open the address again.")
        else:
            self._open(place, request)

    def _open(self, place: Destination, request: h11.Request) -> None:
        table = self._links.tunnels(place.host_id)
        line = RequestLine(
            request.method.decode("ascii"),
            request.target.decode("latin-1"),
            [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw_items()
                # The bridge itself answers 100 and sends the body at once (RFC 9110, section 10.1.1).
                if self._upgrade or name.lower() != b"expect"
            ],
        )
        tunnel = None if table is None else table.open(self, place, line, self._upgrade)
        if tunnel is None:
            self._answer(
                503,
                "The host of this task is not connected.",
                "Start the host service there; this page works again as soon as it is connected.",
            )
            return
        self._tunnel = tunnel
        tunnel.outlet.registerProducer(self, True)
        self.transport.registerProducer(tunnel, True)

    # ---- the tunnel

    def acked(self, ack: TunnelAck) -> None:
        if self._acked:
            return
        self._acked = True
        if not ack.ok:
            self._drop_tunnel("not opened")
            status = ack.status if 400 <= ack.status <= 599 else 502
            self._answer(status, _sentence(ack.message or "The host gave no reason."), _advice(status))
            return
        try:
            if self._upgrade:
                self._pipe(ack)
            else:
                self._head(ack)
        except (h11.LocalProtocolError, ValueError) as error:
            log.warn("a response of tunnel {id} cannot be sent: {error}", id=ack.tunnelId, error=str(error))
            self._drop_tunnel("bad response")
            self._answer(502, "The server in the task sent a broken response.", _advice(502))

    def _head(self, ack: TunnelAck) -> None:
        headers = _raw(ack)
        response = h11.Response(
            status_code=ack.status, headers=headers, reason=(ack.statusText or "").encode("latin-1")
        )
        data = self._http.send(response)
        self.transport.write(data)

    def _pipe(self, ack: TunnelAck) -> None:
        headers = _raw(ack)
        agreed = ack.status == 101
        if not agreed:
            # No upgrade: this response is the connection's last one, and nothing after the request is for it.
            headers = [pair for pair in headers if pair[0].lower() not in (b"connection", b"keep-alive")]
            headers.append((b"Connection", b"close"))
        reason = (ack.statusText or "").encode("latin-1")
        if _BAD_VALUE.search(reason) or not 100 <= ack.status <= 999:
            raise ValueError("illegal status line")
        lines = [b"HTTP/1.1 %d %s" % (ack.status, reason), *(b"%s: %s" % pair for pair in headers)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self._piped = True
        self._deaf = not agreed
        early = self._http.trailing_data[0]
        if agreed and early and self._tunnel is not None:
            self._tunnel.write(early)
        self._reading.release("turn")

    def received(self, data: bytes) -> None:
        if self._piped:
            self.transport.write(data)
            return
        try:
            pieces = self._http.send_with_data_passthrough(h11.Data(data=data))
        except h11.LocalProtocolError:
            self._drop_tunnel("more bytes than announced")
            self._abort()
            return
        self.transport.writeSequence(pieces or ())

    def closed(self, reason: str) -> None:
        self._tunnel = None
        self.transport.unregisterProducer()
        self._reading.release("outlet")
        if not self._acked:
            self._answer(502, "The tunnel to the task was closed.", f"{_sentence(reason)} {_advice(502)}")
        elif reason not in WHOLE:
            self._abort()
        elif self._piped:
            self._lose()
        else:
            self._finish()

    def _finish(self) -> None:
        try:
            self._send(h11.EndOfMessage())
        except h11.LocalProtocolError:
            # Fewer bytes than the head announced.
            self._abort()
            return
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._timer = self._clock.callLater(IDLE, self._lose)
            self._reading.release("turn")
            self._advance()
        elif self._http.their_state is h11.SEND_BODY:
            self._linger()
        else:
            self._lose()

    # ---- ends

    def _answer(self, status: int, message: str, advice: str) -> None:
        """Answer by ourselves and end the connection."""
        html = self._request is not None and pages.reads_pages(_header(self._request, b"accept"))
        self.transport.write(pages.error(status, message, advice, html=html))
        self._linger()

    def _linger(self) -> None:
        self._deaf = True
        self._reading.release("turn")
        if getattr(self.transport, "loseWriteConnection", None) is None:
            self._lose()
            return
        self.transport.loseWriteConnection()
        self._stop_timer()
        self._timer = self._clock.callLater(LINGER, self._abort)

    def _lose(self) -> None:
        self._deaf = True
        self.transport.loseConnection()

    def _abort(self) -> None:
        self._deaf = True
        self.transport.abortConnection()

    def _drop_tunnel(self, reason: str) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            self.transport.unregisterProducer()
            tunnel.close(reason)
            self._reading.release("outlet")

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.transport.write(data)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _header(request: h11.Request, name: bytes) -> str:
    """A header's value, the first one; empty when it is not there."""
    return next((value.decode("latin-1") for key, value in request.headers if key == name), "")


def _asks_upgrade(request: h11.Request) -> bool:
    connection = ",".join(
        value.decode("latin-1").lower() for key, value in request.headers if key == b"connection"
    )
    upgrades = any(key == b"upgrade" for key, _ in request.headers)
    return upgrades and "upgrade" in (word.strip() for word in connection.split(","))


def _raw(ack: TunnelAck) -> list[tuple[bytes, bytes]]:
    """The response's headers as bytes.

    Raises:
        ValueError: one cannot stand in a head.
    """
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in ack.headers or ()]
    if any(not _TOKEN.match(name) or _BAD_VALUE.search(value) for name, value in headers):
        raise ValueError("illegal header")
    return headers


def _sentence(text: str) -> str:
    """A host's message as a sentence of a page; of a bounded length."""
    text = text[:500].strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _advice(status: int) -> str:
    if status == 503:
        return "Is the task running, and does it have a preview of this name? Its page shows both."
    if status == 502:
        return "Is the server in the task running on its port? Reload this page when it is."
    return "Reload this page; if that does not help, look at the task's page."
