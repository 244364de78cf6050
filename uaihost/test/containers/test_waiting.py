"""Engine calls over the reactor, in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from uaihost.containers.waiting import HEAD_LIMIT, Waiting, frames
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, strategies


def framed(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


class FrameTests(TestCase):
    @given(strategies.lists(strategies.tuples(strategies.sampled_from([0, 1, 2]), strategies.binary())))
    def test_streams_are_told_apart(self, pieces: list[tuple[int, bytes]]) -> None:
        out, err = frames(b"".join(framed(*piece) for piece in pieces))
        self.assertEqual(out, b"".join(data for stream, data in pieces if stream == 1))
        self.assertEqual(err, b"".join(data for stream, data in pieces if stream == 2))

    @given(strategies.binary())
    def test_anything_is_read_to_its_end(self, data: bytes) -> None:
        out, err = frames(data)
        self.assertLessEqual(len(out) + len(err), len(data))

    def test_a_cut_frame_is_left_out(self) -> None:
        self.assertEqual(frames(framed(1, b"abc") + framed(1, b"def")[:-1]), (b"abc", b""))


class RequestTests(TestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def ask(self, body: Any = None, limit: int = 1000) -> tuple[Deferred[bytes], Any, StringTransport]:
        waiting = Waiting(self.reactor, "unix:///run/x.sock")
        asked = Deferred.fromCoroutine(waiting.request("POST", "/exec/1/start", body, timeout=5, limit=limit))
        path, factory = self.reactor.unixClients[-1][:2]
        self.assertEqual(path, "/run/x.sock")
        protocol, transport = factory.buildProtocol(None), StringTransport()
        protocol.makeConnection(transport)
        return asked, protocol, transport

    def end(self, protocol: Any, *pieces: bytes) -> None:
        for piece in pieces:
            protocol.dataReceived(piece)
        protocol.connectionLost(Failure(ConnectionDone()))

    def refused(self, asked: Deferred[bytes]) -> HostError:
        error = self.failureResultOf(asked, HostError).value
        assert isinstance(error, HostError)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return error

    def test_the_body_up_to_the_end(self) -> None:
        asked, protocol, transport = self.ask({"Tty": False})
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"POST /exec/1/start HTTP/1.0\r\n"))
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertEqual(json.loads(body), {"Tty": False})
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\none\r\n\r\ntwo"
        self.end(protocol, *(bytes([byte]) for byte in answer))
        self.assertEqual(self.successResultOf(asked), b"one\r\n\r\ntwo")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_refusals_have_codes(self) -> None:
        for status, code in (
            (404, ErrorCode.NOT_FOUND),
            (409, ErrorCode.CONFLICT),
            (500, ErrorCode.UNAVAILABLE),
        ):
            asked, protocol, _ = self.ask()
            self.end(protocol, b'HTTP/1.0 %d No\r\n\r\n{"message": "because"}' % status)
            error = self.refused(asked)
            self.assertEqual(error.code, code)
            self.assertIn("because", error.message)

    def test_no_answer_at_all(self) -> None:
        for data in (b"", b"HTTP/1.0 200", b"rubbish\r\n\r\n"):
            asked, protocol, _ = self.ask()
            self.end(protocol, data)
            self.assertEqual(self.refused(asked).code, ErrorCode.UNAVAILABLE)

    def test_the_time_out_ends_the_connection(self) -> None:
        asked, _, transport = self.ask()
        self.reactor.advance(4.9)
        self.assertNoResult(asked)
        self.reactor.advance(0.2)
        self.assertEqual(self.refused(asked).code, ErrorCode.TIMEOUT)
        self.assertTrue(transport.disconnected)

    def test_too_much_ends_the_connection(self) -> None:
        asked, protocol, transport = self.ask(limit=1000)
        protocol.dataReceived(b"HTTP/1.0 200 OK\r\n\r\n")
        protocol.dataReceived(b"x" * (1000 + HEAD_LIMIT))
        self.assertEqual(self.refused(asked).code, ErrorCode.TOO_LARGE)
        self.assertTrue(transport.disconnected)

    def test_nobody_there(self) -> None:
        waiting = Waiting(self.reactor, "unix:///run/x.sock")
        asked = Deferred.fromCoroutine(waiting.request("GET", "/", None, timeout=5, limit=10))
        self.reactor.unixClients[0][1].clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assertIn("start Docker", self.refused(asked).message)

    def test_only_addresses_that_can_stream(self) -> None:
        asked = Waiting(self.reactor, "ssh://box").request("GET", "/", None, timeout=5, limit=10)
        error = self.failureResultOf(asked, HostError).value
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
