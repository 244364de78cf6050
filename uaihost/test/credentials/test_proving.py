"""What joins the proofs: whom a failure is told, and that nothing holds the host's end up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.proving import GOODBYE, Proofs
from uaihost.credentials.sealing import Sealer
from uaihost.paths import Folders
from uaihost.proofs import Grant
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.support import short_folder


@attrs.frozen
class _Settings:
    ca_file: Path | None = None
    github_url: str = "https://github.com"
    github_api_url: str = "https://api.github.com"
    github_client_id: str | None = None
    github_client_secret: str | None = None


class ProofsTests(TestCase):
    def setUp(self) -> None:
        self.clock: Any = MemoryReactorClock()
        self.told: list[tuple[str, str]] = []
        self.folders = Folders(short_folder(self))

        async def key() -> Sealer:
            return Sealer(bytes(32))

        self.proofs = Proofs(
            self.clock,
            lambda: 0.5,
            Inline(),
            Inline(),
            MemoryStore(),
            key,
            self.folders,
            _Settings(),
            Path("/shim"),
            lambda task, line: self.told.append((task, line)),
        )
        self.done(self.proofs.start())

    def done(self, work: Any) -> Any:
        return self.successResultOf(ensureDeferred(work))

    def test_a_server_that_does_not_say_goodbye_holds_nobody_up(self) -> None:
        self.patch(self.proofs._pool, "closeCachedConnections", Deferred)
        stopping = ensureDeferred(self.proofs.stop())
        self.assertNoResult(stopping)
        self.clock.advance(GOODBYE)
        self.successResultOf(stopping)

    def test_a_failure_is_told_in_the_users_tasks_that_run(self) -> None:
        for task_id, user in (("t1", "ada"), ("t2", "eve"), ("t3", "ada")):
            self.folders.control(task_id).mkdir(parents=True)
            listening = self.patch(self.proofs.broker, "_listening", lambda *args: ())
            self.done(self.proofs.broker.open(Grant(user, task_id, ())))
            listening.restore()
        self.proofs._tell("ada", "gh authentication expired")
        self.assertEqual(self.told, [(task, "gh authentication expired") for task in ("t1", "t3")])
        self.proofs.broker.close("t1")
        self.proofs._tell("ada", "again")
        self.assertEqual(self.told[2:], [("t3", "again")])
        self.assertEqual(self.done(self.proofs.retry("t1")), "This task has no owner's credentials.")
