"""What a GitHub does with tokens, without a network: a model, the fake exchange on it, and their contract.

The integration tests put the same model behind HTTPS and hold the real exchange against the same contract.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from uaihost.credentials.github_exchange import Ended, Exchange, Misconfigured, Pair
from uaihost.credentials.github_http import Unanswered

LASTS, REFRESH_LASTS = 28800, 15897600


class GitHubModel:
    """Rotates refresh tokens: each is taken once, and the access token before it ends with it.

    trouble: what happens to the next requests: `client` (the App is refused), `outage`, `limited`, `garbage`;
    `lost`: it is done and the answer never arrives.
    """

    def __init__(self) -> None:
        self.number = 0
        self.refreshes: dict[str, str] = {}
        self.accesses: dict[str, str] = {}
        self.exchanges = 0
        self.trouble = ""
        self.lasts: int | None = LASTS

    def connect(self, login: str) -> str:
        return self._issue(login)[1]

    def personal(self, login: str) -> str:
        self.number += 1
        token = f"ghp_{self.number:036}"
        self.accesses[token] = login
        return token

    def revoke(self, login: str) -> None:
        for tokens in (self.refreshes, self.accesses):
            for token in [each for each, whose in tokens.items() if whose == login]:
                del tokens[token]

    def exchange(self, refresh: str) -> tuple[str, str] | None:
        """The new pair; None for `bad_refresh_token`."""
        self.exchanges += 1
        login = self.refreshes.pop(refresh, None)
        if login is None:
            return None
        for token in [each for each, whose in self.accesses.items() if whose == login]:
            del self.accesses[token]
        return self._issue(login)

    def _issue(self, login: str) -> tuple[str, str]:
        self.number += 1
        access, refresh = f"ghu_{self.number:036}", f"ghr_{self.number:036}"
        self.accesses[access], self.refreshes[refresh] = login, login
        return access, refresh


class FakeExchange:
    """github_exchange.Exchange on a model. seconds: the server's clock. held: with True an exchange waits for
    `answer`."""

    def __init__(self, model: GitHubModel, seconds: Callable[[], float]) -> None:
        self.model = model
        self.seconds = seconds
        self.skew = 0.0
        self.held = False
        self.waiting: list[Deferred[None]] = []

    async def renew(self, refresh: str) -> Pair:
        if self.held:
            done: Deferred[None] = Deferred()
            self.waiting.append(done)
            await done
        self._trouble()
        pair = self.model.exchange(refresh)
        if pair is None:
            raise Ended("GitHub does not take the refresh token; it was revoked, or used elsewhere")
        if self.model.trouble == "lost":
            raise Unanswered("the connection to GitHub broke", sent=True)
        now, lasts = self.seconds() + self.skew, self.model.lasts
        return Pair(pair[0], None if lasts is None else now + lasts, pair[1], now + REFRESH_LASTS, self.skew)

    async def whose(self, token: str) -> str:
        self._trouble()
        if token not in self.model.accesses:
            raise Ended("GitHub does not take the token; it has expired or was revoked")
        return self.model.accesses[token]

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)

    def _trouble(self) -> None:
        match self.model.trouble:
            case "client":
                raise Misconfigured("GitHub does not take this host's App")
            case "outage":
                raise Unanswered("GitHub has an outage", sent=True)
            case "garbage":
                raise Unanswered("GitHub's answer was not understood", sent=True)
            case "limited":
                raise Unanswered("GitHub wants fewer requests for a while", sent=False, wait=120.0)


class ExchangeContract:
    """What every Exchange does; mixed into a TestCase that sets `model` and `exchange`."""

    model: GitHubModel
    exchange: Exchange
    now: Callable[[], float]

    async def fails(self, work: Any, kind: type[Exception]) -> Any:
        try:
            await work
        except kind as error:
            self.assertNotIn("gh" + "r_", str(error))  # type: ignore[attr-defined]
            return error
        raise AssertionError("it did not fail")

    async def test_a_refresh_token_is_exchanged_once(self) -> None:
        same = self.assertEqual  # type: ignore[attr-defined]
        first = self.model.connect("ada")
        pair = await self.exchange.renew(first)
        same(self.model.accesses[pair.access], "ada")
        same(self.model.refreshes[pair.refresh or ""], "ada")
        assert pair.ends is not None and pair.refresh_ends is not None
        same(round((pair.ends - self.now() - pair.skew - LASTS) / 10), 0)
        same(round((pair.refresh_ends - pair.ends) / 10), (REFRESH_LASTS - LASTS) // 10)
        await self.fails(self.exchange.renew(first), Ended)
        same(self.model.refreshes, {pair.refresh: "ada"})

    async def test_tokens_without_an_end(self) -> None:
        self.model.lasts = None
        pair = await self.exchange.renew(self.model.connect("ada"))
        self.assertIsNone(pair.ends)  # type: ignore[attr-defined]

    async def test_refusals_and_failures_are_told_apart(self) -> None:
        same = self.assertEqual  # type: ignore[attr-defined]
        refresh = self.model.connect("ada")
        for trouble, kind, sent, wait in (
            ("client", Misconfigured, None, None),
            ("outage", Unanswered, True, None),
            ("garbage", Unanswered, True, None),
            ("limited", Unanswered, False, 120.0),
        ):
            self.model.trouble = trouble
            error = await self.fails(self.exchange.renew(refresh), kind)
            same((getattr(error, "sent", None), getattr(error, "wait", None)), (sent, wait), trouble)
        self.model.trouble = ""
        same(self.model.exchanges, 0)
        same(self.model.accesses[(await self.exchange.renew(refresh)).access], "ada")

    async def test_a_lost_answer_may_have_been_an_exchange(self) -> None:
        refresh = self.model.connect("ada")
        self.model.trouble = "lost"
        error = await self.fails(self.exchange.renew(refresh), Unanswered)
        self.assertTrue(error.sent)  # type: ignore[attr-defined]
        self.model.trouble = ""
        await self.fails(self.exchange.renew(refresh), Ended)

    async def test_whose_a_token_is(self) -> None:
        token = self.model.personal("ada")
        self.assertEqual(await self.exchange.whose(token), "ada")  # type: ignore[attr-defined]
        self.model.revoke("ada")
        await self.fails(self.exchange.whose(token), Ended)
        self.model.trouble = "outage"
        await self.fails(self.exchange.whose(token), Unanswered)
