"""Keys go in, what is shown comes out; who presses Ctrl-C again and again gets away."""

from __future__ import annotations

import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers import terminal
from uaihost.test.support import given, strategies


class PumpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.program, self.connection = socket.socketpair()
        self.typing, self.source = os.pipe()[::-1]
        self.target, self.screen = os.pipe()[::-1]
        for one in (self.program, self.connection):
            self.addCleanup(one.close)
        for descriptor in (self.typing, self.source, self.target, self.screen):
            self.addCleanup(os.close, descriptor)
        self.sizes: list[tuple[int, int]] = []

    def pump(self) -> bytes:
        ends = (self.source, self.target)
        return terminal._pump(self.connection, ends, lambda *size: self.sizes.append(size))

    def test_keys_go_in_and_what_is_shown_comes_out_until_it_ends(self) -> None:
        os.write(self.typing, b"code\r")
        self.program.sendall(b"Paste it: ")
        self.program.shutdown(socket.SHUT_WR)
        self.assertEqual(self.pump(), b"Paste it: ")
        self.assertEqual(os.read(self.screen, 99), b"Paste it: ")
        self.assertEqual(self.program.recv(99), b"code\r")
        self.assertEqual(self.sizes, [(24, 80)], "where there is no terminal")

    def test_given_up_though_the_program_goes_on(self) -> None:
        for pressed in (b"\x03\x03\x03", b"\x1b[99;5u\x1b[99;5u\x03"):
            os.write(self.typing, pressed)
            self.assertEqual(self.pump(), b"")
            self.assertEqual(self.program.recv(99), pressed, "it hears them too")

    def test_one_among_other_keys_is_the_programs(self) -> None:
        for pressed in (b"\x03", b"\x03a\x03\x03", b"a\x03\x03\x03"):
            os.write(self.typing, pressed)
        self.program.shutdown(socket.SHUT_WR)
        self.pump()
        self.assertTrue(self.program.recv(99).startswith(b"\x03"))

    @given(strategies.binary(max_size=300))
    def test_the_last_of_what_was_shown_is_kept(self, data: bytes) -> None:
        self.patch(terminal, "SHOWN_LIMIT", 100)
        program, connection = socket.socketpair()
        with program, connection:
            program.sendall(data)
            program.shutdown(socket.SHUT_WR)
            kept = terminal._pump(connection, (self.source, self.target), lambda *size: None)
        self.assertEqual(kept, data[-100:])
        while data:
            data = data[len(os.read(self.screen, len(data))) :]
