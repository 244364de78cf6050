"""The relay's parsers: the kernel's tables, what is reported of them, and first lines."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers import ports
from uaihost.shim import listening, relay
from uaihost.shim.listening import Bound
from uaihost.test.support import given, strategies

ADDRESSES = strategies.ip_addresses()
PORTS = strategies.integers(1, 65535)
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(address: str, port: int, state: str = "0A") -> str:
    """As the kernel prints it (net/ipv4/tcp_ipv4.c): words of 32 bits in the machine's order."""
    raw = ipaddress.ip_address(address).packed
    words = struct.unpack(f"={len(raw) // 4}I", raw)
    text = "".join(f"{word:08X}" for word in words)
    return f"   0: {text}:{port:04X} {'0' * len(text)}:0000 {state} 00000000:00000000 00:00000000 00000000\n"


class TableTests(SynchronousTestCase):
    @given(strategies.lists(strategies.tuples(ADDRESSES, PORTS, strategies.sampled_from(["0A", "01", "06"]))))
    def test_what_listens_is_found(self, sockets: list[tuple[object, int, str]]) -> None:
        text = HEAD + "".join(row(str(address), port, state) for address, port, state in sockets)
        found = [(ipaddress.ip_address(one.address), one.port) for one in listening.listening(text)]
        self.assertEqual(found, [(address, port) for address, port, state in sockets if state == "0A"])

    @given(strategies.text(), strategies.integers(0, 200))
    def test_what_is_no_row_is_passed_by(self, text: str, cut: int) -> None:
        whole = row("127.0.0.1", 3000)
        for one in listening.listening(f"{text}\n{whole[:cut]}\n{whole}"):
            self.assertTrue(0 < one.port < 65536)
            ipaddress.ip_address(one.address)
        self.assertIn(Bound(3000, "127.0.0.1", True), list(listening.listening(f"{text}\n{whole}")))

    def test_which_addresses_only_loopback_reaches(self) -> None:
        for address, loopback in (
            ("127.0.0.1", True),
            ("127.1.2.3", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("0.0.0.0", False),
            ("::", False),
            ("172.17.0.2", False),
            ("::ffff:172.17.0.2", False),
            ("fe80::1", False),
        ):
            (found,) = listening.listening(row(address, 80))
            self.assertEqual(found.loopback, loopback, address)

    def test_tables_of_this_machine(self) -> None:
        for address, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with socket.socket(family) as server:
                server.bind((address, 0))
                port = server.getsockname()[1]
                self.assertNotIn(port, [one.port for one in listening.bound()])
                server.listen()
                self.assertIn(Bound(port, address, True), listening.bound())
        self.patch(listening, "TABLES", Path("/nowhere"))
        self.assertEqual(listening.bound(), [])


class LineTests(SynchronousTestCase):
    @given(strategies.binary(max_size=20) | strategies.from_regex(rb"connect [0-9]{1,7}\Z"))
    def test_a_port_is_asked_for_in_one_way(self, line: bytes) -> None:
        port = relay.asked_port(line)
        if port:
            self.assertTrue(0 < port < 65536)
            self.assertEqual(line.lstrip(b"conet "), line.removeprefix(b"connect "))
            self.assertEqual(int(line.removeprefix(b"connect ")), port)
        elif line.startswith(b"connect ") and line[8:].isdigit() and len(line) < 14:
            self.assertFalse(0 < int(line[8:]) < 65536)

    @given(
        strategies.lists(strategies.tuples(PORTS, strategies.booleans())), strategies.sets(PORTS, max_size=2)
    )
    def test_the_host_reads_what_is_reported(self, found: list[tuple[int, bool]], hidden: set[int]) -> None:
        line = listening.report((Bound(port, "x", loopback) for port, loopback in found), hidden)
        self.assertEqual(line.count(b"\n"), 1)
        told = ports.parse(line[:-1])
        self.assertEqual(told, sorted({port for port, _ in found} - hidden))
        for one in json.loads(line)["ports"]:
            bound = [loopback for port, loopback in found if port == one["port"]]
            self.assertEqual(one["loopback"], all(bound))

    def test_the_longest_report_is_one_that_the_host_takes(self) -> None:
        line = listening.report(Bound(port, "0.0.0.0", False) for port in range(1, 65536))
        self.assertEqual(ports.parse(line), list(range(1, listening.PORT_LIMIT + 1)))
        self.assertLess(len(line), ports.LINE_LIMIT)
