"""Who may ask the app for what: the whole matrix."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.guard import HEADERS, Asked, Guard, LetIn, Refused
from uaihost.bridge.names import Names
from uaihost.test.bridge.test_names import Known

KEY = "the-key"
HOST = "localhost:8789"


def guard() -> Guard:
    return Guard(Names(8789, Known()), KEY)


def cookie() -> str:
    return guard().set_cookie().split(";")[0]


READ = Asked("GET", "/api/state", HOST)
CHANGE = Asked("POST", "/api/tasks", HOST, content_type="application/json")
BEARER: dict[str, Any] = {"authorization": f"Bearer {KEY}"}
PAGE: dict[str, Any] = {"cookie": cookie(), "origin": f"http://{HOST}", "site": "same-origin"}


class GuardTests(SynchronousTestCase):
    def status(self, asked: Asked, **changes: Any) -> int:
        verdict = guard().judge(attrs.evolve(asked, **changes))
        return verdict.status if isinstance(verdict, Refused) else 200

    def test_the_key_opens_the_api_to_programs(self) -> None:
        self.assertEqual(self.status(READ, **BEARER), 200)
        self.assertEqual(self.status(CHANGE, **BEARER), 200)
        self.assertEqual(self.status(CHANGE, authorization=f"bearer  {KEY}"), 200)

    def test_the_cookie_opens_it_to_the_page(self) -> None:
        self.assertEqual(self.status(READ, cookie=cookie()), 200)
        self.assertEqual(self.status(READ, cookie=f"other=1; {cookie()}"), 200)
        self.assertEqual(self.status(CHANGE, **PAGE), 200)

    def test_without_proof_nothing_is_open(self) -> None:
        for proof in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {KEY}"},
            {"authorization": KEY},
            {"authorization": "Bearer "},
            {"cookie": "uai_8789=wrong"},
            {"cookie": f"uai_8789={KEY}"},
            {"cookie": cookie().replace("uai_8789", "uai_1")},
        ):
            self.assertEqual(self.status(READ, **proof), 401, proof)
            self.assertEqual(self.status(CHANGE, **proof), 401, proof)

    def test_other_host_names_are_misdirected_whatever_they_show(self) -> None:
        for host in ("evil.example:8789", "", "a-web.preview.localhost:8789", "localhost:80"):
            self.assertEqual(self.status(READ, host=host, **BEARER), 421, host)
            self.assertEqual(self.status(attrs.evolve(READ, path="/healthz"), host=host), 421, host)

    def test_a_change_by_another_origin_is_refused(self) -> None:
        for origin in (
            "http://evil.example",
            "http://a-web.preview.localhost:8789",
            "http://localhost:3000",
            "null",
            "http://localhost:8789.evil.example",
        ):
            self.assertEqual(self.status(CHANGE, **{**PAGE, "origin": origin}), 403, origin)
            self.assertEqual(self.status(CHANGE, **BEARER, origin=origin), 403, origin)

    def test_a_change_with_the_cookie_needs_an_origin(self) -> None:
        self.assertEqual(self.status(CHANGE, **{**PAGE, "origin": ""}), 403)

    def test_a_change_that_a_browser_calls_foreign_is_refused(self) -> None:
        for site in ("cross-site", "same-site"):
            self.assertEqual(self.status(CHANGE, **{**PAGE, "site": site}), 403)

    def test_a_change_is_json(self) -> None:
        for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            self.assertEqual(self.status(CHANGE, **{**PAGE, "content_type": kind}), 415, kind)
        self.assertEqual(
            self.status(CHANGE, **{**PAGE, "content_type": "application/json; charset=utf-8"}), 200
        )

    def test_every_method_but_reading_is_a_change(self) -> None:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
            self.assertEqual(self.status(CHANGE, method=method, cookie=cookie()), 403, method)

    def test_the_key_in_the_link_gives_the_cookie(self) -> None:
        asked = Asked("GET", "/", HOST, query_key=KEY)
        self.assertIsInstance(guard().judge(asked), LetIn)
        self.assertEqual(self.status(asked, query_key="wrong"), 401)
        self.assertEqual(self.status(asked, method="POST"), 401)
        self.assertEqual(self.status(asked, path="/api/state"), 401)

    def test_the_cookie_is_not_the_key_and_is_kept_from_scripts_and_other_sites(self) -> None:
        given = guard().set_cookie()
        self.assertNotIn(KEY, given)
        for word in ("HttpOnly", "SameSite=Strict", "Path=/", "uai_8789="):
            self.assertIn(word, given)
        self.assertNotIn("Domain", given)

    def test_people_get_a_page_and_programs_json(self) -> None:
        page = guard().judge(Asked("GET", "/", HOST))
        api = guard().judge(READ)
        assert isinstance(page, Refused) and isinstance(api, Refused)
        self.assertEqual((page.login, api.login), (True, False))

    def test_health_and_the_pages_own_files_are_open(self) -> None:
        self.assertEqual(self.status(Asked("GET", "/healthz", HOST)), 200)
        self.assertEqual(self.status(Asked("GET", "/static/style.css", HOST)), 200)
        self.assertEqual(self.status(Asked("POST", "/static/style.css", HOST)), 401)

    def test_a_body_that_is_too_large_is_refused_first(self) -> None:
        self.assertEqual(self.status(CHANGE, **BEARER, too_large=True), 413)

    def test_the_policy_lets_nothing_foreign_or_inline_in(self) -> None:
        policy = HEADERS["Content-Security-Policy"]
        self.assertIn("default-src 'none'", policy)
        self.assertIn("frame-ancestors 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertNotIn("*", policy)
