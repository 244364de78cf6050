"""1 GiB through a tunnel whose far end is slow: nothing is lost and the host's memory stays where it was.

The host's end runs in a process of its own; this one is the bridge and, in a thread, the upstream.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.integration.tunnels_host import FRAME
from uaihost.wire.codec import encode, from_host
from uaihost.wire.frames import (
    Frame,
    RequestLine,
    TunnelAck,
    TunnelClose,
    TunnelData,
    TunnelOpen,
    TunnelRequestEnd,
)

SIZE = 1 << 30
# Bytes by which the host may grow meanwhile: everything it may keep, and room for the allocator.
GROWTH_LIMIT = 32 << 20
BLOCK = bytes(range(256)) * 512
# Bytes after which the slow end rests, and for how many seconds: stalls far longer than any buffer lasts.
STRIDE = 128 << 20
REST = 0.15
ROOT = Path(__file__).parents[3]


class TunnelMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.upstream.close)
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.host = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "uaihost.test.integration.tunnels_host",
                str(listener.getsockname()[1]),
                str(self.upstream.getsockname()[1]),
            ],
            cwd=ROOT,
        )
        self.addCleanup(self.end_host)
        listener.settimeout(20)
        self.link = listener.accept()[0]
        self.link.settimeout(60)
        self.addCleanup(self.link.close)
        self.buffer = memoryview(bytearray(1 << 20))

    def end_host(self) -> None:
        self.link.close()
        try:
            self.host.wait(10)
        finally:
            self.host.kill()

    def memory(self, what: str) -> int:
        """VmRSS or VmHWM of the host's process, bytes (proc(5))."""
        for line in Path(f"/proc/{self.host.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(what)

    def forget_peak(self) -> int:
        """Set the peak back to what is used now, and return that."""
        Path(f"/proc/{self.host.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.memory("VmRSS")

    # The bridge.

    def say(self, frame: Frame) -> None:
        payload = encode(frame)
        self.link.sendall(FRAME.pack(0, len(payload)) + payload)

    def say_data(self, tunnel_id: str, data: bytes) -> None:
        self.say(TunnelData(tunnel_id))
        self.link.sendall(FRAME.pack(1, len(data)))
        self.link.sendall(data)

    def exactly(self, size: int) -> memoryview:
        view = self.buffer[:size]
        got = 0
        while got < size:
            count = self.link.recv_into(view[got:])
            assert count, "the host closed the link"
            got += count
        return view

    def hear(self) -> tuple[bool, Any]:
        """(False, frame) or (True, bytes that are valid until the next call)."""
        binary, size = FRAME.unpack(self.exactly(FRAME.size))
        payload = self.exactly(size)
        return (True, payload) if binary else (False, from_host(bytes(payload)))

    def open(self, tunnel_id: str, method: str, upgrade: bool, *headers: tuple[str, str]) -> None:
        line = RequestLine(method, "/", [("Host", "example"), *headers])
        self.say(TunnelOpen(tunnel_id, "preview", "t", line, upgrade, "web"))

    def drain(self, tunnel_id: str, rest: float) -> tuple[int, TunnelClose]:
        """Read the tunnel to its close, checking its bytes; the reader rests after every stride."""
        total, next_rest = 0, STRIDE
        while True:
            is_data, payload = self.hear()
            if is_data:
                offset = total % 256
                assert payload == memoryview(BLOCK + BLOCK)[offset : offset + len(payload)]
                total += len(payload)
                if total >= next_rest:
                    next_rest += STRIDE
                    time.sleep(rest)
            elif isinstance(payload, TunnelClose):
                return total, payload
            else:
                assert isinstance(payload, TunnelAck | TunnelData), payload

    # The upstream.

    def in_thread(self, work: Any) -> None:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 20)

    def accept(self) -> tuple[socket.socket, int]:
        """A connection whose request head has come, and how many bytes of the body came with it."""
        self.upstream.settimeout(20)
        connection, _ = self.upstream.accept()
        connection.settimeout(60)
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        return connection, len(received) - received.index(b"\r\n\r\n") - 4

    def send_all(self, connection: socket.socket, size: int) -> None:
        for _ in range(size // len(BLOCK)):
            connection.sendall(BLOCK)

    def serve(self, size: int, head: bytes) -> None:
        connection, _ = self.accept()
        with connection:
            connection.sendall(head)
            self.send_all(connection, size)

    def warm_up(self) -> int:
        """A few MiB through the same code, so that what is measured is growth and not the first use."""
        size = 16 << 20
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        self.in_thread(lambda: self.serve(size, head))
        self.open("warm", "GET", False)
        self.say(TunnelRequestEnd("warm"))
        self.assertEqual(self.drain("warm", 0)[0], size)
        return self.forget_peak()

    def check_growth(self, before: int) -> None:
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)

    def test_a_slow_reader_on_the_bridge_side(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
        for upgrade, reason in ((False, "upstream ended"), (True, "upstream closed")):
            before = self.warm_up()
            self.in_thread(lambda: self.serve(SIZE, head))
            self.open("down", "GET", upgrade)
            if not upgrade:
                self.say(TunnelRequestEnd("down"))
            self.assertEqual(self.drain("down", REST), (SIZE, TunnelClose("down", reason)))
            self.check_growth(before)

    def test_a_slow_upstream(self) -> None:
        for upgrade in (False, True):
            before = self.warm_up()
            found: list[int] = []
            self.in_thread(lambda found=found: self.swallow(found))
            self.open("up", "POST", upgrade, ("Content-Length", str(SIZE)))
            for _ in range(SIZE // len(BLOCK)):
                self.say_data("up", BLOCK)
            self.say(TunnelRequestEnd("up"))
            while not isinstance(close := self.hear()[1], TunnelClose):
                pass
            self.assertEqual(close.tunnelId, "up")
            self.assertEqual(found, [SIZE])
            self.check_growth(before)

    def swallow(self, found: list[int]) -> None:
        """Take SIZE bytes, resting after every stride, then answer."""
        connection, total = self.accept()
        with connection:
            buffer = memoryview(bytearray(1 << 20))
            next_rest = STRIDE
            while total < SIZE:
                count = connection.recv_into(buffer)
                if not count:
                    break
                total += count
                if total >= next_rest:
                    next_rest += STRIDE
                    time.sleep(REST)
            found.append(total)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
