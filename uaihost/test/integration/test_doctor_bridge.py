"""The doctor's way to a bridge over real TCP and TLS, with each step broken in turn."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.bridge.service import bridge_settings, make_bridge
from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import Finding, Verdict
from uaihost.doctor.run import Examination, chosen
from uaihost.link.protocol import ServerSocketFactory
from uaihost.test.doctor.patients import TOKEN, patient
from uaihost.test.integration.bridge_host import ScriptedHost
from uaihost.test.link.ends import BridgeEnd
from uaihost.test.support import short_folder

reactor: Any = global_reactor


class WebServer(Protocol):
    """Answers everything alike; `factory.answer` makes the head."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.answer().encode())
        self.transport.loseConnection()


class Mute(Protocol):
    """Speaks another language."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"220 mail.example ESMTP\r\n")
        self.transport.loseConnection()


def head(status: str, **headers: str) -> str:
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Length: 0",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""])


def dated(ahead: float) -> str:
    """An answer with a clock that is so many seconds ahead."""
    return head("200 OK", Date=formatdate(time.time() + ahead, usegmt=True))


def free_port() -> int:
    with closing(socket.socket()) as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


class Rig(TestCase):
    """Checks of the bridge, on servers of this test."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.threads = Threads(reactor, "doctor-test", 8)
        self.addCleanup(self.threads.stop)

    async def examine(self, url: str, *only: str, **settings: str) -> dict[str, Finding]:
        given: dict[str, Any] = {"UAI_CLOUD_URL": url, "UAI_HOST_TOKEN": TOKEN, **settings}
        who = patient(self.folder, reactor=reactor, blocking=self.threads, **given)
        report = await Examination(who, chosen(CHECKS, only, True)).run()
        return {result.name: result.finding for result in report.results}

    def listen(self, factory: Any, context: Any = None) -> int:
        if context is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, factory, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def is_(self, found: Finding, verdict: Verdict, *words: str) -> Finding:
        self.assertEqual(found.verdict, verdict, found)
        for word in words:
            self.assertIn(word, f"{found.text}\n" + "\n".join(found.fix))
        if verdict is Verdict.FAIL:
            self.assertNotEqual(found.fix, ())
        return found


class RealBridgeTests(Rig):
    ALL = ("bridge-websocket", "bridge-tls", "bridge-token", "clock")

    async def bridge(self) -> str:
        self.port = free_port()
        self.data = short_folder(self)
        service = make_bridge(reactor, bridge_settings(self.data, self.port, TOKEN))
        service.startService()
        self.addCleanup(service.stopService)
        await service.started()
        return f"ws://127.0.0.1:{self.port}/host"

    async def test_all_is_well_and_the_bridge_knows_no_host_more(self) -> None:
        found = await self.examine(await self.bridge(), *self.ALL)
        for name in ("bridge-name", "bridge-tcp", "bridge-websocket", "bridge-token"):
            self.is_(found[name], Verdict.OK)
        self.assertIn(found["clock"].verdict, (Verdict.OK, Verdict.SKIPPED))
        with closing(sqlite3.connect(self.data / "bridge.db")) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM hosts").fetchone(), (0,))

    async def test_a_connected_host_stays_so(self) -> None:
        url = await self.bridge()
        host = ScriptedHost(reactor, self.port, token=TOKEN)
        await host.connect()
        self.is_((await self.examine(url, *self.ALL))["bridge-token"], Verdict.OK)
        host.send(kind="ping", ts=7)
        await host.heard(lambda frame: frame["kind"] == "pong" and frame["ts"] == 7)
        self.assertIsNone(host.close)
        host.socket.dropConnection(abort=True)
        await host.gone

    async def test_a_token_that_is_not_known_until_the_right_one_is_given(self) -> None:
        url = await self.bridge()
        found = await self.examine(url, "bridge-token", UAI_HOST_TOKEN="another-token-1234")
        self.is_(found["bridge-token"], Verdict.FAIL, "refuses the token", "UAI_HOST_TOKEN_FILE")
        self.assertNotIn("another-token", str(found))
        file = self.folder / "token"
        file.write_text(TOKEN + "\n")
        found = await self.examine(url, "bridge-token", UAI_HOST_TOKEN="", UAI_HOST_TOKEN_FILE=str(file))
        self.is_(found["bridge-token"], Verdict.OK)

    async def test_another_path_is_not_the_bridges(self) -> None:
        url = (await self.bridge()).replace("/host", "/nowhere")
        found = await self.examine(url, "bridge-websocket", "bridge-token")
        self.is_(found["bridge-websocket"], Verdict.FAIL, "in place of a WebSocket", "curl -v http://")
        self.is_(found["bridge-token"], Verdict.FAIL)


