"""The local API at the Unix socket, which serves everything; and that the TCP door may fail."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import short_folder
from uaihost.test.web.fakes import Caller, FakeDaemon
from uaihost.web.listeners import MOST, LocalListeners
from uaihost.web.pages import Pages
from uaihost.web.site import LocalApi


class ApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        site = LocalApi(self.daemon, Clock(), door=None, pages=Pages()).site()
        self.addCleanup(site.stopFactory)
        caller = Caller(site)
        caller.send(method, path, {"Host": "anything"}, content)
        return caller.answer.status, caller.answer.json

    def test_status_is_what_the_daemon_says(self) -> None:
        self.assertEqual(self.ask("GET", "/api/status"), (200, {"tasks": []}))

    def test_health(self) -> None:
        for path in ("/livez", "/healthz"):
            self.assertEqual(self.ask("GET", path), (200, {"ok": True}))
        ready = {"ok": True, "parts": {"bridge": None, "engine": None}}
        self.assertEqual(self.ask("GET", "/readyz"), (200, ready))
        self.daemon.problem = "waiting: refused"
        self.assertEqual(self.ask("GET", "/livez"), (200, {"ok": True}))
        answer = self.ask("GET", "/readyz")
        self.assertEqual(
            answer, (503, {"ok": False, "parts": {"bridge": "waiting: refused", "engine": None}})
        )

    def test_a_defect_is_a_sentence_and_a_line_in_the_log(self) -> None:
        status, answer = self.ask("POST", "/api/verbs/break", {})
        self.assertEqual((status, answer["error"]["code"]), (500, "internal"))
        self.assertNotIn("secret", str(answer))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_addresses_that_the_documents_name_are_there(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "local-page.md").read_text(encoding="utf-8")
        named = re.findall(r"^\| `(GET|POST) (/[^`?]*)", page, re.M)
        self.assertGreaterEqual(len(named), 6)
        known = LocalApi.app.url_map.bind("x")
        for method, path in named:
            self.assertTrue(known.test(path, method), (method, path))

    def test_what_is_not_there_or_not_done_so(self) -> None:
        self.assertEqual(self.ask("GET", "/api/nothing")[0], 404)
        self.assertEqual(self.ask("GET", "/static/..%2Fsite.py")[0], 404)
        self.assertEqual(self.ask("GET", "/static/site.py")[0], 404)
        self.assertEqual(self.ask("DELETE", "/api/status")[0], 405)

    def test_one_task(self) -> None:
        self.ask("PUT", "/api/exposed/k", {"ports": {"web": 80}})
        self.assertEqual(self.ask("GET", "/api/tasks/k"), (200, {"id": "k", "status": "running"}))
        self.assertEqual(self.ask("GET", "/api/tasks/other")[0], 404)

    def test_cleaning_up(self) -> None:
        answer = self.ask("POST", "/api/clean", {"dryRun": True})
        self.assertEqual(answer, (200, {"removed": [], "dryRun": True}))
        self.assertEqual(self.ask("POST", "/api/clean", {"dryRun": "yes"})[0], 400)

    def test_a_task_is_exposed_and_not_any_more(self) -> None:
        self.assertEqual(self.ask("PUT", "/api/exposed/k", {"ports": {"web": 80}}), (200, {}))
        self.assertEqual(self.daemon.exposed, {"k": {"web": 80}})
        self.assertEqual(self.ask("DELETE", "/api/exposed/k"), (200, {}))
        status, answer = self.ask("DELETE", "/api/exposed/k")
        self.assertEqual((status, answer["error"]["code"]), (404, "not_found"))

    def test_bad_bodies_are_described(self) -> None:
        bodies: list[Any] = [None, [], {}, {"ports": []}, {"ports": {"web": "80"}}, {"ports": {"web": True}}]
        for body in bodies:
            status, answer = self.ask("PUT", "/api/exposed/k", body)
            self.assertEqual((status, answer["error"]["code"]), (400, "invalid_args"), body)
        self.assertEqual(self.daemon.exposed, {})

    def test_signing_in_and_out(self) -> None:
        body = {"form": "key", "secrets": {"key": "sk-1"}}
        self.assertEqual(self.ask("PUT", "/api/accounts/codex", body), (200, {}))
        self.assertEqual(self.daemon.signed_in, {"codex": ("key", {"key": "sk-1"})})
        status, answer = self.ask("GET", "/api/accounts")
        self.assertEqual((status, answer), (200, {"accounts": [{"provider": "codex", "form": "key"}]}))
        self.assertEqual(self.ask("DELETE", "/api/accounts/codex"), (200, {}))
        self.assertEqual(self.daemon.signed_in, {})
        for bad in (
            None,
            {"form": "key"},
            {"form": 1, "secrets": {}},
            {"form": "key", "secrets": {"key": 1}},
        ):
            self.assertEqual(self.ask("PUT", "/api/accounts/codex", bad)[0], 400, bad)

    def test_verbs_are_asked_for_by_name(self) -> None:
        answer = self.ask("POST", "/api/verbs/greet", {"name": "you"})
        self.assertEqual(answer, (200, {"said": "hello you"}))
        self.assertEqual(self.ask("POST", "/api/verbs/greet", {})[0], 400)
        self.assertEqual(self.ask("POST", "/api/verbs/other", {})[0], 404)

    def test_a_large_body_is_refused(self) -> None:
        status, _ = self.ask("PUT", "/api/exposed/k", {"ports": {"x" * 70_000: 1}})
        self.assertEqual(status, 400)


class _BusyReactor(MemoryReactorClock):
    """A reactor on which the first ports are taken."""

    def __init__(self, taken: set[int]) -> None:
        super().__init__()
        self.taken = taken

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        if port in self.taken:
            raise CannotListenError(interface, port, OSError("in use"))
        return super().listenTCP(port, factory, backlog, interface)


class ListenerTests(SynchronousTestCase):
    def listeners(self, taken: set[int]) -> tuple[LocalListeners, Path, _BusyReactor]:
        folder = short_folder(self)
        reactor = _BusyReactor(taken)
        self.learned: list[str] = []
        listeners = LocalListeners(
            reactor,
            FakeDaemon(),
            socket=folder / "control.sock",
            port=5876,
            port_file=folder / "ui-port",
            token_file=folder / "ui-token",
            learn=self.learned.append,
        )
        listeners.startService()
        return listeners, folder, reactor

    def test_the_next_free_port_is_taken_and_written_down(self) -> None:
        _, folder, reactor = self.listeners({5876, 5877})
        self.assertEqual((folder / "ui-port").read_text(), "5878\n")
        self.assertEqual([server[0] for server in reactor.tcpServers], [5878])
        self.assertEqual([server[3] for server in reactor.tcpServers], ["127.0.0.1"])

    def test_the_link_has_the_port_and_the_token(self) -> None:
        listeners, folder, _ = self.listeners({5876})
        token = (folder / "ui-token").read_text().strip()
        self.assertEqual(listeners.link, f"http://127.0.0.1:5877/?token={token}")
        self.assertEqual(stat.S_IMODE((folder / "ui-token").stat().st_mode), 0o600)
        self.assertEqual(self.learned, [token])

    def test_thousands_of_connections_take_no_more_than_their_share(self) -> None:
        _, _, reactor = self.listeners(set())
        factory: Any = reactor.tcpServers[0][1]
        opened = []
        for _ in range(MOST):
            opened.append(factory.buildProtocol(None))
            opened[-1].makeConnection(StringTransport())
        self.assertIsNone(factory.buildProtocol(None))
        opened[0].connectionLost(Failure(ConnectionDone()))
        one = factory.buildProtocol(None)
        one.makeConnection(transport := StringTransport())
        one.dataReceived(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:5876\r\n\r\n")
        self.assertTrue(transport.value().startswith(b"HTTP/1.1 200 "), transport.value())
        for each in (*opened[1:], one):
            each.connectionLost(Failure(ConnectionDone()))

    def test_what_browsers_keep_open_ends_with_the_service(self) -> None:
        listeners, _, reactor = self.listeners(set())
        factory: Any = reactor.tcpServers[0][1]
        transport = StringTransport()
        factory.buildProtocol(None).makeConnection(transport)
        self.successResultOf(Deferred.fromCoroutine(listeners.stopService()))
        self.assertTrue(transport.disconnecting)

    def test_a_token_that_cannot_be_made_does_not_stop_the_service(self) -> None:
        folder = short_folder(self)
        (folder / "ui-token").mkdir()
        (folder / "ui-token" / "file").touch()
        reactor = _BusyReactor(set())
        listeners = LocalListeners(
            reactor,
            FakeDaemon(),
            socket=folder / "control.sock",
            port=5876,
            port_file=folder / "ui-port",
            token_file=folder / "ui-token",
        )
        listeners.startService()
        self.assertEqual((len(reactor.unixServers), len(reactor.tcpServers), listeners.link), (1, 0, None))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_pages_that_are_not_there_do_not_stop_the_service(self) -> None:
        site = LocalApi(FakeDaemon(), Clock(), door=None, pages=Pages(short_folder(self) / "none")).site()
        self.addCleanup(site.stopFactory)
        page, status = Caller(site), Caller(site)
        page.send("GET", "/", {})
        status.send("GET", "/api/status", {})
        self.assertEqual((page.answer.status, status.answer.status), (404, 200))

    def test_no_free_port_does_not_stop_the_service(self) -> None:
        listeners, folder, reactor = self.listeners(set(range(65536)))
        self.assertIsNone(listeners.port)
        self.assertFalse((folder / "ui-port").exists())
        self.assertEqual(len(reactor.unixServers), 1)

    def test_the_port_file_goes_with_the_service(self) -> None:
        listeners, folder, _ = self.listeners(set())
        self.assertTrue((folder / "ui-port").exists())
        self.successResultOf(listeners.stopService())
        self.assertFalse((folder / "ui-port").exists())
