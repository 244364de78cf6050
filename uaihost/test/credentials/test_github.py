"""Users' access to GitHub: one exchange however many ask, nothing lost, failures told once."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.credentials.github import AGAIN, AHEAD, FRESH, GitHubTokens
from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.credentials.github_model import LASTS, ExchangeContract, FakeExchange, GitHubModel

NOW = 1_000_000.0


class FakeExchangeTests(ExchangeContract, TestCase):
    def setUp(self) -> None:
        self.model = GitHubModel()
        self.now = lambda: NOW
        self.exchange = FakeExchange(self.model, self.now)


class TokensCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.store = MemoryStore()
        self.model = GitHubModel()
        self.exchange = FakeExchange(self.model, self.clock.seconds)
        self.told: list[tuple[str, str]] = []
        self.key = bytes(32)
        self.tokens = self.daemon()

    def daemon(self) -> GitHubTokens:
        """As after a restart: a daemon that knows the rows and nothing else."""

        async def sealer() -> Sealer:
            return Sealer(self.key)

        made = GitHubTokens(
            self.clock,
            lambda: 0.5,
            self.store,
            sealer,
            self.exchange,
            "github.com",
            lambda user, text: self.told.append((user, text)),
        )
        self.successResultOf(ensureDeferred(made.load()))
        return made

    def connect(self, user: str = "u1", login: str = "ada") -> str:
        refresh = self.model.connect(login)
        self.now(self.tokens.connect(user, login, refresh, None))
        return refresh

    def now(self, work: Any) -> Any:
        return self.successResultOf(ensureDeferred(work))

    def fails(self, work: Any, code: ErrorCode = ErrorCode.UNAVAILABLE) -> str:
        error = self.failureResultOf(ensureDeferred(work), HostError).value
        self.assertEqual(error.code, code)
        return str(error.message)

    def ask(self, count: int, user: str = "u1", renew: bool = False) -> list[Deferred[str]]:
        return [ensureDeferred(self.tokens.access(user, renew=renew)) for _ in range(count)]

    def good(self, token: str, login: str = "ada") -> None:
        self.assertEqual(self.model.accesses.get(token), login)

    def begun(self) -> list[Any]:
        return [row[0] for row in self.store.db.execute("SELECT begun FROM github_connections")]


class AccessTests(TokensCase):
    def test_twenty_ask_and_one_exchange_is_made(self) -> None:
        self.connect()
        self.exchange.held = True
        asked = self.ask(20)
        self.exchange.answer()
        tokens = {self.successResultOf(each) for each in asked}
        self.assertEqual((len(tokens), self.model.exchanges), (1, 1))
        self.good(tokens.pop())
        self.now(self.tokens.access("u1"))
        self.assertEqual(self.model.exchanges, 1)

    def test_one_who_gives_up_does_not_end_it_for_the_others(self) -> None:
        self.connect()
        self.exchange.held = True
        first, second = self.ask(2)
        first.addErrback(lambda _: None)
        first.cancel()
        self.exchange.answer()
        self.good(self.successResultOf(second))

    def test_users_do_not_meet(self) -> None:
        self.connect("u1", "ada")
        self.connect("u2", "bob")
        self.good(self.now(self.tokens.access("u1")), "ada")
        self.good(self.now(self.tokens.access("u2")), "bob")
        self.assertEqual((self.tokens.login("u2"), self.tokens.host("u2")), ("bob", "github.com"))
        self.assertIsNone(self.tokens.login("u3"))
        self.assertIn("uaihost github login", self.fails(self.tokens.access("u3")))

    def test_a_token_is_renewed_ahead_of_its_end(self) -> None:
        self.connect()
        first = self.now(self.tokens.access("u1"))
        self.clock.advance(LASTS - AHEAD - 1)
        self.assertEqual(self.now(self.tokens.access("u1")), first)
        self.clock.advance(2)
        self.assertNotEqual(self.now(self.tokens.access("u1")), first)

    def test_a_server_whose_clock_is_a_day_off(self) -> None:
        for skew in (86400.0, -86400.0):
            self.exchange.skew = skew
            self.connect(f"u{skew}")
            first = self.now(self.tokens.access(f"u{skew}"))
            self.clock.advance(LASTS - AHEAD - 1)
            self.assertEqual(self.now(self.tokens.access(f"u{skew}")), first)
            self.clock.advance(2)
            self.assertNotEqual(self.now(self.tokens.access(f"u{skew}")), first)

    def test_tokens_that_live_shortly_are_not_exchanged_at_each_use(self) -> None:
        self.model.lasts = 120
        self.connect()
        self.now(self.tokens.access("u1"))
        self.now(self.tokens.access("u1"))
        self.assertEqual(self.model.exchanges, 1)
        self.clock.advance(FRESH)
        self.now(self.tokens.access("u1"))
        self.assertEqual(self.model.exchanges, 2)

    def test_a_refused_token_is_replaced_and_a_fresh_one_is_not(self) -> None:
        self.connect()
        first = self.now(self.tokens.access("u1"))
        self.tokens.refused("u1", first)
        self.assertEqual(self.now(self.tokens.access("u1", renew=True)), first)
        self.clock.advance(FRESH)
        self.tokens.refused("u1", "another")
        self.assertEqual(self.now(self.tokens.access("u1")), first)
        self.tokens.refused("u1", first)
        second = self.now(self.tokens.access("u1"))
        self.good(second)
        self.tokens.refused("u1", first)
        self.assertEqual(self.now(self.tokens.access("u1")), second)
        self.assertEqual(self.model.exchanges, 2)


class StoredTests(TokensCase):
    def test_nothing_is_used_that_is_not_stored(self) -> None:
        self.connect()
        self.exchange.held = True
        (asked,) = self.ask(1)
        self.store.fail_after = 0
        self.exchange.answer()
        self.failureResultOf(asked, HostError)
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.assertEqual(self.begun(), [int(NOW * 1000)])
        self.store.fail_after = None
        self.clock.advance(AGAIN * 2)
        token = self.now(self.tokens.access("u1"))
        self.good(token)
        self.assertEqual((self.model.exchanges, self.begun()), (1, [None]))
        self.assertEqual(self.now(self.daemon().access("u1")), token)

    def test_tokens_lie_sealed_and_outlive_a_restart(self) -> None:
        refresh = self.connect()
        token = self.now(self.tokens.access("u1"))
        (secret,) = self.store.db.execute("SELECT secret FROM github_connections").fetchone()
        for text in (refresh, token, *self.model.refreshes):
            self.assertNotIn(text.encode(), secret)
            self.assertNotIn(text, repr(self.tokens._held) + str(self.tokens.status()))
        self.assertEqual(self.now(self.daemon().access("u1")), token)
        self.assertEqual(self.begun(), [None])

    def test_killed_before_the_exchange_was_sent(self) -> None:
        self.connect()
        self.exchange.held = True
        self.ask(1)
        self.assertEqual(self.begun(), [int(NOW * 1000)])
        self.tokens, self.exchange.held, self.exchange.waiting = self.daemon(), False, []
        self.good(self.now(self.tokens.access("u1")))
        self.assertEqual(self.begun(), [None])

    def test_killed_between_the_exchange_and_the_store(self) -> None:
        refresh = self.connect()
        self.exchange.held = True
        self.ask(1)
        self.model.exchange(refresh)
        self.tokens, self.exchange.held, self.exchange.waiting = self.daemon(), False, []
        message = self.fails(self.tokens.access("u1"))
        self.assertIn("was rotated while the host was killed; connect again", message)
        self.fails(self.tokens.access("u1"))
        self.assertEqual(self.model.exchanges, 2)
        self.assertEqual(len(self.told), 1)
        self.tokens = self.daemon()
        self.fails(self.tokens.access("u1"))
        self.assertEqual(len(self.told), 1)

    def test_an_answer_that_was_lost(self) -> None:
        self.connect()
        self.model.trouble = "lost"
        self.fails(self.tokens.access("u1"))
        self.model.trouble = ""
        self.clock.advance(AGAIN * 2)
        self.assertIn("whose answer was lost", self.fails(self.tokens.access("u1")))

    def test_with_another_key_nothing_is_lost(self) -> None:
        refresh = self.connect()
        token = self.now(self.tokens.access("u1"))
        self.key = bytes(31) + b"\x01"
        other = self.daemon()
        self.assertIsNone(other.login("u1"))
        self.assertIn("another key", self.fails(other.connect("u1", "ada", refresh, None)))
        self.key = bytes(32)
        self.assertEqual(self.now(self.daemon().access("u1")), token)


class ConnectTests(TokensCase):
    def test_what_the_bridge_repeats_does_not_undo_a_rotation(self) -> None:
        refresh = self.connect()
        token = self.now(self.tokens.access("u1"))
        for tokens in (self.tokens, self.daemon()):
            self.now(tokens.connect("u1", "ada", refresh, None))
            self.assertEqual(self.now(tokens.access("u1")), token)
        newer = self.connect()
        self.now(self.tokens.connect("u1", "ada", refresh, None))
        self.assertNotEqual(self.now(self.tokens.access("u1")), token)
        self.assertNotIn(newer, self.model.refreshes)

    def test_the_same_twice_at_once_is_one_connection(self) -> None:
        refresh = self.model.connect("ada")
        both = [ensureDeferred(self.tokens.connect("u1", "ada", refresh, None)) for _ in range(2)]
        for each in both:
            self.successResultOf(each)
        self.assertEqual(self.tokens._generation, 1)

    def test_cleared_and_connected_anew_while_an_exchange_runs(self) -> None:
        self.connect(login="ada")
        self.exchange.held = True
        (asked,) = self.ask(1)
        self.now(self.tokens.clear("u1"))
        self.connect(login="bob")
        self.exchange.held = False
        self.exchange.answer()
        self.failureResultOf(asked, HostError)
        self.assertEqual(self.tokens.login("u1"), "bob")
        self.good(self.now(self.tokens.access("u1")), "bob")
        self.assertEqual(self.daemon().login("u1"), "bob")

    def test_cleared_it_is_forgotten(self) -> None:
        self.connect()
        self.now(self.tokens.clear("u1"))
        self.now(self.tokens.clear("u1"))
        self.assertEqual((self.tokens.status(), self.daemon().status()), ([], []))
        self.assertEqual(self.begun(), [])

    def test_what_cannot_be_a_connection_changes_nothing(self) -> None:
        self.connect()
        for user, login, token in (
            ("", "ada", "t"),
            ("u1\n", "ada", "t"),
            ("u1", "", "t"),
            ("u1", "ada", ""),
            ("u1", "ada", "a b"),
            ("u1", "ada", "t\nusername=x"),
            ("u1", "ada", "t" * 5000),
        ):
            message = self.fails(self.tokens.connect(user, login, token, None), ErrorCode.INVALID_ARGS)
            self.assertNotIn("username=x", message)
        self.good(self.now(self.tokens.access("u1")))

    def test_a_token_of_ones_own(self) -> None:
        token = self.model.personal("ada")
        self.assertEqual(self.now(self.tokens.connect_token("u1", token)), "ada")
        self.assertEqual(self.now(self.daemon().access("u1")), token)
        self.clock.advance(FRESH)
        self.tokens.refused("u1", token)
        self.assertEqual(self.now(self.tokens.access("u1")), token)
        self.model.revoke("ada")
        self.clock.advance(FRESH)
        self.tokens.refused("u1", token)
        self.assertIn("connect with another one", self.fails(self.tokens.access("u1")))
        self.fails(self.tokens.connect_token("u1", "ghp_wrong"), ErrorCode.INVALID_ARGS)
        self.now(self.tokens.connect_token("u1", self.model.personal("ada")))
        self.assertEqual(len(self.told), 2)
        self.assertIn("works again", self.told[1][1])

    def test_a_repeated_frame_does_not_undo_a_token_of_ones_own(self) -> None:
        refresh = self.connect()
        token = self.model.personal("ada")
        self.now(self.tokens.connect_token("u1", token))
        self.now(self.tokens.connect("u1", "ada", refresh, None))
        self.assertEqual(self.now(self.tokens.access("u1")), token)


class FailureTests(TokensCase):
    def test_a_revoked_connection_is_told_once_and_asked_once(self) -> None:
        refresh = self.connect()
        self.model.revoke("ada")
        asked = self.ask(20)
        for each in asked:
            self.failureResultOf(each, HostError)
        self.clock.advance(10_000)
        self.fails(self.tokens.access("u1"))
        self.assertEqual(self.model.exchanges, 1)
        ((user, text),) = self.told
        self.assertEqual(user, "u1")
        self.assertTrue(text.startswith("gh authentication expired (reason: GitHub does not take"))
        self.assertIn(
            "revoked", self.fails(self.tokens.connect("u1", "ada", refresh, None), ErrorCode.CONFLICT)
        )

    def test_it_works_again_after_connecting_anew_and_that_is_told_once(self) -> None:
        self.connect()
        self.model.revoke("ada")
        self.fails(self.tokens.access("u1"))
        self.connect()
        self.good(self.now(self.tokens.access("u1")))
        self.now(self.tokens.access("u1"))
        self.assertEqual([text[:19] for _, text in self.told][1:], ["GitHub works again:"])

    def test_a_failing_network_never_drops_the_connection(self) -> None:
        self.connect()
        for trouble in ("outage", "garbage", "limited", "client"):
            self.model.trouble = trouble
            self.fails(self.tokens.access("u1"))
            self.clock.advance(10_000)
        self.model.trouble = ""
        self.good(self.now(self.tokens.access("u1")))
        self.assertIn("works again", self.told[-1][1])

    def test_failures_are_tried_again_later_and_later(self) -> None:
        self.connect()
        self.model.trouble = "client"
        tries: list[float] = []
        renew = self.exchange.renew

        async def counted(refresh: str) -> Any:
            tries.append(self.clock.seconds())
            return await renew(refresh)

        self.exchange.renew = counted  # type: ignore[method-assign]
        for _ in range(3000):
            self.fails(self.tokens.access("u1"))
            self.clock.advance(1)
        gaps = [after - before for before, after in pairwise(tries)]
        self.assertEqual(gaps, [15, 30, 60, 120, 240, 480, 600, 600, 600])
        self.assertEqual(len(self.told), 1)

    def test_the_server_says_how_long_to_wait(self) -> None:
        self.connect()
        self.model.trouble = "limited"
        self.fails(self.tokens.access("u1"))
        self.assertEqual(self.begun(), [None])
        self.model.trouble = ""
        self.clock.advance(119)
        self.fails(self.tokens.access("u1"))
        self.clock.advance(2)
        self.good(self.now(self.tokens.access("u1")))

    def test_while_the_old_token_counts_a_failure_is_no_trouble(self) -> None:
        self.connect()
        token = self.now(self.tokens.access("u1"))
        self.clock.advance(LASTS - AHEAD + 1)
        self.model.trouble = "outage"
        self.assertEqual(self.now(self.tokens.access("u1")), token)
        self.assertEqual(self.told, [])
        self.clock.advance(AHEAD)
        self.fails(self.tokens.access("u1"))
        self.assertEqual(len(self.told), 1)

    def test_retry_asks_at_once_and_says_how_it_went(self) -> None:
        self.assertIn("not connected", self.now(self.tokens.retry("u1")))
        self.connect()
        self.model.trouble = "outage"
        self.fails(self.tokens.access("u1"))
        self.assertIn("outage", self.now(self.tokens.retry("u1")))
        self.model.trouble = ""
        self.assertEqual(self.now(self.tokens.retry("u1")), "GitHub works again: connected as ada.")
        self.assertEqual(self.model.exchanges, 1)
        self.assertIn("Nothing has failed", self.now(self.tokens.retry("u1")))
        self.assertEqual(self.model.exchanges, 1)
