"""What a program in a task asks of the proxy, and the exchange that follows: bytes to bytes. Pure.

RFC 9110, section 9.3.6 (CONNECT) and RFC 9112, section 3.2.2 (requests with an absolute target). Every byte
here was written by hostile programs or servers; what goes on was parsed and written anew. Knows neither
sockets nor what is permitted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol
from urllib.parse import urlsplit

import attrs
import h11

from uaihost.egress.names import Destination, destination

# Bytes of a head, or of a chunk's line, that are kept while their end has not come.
HEAD_LIMIT = 64 << 10

# Of one hop each (RFC 9110, section 7.6.1); those that frame a body are h11's to judge.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    }
)
_FRAMING = frozenset({b"content-length", b"host", b"transfer-encoding"})

_REASONS = {
    400: b"Bad Request",
    403: b"Blocked by the egress policy",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}

TUNNEL_OPENS = b"HTTP/1.1 200 Connection established\r\n\r\n"


class BadRequest(ValueError):
    """What came is no request to a proxy. status: of the answer; the text is for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class BadResponse(ValueError):
    """What the server answered is no HTTP; the text is for people."""


class Carriage(Protocol):
    """What becomes of the bytes once there is a connection to the destination.

    over: nothing more goes either way, and nothing may be asked of it any more.
    """

    over: bool

    def begin(self) -> tuple[bytes, bytes]:
        """The first bytes for the client and for the server."""

    def from_client(self, data: bytes) -> bytes:
        """Bytes for the server. Raises BadRequest."""

    def client_ended(self) -> bool:
        """The client says nothing more; whether the server is to be told."""

    def from_server(self, data: bytes) -> bytes:
        """Bytes for the client. Raises BadResponse."""

    def server_ended(self) -> bytes:
        """The server says nothing more; the last bytes for the client. Raises BadResponse."""


class Tunnel:
    """CONNECT: bytes as they are, each direction with its own end. early: what came right after the head."""

    def __init__(self, early: bytes) -> None:
        self.over = False
        self._early = early
        self._ended = 0

    def begin(self) -> tuple[bytes, bytes]:
        early, self._early = self._early, b""
        return TUNNEL_OPENS, early

    def from_client(self, data: bytes) -> bytes:
        return data

    def client_ended(self) -> bool:
        self._end()
        return True

    def from_server(self, data: bytes) -> bytes:
        return data

    def server_ended(self) -> bytes:
        self._end()
        return b""

    def _end(self) -> None:
        self._ended += 1
        self.over = self._ended == 2


class Fetch:
    """One plain HTTP request and its answer; then both connections end.

    So a second request, which may be for another destination, always comes over a connection that is judged.
    """

    def __init__(self, client: h11.Connection, request: h11.Request, target: bytes, host: bytes) -> None:
        self.over = False
        self._client = client
        self._server = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._asked = False
        headers = [(b"Host", host), *_end_to_end(request.headers.raw_items(), drop_host=True)]
        self._request = h11.Request(
            method=request.method, target=target, headers=[*headers, (b"Connection", b"close")]
        )

    def begin(self) -> tuple[bytes, bytes]:
        head = self._server.send(self._request) or b""
        return b"", head + self._rest_of_request()

    def from_client(self, data: bytes) -> bytes:
        # Behind the request nothing is waited for, so nothing is kept.
        if self._asked:
            return b""
        self._client.receive_data(data)
        return self._rest_of_request()

    def client_ended(self) -> bool:
        # An answer may still be wanted; where the request is not whole there will be none.
        self.over = not self._asked
        return False

    def from_server(self, data: bytes) -> bytes:
        # Only empty bytes mean the end to h11, and no read gives those.
        self._server.receive_data(data)
        return self._rest_of_response()

    def server_ended(self) -> bytes:
        self._server.receive_data(b"")
        last = self._rest_of_response()
        if not self.over:
            raise BadResponse("the server closed the connection before its answer was complete")
        return last

    def _rest_of_request(self) -> bytes:
        out = []
        try:
            while True:
                event = self._client.next_event()
                if isinstance(event, h11.Data):
                    out.append(self._server.send(event) or b"")
                elif isinstance(event, h11.EndOfMessage):
                    self._asked = True
                    # Without trailers, which are optional to pass on (RFC 9110, section 6.5.1).
                    out.append(self._server.send(h11.EndOfMessage()) or b"")
                    break
                else:
                    break
        except h11.ProtocolError as error:
            raise BadRequest(400, f"the request's body is not as announced: {error}") from None
        return b"".join(out)

    def _rest_of_response(self) -> bytes:
        out = []
        try:
            while True:
                event = self._server.next_event()
                if isinstance(event, (h11.InformationalResponse, h11.Response)):
                    out.append(self._client.send(_passed_on(event)) or b"")
                elif isinstance(event, h11.Data):
                    out.append(self._client.send(event) or b"")
                elif isinstance(event, h11.EndOfMessage):
                    out.append(self._client.send(h11.EndOfMessage()) or b"")
                    self.over = True
                    break
                else:
                    break
        except h11.ProtocolError as error:
            raise BadResponse(f"the server's answer is no HTTP/1.1: {error}") from None
        return b"".join(out)


