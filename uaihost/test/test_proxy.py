"""Which connections go through a proxy, and the tunnel that it opens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from uaihost.errors import SettingError
from uaihost.proxy import LIMIT, NotThrough, Proxies, Proxy, TunnelEndpoint
from uaihost.test.support import given, strategies

PROXY = "http://proxy.example:3128"


def goes(host: str, port: int = 443, secure: bool = True, **environ: Any) -> bool:
    return Proxies(environ).towards(host, port, secure) is not None


class ChoiceTests(SynchronousTestCase):
    def test_without_a_variable_it_goes_directly(self) -> None:
        self.assertFalse(goes("bridge.example"))
        self.assertFalse(goes("bridge.example", https_proxy=""))

    def test_the_variables_of_tls_and_of_the_rest(self) -> None:
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            self.assertTrue(goes("bridge.example", 443, True, **{name: PROXY}), name)
        for name in ("http_proxy", "HTTP_PROXY"):
            self.assertFalse(goes("bridge.example", 443, True, **{name: PROXY}), name)
        for name in ("http_proxy", "all_proxy", "ALL_PROXY"):
            self.assertTrue(goes("bridge.example", 80, False, **{name: PROXY}), name)
        for name in ("https_proxy", "HTTP_PROXY"):
            self.assertFalse(goes("bridge.example", 80, False, **{name: PROXY}), name)

    def test_small_letters_come_first(self) -> None:
        found = Proxies({"https_proxy": "http://a", "HTTPS_PROXY": "http://b", "ALL_PROXY": "http://c"})
        proxy = found.towards("bridge.example", 443, True)
        assert proxy is not None
        self.assertEqual((proxy.host, proxy.variable), ("a", "https_proxy"))

    def test_this_machine_is_reached_directly(self) -> None:
        for host in ("localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.8.9.1", "::1"):
            self.assertFalse(goes(host, https_proxy=PROXY), host)

    def test_no_proxy(self) -> None:
        for said, host, port in (
            ("*", "bridge.example", 443),
            ("bridge.example", "bridge.example", 443),
            ("bridge.example", "BRIDGE.Example.", 443),
            ("example", "bridge.example", 443),
            (".bridge.example", "a.bridge.example", 443),
            ("*.bridge.example", "a.bridge.example", 443),
            ("other, bridge.example", "bridge.example", 443),
            ("other bridge.example", "bridge.example", 443),
            ("bridge.example:8443", "bridge.example", 8443),
            ("10.1.2.3", "10.1.2.3", 443),
            ("10.1.2.3:443", "10.1.2.3", 443),
            ("10.0.0.0/8", "10.1.2.3", 443),
            ("fd00::/8", "fd00::7", 443),
            ("[fd00::7]:443", "fd00::7", 443),
            ("fd00::7", "fd00::7", 443),
        ):
            self.assertFalse(goes(host, port, https_proxy=PROXY, no_proxy=said), said)
            self.assertFalse(goes(host, port, https_proxy=PROXY, NO_PROXY=said), said)

    def test_what_no_proxy_does_not_stand_for(self) -> None:
        for said, host, port in (
            ("", "bridge.example", 443),
            (",", "bridge.example", 443),
            (".", "bridge.example", 443),
            ("ridge.example", "bridge.example", 443),
            ("bridge.example.org", "bridge.example", 443),
            ("bridge.example:8443", "bridge.example", 443),
            ("10.0.0.0/8", "11.1.2.3", 443),
            ("10.0.0.0/8", "bridge.example", 443),
            ("[fd00::7]:8443", "fd00::7", 443),
            ("fd00::8", "fd00::7", 443),
            ("10.0.0.0/99", "10.1.2.3", 443),
        ):
            self.assertTrue(goes(host, port, https_proxy=PROXY, no_proxy=said), said)

    @given(strategies.text(alphabet="*.:[]/,0123456789abf -", max_size=30), strategies.integers(1, 65535))
    def test_any_text_is_understood_or_passed_over(self, said: str, port: int) -> None:
        self.assertIn(goes("bridge.example", port, https_proxy=PROXY, no_proxy=said), (True, False))
        self.assertIn(goes("fd00::7", port, https_proxy=PROXY, no_proxy=said), (True, False))

    def test_forms(self) -> None:
        for value, host, port, secure in (
            ("http://proxy.example:3128", "proxy.example", 3128, False),
            ("proxy.example:3128", "proxy.example", 3128, False),
            ("http://proxy.example/", "proxy.example", 80, False),
            ("https://proxy.example", "proxy.example", 443, True),
            ("http://[fd00::1]:3128", "fd00::1", 3128, False),
        ):
            proxy = Proxies({"https_proxy": value}).towards("bridge.example", 443, True)
            assert proxy is not None
            self.assertEqual((proxy.host, proxy.port, proxy.secure), (host, port, secure), value)
            self.assertIsNone(proxy.authorization)

    def test_a_password_is_shown_to_the_proxy_alone(self) -> None:
        proxies = Proxies({"https_proxy": "http://me:p%40ss%20word@proxy.example:3128"})
        proxy = proxies.towards("bridge.example", 443, True)
        assert proxy is not None
        # RFC 7617: base64 of "me:p@ss word".
        self.assertEqual(proxy.authorization, "Basic bWU6cEBzcyB3b3Jk")
        for shown in (repr(proxies), repr(proxy), str(proxy)):
            self.assertNotIn("word", shown)
            self.assertNotIn("bWU6", shown)

    def test_what_is_no_proxy_is_refused_without_its_password(self) -> None:
        for value in (
            "socks5://me:secret@proxy",
            "http://me:secret@",
            "http://me:secret@proxy:x",
            "http://me:secret@proxy:0",
            "http://me:secret@[::1",
            "http://",
        ):
            error = self.assertRaises(SettingError, goes, "bridge.example", ALL_PROXY=value)
            self.assertIn("ALL_PROXY", error.message)
            self.assertNotIn("secret", error.message)

    def test_what_is_no_proxy_hinders_nobody_who_needs_none(self) -> None:
        self.assertFalse(goes("localhost", ALL_PROXY="socks5://proxy"))
        self.assertFalse(goes("bridge.example", ALL_PROXY="socks5://proxy", no_proxy="example"))

    def test_the_endpoint_connects_to_the_proxy(self) -> None:
        cases: tuple[tuple[dict[str, str], int], ...] = (
            ({}, 443),
            ({"https_proxy": "http://10.1.1.1:31"}, 31),
        )
        for environ, port in cases:
            reactor = MemoryReactorClock()
            endpoint = Proxies(environ).endpoint(reactor, "10.9.9.9", 443, secure=True, timeout=5)
            endpoint.connect(Factory.forProtocol(Protocol)).addErrback(lambda _: None)
            # Names and addresses all lead to one in memory.
            self.assertEqual([to for _, to, *_ in reactor.tcpClients], [port])


class Kept(Protocol):
    """What came through the tunnel, and its end."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.end: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.came.append(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.end = reason


