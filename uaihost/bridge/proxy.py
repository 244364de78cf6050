"""A browser's connection to editors and previews: HTTP/1.1 on this side, tunnels on the other.

Every request on it is judged by its own Host header. An upgraded one turns the connection into a pipe. A
response that was cut short ends the connection without its proper end, so that the browser can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import h11
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uaihost.bridge import heads, pages
from uaihost.bridge.names import App, Destination, Names, NoTask
from uaihost.bridge.tunnel import BridgeTunnel, Reading
from uaihost.bridge.tunnels import TunnelTable
from uaihost.wire.frames import Header, RequestLine
from uaihost.wire.mux import Head

log = Logger()

# Bytes of a request's head. nginx and Node allow 32 and 16 KiB; editors send long cookies.
MAX_HEAD = 64 << 10

# Seconds in which a browser may still send what nobody reads after an early answer. Closing at once would
# reset the connection and could take the answer with it (RFC 9112, section 9.6).
LINGER = 5.0

# Seconds in which a browser must take the last bytes of a connection that is closed.
CLOSING = 60.0

# Seconds for which an idle kept-alive connection stays open (nginx: 75).
IDLE = 75.0


class Links(Protocol):
    """The hosts that are connected."""

    def tunnels(self, host_id: str) -> TunnelTable | None:
        """The tunnels of a host's connection; None while it has none."""