@attrs.frozen
class Asked:
    """What a client wants. to: where; carriage: what happens once it is connected there."""

    to: Destination
    carriage: Carriage


class RequestReader:
    """Takes a client's bytes until its request's head is whole."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)

    def feed(self, data: bytes) -> Asked | None:
        """The request, or None while more is needed.

        Raises:
            BadRequest: there is none, or none that a proxy takes.
        """
        connection = self._connection
        try:
            connection.receive_data(data)
            request = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, f"this is no HTTP request: {error}") from None
        if not isinstance(request, h11.Request):
            return None
        names = {name for name, _ in request.headers}
        if b"transfer-encoding" in names and b"content-length" in names:
            raise BadRequest(400, "the request says in two ways how long it is")
        if request.method == b"CONNECT":
            return self._tunnel(request, names)
        return self._fetch(request)

    def _tunnel(self, request: h11.Request, names: set[bytes]) -> Asked:
        lengths = {value for name, value in request.headers if name == b"content-length"}
        if b"transfer-encoding" in names or lengths - {b"0"}:
            raise BadRequest(400, "a CONNECT request has no body")
        try:
            to = destination(request.target.decode("ascii"))
        except ValueError as error:
            raise BadRequest(400, f"CONNECT needs host:port: {error}") from None
        self._connection.next_event()
        return Asked(to, Tunnel(self._connection.trailing_data[0]))

    def _fetch(self, request: h11.Request) -> Asked:
        target = request.target.decode("ascii")
        if target[:7].lower() != "http://":
            raise BadRequest(
                400, "this is a proxy: it takes CONNECT host:port, and requests whose target is http://..."
            )
        try:
            parts = urlsplit(target)
            to = destination(parts.netloc, 80)
        except ValueError as error:
            raise BadRequest(400, f"the request's target is no URL: {error}") from None
        path = parts.path or ("*" if request.method == b"OPTIONS" and not parts.query else "/")
        path += f"?{parts.query}" if parts.query else ""
        host = str(to) if to.port != 80 else str(to).removesuffix(":80")
        return Asked(to, Fetch(self._connection, request, path.encode("ascii"), host.encode("ascii")))


def answer(status: int, sentence: str) -> bytes:
    """A whole answer of the proxy's own, after which the connection ends."""
    body = sentence.encode("utf-8") + b"\n"
    return (
        b"HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
        b"Connection: close\r\n\r\n" % (status, _REASONS.get(status, b"Error"), len(body))
    ) + body


def _passed_on(event: h11.InformationalResponse | h11.Response) -> h11.InformationalResponse | h11.Response:
    headers = _end_to_end(event.headers.raw_items())
    if isinstance(event, h11.InformationalResponse):
        return h11.InformationalResponse(status_code=event.status_code, headers=headers, reason=event.reason)
    headers.append((b"Connection", b"close"))
    return h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)


def _end_to_end(headers: Iterable[tuple[bytes, bytes]], drop_host: bool = False) -> list[tuple[bytes, bytes]]:
    """The fields that concern more than this hop."""
    fields = list(headers)
    named = {
        word.strip(b" \t")
        for name, value in fields
        if name.lower() == b"connection"
        for word in value.lower().split(b",")
    }
    dropped = _HOP_BY_HOP | (named - _FRAMING) | ({b"host"} if drop_host else set())
    return [field for field in fields if field[0].lower() not in dropped]
