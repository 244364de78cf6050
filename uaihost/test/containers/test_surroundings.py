"""Addresses, routes and neighbours from the kernel's tables."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.containers import surroundings
from uaihost.containers.surroundings import Surroundings
from uaihost.test.support import given, short_folder, strategies

TRIE = """Main:
  +-- 0.0.0.0/0 3 0 4
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.213.7.16/28 2 0 2
        |-- 10.213.7.16
           /28 link UNICAST
        |-- 10.213.7.17
           /32 host LOCAL
        |-- 10.213.7.31
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.168.1.5
        /32 host LOCAL
Local:
     |-- 192.168.1.5
        /32 host LOCAL
"""
# As on a little-endian machine; the last line was cut off.
ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
uai-00000001\t1007D50A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0
uai-00000002\t2007D50A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t0001
"""


class SurroundingsTests(TestCase):
    def setUp(self) -> None:
        self.found = Surroundings(surroundings.own_addresses(TRIE), surroundings.routes(ROUTES), {})

    def test_own_addresses_without_loopback_and_twice_none(self) -> None:
        self.assertEqual(self.found.addresses, ("10.213.7.17", "192.168.1.5"))

    def test_addresses_of_bridges_come_last(self) -> None:
        self.assertEqual(self.found.own(), ["192.168.1.5", "10.213.7.17"])

    def test_gateways_stand_for_what_is_around(self) -> None:
        self.assertEqual(self.found.around(), ["192.168.1.1"])

    def test_attached_networks_are_no_bridges_and_not_half_of_the_internet(self) -> None:
        self.assertEqual(self.found.attached(), ["192.168.1.0/24"])

    def test_neighbours_are_behind_the_other_bridges(self) -> None:
        self.assertEqual(self.found.neighbours("uai-00000001"), ["10.213.7.34"])
        self.assertTrue(self.found.has("uai-00000001"))
        self.assertFalse(self.found.has("uai-00000003"))

    def test_a_neighbour_is_looked_for_where_containers_are(self) -> None:
        found = Surroundings((), self.found.routes, {}, frozenset({"uai-00000001"}))
        self.assertEqual(found.neighbours("uai-00000009"), ["10.213.7.34", "10.213.7.18"])

    def test_without_proc_nothing_is_found(self) -> None:
        self.assertEqual(surroundings.look(Path("/nowhere")), Surroundings((), (), {}))

    def test_all_of_it_is_read_from_proc(self) -> None:
        root = short_folder(self)
        (root / "net").mkdir()
        (root / "self" / "ns").mkdir(parents=True)
        (root / "net" / "fib_trie").write_text(TRIE)
        (root / "net" / "route").write_text(ROUTES)
        (root / "self" / "ns" / "net").symlink_to("net:[7]")
        for name, state in (("uai-00000001", "up"), ("uai-00000002", "down"), ("docker0", "down")):
            (root / name).mkdir()
            (root / name / "operstate").write_text(f"{state}\n")
        self.assertEqual(
            surroundings.look(root, root),
            Surroundings(
                self.found.addresses,
                self.found.routes,
                {"net": "net:[7]"},
                frozenset({"uai-00000002"}),
            ),
        )

    @given(strategies.text(alphabet="0123456789ABCDEFeth \t\n", max_size=300))
    def test_no_table_is_too_strange(self, text: str) -> None:
        self.assertIsInstance(surroundings.routes("head\n" + text), tuple)
