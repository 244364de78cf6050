"""The link over time, with real Autobahn on both ends of a network in memory."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link.endpoint import OPEN_TIMEOUT, WebSocketEndpoint
from uaihost.link.link import RETRY_DELAYS, Hooks, Link, LinkState
from uaihost.link.outbound import Outbound
from uaihost.link.session import Greeting, Inbound, Session
from uaihost.link.socket import CLOSE_TIMEOUT
from uaihost.test.link.ends import BridgeEnd, MemoryJournal, MemoryStore, Network
from uaihost.wire.frames import (
    Auth,
    Capabilities,
    Command,
    EventFrame,
    HostCapabilities,
    SshKeyAck,
    SshKeyOk,
    TunnelData,
)

TOKEN = "T0KEN-of-the-host"


class Even(Random):
    """Always the middle of the range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.network = Network(self.clock)
        self.store = MemoryStore()
        self.journal = MemoryJournal(self.store)
        self.commands: list[Any] = []
        self.data: list[tuple[str, bytes]] = []
        self.connected: list[tuple[Session, Outbound]] = []
        self.lost: list[str] = []
        self.fatal: list[str] = []
        self.states: list[LinkState] = []
        self.events = self.enterContext(capturedLogs())
        self.link = self.make(Even())

    def lines(self) -> list[str]:
        return [eventAsText(event) for event in self.events]

    def make(self, random: Random, capabilities: Any = None) -> Link:
        return Link(
            self.clock,
            WebSocketEndpoint(self.clock, "ws://127.0.0.1:8789/host", self.network),
            Greeting(TOKEN, "host-1", capabilities or (lambda: Capabilities(agentKinds=[], runtimes=[]))),
            Inbound(
                {"command": self.commands.append},
                lambda tunnel_id, data: self.data.append((tunnel_id, data)),
                lambda message: None,
                lambda command_id, why: None,
            ),
            journal=self.journal,
            store=self.store,
            random=random,
            hooks=Hooks(
                connected=lambda session, outbound: self.connected.append((session, outbound)),
                lost=self.lost.append,
                fatal=self.fatal.append,
                changed=self.states.append,
            ),
        )

    def start(self) -> BridgeEnd:
        self.link.startService()
        self.network.flush()
        return self.network.bridges[-1]

    def test_it_says_who_it_is_as_soon_as_the_socket_is_open(self) -> None:
        bridge = self.start()
        self.assertEqual([type(frame) for frame in bridge.frames], [Auth, HostCapabilities])
        self.assertEqual((bridge.frames[0].token, bridge.frames[0].hostId), (TOKEN, "host-1"))
        self.assertEqual([state.name for state in self.states], ["connecting", "connected"])
        self.assertEqual(len(self.connected), 1)

    def test_both_ends_exchange_commands_and_tunnels(self) -> None:
        bridge = self.start()
        bridge.send(Command(commandId="c", command="taskStatus", args=["t"]))
        bridge.send(TunnelData(tunnelId="t1"))
        bridge.socket.send_message(b"down" * 50_000, True, False)
        self.connected[0][1].outlet("t1").write(b"up" * 50_000)
        self.network.flush()
        self.assertEqual([command.commandId for command in self.commands], ["c"])
        self.assertEqual(self.data, [("t1", b"down" * 50_000)])
        self.assertEqual(b"".join(bridge.binaries), b"up" * 50_000)

    def test_a_compressed_frame_arrives_whole(self) -> None:
        bridge = self.start()
        self.link.send(SshKeyOk(userId="u", publicKey="k" * 100_000))
        self.network.flush()
        self.assertEqual(bridge.said(SshKeyAck)[0].publicKey, "k" * 100_000)

    def test_many_small_frames_in_one_read_arrive_in_order(self) -> None:
        bridge = self.start()
        for number in range(3000):
            bridge.send(TunnelData(tunnelId="t"))
            bridge.socket.send_message(b"%d" % number, True, False)
        self.network.flush()
        self.assertEqual([data for _, data in self.data], [b"%d" % number for number in range(3000)])

    def test_waits_grow_and_begin_anew_when_a_connection_opened(self) -> None:
        self.network.error = ConnectionRefusedError()
        self.link.startService()
        expected = [self.clock.seconds()]
        for delay in (*RETRY_DELAYS, RETRY_DELAYS[-1], RETRY_DELAYS[-1]):
            self.assertEqual(
                (self.link.state.name, self.link.state.retry_at), ("waiting", expected[-1] + delay)
            )
            expected.append(expected[-1] + delay)
            self.network.advance(delay)
        self.assertEqual(self.network.attempts, expected)
        self.assertIn("refused", self.link.state.reason)
        self.assertEqual(self.link.apart, expected[0], "over all attempts")
        self.network.error = None
        self.network.advance(RETRY_DELAYS[-1])
        self.assertEqual((self.link.state.name, self.link.state.reason), ("connected", ""))
        self.assertIsNone(self.link.apart)
        self.network.cut()
        self.assertEqual(self.link.state.retry_at, self.clock.seconds() + RETRY_DELAYS[0])
        self.assertEqual(self.link.apart, self.clock.seconds())
        self.network.advance(RETRY_DELAYS[0])
        self.assertEqual(self.link.state.name, "connected")
        self.assertEqual(len(self.network.bridges), 2)

    def test_waits_are_scattered(self) -> None:
        self.link = self.make(Random(7))
        self.network.error = ConnectionRefusedError()
        self.link.startService()
        self.network.advance(600)
        waits = [state.retry_at - state.since for state in self.states if state.retry_at is not None]
        for wait, base in zip(waits, RETRY_DELAYS, strict=False):
            self.assertTrue(0.8 * base <= wait <= 1.2 * base, (wait, base))
        later = waits[4:]
        self.assertTrue(all(12 <= wait <= 18 for wait in later))
        self.assertGreater(len({round(wait, 3) for wait in later}), len(later) // 2)

    def test_a_rejection_is_fatal(self) -> None:
        bridge = self.start()
        bridge.socket.close(4001, "bad token")
        self.network.advance(3600)
        self.assertEqual(self.fatal, ["bad token"])
        self.assertEqual((self.link.state.name, self.link.state.reason), ("fatal", "bad token"))
        self.assertEqual(len(self.network.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.link.state.name, "fatal")

    def test_any_other_close_is_followed_by_another_attempt(self) -> None:
        for code in (1000, 1001, 1011, 4000, 4002):
            bridge = self.start() if not self.link.running else self.network.bridges[-1]
            bridge.socket.close(code, f"because {code}")
            self.network.advance(2)
            self.assertEqual((self.lost[-1], self.link.state.name), (f"because {code}", "connected"))
        self.assertEqual((len(self.network.bridges), self.fatal), (6, []))

    def test_a_bridge_that_falls_silent_is_left(self) -> None:
        self.network.pongs = False
        bridge = self.start()
        self.network.advance(46)
        self.assertEqual(bridge.closes, [(4000, "heartbeat timeout")])
        self.assertEqual(self.lost, ["heartbeat timeout"])
        self.network.advance(2)
        self.assertEqual(self.link.state.name, "connected")

    def test_a_bridge_that_does_not_even_close_is_left(self) -> None:
        self.start()
        # Nothing is carried any more.
        pump = self.network.pumps.pop()
        for _ in range(60):
            self.clock.advance(1)
        self.assertTrue(pump.clientIO.disconnecting)
        pump.clientIO.reportDisconnect()
        self.assertEqual(self.lost, ["heartbeat timeout"])
        self.assertEqual(self.link.state.name, "waiting")

    def test_a_living_bridge_is_not_left(self) -> None:
        self.start()
        self.network.advance(600)
        self.assertEqual((self.lost, len(self.network.bridges)), ([], 1))

    def test_a_bridge_that_says_it_closes_and_does_not_is_left(self) -> None:
        bridge = self.start()
        bridge.socket.sendCloseFrame(code=1012, reasonUtf8=b"restart")
        # The bridge never reads the answer.
        pump = self.network.pumps.pop()
        self.link_reads(pump)
        for _ in range(int(CLOSE_TIMEOUT)):
            self.clock.advance(1)
        self.assertTrue(pump.clientIO.disconnecting)

    def link_reads(self, pump: Any) -> None:
        pump.clientIO.bufferReceived(pump.serverIO.getOutBuffer())

    def test_an_opening_that_takes_too_long_is_given_up(self) -> None:
        self.network.silent = True
        self.link.startService()
        self.network.advance(OPEN_TIMEOUT)
        self.assertEqual(self.network.cancelled, 1)
        self.assertEqual(self.link.state.name, "waiting")
        self.assertIn("did not answer within 20 s", self.link.state.reason)

    def test_a_connection_that_never_opens_is_given_up(self) -> None:
        self.link.startService()
        # TCP stands, and the handshake is not answered.
        pump = self.network.pumps.pop()
        for _ in range(int(OPEN_TIMEOUT)):
            self.clock.advance(1)
        self.assertTrue(pump.clientIO.disconnecting)
        self.assertEqual(self.link.state.name, "waiting")
        pump.clientIO.reportDisconnect()
        self.assertEqual((self.link.state.name, self.connected, self.lost), ("waiting", [], []))

    def test_a_connection_cut_before_it_opened_is_another_attempt(self) -> None:
        self.link.startService()
        pump = self.network.pumps.pop()
        pump.clientIO.reportDisconnect()
        self.assertEqual((self.link.state.name, self.connected, self.lost), ("waiting", [], []))
        self.network.advance(1)
        self.assertEqual(self.link.state.name, "connected")

    def test_an_answer_that_is_no_websocket_is_another_attempt(self) -> None:
        self.link.startService()
        pump = self.network.pumps.pop()
        pump.clientIO.bufferReceived(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        pump.clientIO.reportDisconnect()
        self.assertEqual(self.link.state.name, "waiting")
        self.assertIn("502", self.link.state.reason)

    def test_capabilities_that_fail_are_another_attempt(self) -> None:
        answers = [ZeroDivisionError("no registry"), None]

        def capabilities() -> Capabilities:
            if error := answers.pop(0):
                raise error
            return Capabilities(agentKinds=[], runtimes=[])

        self.link = self.make(Even(), capabilities)
        self.start()
        self.assertEqual((self.link.state.name, self.link.state.reason), ("waiting", "no registry"))
        self.network.advance(1)
        self.assertEqual(self.link.state.name, "connected")

    def test_rows_are_sent_again_after_a_cut_and_once_when_they_were_read(self) -> None:
        bridge = self.start()
        self.journal.add(b'{"n":1}')
        self.network.advance(1)
        self.assertEqual(self.store.depth(), 0)
        self.journal.add(b'{"n":2}')
        self.network.cut()
        self.journal.add(b'{"n":3}')
        self.network.advance(1)
        again = self.network.bridges[-1]
        self.assertEqual([frame.event["n"] for frame in bridge.said(EventFrame)], [1, 2])
        self.assertEqual(
            [frame.event for frame in again.said(EventFrame)], [{"seq": 2, "n": 2}, {"seq": 3, "n": 3}]
        )
        self.network.advance(1)
        self.assertEqual(self.store.depth(), 0)
        self.network.cut()
        self.network.advance(2)
        self.assertEqual(self.network.bridges[-1].said(EventFrame), [])

    def test_greetings_come_before_rows(self) -> None:
        self.journal.add(b"{}")
        bridge = self.start()
        self.assertEqual([type(frame) for frame in bridge.frames], [Auth, HostCapabilities, EventFrame])

    def test_new_capabilities_are_sent(self) -> None:
        self.link.advertise()
        bridge = self.start()
        self.link.advertise()
        self.network.flush()
        self.assertEqual(len(bridge.said(HostCapabilities)), 2)

    def test_a_stop_drains_closes_and_leaves_nothing(self) -> None:
        bridge = self.start()
        self.journal.add(b'{"kind":"result","commandId":"c","result":{"ok":true,"value":1}}', "result")
        draining = Deferred.fromCoroutine(self.link.drain())
        self.network.flush()
        self.assertTrue(self.successResultOf(draining))
        self.assertEqual(self.store.depth(), 0)
        stopping = self.link.stopService()
        self.network.flush()
        self.successResultOf(stopping)
        self.assertEqual(bridge.closes, [(1001, "host shutting down")])
        self.assertEqual(self.link.state.name, "stopped")
        self.network.advance(3600)
        self.assertEqual((len(self.network.attempts), self.clock.getDelayedCalls()), (1, []))

    def test_draining_is_bounded(self) -> None:
        self.network.pongs = False
        self.start()
        self.journal.add(b"{}")
        draining = Deferred.fromCoroutine(self.link.drain())
        self.network.advance(4)
        self.assertNoResult(draining)
        self.network.advance(1)
        self.assertFalse(self.successResultOf(draining))
        self.assertEqual(self.store.depth(), 1)

    def test_a_stop_does_not_wait_for_a_bridge_that_does_not_answer(self) -> None:
        self.start()
        pump = self.network.pumps.pop()
        stopping = self.link.stopService()
        for _ in range(int(CLOSE_TIMEOUT)):
            self.assertNoResult(stopping)
            self.clock.advance(1)
        self.assertTrue(pump.clientIO.disconnecting)
        pump.clientIO.reportDisconnect()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_held_socket_can_still_be_stopped(self) -> None:
        self.start()
        self.connected[0][0].hold("slow upstream")
        stopping = self.link.stopService()
        self.network.flush()
        self.successResultOf(stopping)

    def test_a_stop_while_connecting_and_one_while_waiting(self) -> None:
        self.network.silent = True
        self.link.startService()
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.network.cancelled, 1)
        self.network.silent = False
        self.network.error = ConnectionRefusedError()
        self.link.startService()
        self.assertEqual(self.link.state.name, "waiting")
        self.successResultOf(self.link.stopService())
        self.assertEqual((self.link.state.name, self.clock.getDelayedCalls()), ("stopped", []))

    def test_a_stop_that_follows_another_at_once(self) -> None:
        self.start()
        again: list[Deferred[None]] = []
        first = self.link.stopService()
        first.addCallback(lambda result: again.append(self.link.stopService()))
        second = self.link.stopService()
        self.assertNoResult(second)
        self.network.flush()
        for stopping in (first, second, *again):
            self.successResultOf(stopping)
        self.assertEqual([state.name for state in self.states], ["connecting", "connected", "stopped"])

    def test_hooks_that_fail_end_nothing(self) -> None:
        def broken(*args: object) -> None:
            raise ZeroDivisionError

        self.link._hooks = Hooks(connected=broken, lost=broken, changed=broken)
        self.start()
        self.network.cut()
        self.network.advance(1)
        self.assertEqual(self.link.state.name, "connected")
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 3)

    def test_the_token_is_never_logged(self) -> None:
        bridge = self.start()
        bridge.socket.send_message(b"rubbish", False, False)
        self.network.cut()
        self.network.advance(1)
        self.network.bridges[-1].socket.close(4001, "no")
        self.network.flush()
        self.assertGreater(len(self.lines()), 3)
        self.assertNotIn(TOKEN, "\n".join(self.lines()))
        self.assertNotIn(TOKEN, repr(vars(self.link)))

    def test_a_message_beyond_the_limit_ends_the_connection_of_its_sender(self) -> None:
        bridge = self.start()
        self.patch(bridge.socket, "maxMessagePayloadSize", 0)
        from uaihost.link import socket

        self.patch(socket, "MAX_MESSAGE", 1 << 40)
        client = self.network.pumps[-1].client
        self.patch(client, "maxMessagePayloadSize", 1000)
        bridge.socket.send_message(b"x" * 1001, True, False)
        self.network.flush()
        self.assertEqual(self.link.state.name, "waiting")
        self.assertIn("exceeds payload limit", self.link.state.reason)

    def test_a_message_of_ours_beyond_the_limit_is_dropped_and_said(self) -> None:
        from uaihost.link import socket

        bridge = self.start()
        self.patch(socket, "MAX_MESSAGE", 1000)
        self.connected[0][1].control(b"x" * 1001)
        self.link.advertise()
        self.network.flush()
        self.assertEqual(len(bridge.frames), 3)
        self.assertTrue(any("1001 bytes" in line for line in self.lines()))