@implementer(IPushProducer, IHalfCloseableProtocol)
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
        # The response has its end.
        self._whole = False
        # It is sent in chunks, so that trailers can follow.
        self._chunked = False
        # Whether the host says itself when the body may come.
        self._host_continues = False
        # An upgraded connection: bytes both ways, no HTTP any more.
        self._piped = False
        # The tunnel is the producer of the transport.
        self._produces = False
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
        if self._http.their_state is not h11.MUST_CLOSE:
            self._http.receive_data(data)
            self._advance()

    def readConnectionLost(self) -> None:
        """The browser sends nothing more; one that does so in the middle of HTTP is taken for gone."""
        tunnel = self._tunnel
        if self._piped and not self._deaf and tunnel is not None and tunnel.half_closes:
            self._deaf = True
            tunnel.end_request()
            if self._whole:
                self._lose()
        else:
            self._drop_tunnel("the browser is gone")
            self._lose()

    def writeConnectionLost(self) -> None:
        """Everything for the browser has left, as was asked."""

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
            http = self._http
            if http.their_state is h11.MUST_CLOSE and http.trailing_data[0]:
                # What follows the last request is not read (RFC 9112, section 9.6).
                return
            # h11 alone takes lines that others read differently.
            received = http.trailing_data[0] if http.their_state is h11.IDLE else b""
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                self._drop_tunnel("the browser broke HTTP")
                if self._acked:
                    # A page of ours would be taken for more of the response that has begun.
                    self._abort()
                    return
                self._answer(error.error_status_hint, "The request is not valid HTTP.", "Try again.")
                return
            if event is h11.NEED_DATA:
                waits = self._http.they_are_waiting_for_100_continue and not self._host_continues
                if waits and self._tunnel is not None:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED:
                # A next request, or bytes before the upgrade is agreed, wait. While there are none, reading
                # goes on, since that is how a browser's leaving is seen.
                if self._http.trailing_data[0]:
                    self._reading.hold("turn")
                return
            if isinstance(event, h11.Request):
                self._begin(event, heads.objection(received, event))
            elif isinstance(event, h11.Data) and self._tunnel is not None:
                self._tunnel.write(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and self._tunnel is not None and not self._upgrade:
                self._tunnel.end_request()
                # Nobody says any more that there is room, and a browser's leaving must be seen.
                self._reading.release("outlet")
                if self._whole:
                    self._complete()
            elif isinstance(event, h11.ConnectionClosed):
                self._lose()

    def _begin(self, request: h11.Request, objection: str) -> None:
        self._stop_timer()
        self._request = request
        self._acked = False
        self._whole = False
        self._upgrade = heads.asks_upgrade(request)
        if objection:
            self._answer(400, objection, "Use another program to send it.")
            return
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
        self._host_continues = table is not None and table.tells_all
        line = RequestLine(
            request.method.decode("ascii"),
            request.target.decode("latin-1"),
            [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers.raw_items()
                # Else the bridge itself answers 100 and sends the body at once (RFC 9110, section 10.1.1).
                if self._upgrade or self._host_continues or name.lower() != b"expect"
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
        self._produces = True

    # ---- the tunnel

    def informed(self, head: Head) -> None:
        request = self._request
        if request is None or request.http_version < b"1.1":
            return
        if head.status == 100 and _header(request, b"expect").lower() != "100-continue":
            return
        try:
            told = h11.InformationalResponse(
                status_code=head.status, headers=heads.fields(head.headers), reason=heads.reason(head)
            )
        except (h11.LocalProtocolError, ValueError):
            log.warn("an interim answer of the host cannot be sent; left out")
        else:
            self._send(told)

    def acked(self, ack: Head) -> None:
        self._acked = True
        if not ack.ok:
            self._drop_tunnel("not opened")
            status = ack.status if 400 <= ack.status <= 599 else 502
            self._answer(
                status, pages.sentence(ack.message or "The host gave no reason."), pages.advice(status)
            )
            return
        try:
            if self._upgrade:
                self._pipe(ack)
            else:
                self._head(ack)
        except (h11.LocalProtocolError, ValueError) as error:
            log.warn("a response of the host cannot be sent: {error}", error=str(error))
            self._drop_tunnel("bad response")
            self._answer(502, "The server in the task sent a broken response.", pages.advice(502))

    def _head(self, ack: Head) -> None:
        response = h11.Response(
            status_code=ack.status, headers=heads.fields(ack.headers), reason=heads.reason(ack)
        )
        data = self._http.send(response)
        self.transport.write(data)
        # As h11 frames it (RFC 9112, section 6.3): what has neither a length nor an old client to read it.
        request = self._request
        assert request is not None and data is not None
        self._chunked = request.http_version >= b"1.1" and all(
            name != b"content-length" for name, _ in response.headers
        )

    def _pipe(self, ack: Head) -> None:
        headers = heads.fields(ack.headers)
        agreed = ack.status == 101
        if not agreed:
            # No upgrade: this response is the connection's last one, and nothing after the request is for it.
            headers = [pair for pair in headers if pair[0].lower() not in (b"connection", b"keep-alive")]
            headers.append((b"Connection", b"close"))
        if not 100 <= ack.status <= 999:
            raise ValueError("illegal status")
        lines = [b"HTTP/1.1 %d %s" % (ack.status, heads.reason(ack)), *(b"%s: %s" % pair for pair in headers)]
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

    def ended(self, trailers: Sequence[Header]) -> None:
        self._whole = True
        if not self._piped:
            self._finish(trailers)
        elif self._deaf:
            # The answer to a refused upgrade, or the second half of a connection.
            self._drop_tunnel("the response is whole")
            self._lose()
        else:
            self._let_go()
            self.transport.loseWriteConnection()

    def closed(self, reason: str) -> None:
        self._tunnel = None
        self._let_go()
        self._reading.release("outlet")
        if not self._acked:
            self._answer(
                502, "The tunnel to the task was closed.", f"{pages.sentence(reason)} {pages.advice(502)}"
            )
        elif not self._whole:
            self._abort()
        elif self._piped:
            self._lose()
        else:
            self._linger()

    def _finish(self, trailers: Sequence[Header]) -> None:
        try:
            self._send(h11.EndOfMessage(headers=heads.trailers(trailers) if self._chunked else []))
        except (h11.LocalProtocolError, ValueError):
            # Fewer bytes than the head announced, or trailers that cannot be.
            self._drop_tunnel("the response cannot be ended")
            self._abort()
            return
        # A body that still comes goes on: the host may want it, or says so.
        if self._http.their_state is not h11.SEND_BODY:
            self._complete()
            self._advance()

    def _complete(self) -> None:
        """Request and response are through: the next request, if there can be one."""
        self._tunnel = None
        self._let_go()
        self._reading.release("outlet")
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._timer = self._clock.callLater(IDLE, self._lose)
            self._reading.release("turn")
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
        self._stop_timer()
        self._timer = self._clock.callLater(CLOSING, self._abort)
        self.transport.loseConnection()

    def _abort(self) -> None:
        self._deaf = True
        self.transport.abortConnection()

    def _drop_tunnel(self, reason: str) -> None:
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            self._let_go()
            tunnel.close(reason)
            self._reading.release("outlet")

    def _let_go(self) -> None:
        """No bytes come of the tunnel any more."""
        if self._produces:
            self._produces = False
            self.transport.unregisterProducer()

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
