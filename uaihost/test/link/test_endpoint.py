"""URLs, CA files and the byte stream below a WebSocket."""

from __future__ import annotations

from pathlib import Path

import trustme
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import SettingError
from uaihost.link.endpoint import bridge_endpoint
from uaihost.link.protocol import ClientSocketFactory, ServerSocketFactory


class BridgeEndpointTests(SynchronousTestCase):
    def test_legal_urls(self) -> None:
        for url, shown in {
            "ws://127.0.0.1:8789/host": "ws://127.0.0.1:8789/host",
            "ws://bridge": "ws://bridge:",
            "wss://bridge.example:8443/a/host?key=SECRET": "wss://bridge.example:8443/a/host",
            "ws://[::1]:8789/host": "ws://::1:8789/host",
        }.items():
            self.assertEqual(repr(bridge_endpoint(MemoryReactorClock(), url)), shown)

    def test_illegal_urls_are_answered_with_the_legal_forms(self) -> None:
        for url in (
            "",
            "bridge",
            "http://bridge/host",
            "ws://",
            "ws:///host",
            "ws://bridge:0/host",
            "ws://bridge:70000/host",
            "ws://bridge:port/host",
            "ws://[::1/host",
            "wss://user:pass@bridge/host",
            "ws://bridge/host#part",
        ):
            error = self.assertRaises(SettingError, bridge_endpoint, MemoryReactorClock(), url)
            self.assertIn("wss://HOST[:PORT][/PATH]", str(error), url)
            self.assertNotIn("pass@", str(error))

    def test_the_default_ports(self) -> None:
        for url, port in {"ws://127.0.0.1/host": 80, "wss://127.0.0.1/host": 443}.items():
            reactor = MemoryReactorClock()
            bridge_endpoint(reactor, url).connect(Factory())
            self.assertEqual([(host, to) for host, to, *_ in reactor.tcpClients], [("127.0.0.1", port)])

    def test_ca_files(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        good, empty, broken = folder / "good.pem", folder / "empty.pem", folder / "broken.pem"
        one, two = trustme.CA(), trustme.CA()
        good.write_bytes(one.cert_pem.bytes() + b"\n" + two.cert_pem.bytes())
        empty.write_bytes(b"nothing\n")
        broken.write_bytes(b"-----BEGIN CERTIFICATE-----\nxyz\n-----END CERTIFICATE-----\n")
        self.assertEqual(
            repr(bridge_endpoint(MemoryReactorClock(), "wss://b/host", ca_file=good)), "wss://b:/host"
        )
        for path, what in {
            empty: "holds no PEM",
            broken: "cannot be read",
            folder / "none": "cannot be read",
        }.items():
            error = self.assertRaises(
                SettingError, bridge_endpoint, MemoryReactorClock(), "wss://b/host", ca_file=path
            )
            self.assertIn(what, str(error))
            self.assertIn(str(path), str(error))


class OptionTests(SynchronousTestCase):
    """Autobahn's own defaults decide nothing: a new option of a new release shows here."""

    def test_every_option_is_set(self) -> None:
        import inspect

        from uaihost.link.protocol import _COMMON

        clock = MemoryReactorClock()
        for factory in (
            ClientSocketFactory("ws://b/host", clock, lambda s: None, lambda s, c, r: None),
            ServerSocketFactory(clock, lambda s: None, lambda s, c, r: None),
        ):
            options = set(inspect.signature(factory.setProtocolOptions).parameters)
            source = inspect.getsource(type(factory).__init__)
            missing = {name for name in options if name not in _COMMON and f"{name}=" not in source}
            # The policy file of a browser plug-in is off with serveFlashSocketPolicy.
            self.assertEqual(missing - {"flashSocketPolicy"}, set())
            self.assertEqual(factory.autoPingInterval, 0)
            self.assertEqual(factory.maxMessagePayloadSize, 64 * 1024 * 1024)
