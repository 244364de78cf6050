"""What a destination is called: one spelling per host, and which addresses are public. Pure.

A host that can be spelled in two ways could be refused in one and let through in the other. So everything is
compared, resolved and dialled in the spelling that is made here.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import attrs

IPAddress = IPv4Address | IPv6Address

# Characters of a name in text form (RFC 1035, section 2.3.4); also bounds the work on a hostile one.
_LONGEST = 253
# Underscores are no host names, and yet some hosts have them.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
# The last part of what inet_aton(3) takes for an address, and browsers with it.
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")

# IANA's registry of special-purpose IPv4 addresses, as far as they are not globally reachable; with the
# relays of 6to4 (RFC 7526), multicast, and what is reserved.
_SPECIAL_4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# All that is routed lies in here (RFC 4291, section 2.4) ...
_UNICAST = IPv6Network("2000::/3")
# ... but protocol assignments with Teredo, documentation, and 6to4, which carries any IPv4 address.
_SPECIAL_6 = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
# The prefix under which networks without IPv4 reach it (RFC 6052): as public as the address inside.
_NAT64 = IPv6Network("64:ff9b::/96")


@attrs.frozen
class Destination:
    """host: as `host_name` spells it; port: 1 to 65535."""

    host: str
    port: int

    @property
    def address(self) -> IPAddress | None:
        """The host, when it is an address and no name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_name(text: str) -> str:
    """The one spelling of a host: a name in lower-case ASCII without a final dot, or an address.

    An address is taken in every spelling that some program understands: in brackets, octal, hexadecimal,
    shortened, as one number, IPv4 inside IPv6.

    Raises:
        ValueError: it is neither; the text says why.
    """
    if text.startswith("[") and text.endswith("]"):
        return str(unmapped(_ipv6(text[1:-1])))
    if ":" in text:
        return str(unmapped(_ipv6(text)))
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.match(labels[-1]):
        return str(_ipv4(labels))
    if len(name) > _LONGEST or not all(_LABEL.match(label) for label in labels):
        raise ValueError(f"{text[:80]!r} is no host name")
    return name


def destination(authority: str, default_port: int | None = None) -> Destination:
    """`host:port` taken apart (RFC 3986, section 3.2).

    default_port: for an authority without one; None where it must be given.

    Raises:
        ValueError: it is no host with a port; the text says why.
    """
    if "@" in authority:
        raise ValueError("a destination holds no user name")
    host, colon, port = authority.rpartition(":")
    if authority.endswith("]") or not colon:
        host, port = authority, ""
    # What has more colons is an IPv6 address, and nobody can say where it ends without brackets.
    if ":" in host and not host.startswith("["):
        raise ValueError("an IPv6 address before a port stands in brackets")
    if port == "" and default_port is not None:
        return Destination(host_name(host), default_port)
    if not _PORT.match(port) or not 1 <= int(port) <= 65535:
        raise ValueError("the port must be 1 to 65535")
    return Destination(host_name(host), int(port))


def network(text: str) -> IPv4Network | IPv6Network | None:
    """`address` or `network/bits`; None when it is a name.

    Raises:
        ValueError: it is neither, as 10.0.0.0/64.
    """
    base, slash, bits = text.partition("/")
    try:
        address = ip_address(host_name(base))
    except ValueError:
        if slash:
            raise
        return None
    return ip_network(f"{address}/{bits}" if slash else address, strict=False)


def unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address inside an IPv6 address that means nothing else (RFC 4291, section 2.5.5)."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_public(address: IPAddress) -> bool:
    """Whether it is one of the open internet: no loopback, private or link-local one, no metadata service.

    Tables of our own: `is_global` of Python's versions differ, and take multicast for global.
    """
    address = unmapped(address)
    if isinstance(address, IPv4Address):
        return not any(address in special for special in _SPECIAL_4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _UNICAST and not any(address in special for special in _SPECIAL_6)


def _ascii(text: str) -> str:
    if len(text) > _LONGEST + 1:
        raise ValueError(f"{text[:80]!r} is too long for a host name")
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError(f"{text[:80]!r} is no host name") from None
    return text.lower()


def _ipv4(parts: list[str]) -> IPv4Address:
    """As inet_aton(3): one to four numbers, the last of which fills the bytes that are left."""
    try:
        *first, last = (_number(part) for part in parts)
    except ValueError:
        first, last = [], -1
    if len(parts) > 4 or any(byte > 255 for byte in first) or not 0 <= last < 256 ** (5 - len(parts)):
        raise ValueError(f"{'.'.join(parts)[:80]!r} is no IPv4 address")
    return IPv4Address(last + sum(byte << (24 - 8 * place) for place, byte in enumerate(first)))


def _number(text: str) -> int:
    if not _NUMBER.match(text):
        raise ValueError
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)


def _ipv6(text: str) -> IPv6Address:
    # A zone names an interface of this machine.
    if "%" in text:
        raise ValueError("an address with a zone is reached from this machine only")
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no IPv6 address") from None
