"""The owner's accounts: stored, handed out, renewed by one exchange however many ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.accounts import AHEAD, OwnerAccounts
from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.keys import Keys
from uaihost.errors import ErrorCode, HostError
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.support import short_folder

TOKEN = "sk-ant-oat01-" + "s" * 40
NOW = 1_000_000.0


class FakeVendor:
    """Exchanges one refresh token at a time, and takes none twice (RFC 6749, section 6, with rotation)."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.waiting: list[Deferred[None]] = []
        self.refusal: HostError | None = None
        self.lasts = 3600.0
        self.settled = 0

    def read(self, auth: str) -> dict[str, str]:
        return {"access": "a0", "account_id": "me", "expires_at": str(NOW + 10), "auth": auth}

    async def renew(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        self.asked.append(secrets["auth"])
        done: Deferred[None] = Deferred()
        self.waiting.append(done)
        await done
        if self.refusal is not None:
            raise self.refusal
        if self.asked.count(secrets["auth"]) > 1:
            raise HostError(ErrorCode.CONFLICT, "this refresh token was used before")
        number = len(self.asked)
        return {"access": f"a{number}", "auth": f"r{number}", "expires_at": str(NOW + self.lasts)}

    async def unstored(self, secrets: Mapping[str, str]) -> Mapping[str, str] | None:
        return {"access": "late", "auth": "late", "expires_at": str(NOW + self.lasts)}

    async def settle(self) -> None:
        self.settled += 1

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class AccountsCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = MemoryStore()
        self.folder = short_folder(self)
        self.vendor = FakeVendor()
        self.told: list[str] = []
        self.accounts = self.daemon()

    def daemon(self) -> OwnerAccounts:
        made = OwnerAccounts(
            self.clock,
            self.store,
            Keys(Inline(), self.store, lambda: FileSource(self.folder / "secrets.key")),
            {"claude": None, "codex": None},
            {"codex": self.vendor},
        )
        made.on_change(self.told.append)
        self.successResultOf(made.load())
        return made

    def fails(self, work: Any, code: ErrorCode) -> str:
        failure = self.failureResultOf(ensureDeferred(work), HostError).value
        self.assertEqual(failure.code, code)
        return str(failure.message)

    def stored(self) -> bytes:
        return b"".join(row[0] for row in self.store.db.execute("SELECT secret FROM accounts"))


class SignInTests(AccountsCase):
    def test_a_token_is_handed_out_after_a_restart_and_lies_sealed(self) -> None:
        self.successResultOf(self.accounts.put("claude", "token", {"token": TOKEN}))
        self.assertEqual(self.told, ["claude"])
        again = self.daemon()
        self.assertEqual(again.account("claude").form, "token")
        self.assertEqual(self.successResultOf(again.secret("claude", "token")), TOKEN)
        self.assertNotIn(TOKEN.encode(), self.stored())
        self.assertNotIn(TOKEN, str(again.status()))
        self.assertNotIn(TOKEN, repr(again._held))

    def test_what_cannot_be_a_sign_in_changes_nothing(self) -> None:
        self.successResultOf(self.accounts.put("claude", "token", {"token": TOKEN}))
        for form, secrets in (
            ("key", {}),
            ("key", {"key": "with space"}),
            ("key", {"key": "sk-other"}),
            ("token", {"token": "sk-ant-api03-a-key-and-no-token"}),
            ("login", {"auth": "x"}),
        ):
            message = self.fails(self.accounts.put("claude", form, secrets), ErrorCode.INVALID_ARGS)
            self.assertNotIn("sk-", message.replace("sk-ant-api", "").replace("sk-ant-oat", ""))
        self.fails(self.accounts.put("gemini", "key", {"key": "k"}), ErrorCode.INVALID_ARGS)
        self.assertEqual(self.successResultOf(self.accounts.secret("claude", "token")), TOKEN)

    def test_signed_out_it_says_what_to_type(self) -> None:
        self.assertIn(
            "uaihost login claude", self.fails(self.accounts.secret("claude", "key"), ErrorCode.UNAVAILABLE)
        )
        self.successResultOf(self.accounts.put("claude", "token", {"token": TOKEN}))
        self.fails(self.accounts.secret("claude", "key"), ErrorCode.UNAVAILABLE)
        self.successResultOf(self.accounts.remove("claude"))
        self.successResultOf(self.accounts.remove("claude"))
        self.assertEqual(self.told, ["claude", "claude"])
        self.assertEqual(self.daemon().account("claude").form, "none")

    def test_without_its_key_file_nothing_is_lost(self) -> None:
        self.successResultOf(self.accounts.put("claude", "token", {"token": TOKEN}))
        key = (self.folder / "secrets.key").rename(self.folder / "elsewhere")
        without = self.daemon()
        self.assertEqual(without.account("claude").form, "none")
        (status, _) = without.status()
        self.assertIn("secrets.key", status["problem"])
        self.fails(without.put("codex", "key", {"key": "sk-1"}), ErrorCode.UNAVAILABLE)
        key.rename(self.folder / "secrets.key")
        self.assertEqual(self.successResultOf(self.daemon().secret("claude", "token")), TOKEN)


class LoginTests(AccountsCase):
    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.accounts.put("codex", "login", {"auth": "r0"}))
        self.told.clear()

    def ask(self, count: int = 1, renew: bool = False) -> list[Deferred[str]]:
        return [ensureDeferred(self.accounts.secret("codex", "access", renew=renew)) for _ in range(count)]

    def test_twenty_ask_and_one_exchange_is_made(self) -> None:
        asked = self.ask(20)
        self.assertEqual(self.vendor.asked, ["r0"])
        self.vendor.answer()
        self.assertEqual([self.successResultOf(each) for each in asked], ["a1"] * 20)
        self.assertEqual([self.successResultOf(each) for each in self.ask(3)], ["a1"] * 3)
        self.assertEqual(self.vendor.asked, ["r0"])
        self.assertEqual(self.vendor.settled, 1)

    def test_the_new_refresh_token_is_stored_before_the_new_access_token_is_used(self) -> None:
        (asked,) = self.ask()
        self.store.fail_after = 0
        self.vendor.answer()
        self.assertEqual(self.successResultOf(asked), "a0", "the new one is not stored yet")
        self.flushLoggedErrors()
        self.store.fail_after = None
        self.successResultOf(self.accounts.recover())
        self.assertEqual([self.successResultOf(each) for each in self.ask()], ["late"])
        self.assertEqual(self.vendor.asked, ["r0"], "a used refresh token was used again")

    def test_it_is_renewed_ahead_of_its_end_and_when_it_was_refused(self) -> None:
        self.ask()
        self.vendor.answer()
        self.clock.advance(3600 - AHEAD - 1)
        self.assertEqual([self.successResultOf(each) for each in self.ask()], ["a1"])
        refused = self.ask(2, renew=True)
        self.vendor.answer()
        self.assertEqual([self.successResultOf(each) for each in refused], ["a2", "a2"])
        self.assertEqual(self.vendor.asked, ["r0", "r1"])

    def test_a_vendor_out_of_reach_is_asked_later_and_the_login_stays(self) -> None:
        self.vendor.refusal = HostError(ErrorCode.UNAVAILABLE, "no network")
        self.clock.advance(20)
        for _ in range(3):
            (asked,) = self.ask()
            self.vendor.answer()
            self.assertIn("no network", self.fails(asked, ErrorCode.UNAVAILABLE))
        self.assertEqual(len(self.vendor.asked), 1, "it was asked again at once")
        self.vendor.refusal = None
        self.vendor.asked.clear()
        self.clock.advance(60)
        (asked,) = self.ask()
        self.vendor.answer()
        self.assertEqual(self.successResultOf(asked), "a1")

    def test_a_login_that_the_vendor_has_ended_is_told(self) -> None:
        self.vendor.refusal = HostError(ErrorCode.CONFLICT, "it was revoked")
        (asked,) = self.ask()
        self.vendor.answer()
        self.assertIn("it was revoked", self.fails(asked, ErrorCode.UNAVAILABLE))
        self.assertEqual((self.told, self.accounts.account("codex").form), (["codex"], "none"))

    def test_a_refresh_token_is_never_handed_out(self) -> None:
        self.fails(self.accounts.secret("codex", "auth"), ErrorCode.UNAVAILABLE)
