"""A build's output and the conversation with the engine."""

from __future__ import annotations

import json
from typing import Any

import h11
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from uaihost.containers.image_build import LAST_LINES, LINE_LIMIT, SILENCE, BuildLog, _Answer
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.wire.reasons import Reason

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"


REQUEST = h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "3")])


class BuildLogTests(TestCase):
    def read(self, *streams: str) -> list[str | Doing]:
        self.log = BuildLog()
        return [said for text in streams for said in self.log.read({"stream": text})]

    def test_steps_have_a_text_and_a_share(self) -> None:
        said = self.read(
            "Step 1/4 : FROM x\n", " ---> 0123456789ab\n", "Step 3/4 : RUN  a  && b\n", "\n", "out\nmore\n"
        )
        self.assertEqual(
            said,
            [
                Doing(Reason.IMAGE_BUILDING, "FROM x", 0),
                "Step 1/4 : FROM x",
                Doing(Reason.IMAGE_BUILDING, "RUN a && b", 50),
                "Step 3/4 : RUN  a  && b",
                "out",
                "more",
            ],
        )
        self.assertEqual(self.log.layers, {"0123456789ab"})

    def test_a_failed_step_says_its_own_last_lines(self) -> None:
        self.read("Step 1/2 : FROM x\n", "old\n", "Step 2/2 : RUN y\n", "\x1b[91mE: no network\n\x1b[0m")
        error = self.assertRaises(HostError, list, self.log.read({"error": "non-zero code: 100\n"}))
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertTrue(error.message.endswith("lines:\nStep 2/2 : RUN y\nE: no network"), error.message)
        self.assertIn("non-zero code: 100.", error.message)
        self.assertNotIn("old", error.message)

    def test_last_lines_are_few(self) -> None:
        self.read("Step 1/1 : RUN y\n", *(f"line {n}\n" for n in range(99)))
        error = self.assertRaises(HostError, list, self.log.read({"error": "x"}))
        self.assertEqual(error.message.count("line "), LAST_LINES)

    def test_the_finished_image_is_known(self) -> None:
        self.read("Step 1/1 : FROM x\n")
        self.assertIsNone(self.log.image)
        self.assertEqual(list(self.log.read({"aux": {"ID": "sha256:1"}})), [])
        self.assertEqual(self.log.image, "sha256:1")


class AnswerTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.said: list[str | Doing] = []
        self.transport = StringTransport()
        self.answer = _Answer(self.clock, REQUEST, b"tar", self.said.append)
        self.answer.makeConnection(self.transport)

    def sends(self, *entries: dict[str, Any], head: bytes = OK) -> None:
        self.answer.dataReceived(head + b"".join(json.dumps(entry).encode() + b"\r\n" for entry in entries))

    def ends(self) -> None:
        self.answer.connectionLost(Failure(ConnectionDone()))

    def failure(self) -> HostError:
        error = self.failureResultOf(self.answer.done, HostError).value
        assert isinstance(error, HostError)
        self.ends()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return error

    def test_what_comes_in_pieces_is_said_as_it_comes(self) -> None:
        self.assertEqual(
            self.transport.value(), b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\ntar"
        )
        body = b'{"stream": "one\\n"}\r\n{"aux": {"ID": "sha256:1"}}\r\n'
        chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (5, body[:5], len(body) - 5, body[5:])
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        for at in range(len(whole)):
            self.answer.dataReceived(whole[at : at + 1])
            self.assertEqual(self.answer.done.called, at == len(whole) - 1)
        self.assertEqual(self.said, ["one"])
        self.assertTrue(self.transport.disconnected)
        self.ends()
        self.assertIsNone(self.successResultOf(self.answer.done))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_without_an_image_is_a_failure(self) -> None:
        for entries in ((), ({"stream": "half"},)):
            self.setUp()
            self.sends(*entries)
            self.ends()
            self.assertIn("ended the connection", self.failure().message)

    def test_a_refusal_is_passed_on(self) -> None:
        head = b"HTTP/1.1 500 Internal Server Error\r\n\r\n"
        self.sends({"message": "dockerfile parse error"}, head=head)
        self.assertIn("refused to build: dockerfile parse error", self.failure().message)
        self.assertTrue(self.transport.disconnected)

    def test_nothing_is_said_after_a_failure(self) -> None:
        self.sends({"error": "bad"}, {"stream": "later"}, {"error": "worse"})
        self.assertIn("bad", self.failure().message)
        self.assertEqual(self.said, [])

    def test_what_is_no_json_is_told(self) -> None:
        for line in (b"<html>\n", b"[1]\n", b"\xff\n"):
            self.setUp()
            self.answer.dataReceived(OK + line)
            self.assertIn("no JSON", self.failure().message)

    def test_what_is_no_http_or_has_no_end_is_told(self) -> None:
        self.answer.dataReceived(b"SSH-2.0-x\r\n\r\n")
        self.assertIn("does not speak HTTP", self.failure().message)
        self.setUp()
        self.answer.dataReceived(OK + b" " * (LINE_LIMIT + 1))
        self.assertIn("beyond all bounds", self.failure().message)

    def test_silence_ends_it_and_any_byte_is_a_sign(self) -> None:
        self.clock.advance(SILENCE - 1)
        self.sends()
        self.clock.advance(SILENCE - 1)
        self.assertNoResult(self.answer.done)
        self.clock.advance(1)
        self.assertEqual(self.failure().code, ErrorCode.TIMEOUT)

    def test_cancelled_it_leaves_the_engine(self) -> None:
        self.answer.done.cancel()
        self.failureResultOf(self.answer.done, CancelledError)
        self.assertTrue(self.transport.disconnected)
        self.ends()
        self.assertEqual(self.clock.getDelayedCalls(), [])
