"""Messages between two sockets, however they are cut and compressed on the way."""

from __future__ import annotations

import random
from typing import Any

from autobahn.websocket.compress import PerMessageDeflateOffer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.link import compression
from uaihost.link.endpoint import WebSocketEndpoint
from uaihost.link.socket import MessageSocket
from uaihost.test.link.ends import Network
from uaihost.test.link.test_compression import Reader
from uaihost.test.support import given, settings, strategies


class Log:
    """A receiver that keeps what it hears."""

    def __init__(self, socket: MessageSocket) -> None:
        self.socket = socket
        self.heard: list[tuple[bool, bytes]] = []
        self.marks: list[bytes] = []
        self.closes: list[tuple[int | None, str]] = []
        socket.attach(self)

    def text(self, payload: bytes) -> None:
        self.heard.append((False, payload))

    def binary(self, payload: bytes) -> None:
        self.heard.append((True, payload))

    def marked(self, payload: bytes) -> None:
        self.marks.append(payload)

    def closed(self, code: int | None, reason: str) -> None:
        self.closes.append((code, reason))


class Pair:
    """Two open sockets; `carry` moves bytes in pieces of `step`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        endpoint = WebSocketEndpoint(self.clock, "ws://[::1]:8789/host", self.network)
        connecting: Any = endpoint.connect(Factory.forProtocol(Protocol))
        self.request = b"".join(self.network.pumps[0].clientIO.stream)
        self.network.flush()
        self.host = Log(connecting.result.transport)
        self.bridge = Log(self.network.bridges[0].socket)

    def carry(self, step: int) -> None:
        pump = self.network.pumps[0]
        for source, target in ((pump.clientIO, pump.serverIO), (pump.serverIO, pump.clientIO)):
            data = source.getOutBuffer() or b""
            for start in range(0, len(data), step):
                target.bufferReceived(data[start : start + step])


_message = strategies.tuples(
    strategies.booleans(),
    strategies.one_of(strategies.integers(0, 130), strategies.integers(0, 200_000)),
    strategies.booleans(),
)


class SocketTests(SynchronousTestCase):
    @settings(max_examples=60)
    @given(
        strategies.lists(_message, max_size=12),
        strategies.sampled_from([1 << 30, 128 * 1024, 20_000, 1000, 7]),
    )
    def test_messages_arrive_whole_and_in_order(
        self, messages: list[tuple[bool, int, bool]], step: int
    ) -> None:
        pair = Pair()
        sent = [(binary, (b"%d-" % size * size)[:size]) for binary, size, _ in messages]
        if step == 7:
            sent = [(binary, payload[:5000]) for binary, payload in sent]
        for (binary, payload), (_, _, compress) in zip(sent, messages, strict=True):
            speaker = payload[:1] if binary else None
            pair.host.socket.send_message(payload, binary, compress, speaker)
            pair.bridge.socket.send_message(payload, binary, compress, speaker)
        pair.carry(step)
        self.assertEqual(pair.bridge.heard, sent)
        self.assertEqual(pair.host.heard, sent)

    def test_compression_is_negotiated_and_used_where_it_is_asked_for(self) -> None:
        pair = Pair()
        self.assertIn(b"permessage-deflate", pair.request)
        io = pair.network.pumps[0].clientIO
        sizes = []
        for compress in (True, False):
            pair.host.socket.send_message(b"a" * 10_000, False, compress)
            sizes.append(len(io.getOutBuffer()))
        self.assertLess(sizes[0], 200)
        self.assertGreater(sizes[1], 10_000)

    def test_what_a_message_took_on_the_wire(self) -> None:
        pair = Pair()
        socket, io = pair.host.socket, pair.network.pumps[0].clientIO
        text = bytes(random.Random(1).choices(b"some words ", k=20_000))
        noise = random.Random(2).randbytes(20_000)
        for payload, compress in ((text, True), (text, False), (noise, True), (text[:200], True)):
            taken = socket.send_message(payload, True, compress)
            data = io.getOutBuffer()
            # A frame's header of four bytes, and its mask.
            self.assertEqual(len(data), 8 + taken)
            pair.network.pumps[0].serverIO.bufferReceived(data)
            self.assertEqual(taken < len(payload), compress and payload is text)
        self.assertTrue(pair.bridge.heard == [(True, each) for each in (text, text, noise, text[:200])])
        socket.abort()
        self.assertEqual(socket.send_message(text, True, True), 0)

    def test_a_history_and_the_speed_of_the_link_reach_the_compressor(self) -> None:
        pair = Pair()
        noise = random.Random(2).randbytes(5000) + bytes(2000)
        for end, other in ((pair.host, pair.bridge), (pair.bridge, pair.host)):
            sizes = [end.socket.send_message(noise, True, True, who) for who in ("a", "a", "b", None, None)]
            self.assertLess(sizes[1], 500)
            self.assertGreater(min(sizes[0], *sizes[2:]), 5000)
            short = b"word " * 100
            self.assertEqual(end.socket.send_message(short, False, True), 500)
            self.assertGreater(end.socket.smallest, 500)
            end.socket.set_uplink(10_000.0)
            self.assertLess(end.socket.smallest, 500)
            self.assertLess(end.socket.send_message(short, False, True), 50)
            pair.carry(1 << 30)
            self.assertEqual(other.heard, [(True, noise)] * 5 + [(False, short)] * 2)

    def test_no_more_history_than_the_other_end_takes(self) -> None:
        for history, window in ((True, 9), (False, 15), (False, 10)):
            offer = PerMessageDeflateOffer(
                request_no_context_takeover=not history, request_max_window_bits=window
            )
            self.patch(compression, "offers", lambda offer=offer: [offer])
            pair = Pair()
            reader = Reader(window, history)
            compressed = 0
            near, far = (random.Random(3).randbytes(size) for size in (400, 2000))
            for payload in (far + far, (near + near) * 2, near + near + far):
                pair.bridge.socket.send_message(payload, True, True, "a")
                # A server masks nothing: two bytes, and the length in two.
                frame = pair.network.pumps[0].serverIO.getOutBuffer()
                pair.network.pumps[0].clientIO.bufferReceived(frame)
                if frame[0] & 0x40:
                    self.assertEqual(reader.read(frame[4:]), payload)
                    compressed += 1
            self.assertEqual([len(payload) for _, payload in pair.host.heard], [4000, 1600, 2800])
            self.assertGreaterEqual(compressed, 1)

    def test_a_host_does_not_renounce_its_history(self) -> None:
        self.assertNotIn(b"no_context_takeover", Pair().request)

    def test_an_address_of_version_six_stands_in_brackets(self) -> None:
        self.assertIn(b"\r\nHost: [::1]:8789\r\n", Pair().request)

    def test_any_byte_is_traffic(self) -> None:
        pair = Pair()
        pair.host.socket.traffic = False
        pair.bridge.socket.send_message(bytes(1000), True, False)
        pair.network.pumps[0].clientIO.bufferReceived(pair.network.pumps[0].serverIO.getOutBuffer()[:3])
        self.assertEqual((pair.host.socket.traffic, pair.host.heard), (True, []))

    def test_an_answer_to_a_mark_is_no_traffic(self) -> None:
        for ends in ("host", "bridge"):
            pair = Pair()
            end = getattr(pair, ends)
            end.socket.traffic = False
            end.socket.send_mark(b"12345678")
            pair.network.flush()
            self.assertEqual((end.marks, end.socket.traffic), ([b"12345678"], False))

    def test_each_end_is_told_the_code_that_closed(self) -> None:
        for code, reason in ((4000, "heartbeat timeout"), (1001, "host shutting down"), (1000, "x" * 500)):
            pair = Pair()
            pair.host.socket.close(code, reason)
            pair.host.socket.close(1000, "again")
            pair.network.flush()
            self.assertEqual(pair.host.closes, [(code, reason)])
            self.assertEqual(pair.bridge.closes, [(code, reason[:123])])

    def test_a_held_socket_reads_the_answer_to_its_close(self) -> None:
        pair = Pair()
        calls: list[str] = []
        transport = pair.host.socket.transport
        self.patch(transport, "pauseProducing", lambda: calls.append("pause"))
        self.patch(transport, "resumeProducing", lambda: calls.append("resume"))
        pair.host.socket.pause_reading()
        pair.host.socket.close(1001, "host shutting down")
        self.assertEqual(calls, ["pause", "resume"])

    def test_a_closed_socket_takes_every_call(self) -> None:
        pair = Pair()
        pair.bridge.socket.abort()
        pair.network.flush()
        self.assertEqual([closes[0][0] for closes in (pair.host.closes, pair.bridge.closes)], [1006, 1006])
        for socket in (pair.host.socket, pair.bridge.socket):
            socket.send_message(b"x", True, False)
            socket.close(1000, "")
            socket.abort()
            socket.loseConnection()
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_text_that_is_no_utf8_ends_the_connection(self) -> None:
        pair = Pair()
        pair.bridge.socket.send_message(b"\xff\xfe", False, False)
        pair.network.flush()
        self.assertEqual(pair.host.heard, [])
        self.assertEqual(pair.host.closes[0][0], 1006)

    def test_a_small_message_that_inflates_beyond_the_limit_ends_the_connection(self) -> None:
        pair = Pair()
        pair.bridge.socket.send_message(bytes(1 << 20), True, True)
        self.patch(pair.host.socket, "maxMessagePayloadSize", 1 << 16)
        pair.network.flush()
        self.assertEqual(pair.host.heard, [])
        self.assertIn("exceeds payload limit", pair.host.closes[0][1])

    def test_what_is_no_deflate_stream_ends_the_connection(self) -> None:
        for payload in (b"\xff" * 50, bytes.fromhex("f348cdc9c90700"), b"\x07"):
            pair = Pair()
            pair.bridge.socket.sendFrame(opcode=2, payload=payload, rsv=4)
            pair.network.flush()
            self.assertEqual(pair.host.heard, [])
            self.assertIn("cannot be decompressed", pair.host.closes[0][1])
