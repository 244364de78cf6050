"""The relay: the program itself, on this machine. Its parsers are tested in test_listening."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.shim.relays import PATIENCE, SHIM, Program, Watch, echo, exactly, read, serve, until
from uaihost.test.shim.test_listening import HEAD, row
from uaihost.test.support import given, settings, short_folder, strategies

# What one end says, piece by piece; an empty piece is a moment in which it listens.
SCRIPTS = strategies.lists(
    strategies.sampled_from([b"", b"x", b"word", b"0123456789" * 20_000, bytes(150_000)]), max_size=6
)


class ConnectTests(SynchronousTestCase):
    def test_servers_on_either_loopback_are_reached(self) -> None:
        program = Program(self)
        self.assertEqual(program.path.stat().st_mode & 0o777, 0o660)
        for address in ("127.0.0.1", "::1", "127.0.0.2", "::"):
            with program.connect(serve(self, echo, address)) as peer:
                peer.sendall(b"hello")
                self.assertEqual(peer.recv(100), b"hello", address)

    def test_each_way_ends_by_itself(self) -> None:
        def count(peer: socket.socket) -> None:
            peer.sendall(b"%d" % len(read(peer)))

        def deaf(peer: socket.socket) -> None:
            peer.sendall(b"all")
            peer.shutdown(socket.SHUT_WR)
            got.append(read(peer))

        got: list[bytes] = []
        program = Program(self)
        with program.connect(serve(self, count)) as peer:
            peer.sendall(b"x" * 500_000)
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(read(peer), b"500000")
        with program.connect(serve(self, deaf)) as peer:
            self.assertEqual(read(peer), b"all")
            peer.sendall(b"still heard")
        until(lambda: got == [b"still heard"])

    def test_what_comes_with_the_first_line_is_the_servers(self) -> None:
        with Program(self).open(b"connect %d\nGET /" % serve(self, echo)) as peer:
            self.assertEqual(exactly(peer, 8), b"ok\nGET /")

    def test_where_nobody_listens(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with Program(self).open(b"connect %d\n" % closed.getsockname()[1]) as peer:
                self.assertEqual(read(peer), b"error Connection refused\n")

    def test_first_lines_that_are_none(self) -> None:
        program = Program(self, changed="sockets.PATIENCE = 0.2")
        for line in (b"GET / HTTP/1.1\r\n", b"connect\n", b"connect 0\n", b"connect 65536\n", b"x" * 33):
            with program.open(line) as peer:
                self.assertTrue(read(peer).startswith(b"error the first line must be"), line)
        with program.open(b"conn") as peer:
            self.assertEqual(read(peer), b"error no first line came\n")
        with program.open(b"connect 1") as peer:
            peer.shutdown(socket.SHUT_WR)
            self.assertEqual(read(peer), b"")

    def test_bytes_are_the_same_however_slowly_they_are_taken(self) -> None:
        program = Program(self)
        sent = os.urandom(1 << 20) * 8
        with program.connect(serve(self, echo)) as peer:
            threading.Thread(target=send, args=(peer, sent), daemon=True).start()
            got = bytearray()
            while data := peer.recv(30_000 if len(got) < 200_000 else 1 << 18):
                if len(got) < 200_000:
                    time.sleep(0.01)
                got += data
        self.assertTrue(got == sent)

    def test_one_who_does_not_read_is_in_nobodys_way(self) -> None:
        def flood(peer: socket.socket) -> None:
            try:
                while True:
                    peer.sendall(bytes(65536))
            except OSError:
                stopped.set()

        stopped = threading.Event()
        program = Program(self)
        stuck = program.connect(serve(self, flood))
        other = serve(self, echo)
        for _ in range(50):
            with program.connect(other) as peer:
                peer.sendall(b"hello")
                self.assertEqual(peer.recv(100), b"hello")
        self.assertFalse(stopped.is_set())
        stuck.close()
        self.assertTrue(stopped.wait(PATIENCE))

    def test_a_client_that_is_gone_ends_a_server_that_would_say_nothing_for_ever(self) -> None:
        got: list[bytes] = []
        over = threading.Event()
        self.addCleanup(over.set)

        def silent(peer: socket.socket) -> None:
            got.append(read(peer))
            over.wait(PATIENCE)
            try:
                while True:
                    peer.sendall(b"?")
            except OSError:
                got.append(b"gone")

        program = Program(self)
        before = descriptors(program)
        peer = program.connect(serve(self, silent))
        peer.sendall(b"last words")
        peer.close()
        until(lambda: got == [b"last words"] and descriptors(program) == before)
        over.set()
        until(lambda: got == [b"last words", b"gone"])

    def test_what_was_sent_before_a_client_went_is_delivered_however_slowly(self) -> None:
        got: list[bytes] = []

        def slow(peer: socket.socket) -> None:
            time.sleep(0.3)
            got.append(read(peer))

        program = Program(self)
        before = descriptors(program)
        sent = os.urandom(6 << 20)
        with program.connect(serve(self, slow)) as peer:
            peer.sendall(sent)
        until(lambda: got)
        self.assertTrue(got == [sent])
        until(lambda: descriptors(program) == before)

    def test_a_server_that_takes_nothing_from_a_client_that_is_gone_is_given_up(self) -> None:
        over = threading.Event()
        self.addCleanup(over.set)

        def deaf(peer: socket.socket) -> None:
            over.wait(PATIENCE)

        program = Program(self, changed="relay.pairs.LINGER = 0.3")
        before = descriptors(program)
        with program.connect(serve(self, deaf)) as peer:
            peer.settimeout(0.2)
            self.assertRaises(TimeoutError, peer.sendall, bytes(64 << 20))
        self.assertGreater(descriptors(program), before)
        until(lambda: descriptors(program) == before)

    @settings(max_examples=30)
    @given(SCRIPTS, SCRIPTS)
    def test_both_hear_what_the_other_said_and_when_it_ended(
        self, ours: list[bytes], theirs: list[bytes]
    ) -> None:
        heard: list[bytes] = []
        with self.joined_pair() as (peer, server):
            said = threading.Thread(target=lambda: heard.append(converse(server, theirs)))
            said.start()
            got = converse(peer, ours)
            said.join(PATIENCE)
        self.assertEqual((got, heard), (b"".join(theirs), [b"".join(ours)]))

    @contextlib.contextmanager
    def joined_pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A client and the server's side of its connection, through one relay for all examples."""
        if not hasattr(self, "program"):
            self.program = Program(self)
            self.listener = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(self.listener.close)
        with self.program.connect(self.listener.getsockname()[1]) as peer:
            server, _ = self.listener.accept()
            server.settimeout(PATIENCE)
            with server:
                yield peer, server

    def test_a_servers_reset_ends_both_ways(self) -> None:
        def reset(peer: socket.socket) -> None:
            peer.recv(10)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        program = Program(self)
        with program.connect(serve(self, reset)) as peer:
            peer.sendall(b"x")
            self.assertEqual(read(peer), b"")
            until(lambda: not accepts(peer))

    def test_more_than_the_limit_wait_their_turn(self) -> None:
        program = Program(self, changed="relay.CONNECTION_LIMIT = 3")
        port = serve(self, echo)
        inside = [program.connect(port) for _ in range(3)]
        with program.open(b"connect %d\n" % port) as waiting:
            waiting.settimeout(0.3)
            self.assertRaises(TimeoutError, waiting.recv, 3)
            inside.pop().close()
            waiting.settimeout(PATIENCE)
            self.assertEqual(waiting.recv(3), b"ok\n")
        for one in inside:
            one.close()

    def test_nothing_is_left_of_connections_that_are_over(self) -> None:
        program = Program(self)
        port = serve(self, echo)
        before = descriptors(program)
        for number in range(60):
            peer = (
                program.connect(port)
                if number % 3
                else program.open((b"watch\n", b"x\n", b"")[number // 3 % 3])
            )
            if number % 3 == 1:
                peer.sendall(b"x" * 300_000)
            peer.close()
        until(lambda: descriptors(program) == before)

    def test_another_takes_over_a_socket_that_is_there(self) -> None:
        folder = short_folder(self)
        (folder / "relay.sock").write_text("left by somebody")
        first = Program(self, folder)
        port = serve(self, echo)
        old = first.connect(port)
        second = Program(self, folder)
        second.connect(port).close()
        old.sendall(b"lives on")
        self.assertEqual(old.recv(100), b"lives on")
        old.close()
        for program in (first, second):
            program.kill()
        Program(self, folder).connect(port).close()

    def test_folders_in_place_of_its_sockets_are_put_aside(self) -> None:
        folder = short_folder(self)
        for name in ("relay.sock", "relay.new"):
            (folder / name / "full").mkdir(parents=True)
        port = serve(self, echo)
        Program(self, folder).connect(port).close()

    def test_a_folder_that_is_not_there_is_told(self) -> None:
        folder = short_folder(self) / "missing"
        words = [sys.executable, str(SHIM / "relay.py")]
        ended = subprocess.run(
            words, env={"UAI_RUN": str(folder)}, capture_output=True, timeout=PATIENCE, check=False
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn(b"the relay cannot listen in " + bytes(folder), ended.stderr)


class WatchTests(SynchronousTestCase):
    def test_ports_that_come_and_go(self) -> None:
        program = Program(self, changed="relay.INTERVAL = 0.05")
        watch, other = Watch(program), Watch(program)
        self.addCleanup(watch.close)
        watch.next()
        other.close()
        for address, loopback in (("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)):
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as server:
                server.bind((address, 0))
                port = server.getsockname()[1]
                server.listen()
                found = watch.until(lambda ports, port=port: port in ports)  # type: ignore[misc]
                self.assertEqual(found[port], loopback, address)
            watch.until(lambda ports, port=port: port not in ports)  # type: ignore[misc]

    def test_a_line_comes_at_once_and_for_changes_alone(self) -> None:
        tables = short_folder(self)
        (tables / "tcp").write_text(HEAD + row("127.0.0.1", 3000) + row("0.0.0.0", 3128))
        changed = (
            f"relay.INTERVAL = 0.02\nfrom pathlib import Path\nrelay.listening.TABLES = Path({str(tables)!r})"
        )
        program = Program(
            self, changed=changed + "\nrelay.Relay.__init__.__defaults__ = (relay.listening.TABLES,)"
        )
        watch = Watch(program)
        self.addCleanup(watch.close)
        self.assertEqual(watch.next(), {3000: True, 3128: False})
        watch.peer.settimeout(0.3)
        self.assertRaises(TimeoutError, watch.peer.recv, 1)
        watch.peer.settimeout(PATIENCE)
        (tables / "tcp6").write_text(HEAD + row("::", 3000))
        self.assertEqual(watch.next(), {3000: False, 3128: False})
        late = Watch(program)
        self.addCleanup(late.close)
        self.assertEqual(late.next(), {3000: False, 3128: False})

    def test_the_tables_are_read_only_while_somebody_watches(self) -> None:
        program = Program(self, changed="relay.INTERVAL = 0.02")

        def switches() -> int:
            text = Path(f"/proc/{program.process.pid}/status").read_text()
            return int(text.rpartition("\nvoluntary_ctxt_switches:")[2].split()[0])

        for watched in (True, False):
            watch = Watch(program)
            watch.next()
            if not watched:
                watch.close()
                time.sleep(0.1)
            before = switches()
            time.sleep(0.4)
            self.assertEqual(switches() - before > 5, watched)
            watch.close()


class ProxyTests(SynchronousTestCase):
    def test_connections_are_passed_on_to_the_proxys_socket(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = Program(
            self, changed=f"relay.PROXY_PORT = {port}\nrelay.INTERVAL = 0.05", UAI_EGRESS="proxy"
        )
        watch = Watch(program)
        self.addCleanup(watch.close)
        self.assertNotIn(port, watch.next())
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            self.assertEqual(peer.recv(10), b"")
        proxy = socket.socket(socket.AF_UNIX)
        self.addCleanup(proxy.close)
        proxy.bind(str(program.folder / "egress.sock"))
        proxy.listen()
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as peer:
            outside, _ = proxy.accept()
            with outside:
                peer.sendall(b"CONNECT x:443")
                peer.shutdown(socket.SHUT_WR)
                self.assertEqual(read(outside), b"CONNECT x:443")
                outside.sendall(b"no")
            self.assertEqual(read(peer), b"no")

    def test_without_a_proxy_its_port_is_closed(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        Program(self, changed=f"relay.PROXY_PORT = {port}")
        self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))


def converse(peer: socket.socket, script: list[bytes]) -> bytes:
    """Say it all, end, and hear the other to its end."""
    hearing = threading.Thread(target=lambda: got.append(read(peer)))
    got: list[bytes] = []
    hearing.start()
    for piece in script:
        if piece:
            peer.sendall(piece)
        else:
            time.sleep(0.002)
    peer.shutdown(socket.SHUT_WR)
    hearing.join(PATIENCE)
    return b"".join(got)


def descriptors(program: Program) -> int:
    return len(list(Path(f"/proc/{program.process.pid}/fd").iterdir()))


def send(peer: socket.socket, data: bytes) -> None:
    """All of it, then the end."""
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)


def accepts(peer: socket.socket) -> bool:
    try:
        peer.sendall(b"x")
    except OSError:
        return False
    return True
