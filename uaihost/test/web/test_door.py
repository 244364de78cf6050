"""The TCP door over HTTP, and the token that opens it."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import short_folder
from uaihost.test.web.fakes import Answer, Caller, FakeDaemon, FakeDownload
from uaihost.web.door import Door, installed_token
from uaihost.web.guards import HEADERS
from uaihost.web.pages import Pages
from uaihost.web.site import LocalApi

TOKEN = "a-token-of-a-test-that-is-long-enough-for-one"


class DoorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = FakeDaemon()
        self.door = Door(TOKEN)
        self.door.port = 5876
        self.site = LocalApi(self.daemon, Clock(), door=self.door, pages=Pages()).site()
        self.addCleanup(self.site.stopFactory)

    def ask(
        self, method: str, path: str, shown: Mapping[str, str] | None = None, body: bytes = b"", **more: str
    ) -> Answer:
        headers = {"Host": "127.0.0.1:5876", **(shown or {}), **more}
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        caller = Caller(self.site)
        caller.send(method, path, sent, body)
        return caller.answer

    def opened(self) -> dict[str, str]:
        """What a page shows that was opened by its link."""
        answer = self.ask("GET", f"/?token={TOKEN}")
        cookie = answer.headers["set-cookie"].partition(";")[0]
        key = answer.headers["location"].removeprefix("/#key=")
        return {"Cookie": cookie, "X_Uaihost_Key": key, "Sec_Fetch_Site": "same-origin"}

    def test_the_link_opens_the_page_and_leaves_no_token_in_its_address(self) -> None:
        self.assertEqual(self.door.link, f"http://127.0.0.1:5876/?token={TOKEN}")
        answer = self.ask("GET", f"/?token={TOKEN}")
        self.assertEqual(answer.status, 303)
        self.assertNotIn(TOKEN, str(answer))
        name, *attributes = answer.headers["set-cookie"].split("; ")
        self.assertTrue(name.startswith("uaihost-5876="))
        self.assertLessEqual({"HttpOnly", "SameSite=Strict", "Path=/"}, set(attributes))
        self.assertEqual(self.ask("GET", "/api/status", self.opened()).json, {"tasks": []})

    def test_the_token_is_not_logged(self) -> None:
        events: list[object] = []
        heard: Any = events.append
        globalLogPublisher.addObserver(heard)
        self.addCleanup(globalLogPublisher.removeObserver, heard)
        self.ask("GET", f"/?token={TOKEN}")
        self.ask("GET", f"/nothing?token={TOKEN}")
        self.ask(
            "POST",
            "/api/verbs/break",
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertGreaterEqual(len(events), 1)
        self.assertNotIn(TOKEN, str(events))

    def test_a_wrong_token_gives_a_page_without_anything(self) -> None:
        for token in ("", "x", TOKEN[:-1], TOKEN + "x", "%ff"):
            answer = self.ask("GET", f"/?token={token}")
            self.assertEqual((answer.status, answer.headers.get("set-cookie")), (200, None), token)
            self.assertNotIn(TOKEN, str(answer))

    def test_the_page_has_one_name(self) -> None:
        answer = self.ask("GET", f"/?token={TOKEN}", Host="localhost:5876")
        self.assertEqual((answer.status, answer.headers.get("set-cookie")), (302, None))
        self.assertEqual(answer.headers["location"], f"http://127.0.0.1:5876/?token={TOKEN}")
        self.assertEqual(self.ask("GET", "/", Host="evil.example:5876").status, 421)

    def test_without_the_token_only_its_health_is_seen(self) -> None:
        for path in ("/livez", "/healthz", "/readyz"):
            self.assertEqual(self.ask("GET", path).json, {"ok": True})
        self.daemon.problem = "bridge waiting: refused by secret.example"
        answer = self.ask("GET", "/readyz")
        self.assertEqual((answer.status, answer.json), (503, {"ok": False}))
        for path in (
            "/api/status",
            "/api/tasks/k",
            "/api/accounts",
            "/api/log",
            "/api/downloads/x",
            "/metrics",
        ):
            answer = self.ask("GET", path)
            self.assertEqual((answer.status, answer.json["error"]["code"]), (401, "locked"), path)

    def test_every_answer_says_what_a_browser_may_do_with_it(self) -> None:
        shown = self.opened()
        for method, path in (
            ("GET", "/"),
            ("GET", "/static/page.js"),
            ("GET", "/livez"),
            ("GET", "/api/status"),
            ("GET", "/nothing"),
            ("OPTIONS", "/api/status"),
            ("TRACE", "/"),
        ):
            answer = self.ask(method, path, shown)
            for name, value in HEADERS.items():
                self.assertEqual(answer.headers.get(name.lower()), value, (method, path, name))
            self.assertFalse([name for name in answer.headers if name.startswith("access-control")])

    def test_the_link_is_not_told_at_this_door(self) -> None:
        self.assertEqual(self.ask("GET", "/api/page", self.opened()).json, {"url": None})
        self.assertEqual(self.ask("GET", "/api/page", Authorization=f"Bearer {TOKEN}").json, {"url": None})

    def test_a_program_shows_the_token(self) -> None:
        for words in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
            self.assertEqual(self.ask("GET", "/api/status", Authorization=words).status, 200)
        for words in (TOKEN, f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN} x"):
            self.assertEqual(self.ask("GET", "/api/status", Authorization=words).status, 401, words)

    def test_a_verb_is_done_for_the_page_alone(self) -> None:
        page = {**self.opened(), "Origin": "http://127.0.0.1:5876", "Content_Type": "application/json"}
        body = b'{"name": "you"}'
        self.assertEqual(self.ask("POST", "/api/verbs/greet", page, body).json, {"said": "hello you"})
        for changed, status in (
            ({"Origin": "http://127.0.0.1:3000"}, 403),
            ({"Origin": "null"}, 403),
            ({"Content_Type": "text/plain"}, 415),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"X_Uaihost_Key": ""}, 401),
            ({"Cookie": ""}, 401),
            ({"Upgrade": "websocket"}, 400),
        ):
            self.assertEqual(self.ask("POST", "/api/verbs/greet", {**page, **changed}, body).status, status)

    def test_a_header_that_comes_twice_is_nobodys(self) -> None:
        caller = Caller(self.site)
        caller.protocol.dataReceived(
            b"GET /api/status HTTP/1.0\r\nHost: 127.0.0.1:5876\r\nAuthorization: Bearer "
            + TOKEN.encode()
            + b"\r\nOrigin: http://127.0.0.1:5876\r\nOrigin: http://evil.example\r\n\r\n"
        )
        self.assertEqual(caller.answer.status, 403)

    def test_a_download_is_sent_once_as_a_file(self) -> None:
        made = self.daemon.downloads["t"] = FakeDownload(b"one", b"two")
        shown = {name: text for name, text in self.opened().items() if name != "X_Uaihost_Key"}
        answer = self.ask("GET", "/api/downloads/t", shown)
        self.assertEqual((answer.status, answer.body, made.closed), (200, b"onetwo", True))
        self.assertEqual(answer.headers["content-disposition"], 'attachment; filename="t1.tar.gz"')
        self.assertEqual(self.ask("GET", "/api/downloads/t", shown).status, 404)

    def test_a_download_waits_for_a_slow_reader_and_ends_with_it(self) -> None:
        made = self.daemon.downloads["t"] = FakeDownload(b"one", b"two", b"three")
        caller = Caller(self.site)
        held: Any = caller.transport
        original = held.write

        def write(data: bytes) -> None:
            original(data)
            if b"one" in data and held.producer is not None:
                held.producer.pauseProducing()

        held.write = write
        caller.send("GET", "/api/downloads/t", {"Host": "127.0.0.1:5876", "Authorization": f"Bearer {TOKEN}"})
        self.assertEqual((caller.answer.body, made.closed), (b"one", False))
        caller.leave()
        self.assertEqual((made.closed, made.pieces), (True, [b"two", b"three"]))


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = short_folder(self) / "ui-token"

    def mode(self, path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    def test_it_is_made_once(self) -> None:
        token = installed_token(self.path)
        self.assertGreaterEqual(len(token), 43)
        self.assertEqual((installed_token(self.path), self.mode(self.path)), (token, 0o600))

    def test_one_that_others_could_read_is_made_anew(self) -> None:
        token = installed_token(self.path)
        self.path.chmod(0o644)
        fresh = installed_token(self.path)
        self.assertNotEqual(fresh, token)
        self.assertEqual(self.mode(self.path), 0o600)

    def test_one_that_is_short_or_no_text_is_made_anew(self) -> None:
        for content in (b"", b"short\n", b"\xff" * 60):
            self.path.write_bytes(content)
            self.path.chmod(0o600)
            self.assertGreaterEqual(len(installed_token(self.path)), 43)

    def test_a_link_is_not_followed(self) -> None:
        other = self.path.with_name("other")
        other.write_text("o" * 50)
        other.chmod(0o600)
        self.path.symlink_to(other)
        self.assertNotEqual(installed_token(self.path), "o" * 50)
        self.assertFalse(self.path.is_symlink())
        self.assertEqual(other.read_text(), "o" * 50)
