"""What stands in for users' tokens and for the broker in other tests, held to what the real ones do."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.credentials.github import FRESH, GitHubTokens
from uaihost.credentials.sealing import Sealer
from uaihost.errors import HostError
from uaihost.proofs import Broker, Grant, Reach, Tokens
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.commands.fakes import FakeBroker
from uaihost.test.credentials.github_model import FakeExchange, GitHubModel
from uaihost.test.credentials.github_stub import StubTokens
from uaihost.test.credentials.test_broker import SHOP, BrokerCase


class TokensContract:
    """proofs.Tokens with one user who is connected to github.com: ada."""

    tokens: Tokens
    assertEqual: Any
    assertNotEqual: Any
    assertIsNone: Any
    assertRaises: Any

    async def test_who_is_connected(self) -> None:
        self.assertEqual((self.tokens.login("ada"), self.tokens.host("ada")), ("ada", "github.com"))
        self.assertIsNone(self.tokens.login("eve"))
        self.assertIsNone(self.tokens.host("eve"))
        with self.assertRaises(HostError):
            await self.tokens.access("eve")

    async def test_a_token_stays_until_it_is_refused(self) -> None:
        first = await self.tokens.access("ada")
        self.assertEqual(await self.tokens.access("ada"), first)
        self.tokens.refused("ada", "another")
        self.assertEqual(await self.tokens.access("ada"), first)
        self.tokens.refused("ada", first)
        second = await self.tokens.access("ada")
        self.assertNotEqual(second, first)
        self.tokens.refused("ada", first)
        self.assertEqual(await self.tokens.access("ada"), second)


class StubTokensTests(TokensContract, TestCase):
    def setUp(self) -> None:
        self.tokens = StubTokens()


class GitHubTokensTests(TokensContract, TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        clock, model = Clock(), GitHubModel()
        clock.advance(1e9)

        async def sealer() -> Sealer:
            return Sealer(bytes(32))

        exchange = FakeExchange(model, clock.seconds)
        self.tokens = tokens = GitHubTokens(
            clock, lambda: 0.5, MemoryStore(), sealer, exchange, "github.com", lambda user, line: None
        )
        await tokens.connect("ada", "ada", model.connect("ada"), None)
        await tokens.access("ada")
        clock.advance(FRESH)


class BrokerContract:
    """broker: a proofs.Broker, without tasks, for users who have nothing."""

    broker: Any
    assertEqual: Any
    assertIn: Any

    def user_of(self, task_id: str) -> str | None:
        raise NotImplementedError

    async def test_a_tasks_grant(self) -> None:
        self.broker.close("t1")
        await self.broker.open(Grant("ada", "t1", (SHOP,)))
        await self.broker.open(Grant("eve", "t1", ()))
        self.assertEqual(self.user_of("t1"), "eve")
        self.broker.close("t1")
        self.assertEqual(self.user_of("t1"), None)

    def test_a_token_of_the_tasks_own(self) -> None:
        self.assertIn("GH_TOKEN", self.broker.environment(("A",)))
        self.assertEqual(self.broker.environment(("A", "GH_TOKEN")), {})

    async def test_nothing_helps_with_a_folder(self) -> None:
        async with self.broker.reach("eve", "/srv/shop") as reach:
            self.assertEqual(reach, Reach())


class FakeBrokerTests(BrokerContract, TestCase):
    def setUp(self) -> None:
        self.fake = FakeBroker(GH_TOKEN="none")
        self.broker: Broker = self.fake

    def user_of(self, task_id: str) -> str | None:
        grant = self.fake.opened.get(task_id)
        return None if grant is None else grant.user_id


class TaskBrokerTests(BrokerContract, BrokerCase):
    def user_of(self, task_id: str) -> str | None:
        found: str | None = self.broker.user_of(task_id)
        return found
