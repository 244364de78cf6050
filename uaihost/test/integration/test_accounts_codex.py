"""Codex' own program signs in and renews a login in a real container, at a sign-in service of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from secrets import token_hex
from sqlite3 import Connection
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.images import owner
from uaihost.credentials.accounts import OwnerAccounts
from uaihost.credentials.codex import NAME, CodexExchange, login
from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.keys import Keys
from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import data_files
from uaihost.state import accounts as table
from uaihost.state.database import Database
from uaihost.test.integration.bridged_engine import BridgedEngine, gateway
from uaihost.test.integration.codex_issuer import ACCOUNT, USER_CODE, CodexIssuer
from uaihost.test.integration.engine import docker_host, real_engine, standard_image
from uaihost.test.integration.sign_in_person import Person, signs_in
from uaihost.test.support import short_folder

T = TypeVar("T")

AGENTS = 20


class Killed(Exception):
    """The process ended here."""


class KillingStore:
    """A database whose user is killed before the next secret is stored."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.kills = False

    async def run(self, work: Callable[[Connection], T]) -> T:
        if self.kills:
            raise Killed
        return await self._database.run(work)


class CodexCase(TestCase):
    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        self.image = await standard_image(self)
        host_id, at = f"test-{token_hex(6)}", await docker_host()
        await real_engine(self, host_id)
        calls = Threads(reactor, "test-bridged", 2)  # type: ignore[arg-type]
        self.addCleanup(calls.stop)
        self.engine = BridgedEngine(reactor, calls, at, host_id)
        self.issuer = CodexIssuer(await deferToThread(gateway, at))
        self.addCleanup(self.issuer.stop)
        self.folder = short_folder(self)
        self.key = FileSource(self.folder / "secrets.key")
        self.threads = Threads(reactor, "test-accounts", 2)  # type: ignore[arg-type]
        self.addCleanup(self.threads.stop)
        writer = Threads(reactor, "test-database", 1)  # type: ignore[arg-type]
        self.addCleanup(writer.stop)
        self.database = await Database.open(self.folder / "state.db", data_files("migrations"), writer)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.database.close()))
        self.store = KillingStore(self.database)

    async def daemon(self) -> OwnerAccounts:
        """The accounts as a start of the daemon has them."""

        async def image(say: Any) -> str:
            return self.image

        uid, gid = owner()
        env = {"CODEX_REFRESH_TOKEN_URL_OVERRIDE": f"{self.issuer.url}/oauth/token"}
        made = OwnerAccounts(
            reactor,
            self.store,
            Keys(self.threads, self.store, lambda: self.key),
            {"claude": None, "codex": None},
            {"codex": CodexExchange(self.engine, image, uid, gid, env)},
        )
        await made.load()
        return made

    async def stored(self) -> dict[str, str]:
        """The secrets in the database, opened with the key that lies beside it."""
        (row,) = await self.database.run(table.accounts)
        key, _ = self.key.read()
        assert key is not None
        found: dict[str, str] = json.loads(Sealer(key).open("accounts/codex", row.secret))
        return found

    async def refusal(self, work: Any) -> HostError:
        try:
            await work
        except HostError as error:
            return error
        self.fail("it was not refused")