class BrokenTests(Rig):
    async def test_a_name_without_an_address(self) -> None:
        found = await self.examine("wss://no-such-name.invalid/host", "bridge-websocket", "bridge-token")
        self.is_(found["bridge-name"], Verdict.FAIL, "getent ahosts no-such-name.invalid")
        for name in ("bridge-tcp", "bridge-websocket", "bridge-token"):
            self.is_(found[name], Verdict.SKIPPED)

    async def test_nothing_listens_until_it_does(self) -> None:
        port = free_port()
        url = f"ws://127.0.0.1:{port}/host"
        found = await self.examine(url, "bridge-tcp", "bridge-token")
        self.is_(found["bridge-tcp"], Verdict.FAIL, "uaihost up")
        self.is_(found["bridge-token"], Verdict.SKIPPED, "is not reached")
        listening = reactor.listenTCP(port, Factory.forProtocol(Mute), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.is_((await self.examine(url, "bridge-tcp"))["bridge-tcp"], Verdict.OK)

    async def test_what_is_no_web_server(self) -> None:
        port = self.listen(Factory.forProtocol(Mute))
        found = await self.examine(f"ws://127.0.0.1:{port}/host", "bridge-websocket")
        self.is_(found["bridge-websocket"], Verdict.FAIL, "no HTTP", "curl -v")

    async def test_answers_that_are_no_websocket(self) -> None:
        for status, word in (
            ("403 Forbidden", "a sign-in of its own"),
            ("502 Bad Gateway", "behind it does not"),
            ("404 Not Found", "the path is not"),
            ("302 Found", "elsewhere (https://login.example/)"),
        ):
            port = self.web(partial(head, status, Location="https://login.example/"))
            found = await self.examine(f"ws://127.0.0.1:{port}/host?token=x", "bridge-websocket")
            self.is_(found["bridge-websocket"], Verdict.FAIL, status[:3], word)
            self.assertNotIn("token=x", str(found["bridge-websocket"]))

    async def test_a_clock_that_is_wrong_until_it_is_set(self) -> None:
        for ahead, verdict, way in (
            (-3600.0, Verdict.FAIL, "60 min ahead of"),
            (3600.0, Verdict.FAIL, "60 min behind"),
            (60.0, Verdict.WARN, "behind"),
            (0.0, Verdict.OK, "as the bridge's"),
        ):
            port = self.web(partial(dated, ahead))
            found = (await self.examine(f"ws://127.0.0.1:{port}/host", "clock"))["clock"]
            self.is_(found, verdict, way)
            if verdict is not Verdict.OK:
                self.assertIn("sudo timedatectl set-ntp true", found.fix)

    async def test_a_bridge_that_does_not_tell_the_time(self) -> None:
        port = self.web(lambda: head("200 OK"))
        found = await self.examine(f"ws://127.0.0.1:{port}/host", "clock")
        self.is_(found["clock"], Verdict.SKIPPED)

    def web(self, answer: Callable[[], str]) -> int:
        factory = Factory.forProtocol(WebServer)
        factory.answer = answer  # type: ignore[attr-defined]
        return self.listen(factory)


class CertificateTests(Rig):
    def setUp(self) -> None:
        super().setUp()
        self.authority = trustme.CA()
        self.ca_file = self.folder / "authority.pem"
        self.ca_file.write_bytes(self.authority.cert_pem.bytes())

    def serve(self, *names: str, begin: float = -1, end: float = 90) -> str:
        """A WebSocket server with a certificate for `names`; begin, end: its days from now."""
        now = datetime.now(UTC)
        leaf = self.authority.issue_cert(
            *names, not_before=now + timedelta(days=begin), not_after=now + timedelta(days=end)
        )
        pem = leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes()
        key = KeyPair.load(leaf.private_key_pem.bytes(), 1)
        context = PrivateCertificate.fromCertificateAndKeyPair(PrivateCertificate.loadPEM(pem), key).options()
        factory = ServerSocketFactory(
            reactor, lambda made: BridgeEnd().opened(made), lambda made, code, reason: None
        )
        return f"wss://localhost:{self.listen(factory, context)}/host"

    async def look(self, url: str, ca_file: Path | None = None, *more: str) -> dict[str, Finding]:
        given = {} if ca_file is None else {"UAI_CA_FILE": str(ca_file)}
        return await self.examine(url, "bridge-tls", *more, **given)

    async def test_an_authority_that_nobody_knows_until_it_is_named(self) -> None:
        url = self.serve("localhost")
        refused = (await self.look(url))["bridge-tls"]
        self.is_(refused, Verdict.FAIL, "no authority that this machine trusts", "export UAI_CA_FILE=")
        found = await self.look(url, self.ca_file, "bridge-websocket", "bridge-token")
        self.is_(found["bridge-tls"], Verdict.OK, "days left")
        self.is_(found["bridge-websocket"], Verdict.OK)
        # An end that answers pings and looks at no names: it let us in.
        self.is_(found["bridge-token"], Verdict.OK)

    async def test_another_authority(self) -> None:
        other = self.folder / "other.pem"
        other.write_bytes(trustme.CA().cert_pem.bytes())
        found = (await self.look(self.serve("localhost"), other))["bridge-tls"]
        self.is_(found, Verdict.FAIL, f"none of the authorities in {other}")

    async def test_one_that_has_ended(self) -> None:
        found = (await self.look(self.serve("localhost", begin=-30, end=-1), self.ca_file))["bridge-tls"]
        self.is_(found, Verdict.FAIL, "ended on", "-dates", "certbot renew")

    async def test_one_that_has_not_begun(self) -> None:
        found = (await self.look(self.serve("localhost", begin=1), self.ca_file))["bridge-tls"]
        self.is_(found, Verdict.FAIL, "this machine's clock is behind", "sudo timedatectl set-ntp true")

    async def test_one_that_ends_soon(self) -> None:
        found = await self.look(self.serve("localhost", end=5.5), self.ca_file, "bridge-websocket")
        self.is_(found["bridge-tls"], Verdict.WARN, "ends in 5 days")
        self.is_(found["bridge-websocket"], Verdict.OK)

    async def test_one_for_another_name(self) -> None:
        found = (await self.look(self.serve("bridge.example"), self.ca_file))["bridge-tls"]
        self.is_(found, Verdict.FAIL, "is for bridge.example, not for localhost", "subjectAltName")

    async def test_authorities_that_are_none(self) -> None:
        self.ca_file.write_text("no certificate\n")
        found = (await self.look(self.serve("localhost"), self.ca_file))["bridge-tls"]
        self.is_(found, Verdict.FAIL, "cannot be read", "openssl x509 -in")

    async def test_a_server_without_tls(self) -> None:
        port = self.listen(Factory.forProtocol(Mute))
        found = (await self.look(f"wss://localhost:{port}/host"))["bridge-tls"]
        self.is_(found, Verdict.FAIL, "does not speak TLS", f"ws://localhost:{port}/host")
