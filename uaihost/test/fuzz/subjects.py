"""What is fuzzed, and what must hold of it whatever comes in.

A subject takes an input in pieces and raises nothing but AssertionError, when something does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from uaihost.egress.heads import Asked, BadRequest, BadResponse, Fetch, RequestReader
from uaihost.egress.names import destination
from uaihost.tunnels.chunked import LAST, LINE_LIMIT, ChunkedDecoder, chunk
from uaihost.tunnels.head import HEAD_LIMIT, HeadReader, ResponseHead
from uaihost.tunnels.response import BadHead, BlockReader, RawHead, framing, read_head, response_reader
from uaihost.wire import codec, mux
from uaihost.wire.frames import TunnelAck


@attrs.frozen
class Subject:
    """check: an input whole and in pieces; its result says which way it took, for the count of ways."""

    name: str
    seeds: list[bytes]
    check: Callable[[bytes, list[bytes]], str]


def _heads(reader: BlockReader[Any], pieces: list[bytes]) -> tuple[list[Any], bytes, str]:
    """All heads in the pieces, what is left after the last one, and why it ended."""
    found: list[Any] = []
    since = b""
    for piece in pieces:
        since += piece
        try:
            while (part := reader.feed(piece)) is not None:
                found.append(part[0])
                piece = since = part[1]
                if not piece:
                    break
        except BadHead as error:
            return found, b"", str(error)
    return found, since, ""


def response(data: bytes, pieces: list[bytes]) -> str:
    whole = _heads(response_reader(), [data] if data else [])
    cut = _heads(response_reader(), pieces)
    assert whole[0] == cut[0] and bool(whole[2]) == bool(cut[2]), "the pieces matter"
    assert whole[2] or len(whole[1]) <= HEAD_LIMIT + 4, "too much is kept"
    way = whole[2] or "heads"
    for head in whole[0]:
        assert isinstance(head, RawHead) and 100 <= head.status <= 999
        for name, value in head.fields:
            assert name and not set(name) & set(" \t\r\n:\0"), "an illegal name"
            assert not set(value) & set("\r\n\0\x0b\x0c") and value == value.strip(" \t"), "an illegal value"
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.fields)
        again = f"HTTP/1.{head.minor} {head.status} {head.reason}\r\n{lines}\r\n".encode("latin-1")
        assert read_head(again) == head, "not the same when written and read again"
        try:
            body = framing(head, b"GET")
        except BadHead as error:
            way = str(error)
            continue
        names = [name.lower() for name, _ in body.fields]
        assert names.count("content-length") <= 1, "two lengths are passed on"
        assert not (body.chunked and "content-length" in names), "a length beside a coding is passed on"
        assert body.length is None or 0 <= body.length < 10**19
        assert body.chunked or body.length is not None or not body.persistent
    return way


def raw_head(data: bytes, pieces: list[bytes]) -> str:
    whole = _heads(HeadReader(), [data] if data else [])
    cut = _heads(HeadReader(), pieces)
    assert whole[0] == cut[0] and whole[2] == cut[2], "the pieces matter"
    for head in whole[0]:
        assert isinstance(head, ResponseHead) and not any(
            "\n" in value for pair in head.headers for value in pair
        )
    return whole[2] or f"{min(len(whole[0]), 3)} heads"


def _decoded(pieces: list[bytes]) -> tuple[bytes, ChunkedDecoder]:
    decoder = ChunkedDecoder()
    content = bytearray()
    for piece in pieces:
        if decoder.done:
            decoder.rest += piece
        elif not decoder.failed:
            slices = decoder.feed(piece)
            # A slice takes four bytes of its chunk at least, and each slice one step.
            assert len(slices) <= len(piece) // 4 + 2, "more steps than bytes allow"
            assert b"" not in slices, "a slice of nothing"
            content += b"".join(slices)
            assert len(decoder._kept) <= LINE_LIMIT, "too much is kept"
    return bytes(content), decoder


def chunks(data: bytes, pieces: list[bytes]) -> str:
    content, whole = _decoded([data])
    again, cut = _decoded(pieces)
    assert (content, whole.done, bool(whole.failed)) == (again, cut.done, bool(cut.failed)), (
        "the pieces matter"
    )
    assert (whole.rest, whole.trailers) == (cut.rest, cut.trailers), "the pieces matter at the end"
    assert not (whole.done and whole.failed) and len(content) <= len(data)
    if content:
        rewritten, decoder = _decoded([b"".join(chunk(content)) + LAST])
        assert rewritten == content and decoder.done, "not the same when written and read again"
    return whole.failed or ("done" if whole.done else "unfinished")


_READERS: dict[int, Callable[[bytes], object]] = {
    mux.OPEN: mux.read_open,
    mux.HEAD: mux.read_head,
    mux.END: mux.read_trailers,
    mux.RESET: mux.read_reset,
    mux.CREDIT: mux.read_credit,
}


def messages(data: bytes, pieces: list[bytes]) -> str:
    written = b""
    ways: list[str] = []
    try:
        for kind, tunnel, payload in mux.frames(data):
            written += mux.frame(kind, tunnel, payload)
            try:
                content = _READERS.get(kind, len)(payload)
            except mux.BadPayload:
                ways.append("!")
                continue
            ways.append(str(min(kind, 7)))
            if isinstance(content, mux.Open):
                assert mux.read_open(mux.open_frame(1, content)[mux.HEADER_SIZE :]) == content
            elif isinstance(content, mux.Head):
                assert mux.read_head(mux.head_frame(1, content)[mux.HEADER_SIZE :]) == content
            elif isinstance(content, mux.Reset):
                assert len(content.reason) <= mux.MAX_REASON
    except mux.BadMessage as error:
        assert data.startswith(written), "frames that were not sent"
        return str(error).split(" of ")[0]
    assert written == data, "not the same when written again"
    return "".join(sorted(set(ways)))


def frames_of_bridge(data: bytes, pieces: list[bytes]) -> str:
    return type(codec.from_bridge(data)).__name__


def frames_of_host(data: bytes, pieces: list[bytes]) -> str:
    frame = codec.from_host(data)
    if isinstance(frame, TunnelAck):
        assert codec.from_host(codec.encode(frame)) == frame, "not the same when written and read again"
    return type(frame).__name__


def proxy_request(data: bytes, pieces: list[bytes]) -> str:
    """A task's request to the proxy: where it leads, and what it makes us send there."""
    outcomes = []
    for parts in ([data] if data else [], pieces):
        reader, sent, way = RequestReader(), b"", "unfinished"
        asked: Asked | None = None
        try:
            for piece in filter(None, parts):
                if asked is not None:
                    sent += asked.carriage.from_client(piece)
                    continue
                asked = reader.feed(piece)
                if asked is not None:
                    way = type(asked.carriage).__name__
                    sent += asked.carriage.begin()[1]
        except BadRequest as error:
            way = f"{way} {error.status}"
        outcomes.append((asked and asked.to, way))
        if asked is None:
            assert not sent
            continue
        assert destination(str(asked.to)) == asked.to, "a destination in two spellings"
        if isinstance(asked.carriage, Fetch) and sent:
            head = sent.partition(b"\r\n\r\n")[0]
            assert head.count(b"\r\nHost: ") == 1 and b"\r\n " not in head, "not the head that was meant"
            assert f"\r\nHost: {str(asked.to).removesuffix(':80')}\r\n".encode() in head, "another host"
    assert outcomes[0] == outcomes[1], "the pieces matter"
    return outcomes[0][1]


