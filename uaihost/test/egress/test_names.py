"""One spelling per host, and which addresses are public."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from twisted.trial.unittest import SynchronousTestCase

from uaihost.egress.names import Destination, destination, host_name, is_public, network, unmapped
from uaihost.test.support import given, strategies

SPELLINGS = {
    "Example.ORG": "example.org",
    "example.org.": "example.org",
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "xn--BCHER-kva.example": "xn--bcher-kva.example",
    "example。org": "example.org",
    "_dns.example": "_dns.example",
    "buildbox": "buildbox",
    "127.0.0.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "127.1": "127.0.0.1",
    "127.0.1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1",
    "0x7f.0.0.0x1": "127.0.0.1",
    "0X7F000001": "127.0.0.1",
    "2130706433": "127.0.0.1",
    "017700000001": "127.0.0.1",
    "\uff11\uff12\uff17.0.0.1": "127.0.0.1",
    "169.254.43518": "169.254.169.254",
    "0": "0.0.0.0",
    "[::1]": "::1",
    "::1": "::1",
    "0:0:0:0:0:0:0:1": "::1",
    "[2001:DB8::0001]": "2001:db8::1",
    "::ffff:127.0.0.1": "127.0.0.1",
    "[::ffff:7f00:1]": "127.0.0.1",
    "[::FFFF:A9FE:A9FE]": "169.254.169.254",
}

NO_HOSTS = (
    "",
    ".",
    "..",
    "a..b",
    ".example.org",
    "-a.example",
    "a-.example",
    "a b",
    "a\tb",
    "a/b",
    "a\\b",
    "a%2eb",
    "a\0b",
    "a\nb",
    "user@example.org",
    "*.example.org",
    "a" * 64,
    "a." * 127 + "ab",
    "x" * 5000,
    "1.2.3.4.5",
    "256.1.1.1",
    "1.2.3.256",
    "08.0.0.1",
    "4294967296",
    "example.1",
    "0x1g.0x1",
    "[127.0.0.1]",
    "[example.org]",
    "[::1",
    "::1]",
    "[]",
    "fe80::1%eth0",
    "1:2:3",
    "exa℀mple.org",
)

PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "223.255.255.255",
    "2606:4700::1",
    "2a00:1450::1",
    "64:ff9b::808:808",
    "::ffff:8.8.8.8",
)

NOT_PUBLIC = (
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "fe80::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
)


class HostNameTests(SynchronousTestCase):
    def test_spellings(self) -> None:
        for given_text, meant in SPELLINGS.items():
            self.assertEqual(host_name(given_text), meant, given_text)

    def test_a_spelling_is_its_own(self) -> None:
        for meant in SPELLINGS.values():
            self.assertEqual(host_name(meant), meant)

    def test_what_is_no_host(self) -> None:
        for text in NO_HOSTS:
            with self.assertRaises(ValueError, msg=repr(text)):
                host_name(text)

    @given(strategies.text(max_size=300))
    def test_any_text_has_one_spelling_or_none(self, text: str) -> None:
        try:
            found = host_name(text)
        except ValueError as error:
            self.assertLess(len(str(error)), 500)
            return
        self.assertEqual(host_name(found), found)
        self.assertTrue(found.isascii())
        self.assertNotIn(found[-1], ".]")

    @given(strategies.integers(0, 2**32 - 1), strategies.integers(1, 4), strategies.data())
    def test_every_spelling_of_an_ipv4_address(
        self, number: int, parts: int, data: strategies.DataObject
    ) -> None:
        numbers = [number >> (24 - 8 * place) & 255 for place in range(parts - 1)]
        numbers.append(number & 256 ** (5 - parts) - 1)
        spelled = [
            data.draw(strategies.sampled_from(["{:d}", "{:#x}", "0{:o}", "0X{:X}", "000{:o}"])).format(part)
            for part in numbers
        ]
        self.assertEqual(host_name(".".join(spelled)), str(IPv4Address(number)))

    @given(strategies.integers(0, 2**32 - 1))
    def test_an_ipv4_address_inside_ipv6_is_that_address(self, number: int) -> None:
        address = IPv4Address(number)
        self.assertEqual(host_name(f"[::ffff:{address}]"), str(address))
        self.assertEqual(unmapped(IPv6Address((0xFFFF << 32) | number)), address)


class DestinationTests(SynchronousTestCase):
    def test_taken_apart(self) -> None:
        self.assertEqual(destination("Example.org:443"), Destination("example.org", 443))
        self.assertEqual(destination("example.org", 80), Destination("example.org", 80))
        self.assertEqual(destination("example.org:", 80), Destination("example.org", 80))
        self.assertEqual(destination("[::1]:22"), Destination("::1", 22))
        self.assertEqual(destination("[::1]", 80), Destination("::1", 80))
        self.assertEqual(destination("0x7f.1:80"), Destination("127.0.0.1", 80))

    def test_what_is_none(self) -> None:
        texts = ("example.org", "example.org:", ":443", "a:0", "a:65536", "a:x", "a:+1", "a:4 3", "a:\uff11")
        for text in (*texts, "::1:443", "a:1:2", "[::1]443", "[a]:1", "u@a:1", "u:p@a:1", "[::1]:443:1"):
            with self.assertRaises(ValueError, msg=text):
                destination(text)

    def test_shown_as_it_is_written(self) -> None:
        self.assertEqual(str(Destination("::1", 22)), "[::1]:22")
        self.assertEqual(str(Destination("a.example", 22)), "a.example:22")

    @given(strategies.text(max_size=40), strategies.integers(1, 65535))
    def test_shown_and_taken_apart_again(self, text: str, port: int) -> None:
        try:
            host = host_name(text)
        except ValueError:
            host = "2001:db8::1"
        self.assertEqual(destination(str(Destination(host, port))), Destination(host, port))

    def test_networks(self) -> None:
        self.assertEqual(str(network("10.1.2.3/8")), "10.0.0.0/8")
        self.assertEqual(str(network("10.1.2.3")), "10.1.2.3/32")
        self.assertEqual(str(network("fd00::/8")), "fd00::/8")
        self.assertIsNone(network("example.org"))
        for text in ("10.0.0.0/64", "10.0.0.0/x", "example.org/8"):
            with self.assertRaises(ValueError, msg=text):
                network(text)


class PublicTests(SynchronousTestCase):
    def test_public(self) -> None:
        for text in PUBLIC:
            self.assertTrue(is_public(ip_address(text)), text)

    def test_not_public(self) -> None:
        for text in NOT_PUBLIC:
            self.assertFalse(is_public(ip_address(text)), text)

    @given(strategies.ip_addresses())
    def test_nothing_is_public_that_python_knows_to_be_private(
        self, address: IPv4Address | IPv6Address
    ) -> None:
        inner = unmapped(address)
        special = inner.is_private or inner.is_loopback or inner.is_link_local or inner.is_multicast
        self.assertFalse(is_public(address) and special, str(address))

    @given(strategies.ip_addresses(v=4))
    def test_ipv6_makes_an_ipv4_address_no_more_public(self, address: IPv4Address) -> None:
        for prefix in (0xFFFF << 32, 0x64FF9B << 96):
            self.assertEqual(is_public(IPv6Address(prefix | int(address))), is_public(address))
