"""Exchanges over real HTTPS, held against the contract of the unit tests' fake; a daemon that was killed."""

from __future__ import annotations

import time
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.credentials import github_http
from uaihost.credentials.github import GitHubTokens
from uaihost.credentials.github_exchange import Exchange, GitHubServer, Misconfigured
from uaihost.credentials.github_http import Unanswered
from uaihost.credentials.sealing import Sealer
from uaihost.paths import data_files
from uaihost.state.database import Database
from uaihost.test.credentials.github_model import ExchangeContract, GitHubModel
from uaihost.test.integration.github_api import CLIENT_ID, CLIENT_SECRET, GitHubApi
from uaihost.test.support import short_folder


class ServerCase(TestCase):
    timeout = 30
    exchange: Exchange

    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.model = GitHubModel()
        self.api = GitHubApi(self, self.folder, self.model)
        self.exchange = self.server()

    def server(self, **changed: Any) -> GitHubServer:
        given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "ca_file": self.api.ca_file}
        return GitHubServer(reactor, self.api.url, self.api.api_url, **{**given, **changed})


class ContractTests(ExchangeContract, ServerCase):
    now = staticmethod(time.time)


class HttpsTests(ServerCase):
    async def refused(self, exchange: GitHubServer, kind: type[Exception]) -> Any:
        try:
            await exchange.renew(self.model.connect("ada"))
        except kind as error:
            return error
        raise AssertionError("it did not fail")

    async def test_a_certificate_of_nobody_we_trust(self) -> None:
        error = await self.refused(self.server(ca_file=None), Unanswered)
        self.assertFalse(error.sent)
        self.assertIn("certificate", str(error))
        self.assertEqual(self.api.asked, [])

    async def test_nobody_listens(self) -> None:
        exchange = GitHubServer(reactor, "https://127.0.0.1:1", "https://127.0.0.1:1", CLIENT_ID, None)
        error = await self.refused(exchange, Unanswered)
        self.assertFalse(error.sent)
        self.assertEqual(exchange.renewals.ended, {"completed": 0, "failed": 1, "interrupted": 0})

    async def test_another_app_than_the_servers(self) -> None:
        error = await self.refused(self.server(client_secret="wrong"), Misconfigured)
        self.assertIn("incorrect_client_credentials", str(error))
        self.assertIn(
            "UAI_GITHUB_CLIENT_ID", str(await self.refused(self.server(client_id=None), Misconfigured))
        )
        self.assertEqual(len(self.api.asked), 1)

    async def test_a_server_that_never_answers(self) -> None:
        self.patch(github_http, "TIMEOUT", 0.3)
        self.api.silent = True
        error = await self.refused(self.server(), Unanswered)
        self.assertTrue(error.sent)
        self.assertIn("did not answer", str(error))

    async def test_the_servers_clock_is_learnt(self) -> None:
        self.api.date = "Mon, 01 Jan 2035 00:00:00 GMT"
        pair = await self.exchange.renew(self.model.connect("ada"))
        self.assertLess(abs(pair.skew - (2051222400 - time.time())), 5)
        self.assertEqual(pair.ends, 2051222400 + 28800)

    async def test_an_answer_of_any_length(self) -> None:
        self.model.lasts = 10**3000
        self.patch(github_http, "LIMIT", 2000)
        error = await self.refused(self.server(), Unanswered)
        self.assertIn("too long", str(error))


class DaemonTests(ServerCase):
    """Tokens on the real database and the real exchange."""

    async def daemon(self) -> GitHubTokens:
        threads = Threads(reactor, "database", 1)  # type: ignore[arg-type]
        self.addCleanup(threads.stop)
        database = await Database.open(self.folder / "state.db", data_files("migrations"), threads)
        self.addCleanup(lambda: ensureDeferred(database.close()))

        async def sealer() -> Sealer:
            return Sealer(bytes(32))

        self.told: list[str] = []
        tokens = GitHubTokens(
            reactor,
            Random(1).random,
            database,
            sealer,
            self.exchange,
            "localhost",
            lambda _, t: self.told.append(t),
        )
        await tokens.load()
        return tokens

    async def test_twenty_tasks_force_one_exchange(self) -> None:
        tokens = await self.daemon()
        await tokens.connect("u1", "ada", self.model.connect("ada"), None)
        found = await gatherResults([ensureDeferred(tokens.access("u1")) for _ in range(20)])
        self.assertEqual((len(set(found)), self.model.exchanges), (1, 1))
        self.assertEqual(self.model.accesses, {found[0]: "ada"})
        self.assertEqual(await (await self.daemon()).access("u1"), found[0])

    async def test_an_answer_that_a_killed_daemon_never_stored(self) -> None:
        tokens = await self.daemon()
        await tokens.connect("u1", "ada", self.model.connect("ada"), None)
        self.model.trouble = "lost"
        asked = ensureDeferred(tokens.access("u1"))
        await self.assertFailure(asked, Exception)
        self.model.trouble = ""
        later = await self.daemon()
        error = await self.assertFailure(ensureDeferred(later.access("u1")), Exception)
        self.assertIn("rotated while the host was killed; connect again", str(error))
        await later.connect("u1", "ada", self.model.connect("ada"), None)
        self.assertEqual(self.model.accesses[await later.access("u1")], "ada")
        self.assertEqual(len(self.told), 2)
