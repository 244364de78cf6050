"""Hosts at the bridge: who is let in, what is done with their frames, and what with bad ones."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.bridge import store
from uaihost.bridge.hosts import AUTH_TIMEOUT, FEED_LIMIT, REFUSED, REPLACED
from uaihost.errors import ErrorCode, HostError
from uaihost.link.heartbeat import DEAD_AFTER
from uaihost.test.bridge.rig import TOKEN, BridgeCase


class AuthTests(BridgeCase):
    def test_any_of_the_tokens_lets_a_host_in(self) -> None:
        for number, token in enumerate((TOKEN, "token-2")):
            socket = self.open()
            socket.hear(kind="auth", token=token, hostId=f"h{number}")
            self.assertIsNone(socket.closed)
        self.assertEqual(self.hosts.connected_ids(), ["h0", "h1"])

    def test_a_wrong_token_is_refused_for_good_and_never_shown(self) -> None:
        for token in ("wrong", "", TOKEN + "x", TOKEN[:-1]):
            socket = self.open()
            socket.hear(kind="auth", token=token, hostId="h")
            assert socket.closed is not None
            self.assertEqual(socket.closed[0], REFUSED)
            if token:
                self.assertNotIn(token, socket.closed[1])
        self.assertEqual(self.hosts.connected_ids(), [])

    def test_the_first_frame_must_be_auth(self) -> None:
        for frame in ({"kind": "ping", "ts": 1}, {"kind": "auth", "token": TOKEN}, {"kind": "what"}, {}):
            socket = self.open()
            socket.hear(**frame)
            self.assertEqual(socket.closed, (REFUSED, "the first frame must be auth"))
        socket = self.open()
        socket.receiver.binary(b"x")
        self.assertEqual(socket.closed, (REFUSED, "the first frame must be auth"))

    def test_a_host_id_that_cannot_be_one_is_refused(self) -> None:
        for host_id in ("", "a b", "x" * 129, "../x"):
            socket = self.open()
            socket.hear(kind="auth", token=TOKEN, hostId=host_id)
            assert socket.closed is not None
            self.assertEqual(socket.closed[0], REFUSED)

    def test_auth_must_come_in_time(self) -> None:
        late, early = self.open(), self.open()
        early.hear(kind="auth", token=TOKEN, hostId="h")
        self.clock.advance(AUTH_TIMEOUT)
        self.assertEqual(late.closed, (REFUSED, "no auth within 10 s"))
        self.assertIsNone(early.closed)

    def test_what_a_refused_host_still_says_is_not_read(self) -> None:
        socket = self.open()
        socket.hear(kind="auth", token="wrong", hostId="h")
        socket.hear(kind="auth", token=TOKEN, hostId="h")
        self.assertEqual(self.hosts.connected_ids(), [])

    def test_a_second_connection_takes_the_place_of_the_first(self) -> None:
        first = self.connect()
        second = self.connect()
        assert first.closed is not None
        self.assertEqual(first.closed[0], REPLACED)
        self.assertIsNone(second.closed)
        first.receiver.closed(1000, "")
        self.assertEqual(self.hosts.connected_ids(), ["host-1"])
        second.receiver.closed(1000, "")
        self.assertEqual(self.hosts.connected_ids(), [])


class FrameTests(BridgeCase):
    def test_bad_frames_are_dropped_and_the_connection_kept(self) -> None:
        socket = self.connect()
        for payload in (
            b"not json",
            b"[]",
            b"{}",
            b'{"kind": "command", "commandId": "x", "command": "taskUp", "args": []}',
            b'{"kind": "ping"}',
            b'{"kind": "ping", "ts": "now"}',
            b'{"kind": "event"}',
            b'{"kind": "event", "event": 7}',
            b'{"kind": "event", "event": {"type": "task.status"}}',
            b'{"kind": "result", "result": {}}',
            b'{"kind": "tunnel.ack", "tunnelId": 1}',
            b'{"kind": "auth", "token": "x", "hostId": "y"}',
            b"[" * 100_000,
            '{"kind": "\u20ac"}'.encode(),
        ):
            socket.receiver.text(payload)
        socket.receiver.binary(b"nobody's")
        self.assertIsNone(socket.closed)
        socket.hear(kind="ping", ts=7)
        self.assertEqual(socket.sent[-1], {"kind": "pong", "ts": 7})

    def test_a_pong_repeats_the_pings_ts_exactly(self) -> None:
        socket = self.connect()
        for ts in (0, 1_700_000_000_123, 1.5):
            socket.hear(kind="ping", ts=ts)
            self.assertEqual(socket.sent[-1], {"kind": "pong", "ts": ts})

    def test_a_pong_waits_until_everything_before_it_is_stored(self) -> None:
        socket = self.connect()
        gate: Deferred[None] = Deferred()
        run = self.database.run

        async def slow(work: Any) -> Any:
            await gate
            return await run(work)

        self.patch(self.database, "run", slow)
        self.event(socket, "task.status", "t", 1, status="running")
        socket.hear(kind="ping", ts=1)
        self.assertNotIn({"kind": "pong", "ts": 1}, socket.sent)
        gate.callback(None)
        self.assertEqual(socket.sent[-1], {"kind": "pong", "ts": 1})

    def test_events_that_cannot_be_stored_end_the_connection_without_a_pong(self) -> None:
        socket = self.connect()

        async def broken(work: Any) -> Any:
            raise HostError(ErrorCode.UNAVAILABLE, "the disk is full")

        self.patch(self.database, "run", broken)
        self.event(socket, "task.status", "t", 1, status="running")
        socket.hear(kind="ping", ts=1)
        assert socket.closed is not None
        self.assertEqual(socket.closed[0], 1011)
        self.assertNotIn({"kind": "pong", "ts": 1}, socket.sent)
        self.assertTrue(self.flushLoggedErrors(HostError))

    def test_capabilities_are_remembered_and_replaced(self) -> None:
        socket = self.connect()
        self.assertEqual(self.hosts.capabilities("host-1")["agentKinds"][0]["kind"], "mock")
        socket.hear(
            kind="host.capabilities",
            capabilities={"agentKinds": [], "runtimes": [{"name": "python", "version": "3.11"}]},
        )
        socket.receiver.closed(1000, "")
        self.begin(self.database)
        (host,) = self.hosts.view()
        self.assertEqual((host["id"], host["connected"]), ("host-1", False))
        self.assertEqual(host["capabilities"]["runtimes"], [{"name": "python", "version": "3.11"}])

    def test_a_silent_host_is_taken_for_dead(self) -> None:
        socket = self.connect()
        for _ in range(int(DEAD_AFTER // 5) + 1):
            self.clock.advance(5)
        self.assertEqual(socket.closed, (4000, "heartbeat timeout"))

    def test_a_flood_of_events_is_held_until_they_are_stored(self) -> None:
        socket = self.connect()
        gate: Deferred[None] = Deferred()
        run = self.database.run

        async def slow(work: Any) -> Any:
            if not gate.called:
                await gate
            return await run(work)

        self.patch(self.database, "run", slow)
        for number in range(FEED_LIMIT + 2):
            self.event(socket, "channel.delta", "t", messageId="m", agentId="a", text=str(number))
        self.event(socket, "task.status", "t", 1, status="running")
        for number in range(FEED_LIMIT + 2):
            self.event(socket, "channel.delta", "t", messageId="m", agentId="a", text=str(number))
        self.assertFalse(socket.reading)
        gate.callback(None)
        self.assertTrue(socket.reading)


class EventTests(BridgeCase):
    def test_events_are_stored_and_told_in_order(self) -> None:
        socket = self.connect()
        author = {"kind": "user", "id": "user", "label": "user"}
        self.event(socket, "channel.message", "t", 1, messageId="m1", author=author, text="hello")
        self.event(socket, "channel.delta", "t", messageId="m2", agentId="mock", text="hi")
        self.event(socket, "channel.message", "t", 2, messageId="m2", author=author, text="hi")
        told = [(news.id, json.loads(news.data)["type"]) for news in self.events()]
        self.assertEqual(told, [(1, "channel.message"), (None, "channel.delta"), (2, "channel.message")])
        rows = self.successResultOf(self.database.run(lambda db: store.events(db, 0, 10)))
        self.assertEqual([json.loads(body)["text"] for _, body in rows], ["hello", "hi"])

    def test_a_repeat_is_dropped(self) -> None:
        socket = self.connect()
        for _ in range(2):
            self.event(socket, "task.status", "t", 1, status="running")
        socket = self.connect()
        self.event(socket, "task.status", "t", 1, status="running")
        self.event(socket, "task.status", "t", 2, status="stopped")
        self.assertEqual(len(self.events()), 2)

    def test_the_same_number_of_another_host_or_another_life_is_no_repeat(self) -> None:
        first, other = self.connect("host-1"), self.connect("host-2")
        self.event(first, "task.status", "t1", 1, status="running")
        self.event(other, "task.status", "t2", 1, status="running")
        # A host whose data was wiped counts from 1 again.
        self.event(first, "task.status", "t1", 1, status="running", at=1_700_000_000_001)
        self.assertEqual(len(self.events()), 3)

    def test_events_without_a_number_are_all_kept(self) -> None:
        socket = self.connect()
        for _ in range(2):
            self.event(socket, "agent.usage", "t", agentId="a", inputTokens=1, outputTokens=1)
        self.assertEqual(len(self.events()), 2)

    def test_a_host_cannot_speak_for_another_hosts_task(self) -> None:
        first, other = self.connect("host-1"), self.connect("host-2")
        self.event(first, "task.status", "t", 1, status="running")
        self.event(other, "task.status", "t", 1, status="failed", message="not mine")
        self.assertEqual(self.tasks.get("t").status, "running")
        self.assertEqual(len(self.events()), 1)


class TunnelFrameTests(BridgeCase):
    def test_frames_of_tunnels_reach_them_and_a_lost_host_ends_them(self) -> None:
        from uaihost.bridge.names import Destination
        from uaihost.wire.frames import RequestLine

        calls: list[Any] = []

        class Side:
            def informed(self, head: Any) -> None:
                calls.append(("informed", head.status))

            def acked(self, ack: Any) -> None:
                calls.append(("ack", ack.status))

            def received(self, data: bytes) -> None:
                calls.append(("data", data))

            def ended(self, trailers: Any) -> None:
                calls.append(("ended", trailers))

            def closed(self, reason: str) -> None:
                calls.append(("closed", reason))

        socket = self.connect()
        table = self.hosts.tunnels("host-1")
        assert table is not None
        place = Destination("host-1", "t", "preview", "web")
        for _ in range(2):
            table.open(Side(), place, RequestLine("GET", "/", []), False)
        self.clock.advance(0)
        opened = [frame for frame in socket.sent if frame["kind"] == "tunnel.open"]
        first, second = (frame["tunnelId"] for frame in opened)
        socket.hear(kind="tunnel.ack", tunnelId=first, ok=True, status=200, statusText="OK", headers=[])
        socket.hear(kind="tunnel.data", tunnelId=first)
        socket.receiver.binary(b"body")
        socket.hear(kind="tunnel.close", tunnelId=first, reason="upstream ended")
        socket.hear(kind="tunnel.data", tunnelId=first)
        socket.receiver.binary(b"late")
        self.assertEqual(
            calls, [("ack", 200), ("data", b"body"), ("ended", ()), ("closed", "upstream ended")]
        )
        socket.receiver.closed(1006, "")
        self.assertEqual(calls[-1], ("closed", "the connection to the host was lost"))
        self.assertNotEqual(first, second)
        self.assertIsNone(self.hosts.tunnels("host-1"))
        self.assertIsNone(table.open(Side(), place, RequestLine("GET", "/", []), False))
