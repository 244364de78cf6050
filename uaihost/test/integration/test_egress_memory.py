"""200 MB each way through the proxy, with an end that is slow: nothing is lost and memory stays where it was.

The proxy runs in a process of its own; this one is the program in the task and, in a thread, the server.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.proxy import MOST_OF_TASK
from uaihost.paths import Folders
from uaihost.test.support import short_folder

SIZE = 200 << 20
BLOCK = bytes(range(256)) * 256
# Bytes by which the proxy may grow: two buffers each way, and room for the allocator.
GROWTH_LIMIT = 4 << 20
# Bytes after which the slow end rests, and for how many seconds.
STRIDE = 32 << 20
REST = 0.05
# What two pairs of sockets hold between a server that writes and a program that does not read: the kernel's
# buffers, which it makes larger by itself (tcp(7), tcp_wmem and tcp_rmem), and the proxy's own.
STANDING = 24 << 20
ROOT = Path(__file__).parents[3]


class EgressMemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listener.close)
        self.to = f"127.0.0.1:{self.listener.getsockname()[1]}"
        folder = short_folder(self)
        self.socket = Folders(folder).control("t1") / "egress.sock"
        self.host = subprocess.Popen(
            [sys.executable, "-m", "uaihost.test.integration.egress_host", str(folder), self.to],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(self.end_host)
        assert self.host.stdout is not None
        self.assertEqual(self.host.stdout.readline(), b"ready\n")

    def end_host(self) -> None:
        assert self.host.stdin is not None and self.host.stdout is not None
        self.host.stdin.close()
        self.host.stdout.close()
        try:
            self.host.wait(10)
        finally:
            self.host.kill()

    def memory(self, what: str) -> int:
        """VmRSS or VmHWM of the proxy's process, bytes (proc(5))."""
        for line in Path(f"/proc/{self.host.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(what)

    def forget_peak(self) -> int:
        """Set the peak back to what is used now, and return that."""
        Path(f"/proc/{self.host.pid}/clear_refs").write_text("5", encoding="ascii")
        return self.memory("VmRSS")

    def serve(self, work: Callable[[socket.socket], object]) -> None:
        """Do `work` with one connection of the proxy, in a thread."""

        def run() -> None:
            connection = self.listener.accept()[0]
            with connection:
                work(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 20)

    def ask(self, request: bytes) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        # First of all: with a time limit it would not wait for room among those that are to be accepted.
        client.connect(str(self.socket))
        client.settimeout(30)
        client.sendall(request)
        return client

    def tunnel(self) -> socket.socket:
        client = self.ask(f"CONNECT {self.to} HTTP/1.1\r\nHost: {self.to}\r\n\r\n".encode())
        self.head(client)
        return client

    def head(self, client: socket.socket) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 "), head)
        return head

    def test_down(self) -> None:
        self.serve(give)
        client = self.tunnel()
        before = self.forget_peak()
        self.assertEqual(take(client), SIZE)
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)

    def test_up(self) -> None:
        taken: list[int] = []

        def thank(connection: socket.socket) -> None:
            taken.append(take(connection))
            connection.sendall(b"thanks")

        self.serve(thank)
        client = self.tunnel()
        before = self.forget_peak()
        give(client)
        client.shutdown(socket.SHUT_WR)
        # The server answers after the end of what it was sent.
        self.assertEqual(client.recv(100), b"thanks")
        self.assertEqual(taken, [SIZE])
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)

    def test_plain_http(self) -> None:
        def answer(connection: socket.socket) -> None:
            connection.recv(65536)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
            give(connection)

        self.serve(answer)
        client = self.ask(f"GET http://{self.to}/ HTTP/1.1\r\nHost: {self.to}\r\n\r\n".encode())
        self.assertIn(f"Content-Length: {SIZE}".encode(), self.head(client))
        before = self.forget_peak()
        self.assertEqual(take(client), SIZE)
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)

    def test_a_reader_that_stops_pauses_the_server(self) -> None:
        sent = 0
        stopped = threading.Event()

        def fill(connection: socket.socket) -> None:
            nonlocal sent
            connection.setblocking(False)
            while sent < SIZE:
                # What cannot be written for this long is held up by the reader.
                if not select.select([], [connection], [], 0.5)[1]:
                    stopped.set()
                    select.select([], [connection], [], 30)
                sent += connection.send(BLOCK)

        self.serve(fill)
        client = self.tunnel()
        before = self.forget_peak()
        self.assertTrue(stopped.wait(20))
        self.assertLess(sent, STANDING)
        self.assertGreaterEqual(take(client), SIZE)
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)

    def test_more_connections_than_a_task_may_have(self) -> None:
        before = self.forget_peak()
        held = [self.ask(b"CONNECT ") for _ in range(200)]
        answered: list[socket.socket] = []
        silent = held
        # Once nobody is answered for half a second, nobody will be.
        while found := select.select(silent, [], [], 0.5)[0]:
            answered += found
            silent = [client for client in silent if client not in found]
        self.assertEqual((len(answered), len(silent)), (200 - MOST_OF_TASK, MOST_OF_TASK))
        self.assertTrue(answered[0].recv(100).startswith(b"HTTP/1.1 503 "))
        for client in held:
            client.close()
        # Room again, as soon as they are gone.
        self.serve(lambda connection: connection.sendall(b"x"))
        for _ in range(100):
            client = self.ask(f"CONNECT {self.to} HTTP/1.1\r\nHost: {self.to}\r\n\r\n".encode())
            if client.recv(12) == b"HTTP/1.1 200":
                break
            select.select([], [], [], 0.05)
        else:
            self.fail("no room again")
        self.assertLess(self.memory("VmHWM") - before, GROWTH_LIMIT)


def give(connection: socket.socket) -> None:
    """SIZE bytes."""
    for _ in range(SIZE // len(BLOCK)):
        connection.sendall(BLOCK)


def take(connection: socket.socket) -> int:
    """How many bytes come until the end or SIZE, whichever is later, taken in strides."""
    buffer = bytearray(1 << 18)
    got = rested = 0
    while count := connection.recv_into(buffer):
        got += count
        if got - rested >= STRIDE:
            rested = got
            select.select([], [], [], REST)
        if got == SIZE:
            return got
    return got
