"""Connections of a task: joined, paused, half closed, refused, limited and ended."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.dial import Dialler
from uaihost.egress.heads import Tunnel
from uaihost.egress.names import Destination
from uaihost.egress.policy import Policy
from uaihost.egress.proxy import (
    DIAL_TIMEOUT,
    DRAIN,
    HEAD_TIMEOUT,
    LINGER,
    MOST,
    MOST_OF_TASK,
    SILENCE,
    Door,
    Doors,
)
from uaihost.egress.refusals import Refusals
from uaihost.test.egress.wires import Names, Wire, accept, dialled, refuse

CONNECT = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"
GET = b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.told: list[tuple[str, Destination, str]] = []
        self.names = Names(a_example=["8.8.8.8"], inside_example=["169.254.169.254"])
        policy = Policy("deny", ["a.example", "inside.example"])
        self.doors = Doors(
            self.reactor,
            Dialler(self.reactor, policy, self.names),
            Refusals(self.reactor, lambda *what: self.told.append(what)),
            descriptors=20_000,
        )
        self.door = Door("t1", self.doors)

    def client(self, door: Door | None = None) -> Wire:
        wire = Wire()
        wire.protocol = (door or self.door).buildProtocol(UNIXAddress(""))
        wire.protocol.makeConnection(wire)
        return wire

    def joined(self, request: bytes = CONNECT) -> tuple[Wire, Wire]:
        client = self.client()
        client.protocol.dataReceived(request)
        server = accept(self.reactor)
        if request == CONNECT:
            self.assertEqual(client.taken(), b"HTTP/1.1 200 Connection established\r\n\r\n")
        return client, server


class TunnelTests(ProxyCase):
    def test_bytes_go_both_ways(self) -> None:
        client, server = self.joined()
        self.assertEqual(dialled(self.reactor), [("8.8.8.8", 443)])
        client.protocol.dataReceived(b"hello")
        self.assertEqual(server.taken(), b"hello")
        server.protocol.dataReceived(b"world!")
        self.assertEqual(client.taken(), b"world!")
        traffic = self.doors.traffic
        self.assertEqual((traffic.allowed, traffic.blocked, traffic.sent), (1, 0, 5))
        self.assertEqual(traffic.received, 6 + len(b"HTTP/1.1 200 Connection established\r\n\r\n"))

    def test_what_came_with_the_request_is_kept(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT + b"SSH-2.0-x\r\n")
        self.assertTrue(client.paused)
        server = accept(self.reactor)
        self.assertFalse(client.paused)
        self.assertEqual(server.taken(), b"SSH-2.0-x\r\n")

    def test_a_slow_side_pauses_the_other(self) -> None:
        client, server = self.joined()
        self.assertIs(client.producer, server)
        self.assertIs(server.producer, client)
        self.assertTrue(client.streaming and server.streaming)
        # What the client's socket does while more waits to leave than its buffer holds.
        producer: Any = client.producer
        producer.pauseProducing()
        self.assertTrue(server.paused)
        self.assertFalse(client.paused)
        producer.resumeProducing()
        self.assertFalse(server.paused)

    def test_the_client_ends_first(self) -> None:
        client, server = self.joined()
        client.protocol.readConnectionLost()
        self.assertTrue(server.ended)
        # A socket at its end must not be read again.
        self.assertIsNone(server.producer)
        server.protocol.dataReceived(b"late")
        self.assertEqual(client.taken(), b"late")
        server.protocol.readConnectionLost()
        self.assertTrue(client.closed and server.closed)
        self.assertFalse(client.aborted or server.aborted)

    def test_the_server_ends_first(self) -> None:
        client, server = self.joined()
        server.protocol.readConnectionLost()
        self.assertTrue(client.ended)
        self.assertIsNone(client.producer)
        client.protocol.dataReceived(b"late")
        self.assertEqual(server.taken(), b"late")
        client.protocol.readConnectionLost()
        self.assertTrue(client.closed and server.closed)
        self.assertFalse(client.aborted or server.aborted)

    def test_a_broken_side_ends_the_other(self) -> None:
        client, server = self.joined()
        client.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(server.aborted)
        client, server = self.joined()
        server.protocol.connectionLost(Failure(ConnectionLost()))
        self.assertTrue(client.closed)

    def test_nothing_is_left_behind(self) -> None:
        client, server = self.joined()
        client.protocol.readConnectionLost()
        server.protocol.readConnectionLost()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual((self.doors.open, self.door.clients), (0, set()))


class FetchTests(ProxyCase):
    def test_one_exchange(self) -> None:
        client, server = self.joined(GET)
        self.assertEqual(server.taken(), b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
        server.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual(
            client.taken(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab"
        )
        self.assertTrue(client.closed and server.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_client_that_ends_its_half_gets_its_answer(self) -> None:
        client, server = self.joined(GET)
        client.protocol.readConnectionLost()
        self.assertFalse(server.ended or server.closed)
        server.protocol.dataReceived(b"HTTP/1.1 204 None\r\n\r\n")
        self.assertEqual(client.taken(), b"HTTP/1.1 204 None\r\nConnection: close\r\n\r\n")
        self.assertTrue(client.closed)

    def test_a_server_that_answers_nothing(self) -> None:
        for reset in (False, True):
            client, server = self.joined(GET)
            if reset:
                server.protocol.connectionLost(Failure(ConnectionLost()))
            else:
                server.protocol.readConnectionLost()
            self.assertTrue(client.taken().startswith(b"HTTP/1.1 502 "))
            self.assertTrue(client.ended)

    def test_a_server_that_speaks_something_else(self) -> None:
        client, server = self.joined(GET)
        server.protocol.dataReceived(b"SSH-2.0-OpenSSH\r\n\r\n")
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 502 "))
        self.assertTrue(server.aborted)

    def test_an_answer_cut_short_is_cut_short(self) -> None:
        client, server = self.joined(GET)
        server.protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
        client.taken()
        server.protocol.readConnectionLost()
        self.assertTrue(client.aborted)
        self.assertEqual(client.taken(), b"")

    def test_a_body_that_is_not_as_announced(self) -> None:
        client, server = self.joined(
            b"POST http://a.example/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.protocol.dataReceived(b"no chunk\r\n")
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(server.aborted)


class RefusalTests(ProxyCase):
    def test_a_blocked_name(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT.replace(b"a.example", b"evil.example"))
        said = client.taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 403 "))
        self.assertIn(b"evil.example:443 is blocked: the egress policy `deny` does not list it.", said)
        task, to, why = self.told[0]
        self.assertEqual((task, to), ("t1", Destination("evil.example", 443)))
        self.assertIn(why.encode(), said)
        self.assertEqual((self.names.asked, self.doors.traffic.blocked), ([], 1))

    def test_a_name_that_leads_to_metadata(self) -> None:
        client = self.client()
        client.protocol.dataReceived(GET.replace(b"a.example", b"inside.example"))
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 403 "))
        self.assertEqual(dialled(self.reactor), [])
        self.assertEqual(self.told[0][1], Destination("inside.example", 80))

    def test_it_is_told_once_and_counted_each_time(self) -> None:
        for _ in range(3):
            self.client().protocol.dataReceived(CONNECT.replace(b"a.example", b"evil.example"))
        self.assertEqual((len(self.told), self.doors.traffic.blocked), (1, 3))

    def test_a_client_that_still_sends_is_heard_out(self) -> None:
        client = self.client()
        client.protocol.dataReceived(
            b"PUT http://evil.example/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n"
        )
        self.assertTrue(client.ended)
        self.assertFalse(client.closed or client.paused)
        client.protocol.dataReceived(b"x" * 99)
        client.protocol.readConnectionLost()
        self.assertTrue(client.closed)
        self.assertFalse(client.aborted)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_but_not_for_long(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT.replace(b"a.example", b"evil.example"))
        self.reactor.advance(LINGER)
        self.assertTrue(client.aborted)

    def test_what_is_no_request(self) -> None:
        client = self.client()
        client.protocol.dataReceived(b"\x16\x03\x01\x00\r\n\r\n")
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 400 "))
        self.assertEqual((self.told, self.doors.traffic.blocked), ([], 0))

    def test_a_destination_that_does_not_answer(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT)
        refuse(self.reactor, ConnectionRefusedError())
        said = client.taken()
        self.assertTrue(said.startswith(b"HTTP/1.1 502 "))
        self.assertIn(b"a.example:443 does not answer", said)
        self.assertEqual((self.told, self.doors.traffic.failed), ([], 1))

    def test_a_defect_costs_one_connection(self) -> None:
        def fail(self: Tunnel) -> tuple[bytes, bytes]:
            raise RuntimeError("defect")

        undo = self.patch(Tunnel, "begin", fail)
        client = self.client()
        client.protocol.dataReceived(CONNECT)
        server = accept(self.reactor)
        self.assertTrue(client.aborted and server.aborted)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        undo.restore()
        self.joined()


class LimitTests(ProxyCase):
    def test_a_head_that_does_not_come(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT[:-2])
        self.reactor.advance(HEAD_TIMEOUT)
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 408 "))
        self.reactor.advance(LINGER)
        self.assertTrue(client.closed)

    def test_a_destination_that_says_nothing(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT)
        self.reactor.advance(DIAL_TIMEOUT)
        self.assertTrue(client.taken().startswith(b"HTTP/1.1 504 "))
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)

    def test_a_client_that_leaves_while_it_is_dialled_for(self) -> None:
        client = self.client()
        client.protocol.dataReceived(CONNECT)
        client.abortConnection()
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silence(self) -> None:
        client, server = self.joined()
        self.reactor.advance(SILENCE - 1)
        server.protocol.dataReceived(b"x")
        self.reactor.advance(SILENCE - 1)
        self.assertFalse(client.closed)
        self.reactor.advance(1)
        self.assertTrue(client.aborted and server.aborted)

    def test_last_bytes_that_nobody_takes(self) -> None:
        client, server = self.joined()
        # Sockets with something left to send close later.
        client.loseConnection = server.loseConnection = lambda: None  # type: ignore[method-assign]
        client.protocol.readConnectionLost()
        server.protocol.readConnectionLost()
        self.assertFalse(client.closed or server.closed)
        self.reactor.advance(DRAIN)
        self.assertTrue(client.aborted and server.aborted)

    def test_too_many_connections_of_a_task(self) -> None:
        clients = [self.client() for _ in range(MOST_OF_TASK)]
        over = self.client()
        self.assertTrue(over.taken().startswith(b"HTTP/1.1 503 "))
        self.assertTrue(over.closed)
        other = self.client(Door("t2", self.doors))
        self.assertFalse(other.closed)
        clients[0].protocol.readConnectionLost()
        self.assertFalse(self.client().closed)

    def test_too_many_connections_of_all(self) -> None:
        self.doors.most = 3
        doors = [Door(f"t{number}", self.doors) for number in range(4)]
        clients = [self.client(door) for door in doors]
        self.assertEqual([client.closed for client in clients], [False, False, False, True])

    def test_tasks_leave_the_daemon_its_descriptors(self) -> None:
        for descriptors, most, of_task in ((1024, 128, 64), (256, 32, 16), (1 << 20, MOST, MOST_OF_TASK)):
            doors = Doors(self.reactor, self.doors.dialler, self.doors.refusals, descriptors)
            self.assertEqual((doors.most, doors.most_of_task), (most, of_task))

    def test_a_task_is_cut_off(self) -> None:
        client, server = self.joined()
        asking = self.client()
        other = self.client(Door("t2", self.doors))
        self.door.close()
        self.assertTrue(client.aborted and server.aborted and asking.aborted)
        self.assertFalse(other.closed)
        # One that the system had accepted already.
        self.assertTrue(self.client().aborted)
        self.assertEqual(self.doors.open, 1)
