"""The local API: what it answers, whom it refuses, and that its TCP door may fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.web.listeners import LocalListeners
from uaihost.web.site import LocalApi


class FakeDaemon:
    def __init__(self) -> None:
        self.exposed: dict[str, dict[str, int]] = {}
        self.signed_in: dict[str, tuple[str, dict[str, str]]] = {}
        self.verbs = {"greet": self.greet}

    async def greet(self, words: dict[str, Any]) -> dict[str, Any]:
        if "name" not in words:
            raise HostError(ErrorCode.INVALID_ARGS, "expected a name")
        return {"said": f"hello {words['name']}"}

    async def status(self) -> dict[str, Any]:
        return {"tasks": sorted(self.exposed)}

    async def expose(self, task_id: str, ports: Mapping[str, int]) -> None:
        self.exposed[task_id] = dict(ports)

    async def unexpose(self, task_id: str) -> None:
        if self.exposed.pop(task_id, None) is None:
            raise HostError(ErrorCode.NOT_FOUND, f"no exposed task {task_id}")

    async def task(self, task_id: str) -> dict[str, Any]:
        if task_id not in self.exposed:
            raise HostError(ErrorCode.NOT_FOUND, f"this host has no task {task_id}")
        return {"id": task_id, "status": "running"}

    async def clean(self, dry_run: bool) -> dict[str, Any]:
        return {"removed": [], "dryRun": dry_run}

    async def accounts(self) -> dict[str, Any]:
        return {"accounts": [{"provider": name, "form": form} for name, (form, _) in self.signed_in.items()]}

    async def sign_in(self, provider: str, form: str, secrets: Mapping[str, str]) -> None:
        self.signed_in[provider] = (form, dict(secrets))

    async def sign_out(self, provider: str) -> None:
        self.signed_in.pop(provider, None)


class ApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        host: str = "127.0.0.1:5876",
        readable_only: bool = False,
    ) -> tuple[int, Any]:
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
        site = LocalApi(self.daemon, readable_only=readable_only).site(Clock())
        site.startFactory()
        self.addCleanup(site.stopFactory)
        connection = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport = StringTransport()
        connection.makeConnection(transport)
        connection.dataReceived(head.encode() + content)
        answer_head, _, answer = transport.value().partition(b"\r\n\r\n")
        return int(answer_head.split()[1]), json.loads(answer)

    def test_status_is_what_the_daemon_says(self) -> None:
        self.assertEqual(self.ask("GET", "/api/status"), (200, {"tasks": []}))

    def test_health(self) -> None:
        self.assertEqual(self.ask("GET", "/healthz"), (200, {"ok": True}))

    def test_one_task(self) -> None:
        self.ask("PUT", "/api/exposed/k", {"ports": {"web": 80}})
        self.assertEqual(self.ask("GET", "/api/tasks/k"), (200, {"id": "k", "status": "running"}))
        self.assertEqual(self.ask("GET", "/api/tasks/other")[0], 404)

    def test_cleaning_up(self) -> None:
        answer = self.ask("POST", "/api/clean", {"dryRun": True})
        self.assertEqual(answer, (200, {"removed": [], "dryRun": True}))
        self.assertEqual(self.ask("POST", "/api/clean", {"dryRun": "yes"})[0], 400)
        self.assertEqual(self.ask("POST", "/api/clean", {"dryRun": True}, readable_only=True)[0], 503)

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
        for method, given in (("PUT", body), ("DELETE", None)):
            status, _ = self.ask(method, "/api/accounts/codex", given, readable_only=True)
            self.assertEqual((status, self.daemon.signed_in), (503, {}), "any local user could do it")

    def test_verbs_are_asked_for_by_name(self) -> None:
        answer = self.ask("POST", "/api/verbs/greet", {"name": "you"})
        self.assertEqual(answer, (200, {"said": "hello you"}))
        self.assertEqual(self.ask("POST", "/api/verbs/greet", {})[0], 400)
        self.assertEqual(self.ask("POST", "/api/verbs/other", {})[0], 404)
        self.assertEqual(self.ask("POST", "/api/verbs/greet", {"name": "you"}, readable_only=True)[0], 503)

    def test_a_large_body_is_refused(self) -> None:
        status, _ = self.ask("PUT", "/api/exposed/k", {"ports": {"x" * 70_000: 1}})
        self.assertEqual(status, 400)

    def test_the_tcp_door_changes_nothing(self) -> None:
        status, _ = self.ask("PUT", "/api/exposed/k", {"ports": {"web": 80}}, readable_only=True)
        self.assertEqual((status, self.daemon.exposed), (503, {}))

    def test_the_tcp_door_answers_only_to_its_own_name(self) -> None:
        for host, expected in [
            ("127.0.0.1:5876", 200),
            ("localhost:5876", 200),
            ("LOCALHOST", 200),
            ("evil.example:5876", 400),
            ("", 400),
        ]:
            status, _ = self.ask("GET", "/api/status", host=host, readable_only=True)
            self.assertEqual(status, expected, host)


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
        listeners = LocalListeners(
            reactor, FakeDaemon(), socket=folder / "control.sock", port=5876, port_file=folder / "ui-port"
        )
        listeners.startService()
        return listeners, folder, reactor

    def test_the_next_free_port_is_taken_and_written_down(self) -> None:
        _, folder, reactor = self.listeners({5876, 5877})
        self.assertEqual((folder / "ui-port").read_text(), "5878\n")
        self.assertEqual([server[0] for server in reactor.tcpServers], [5878])
        self.assertEqual([server[3] for server in reactor.tcpServers], ["127.0.0.1"])

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