@implementer(IStreamClientEndpoint)
class Way:
    """A connection to a proxy, in memory."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "10.1.1.1", 31))
        self.protocol: Any = None

    def connect(self, factory: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        if self.fails is not None:
            result.errback(self.fails)
            return result
        self.protocol = factory.buildProtocol(self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        result.callback(self.protocol)
        return result


class TunnelTests(SynchronousTestCase):
    def connecting(self, authorization: str | None = None, host: str = "bridge.example") -> Deferred[Any]:
        self.way, self.inner = Way(), Kept()
        proxy = Proxy("proxy.example", 3128, False, "https_proxy", authorization)
        return TunnelEndpoint(self.way, proxy, host, 443).connect(Factory.forProtocol(lambda: self.inner))

    def answers(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.way.protocol.dataReceived(piece)

    def why(self, *pieces: bytes, authorization: str | None = None) -> str:
        result = self.connecting(authorization)
        self.answers(*pieces)
        self.assertTrue(self.way.transport.disconnected or self.way.transport.disconnecting)
        return str(self.failureResultOf(result, NotThrough).value)

    def test_what_is_asked(self) -> None:
        self.connecting()
        self.assertEqual(
            self.way.transport.value(),
            b"CONNECT bridge.example:443 HTTP/1.1\r\nHost: bridge.example:443\r\nUser-Agent: uaihost\r\n\r\n",
        )
        self.connecting("Basic bWU6eA==", host="fd00::7")
        self.assertEqual(
            self.way.transport.value(),
            b"CONNECT [fd00::7]:443 HTTP/1.1\r\nHost: [fd00::7]:443\r\nUser-Agent: uaihost\r\n"
            b"Proxy-Authorization: Basic bWU6eA==\r\n\r\n",
        )

    def test_a_name_in_other_letters(self) -> None:
        self.connecting(host="brücke.example")
        self.assertIn(b"CONNECT xn--brcke-lva.example:443 ", self.way.transport.value())
        proxies = Proxies({"https_proxy": PROXY})
        error = self.assertRaises(
            SettingError, proxies.endpoint, None, f"{'ü' * 70}.example", 443, secure=True, timeout=1
        )
        self.assertIn("no name of a machine", error.message)

    @given(strategies.lists(strategies.integers(0, 120), max_size=6).map(sorted))
    def test_however_the_answer_comes_what_follows_is_the_tunnels(self, cuts: Sequence[int]) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        stream = interim + b"HTTP/1.0 200 Connection established\r\nVia: p\r\n\r\nhello\r\n\r\nyou"
        edges = [0, *(cut for cut in cuts if cut <= len(stream)), len(stream)]
        result = self.connecting()
        self.answers(*(stream[start:end] for start, end in pairwise(edges)))
        self.assertIs(self.successResultOf(result), self.inner)
        self.assertEqual(b"".join(self.inner.came), b"hello\r\n\r\nyou")

    def test_both_ways_and_its_end(self) -> None:
        result = self.connecting()
        self.answers(b"HTTP/1.1 200 OK\r\n\r\n")
        self.successResultOf(result)
        self.way.transport.clear()
        assert self.inner.transport is not None
        self.inner.transport.write(b"up")
        self.assertEqual(self.way.transport.value(), b"up")
        self.way.protocol.connectionLost(Failure(ConnectionDone()))
        assert self.inner.end is not None
        self.inner.end.trap(ConnectionDone)

    def test_a_sign_in_is_asked_for(self) -> None:
        answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno!"
        self.assertIn(
            "a user and a password (407): https_proxy=http://USER:PASSWORD@proxy.example", self.why(answer)
        )
        self.assertIn("another user and password (407)", self.why(answer, authorization="Basic eA=="))
        # As tinyproxy answers a wrong one.
        answer = b"HTTP/1.0 401 Unauthorized\r\n\r\n"
        self.assertIn("another user and password (401)", self.why(answer, authorization="Basic eA=="))

    def test_refusals_are_named(self) -> None:
        self.assertEqual(
            self.why(b"HTTP/1.1 403 Filtered\x1b[31m\r\n\r\n"),
            "the proxy proxy.example:3128 opens no way to bridge.example:443 (403 Filtered[31m)",
        )
        self.assertIn("(502)", self.why(b"HTTP/1.1 502\r\n\r\n"))

    def test_what_is_no_proxy(self) -> None:
        self.assertIn("no proxy's", self.why(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"))
        self.assertIn("no proxy's", self.why(b"x" * (LIMIT // 2), b"x" * LIMIT))

    def test_one_that_leaves(self) -> None:
        result = self.connecting()
        self.answers(b"HTTP/1.1 200 OK\r\n")
        self.way.protocol.connectionLost(Failure(ConnectionDone()))
        said = str(self.failureResultOf(result, NotThrough).value)
        self.assertIn("closed the connection before", said)

    def test_one_that_is_not_there(self) -> None:
        proxy = Proxy("proxy.example", 3128, False, "https_proxy")
        for fails, kind in ((ConnectionRefusedError(), NotThrough), (ZeroDivisionError(), ZeroDivisionError)):
            result = TunnelEndpoint(Way(fails), proxy, "b", 443).connect(Factory.forProtocol(Kept))
            error = self.failureResultOf(result, kind).value
            if kind is NotThrough:
                self.assertIn("the proxy proxy.example:3128 of https_proxy cannot be reached", str(error))

    def test_giving_up_ends_the_connection(self) -> None:
        result = self.connecting()
        result.addErrback(lambda _: None)
        result.cancel()
        self.assertTrue(self.way.transport.disconnected or self.way.transport.disconnecting)
        self.answers(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertIsNone(self.inner.transport)
