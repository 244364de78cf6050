"""Codex' logins on the host: what is kept of one, and what an exchange in a container comes to."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.trial.unittest import TestCase

from uaihost.credentials.codex import HOME, NAME, UNTOLD, CodexExchange, login
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Launch, Ran, Say
from uaihost.test.fakes_containers import Call, FakeEngine
from uaihost.test.support import given, strategies

ENDS = 1_900_000_000


def token(claims: dict[str, Any]) -> str:
    return "head." + base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode() + ".sign"


def auth(**tokens: Any) -> str:
    kept = {"access_token": token({"exp": ENDS}), "account_id": "me", "refresh_token": "r1", **tokens}
    return json.dumps({"tokens": kept, "last_refresh": "2026-01-01T00:00:00Z", "more": 1}, indent=2)


class LoginTests(TestCase):
    def test_what_is_kept_of_one(self) -> None:
        found = login(auth())
        self.assertEqual(found["access"], token({"exp": ENDS}))
        self.assertEqual((found["account_id"], found["expires_at"]), ("me", str(ENDS)))
        self.assertEqual(json.loads(found["auth"]), json.loads(auth()), "all of it, for the program")
        self.assertNotIn("\n", found["auth"])

    def test_a_token_that_does_not_tell_its_end_counts_for_an_hour(self) -> None:
        for opaque in ("opaque", "a.b.c", token({}), token({"exp": "soon"}), token({"exp": 1e999}), "a.!.c"):
            found = login(auth(access_token=opaque))
            self.assertEqual(int(found["expires_at"]), int(1_767_225_600 + UNTOLD), opaque)
        kept = json.loads(auth(access_token="opaque"))
        for when in ("yesterday", None, 7):
            self.assertEqual(login(json.dumps({**kept, "last_refresh": when}))["expires_at"], "0", when)

    def test_what_is_no_login_is_refused_without_showing_it(self) -> None:
        for text in (
            "", "[]", "null", "{}", '{"tokens": null}', '{"tokens": {}}',
            auth(refresh_token=""), auth(refresh_token=None), auth(access_token=7), auth(account_id=[]),
        ):  # fmt: skip
            error = self.assertRaises(HostError, login, text)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
            self.assertIn("nothing was changed", error.message)
            self.assertNotIn("r1", error.message)

    @given(strategies.text(max_size=200))
    def test_nothing_else_than_a_refusal_comes_of_any_text(self, text: str) -> None:
        self.assertRaises(HostError, login, text)
        # Whatever the vendor puts in the middle of its token.
        self.assertTrue(login(auth(access_token=f"a.{text}.c"))["expires_at"].isdigit())


class ExchangeTests(TestCase):
    def setUp(self) -> None:
        self.engine = FakeEngine(self.answer)
        self.exchange = CodexExchange(self.engine, self.image, 1000, 1001, {"MORE": "1"})
        self.report: dict[str, str] | bytes = {}
        self.launch: Launch | None = None

    async def image(self, say: Say) -> str:
        return "standard:1"

    def answer(self, call: Call) -> Ran:
        self.launch = self.engine.launches[NAME]
        out = self.report if isinstance(self.report, bytes) else json.dumps(self.report).encode()
        return Ran(0 if isinstance(self.report, dict) else 9, out, b"its last words")

    def reports(self, outcome: str, kept: str = "", said: str = "") -> None:
        self.report = {"outcome": outcome, "login": kept, "said": said}

    async def refused(self) -> HostError:
        try:
            await self.exchange.renew(login(auth()))
        except HostError as error:
            return error
        self.fail("it was renewed")

    async def test_it_runs_where_nothing_else_is_and_stays_until_it_is_stored(self) -> None:
        self.reports("renewed", auth(refresh_token="r2", access_token=token({"exp": ENDS + 9})))
        fresh = await self.exchange.renew(login(auth()))
        self.assertEqual(fresh["expires_at"], str(ENDS + 9))
        self.assertEqual(json.loads(fresh["auth"])["tokens"]["refresh_token"], "r2")
        assert self.launch is not None
        self.assertEqual((self.launch.mounts, self.launch.ports, self.launch.read_only), ((), (), True))
        self.assertEqual((self.launch.uid, self.launch.gid), (1000, 1001))
        self.assertNotIn("r1", json.dumps([dict(self.launch.env), self.launch.image]))
        (call,) = self.engine.calls
        self.assertNotIn("r1", " ".join(call.argv))
        self.assertEqual((call.env["MORE"], call.env["CODEX_HOME"]), ("1", HOME))
        self.assertIn(NAME, self.engine.containers, "until the new login is stored")
        await self.exchange.settle()
        self.assertEqual(self.engine.containers, {})

    async def test_what_a_killed_host_left_is_taken_instead_of_a_second_exchange(self) -> None:
        await self.engine.launch(Launch(NAME, "standard:1", 1000, 1001, (), ()))
        self.reports("renewed", auth(refresh_token="r2"))
        fresh = await self.exchange.renew(login(auth()))
        self.assertEqual(json.loads(fresh["auth"])["tokens"]["refresh_token"], "r2")
        self.assertEqual([call.argv[-1] for call in self.engine.calls], ["look"])

    async def test_what_is_left_of_another_login_is_thrown_away(self) -> None:
        await self.engine.launch(Launch(NAME, "old:1", 1000, 1001, (), ()))
        self.reports("none")
        self.assertIsNone(await self.exchange.unstored(login(auth())))
        with self.assertRaises(HostError):
            # The same report for the exchange: it says nothing of a login.
            await self.exchange.renew(login(auth()))
        self.assertEqual([call.argv[-1] for call in self.engine.calls[-2:]], ["look", "/opt/uai/renew.py"])
        assert self.launch is not None
        self.assertEqual(self.launch.image, "standard:1")

    async def test_nothing_is_looked_at_in_a_container_that_does_not_run(self) -> None:
        self.assertIsNone(await self.exchange.unstored(login(auth())))
        await self.engine.launch(Launch(NAME, "old:1", 1000, 1001, (), ()))
        self.engine.stop(NAME)
        self.assertIsNone(await self.exchange.unstored(login(auth())))
        self.assertEqual(self.engine.calls, [])

    async def test_an_ended_login_and_one_that_cannot_be_renewed_now_are_told_apart(self) -> None:
        self.reports("ended", said="Your session has ended")
        error = await self.refused()
        self.assertEqual(error.code, ErrorCode.CONFLICT)
        self.assertIn("Your session has ended", error.message)
        self.reports("failed", said="it gave no answer")
        error = await self.refused()
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("it gave no answer", error.message)
        self.assertEqual(self.engine.containers, {}, "nothing waits to be stored")

    async def test_what_is_no_report_says_how_it_ended(self) -> None:
        for out in (b"", b"Traceback", b"[]", b'{"outcome": "renewed"}', b"\xff"):
            self.report = out
            error = await self.refused()
            self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
            self.assertIn("status 9", error.message)
