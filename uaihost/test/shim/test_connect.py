"""ssh's way through the proxy."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shim.connect import Refused, join, main, tunnel


class TunnelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.near, self.proxy = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.proxy.close)

    def test_it_asks_and_keeps_what_comes_with_the_answer(self) -> None:
        self.proxy.sendall(b"HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-x\r\n")
        self.assertEqual(tunnel(self.near, "a.example", 22), b"SSH-2.0-x\r\n")
        self.assertEqual(
            self.proxy.recv(1000), b"CONNECT a.example:22 HTTP/1.1\r\nHost: a.example:22\r\n\r\n"
        )

    def test_an_ipv6_address_stands_in_brackets(self) -> None:
        self.proxy.sendall(b"HTTP/1.1 200\r\n\r\n")
        self.assertEqual(tunnel(self.near, "::1", 22), b"")
        self.assertTrue(self.proxy.recv(1000).startswith(b"CONNECT [::1]:22 HTTP/1.1\r\n"))

    def test_a_refusal_is_told_in_the_proxys_words(self) -> None:
        self.proxy.sendall(b"HTTP/1.1 403 Blocked\r\nX: y\r\n\r\na.example:22 is blocked\n")
        self.proxy.shutdown(socket.SHUT_WR)
        with self.assertRaises(Refused) as caught:
            tunnel(self.near, "a.example", 22)
        self.assertEqual(str(caught.exception), "a.example:22 is blocked")

    def test_a_refusal_without_words(self) -> None:
        self.proxy.sendall(b"HTTP/1.1 403 Blocked 200 times\r\n\r\n")
        self.proxy.shutdown(socket.SHUT_WR)
        with self.assertRaises(Refused) as caught:
            tunnel(self.near, "a.example", 22)
        self.assertEqual(str(caught.exception), "HTTP/1.1 403 Blocked 200 times")

    def test_no_answer(self) -> None:
        self.proxy.shutdown(socket.SHUT_WR)
        with self.assertRaises(Refused):
            tunnel(self.near, "a.example", 22)


class JoinTests(SynchronousTestCase):
    def test_both_ways_until_the_destination_ends(self) -> None:
        near, far = socket.socketpair()
        source, feed = os.pipe()
        drain, sink = os.pipe()
        for descriptor in (source, drain, sink):
            self.addCleanup(os.close, descriptor)
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        asked: list[bytes] = []

        def destination() -> None:
            while data := far.recv(100):
                asked.append(data)
            # It still speaks after our end.
            far.sendall(b" answer")
            far.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=destination, daemon=True)
        thread.start()
        os.write(feed, b"question")
        os.close(feed)
        join(near, b"early", source, sink)
        thread.join(5)
        self.assertEqual((b"".join(asked), os.read(drain, 100)), (b"question", b"early answer"))


class UsageTests(SynchronousTestCase):
    def test_what_is_no_destination(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        for arguments in ([], ["a.example"], ["a.example", "ssh"], ["a", "22", "x"]):
            self.assertEqual(main(arguments), 2)