def proxy_answer(data: bytes, pieces: list[bytes]) -> str:
    """A server's answer through the proxy."""
    told = []
    for parts in ([data] if data else [], pieces):
        asked = RequestReader().feed(_REQUESTS[1])
        assert asked is not None
        fetch, said, way = asked.carriage, asked.carriage.begin()[0], "unfinished"
        try:
            for piece in filter(None, parts):
                if not fetch.over:
                    said += fetch.from_server(piece)
            if not fetch.over:
                said += fetch.server_ended()
            way = "whole"
        except BadResponse:
            way = "refused"
        told.append(way)
        if way == "whole":
            assert b"\r\nConnection: close\r\n" in said, "the connection would be used again"
    assert told[0] == told[1], "the pieces matter"
    return told[0]


_HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b'HTTP/1.1 304\r\nETag: "x"\r\nConnection: close\r\n\r\n',
    b"HTTP/1.0 404 Not \xe9\r\nSet-Cookie: a=1\r\nset-cookie:\tb=2 \r\nX-Empty:\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x88\x02\x03\xe8",
    b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 2000 + b"\r\n\r\n",
]
_CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;name=value\r\nhello\r\nA\r\n0123456789\r\n0\r\nDigest: x\r\nB: c\r\n\r\nnext",
    b"1\r\n\r\r\n2\r\n\r\n\r\n000 \t\r\n\r\n",
    b"100\r\n" + b"z" * 256 + b"\r\n0\r\n\r\n",
]
_OPEN = (
    b'{"target":"preview","taskId":"t","name":"web","upgrade":false,'
    b'"reqLine":{"method":"GET","url":"/","headers":[["Host","x"]]}}'
)
_ACK = b'"ok":true,"status":200,"statusText":"OK","headers":[["A","b"]]}'
_MESSAGES = [
    mux.frame(mux.OPEN, 1, _OPEN),
    mux.frame(mux.HEAD, 1, b"{" + _ACK)
    + mux.frame(mux.DATA, 1, b"hello")
    + mux.end_frame(1, [("Digest", "x")]),
    mux.reset_frame(4294967295, mux.CANCELLED, "gone \xe9") + mux.credit_frame(0, 65536),
    mux.end_frame(1) + mux.frame(9, 7, b"unknown") + mux.credit_frame(3, mux.MAX_WINDOW),
]
_FROM_BRIDGE = [
    b'{"kind":"tunnel.open","tunnelId":"a",' + _OPEN[1:],
    b'{"kind":"command","commandId":"c","command":"taskUp","args":[{"a":[1,2.5,null,true]}]}',
    b'{"kind":"pong","ts":12.5}',
    b'{"kind":"tunnel.close","tunnelId":"a","reason":"\\u00e9"}',
    b'{"kind":"bridge.hello","features":["mux.1"]}',
]
_FROM_HOST = [
    b'{"kind":"tunnel.ack","tunnelId":"a",' + _ACK,
    b'{"kind":"result","commandId":"c","result":{"ok":true,"value":{"a":[1]}}}',
    b'{"kind":"event","event":{"type":"task.status","taskId":"t","at":1,"status":"running"}}',
    b'{"kind":"host.capabilities","capabilities":{"agentKinds":[],"runtimes":[],"features":["mux.1"]}}',
    b'{"kind":"auth","token":"t","hostId":"h"}',
]

_REQUESTS = [
    b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nUser-Agent: x\r\n\r\n\x16\x03\x01",
    b"GET http://a.example/x?y HTTP/1.1\r\nHost: b.example\r\nConnection: x\r\nX: 1\r\n\r\n",
    b"POST http://[::1]:8080/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"PUT http://0x7f.1/ HTTP/1.0\r\nContent-Length: 5\r\nProxy-Authorization: Basic x\r\n\r\nhello",
]

SUBJECTS = [
    Subject("response heads", _HEADS, response),
    Subject("raw heads", _HEADS, raw_head),
    Subject("chunked bodies", _CHUNKS, chunks),
    Subject("mux.1 messages", _MESSAGES, messages),
    Subject("frames of the bridge", _FROM_BRIDGE, frames_of_bridge),
    Subject("frames of the host", _FROM_HOST, frames_of_host),
    Subject("requests to the proxy", _REQUESTS, proxy_request),
    Subject("answers through the proxy", _HEADS, proxy_answer),
]