class ExchangeTests(CodexCase):
    async def test_twenty_agents_make_one_exchange_and_what_it_brought_is_stored_first(self) -> None:
        host = await self.daemon()
        await host.put("codex", "login", {"auth": self.issuer.login(lasts=3600)})
        before = await host.secret("codex", "access")
        self.assertEqual(self.issuer.exchanges, 0)

        async def agent() -> tuple[str, str]:
            token = await host.secret("codex", "access", renew=True)
            return token, (await self.stored())["access"]

        got = await gatherResults([Deferred.fromCoroutine(agent()) for _ in range(AGENTS)])
        self.assertEqual(self.issuer.exchanges, 1)
        self.assertEqual(len(set(got)), 1)
        token, kept = got[0]
        self.assertNotEqual(token, before)
        self.assertEqual(token, kept)
        self.assertEqual(await host.secret("codex", "account_id"), ACCOUNT)
        self.assertIsNone(await self.engine.find(NAME), "the container with the login is gone")
        # The refresh token that came with it is the next one that is taken.
        self.assertNotEqual(await host.secret("codex", "access", renew=True), "")
        self.assertEqual(
            json.loads((await self.stored())["auth"])["tokens"]["refresh_token"][:9], "refresh-2"
        )

    async def test_one_that_is_over_is_renewed_once(self) -> None:
        host = await self.daemon()
        await host.put("codex", "login", {"auth": self.issuer.login(lasts=-10)})
        token = await host.secret("codex", "access")
        self.assertEqual(self.issuer.exchanges, 1)
        self.assertEqual(token, (await self.stored())["access"])

    async def test_a_daemon_killed_between_exchange_and_store_loses_nothing(self) -> None:
        host = await self.daemon()
        await host.put("codex", "login", {"auth": self.issuer.login(lasts=-10)})
        before = await self.stored()
        self.store.kills = True
        error = await self.refusal(host.secret("codex", "access"))
        self.assertEqual(error.code, ErrorCode.INTERNAL)
        self.flushLoggedErrors(Killed)
        self.store.kills = False
        self.assertEqual((self.issuer.exchanges, await self.stored()), (1, before))
        # The next start finds what the exchange brought where Codex left it.
        host = await self.daemon()
        await host.recover()
        after = await self.stored()
        self.assertNotEqual(after["access"], before["access"])
        self.assertEqual(await host.secret("codex", "access"), after["access"])
        self.assertEqual(self.issuer.exchanges, 1)
        self.assertIsNone(await self.engine.find(NAME))
        # And its refresh token is in force.
        self.issuer.lasts = 7200
        self.assertEqual((await self.renewed(after))["outcome"], "renewed")

    async def renewed(self, secrets: dict[str, str]) -> dict[str, str]:
        host = await self.daemon()
        await host.secret("codex", "access", renew=True)
        return {"outcome": "renewed" if (await self.stored())["access"] != secrets["access"] else "same"}

    async def test_what_the_service_refuses_is_told_apart(self) -> None:
        host = await self.daemon()
        await host.put("codex", "login", {"auth": self.issuer.login(lasts=3600)})
        before = await self.stored()
        self.issuer.refusal = (503, "overloaded")
        error = await self.refusal(host.secret("codex", "access", renew=True))
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertEqual(await self.stored(), before)
        self.assertEqual(host.account("codex").form, "login", "a service that is down ends no login")
        self.issuer.refusal = (401, "refresh_token_invalidated")
        host = await self.daemon()
        error = await self.refusal(host.secret("codex", "access", renew=True))
        self.assertIn("uaihost login codex", error.message)
        self.assertEqual(host.account("codex").form, "none")
        self.assertIsNone(await self.engine.find(NAME))


class SignInTests(CodexCase):
    async def test_its_own_sign_in_by_a_code_gives_a_login_that_can_be_renewed(self) -> None:
        auth = await deferToThread(self.sign_in, await docker_host())
        found = login(auth)
        self.assertEqual(found["account_id"], ACCOUNT)
        self.assertIn("authorization_code", self.issuer.asked)
        host = await self.daemon()
        await host.put("codex", "login", {"auth": auth})
        self.assertNotEqual(await host.secret("codex", "access", renew=True), found["access"])
        self.assertEqual(self.issuer.exchanges, 1)
        self.assertNotIn(b"refresh-", (self.folder / "state.db").read_bytes())

    def sign_in(self, engine: str) -> str:
        """As a person does it: the program shows a code, which they type at the service's page."""

        def does(person: Person) -> None:
            if USER_CODE in person.shown and not self.issuer.approved.is_set():
                self.assertIn(self.issuer.url, person.shown)
                self.issuer.approved.set()

        words = ("--experimental_issuer", self.issuer.url)
        form, secrets = signs_in(self.folder, engine, "codex", *words, more={}, does=does)
        self.assertEqual(form, "login")
        return str(secrets["auth"])
