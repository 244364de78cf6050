"""The engine's events: lines to records, and a stream that is asked for again whenever it breaks."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from uaihost.containers.watch import BACK_OFF, EVENT_LIMIT, EngineEvent, EngineEvents, parse
from uaihost.test.support import given, strategies

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


def line(action: str, task_id: str = "t1", **attributes: str) -> bytes:
    """As Docker 20.10 writes it."""
    return (
        json.dumps(
            {
                "status": action,
                "id": "0f",
                "from": "uai/task:1",
                "Type": "container",
                "Action": action,
                "Actor": {
                    "ID": "0f",
                    "Attributes": {"uaihost.host": "h", "uaihost.task": task_id, **attributes},
                },
                "scope": "local",
                "time": 1,
                "timeNano": 1_700_000_000_123_456_789,
            }
        ).encode()
        + b"\n"
    )


class ParseTests(TestCase):
    def test_an_end(self) -> None:
        self.assertEqual(parse(line("die", exitCode="137")), EngineEvent("t1", "die", 137, 1_700_000_000_123))
        self.assertEqual(parse(line("oom")), EngineEvent("t1", "oom", None, 1_700_000_000_123))

    def test_what_is_none_of_ours(self) -> None:
        for other in (b"", b"[]", b"{}", b"null", line("exec_start: sh"), b'{"Action": "die"}', b"[" * 99999):
            self.assertIsNone(parse(other))

    @given(strategies.binary(max_size=200))
    def test_anything(self, data: bytes) -> None:
        self.assertIsNone(parse(data))


class EngineEventsTests(TestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.said: list[Any] = []
        self.events = EngineEvents(self.reactor, "unix:///engine.sock", "h", self)

    # Listener

    def engine_heard(self, event: EngineEvent) -> None:
        self.said.append(event.action)

    def engine_found(self) -> None:
        self.said.append("found")

    def engine_lost(self) -> None:
        self.said.append("lost")

    def connect(self) -> Any:
        """The engine lets the last one in: the protocol that asks it."""
        address, factory, *_ = self.reactor.unixClients[-1]
        self.assertEqual(address, "/engine.sock")
        protocol = factory.buildProtocol(None)
        self.transport = StringTransport()
        protocol.makeConnection(self.transport)
        return protocol

    def test_it_asks_for_what_happens_to_the_containers_of_this_host(self) -> None:
        self.events.start()
        self.connect()
        asked = self.transport.value().split(b"\r\n")[0].decode()
        self.assertTrue(asked.startswith("GET /events?filters=%7B%22type%22"), asked)
        self.assertIn("uaihost.host%3Dh", asked)

    def test_events_however_they_are_cut(self) -> None:
        self.events.start()
        protocol = self.connect()
        data = HEAD + line("start") + line("oom") + line("die", exitCode="1")
        for at in range(len(data)):
            protocol.dataReceived(data[at : at + 1])
        self.assertEqual(self.said, ["found", "start", "oom", "die"])

    def test_it_comes_back_after_every_absence(self) -> None:
        self.events.start()
        protocol = self.connect()
        protocol.dataReceived(HEAD)
        protocol.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.said, ["found", "lost"])
        for delay in (*BACK_OFF, BACK_OFF[-1]):
            before = len(self.reactor.unixClients)
            self.reactor.advance(delay - 0.01)
            self.assertEqual(len(self.reactor.unixClients), before)
            self.reactor.advance(0.01)
            self.assertEqual(len(self.reactor.unixClients), before + 1)
            # Nobody listens there.
            *_, factory, _timeout, _check = self.reactor.unixClients[-1]
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.assertEqual(self.said, ["found", "lost"])
        self.reactor.advance(BACK_OFF[-1])
        self.connect().dataReceived(HEAD)
        self.assertEqual(self.said, ["found", "lost", "found"])

    def test_a_refusal_is_no_stream(self) -> None:
        self.events.start()
        protocol = self.connect()
        protocol.dataReceived(b"HTTP/1.0 500 Internal Server Error\r\n\r\n" + line("die"))
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)
        self.assertEqual(self.said, [])

    def test_a_line_without_an_end_is_not_collected(self) -> None:
        self.events.start()
        protocol = self.connect()
        protocol.dataReceived(HEAD + b"x" * (EVENT_LIMIT + 1))
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)

    def test_after_its_end_nothing_is_asked_or_told(self) -> None:
        self.events.start()
        protocol = self.connect()
        protocol.dataReceived(HEAD)
        self.events.stop()
        protocol.connectionLost(Failure(ConnectionLost()))
        self.reactor.advance(100)
        self.assertEqual((self.said, len(self.reactor.unixClients)), (["found"], 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
