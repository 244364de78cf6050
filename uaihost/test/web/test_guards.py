"""Who opens the TCP door: a table of requests, each beside what is wrong with it."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, strategies
from uaihost.web.guards import HEADERS, Asked, Keys, Need, cookie_of, hosts, refusal, same

PORT = 5876
TOKEN = "t" * 43
KEYS = Keys.of(TOKEN, PORT)
PAGE = Asked(
    host="127.0.0.1:5876",
    origin="http://127.0.0.1:5876",
    site="same-origin",
    kind="application/json; charset=utf-8",
    cookie=KEYS.cookie,
    key=KEYS.key,
)
PROGRAM = Asked(host="127.0.0.1:5876", kind="application/json", bearer=TOKEN)


class GuardTests(SynchronousTestCase):
    def code(self, asked: Asked, need: Need, **changes: Any) -> str | None:
        why = refusal(attrs.evolve(asked, **changes), need, KEYS, PORT)
        return None if why is None else why.code

    def test_the_page_reads_and_changes(self) -> None:
        for need in (Need.NOTHING, Need.DATA, Need.CHANGE, Need.DOWNLOAD):
            self.assertIsNone(self.code(PAGE, need), need)
        self.assertIsNone(self.code(PAGE, Need.DATA, origin=None), "browsers do not name it when reading")

    def test_a_program_with_the_token_does_everything(self) -> None:
        for need in Need:
            self.assertIsNone(self.code(PROGRAM, need), need)
            wrong = "locked" if need is not Need.NOTHING else None
            self.assertEqual(self.code(PROGRAM, need, bearer=TOKEN[:-1] + "x"), wrong, need)

    def test_the_host_must_be_this_machine_at_this_port(self) -> None:
        for host in (
            "evil.example",
            "evil.example:5876",
            "127.0.0.1",
            "127.0.0.1:5877",
            "127.0.0.1:5876.evil.example",
            "127.1:5876",
            "127.0.0.2:5876",
            "0.0.0.0:5876",
            "localhost.:5876",
            "evil.localhost:5876",
            "a@127.0.0.1:5876",
            "[::1%25lo]:5876",
            " 127.0.0.1:5876",
            "",
            "\0",
        ):
            for need in Need:
                self.assertEqual(self.code(PAGE, need, host=host, origin=None), "wrong_host", (host, need))
        for host in ("localhost:5876", "LOCALHOST:5876", "[::1]:5876"):
            self.assertIsNone(self.code(PAGE, Need.DATA, host=host, origin=f"http://{host.lower()}"), host)
        self.assertIn("localhost", hosts(80))

    def test_another_origin_gets_nothing_whatever_it_has(self) -> None:
        for asked in (PAGE, PROGRAM):
            for origin in (
                "http://127.0.0.1:3000",
                "https://127.0.0.1:5876",
                "http://localhost:5876",
                "http://127.0.0.1:5876.evil.example",
                "http://127.0.0.1",
                "null",
                "",
                "\0",
            ):
                for need in (Need.DATA, Need.CHANGE, Need.DOWNLOAD, Need.FIGURES):
                    self.assertEqual(self.code(asked, need, origin=origin), "other_origin", (origin, need))

    def test_a_request_that_another_page_began_gets_nothing(self) -> None:
        for site in ("cross-site", "same-site", "", "Same-Origin", "\0"):
            for need in (Need.DATA, Need.CHANGE, Need.DOWNLOAD, Need.FIGURES):
                found = self.code(PAGE, need, site=site, origin=None)
                self.assertEqual(found, "other_origin", (site, need))
        self.assertEqual(self.code(PAGE, Need.DATA, site="none", origin=None), "other_origin")
        self.assertIsNone(self.code(PAGE, Need.DOWNLOAD, site="none", origin=None), "typed, with a ticket")
        self.assertIsNone(self.code(PAGE, Need.DATA, site=None), "an older browser; it has the key")

    def test_cookie_and_key_are_both_needed(self) -> None:
        for changes in (
            {"cookie": ""},
            {"key": ""},
            {"cookie": KEYS.key},
            {"key": KEYS.cookie},
            {"cookie": KEYS.cookie[:-1]},
            {"key": TOKEN},
            {"cookie": "", "key": ""},
        ):
            for need in (Need.DATA, Need.CHANGE):
                self.assertEqual(self.code(PAGE, need, **changes), "locked", changes)
        self.assertIsNone(self.code(PAGE, Need.DOWNLOAD, key=""), "a link cannot send a header")
        self.assertEqual(self.code(PAGE, Need.DOWNLOAD, cookie=""), "locked")

    def test_figures_are_for_programs(self) -> None:
        self.assertEqual(self.code(PAGE, Need.FIGURES), "locked")

    def test_changes_come_as_json_from_the_page_itself(self) -> None:
        for kind in ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"):
            self.assertEqual(self.code(PAGE, Need.CHANGE, kind=kind), "not_json", kind)
        self.assertEqual(self.code(PAGE, Need.CHANGE, origin=None), "other_origin")
        self.assertIsNone(self.code(PROGRAM, Need.CHANGE, origin=None), "programs have no origin")

    def test_nothing_is_upgraded(self) -> None:
        for need in Need:
            self.assertEqual(self.code(PAGE, need, upgrade=True), "no_upgrade")

    def test_keys_are_of_one_token_and_one_port(self) -> None:
        others = (Keys.of(TOKEN, 5877), Keys.of("u" * 43, PORT))
        for other in others:
            self.assertEqual(self.code(PAGE, Need.DATA, cookie=other.cookie, key=other.key), "locked")
        self.assertEqual(len({KEYS.cookie, KEYS.key, *(one.cookie for one in others)}), 4)
        self.assertEqual(KEYS.cookie_name, "uaihost-5876")
        for secret in (TOKEN, KEYS.cookie, KEYS.key):
            self.assertNotIn(secret, repr(KEYS))

    def test_a_cookie_that_comes_twice_is_none(self) -> None:
        self.assertEqual(cookie_of("a=1; uaihost-5876=x; b=2", "uaihost-5876"), "x")
        self.assertEqual(cookie_of("uaihost-5876=x; uaihost-5876=y", "uaihost-5876"), "")
        self.assertEqual(cookie_of("xuaihost-5876=x; uaihost-58761=y", "uaihost-5876"), "")
        self.assertEqual(cookie_of("", "uaihost-5876"), "")

    @given(strategies.text())
    def test_nothing_else_is_the_same(self, text: str) -> None:
        self.assertEqual(same(text, TOKEN), text == TOKEN)
        self.assertFalse(same(text, ""))

    def test_pages_run_only_their_own_files_and_are_framed_by_nobody(self) -> None:
        policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
        self.assertEqual(policy["default-src"], "'none'")
        self.assertEqual(
            {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")}, {"'self'"}
        )
        self.assertEqual(policy["frame-ancestors"], "'none'")
        self.assertNotIn("unsafe", HEADERS["Content-Security-Policy"])
        self.assertEqual(HEADERS["X-Frame-Options"], "DENY")
        self.assertFalse([name for name in HEADERS if name.startswith("Access-Control")], "no CORS")
