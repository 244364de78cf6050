"""A whole host that is given secrets and meets errors of all kinds: none of them is in what it logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from uaihost.cli.local import ask
from uaihost.paths import Folders
from uaihost.test.integration.processes import free_port, until
from uaihost.test.integration.service import BIN, TOKEN, Service
from uaihost.test.support import short_folder

reactor: Any = _reactor

ACCOUNT = "sk-ant-api03-a-key-of-the-tests-that-no-log-may-hold"
# It has no shape that anybody knows: only that the host holds it tells that it is one.
PLAIN = "correcthorsebatterystaple"
BRIDGE_KEY = "a-key-in-an-address-of-the-tests"


class SecretsTests(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        # A host logs where its database is: so its token is in lines of the log until it is taken out.
        self.folder = short_folder(self) / TOKEN
        self.folder.mkdir()
        url = f"ws://127.0.0.1:{free_port()}/host?key={BRIDGE_KEY}"
        self.service = Service(reactor, url, self.folder)
        self.service.env |= {"UAI_LOG_LEVEL": "debug", "UAI_LOG_FORMAT": "json"}
        self.addCleanup(self.service.stop)
        self.service.start()
        self.control = Folders(self.folder).control_socket
        await deferToThread(until, "the host", self.control.exists)

    async def ask(self, method: str, path: str, body: Any = None) -> str:
        """What the daemon answers, or how it refuses."""
        try:
            return json.dumps(await deferToThread(ask, self.control, method, path, body))
        except Exception as error:
            return str(error)

    async def test_no_secret_is_logged(self) -> None:
        secrets = {"key": ACCOUNT}
        await self.ask("PUT", "/api/accounts/claude", {"form": "key", "secrets": secrets})
        await self.ask("PUT", "/api/accounts/codex", {"form": "key", "secrets": {"key": PLAIN}})
        self.assertIn('"form": "key"', await self.ask("GET", "/api/accounts"))
        # Where secrets come by mistake.
        for path in (f"/api/tasks/{PLAIN}?token={TOKEN}", f"/api/{ACCOUNT}", f"/?key={PLAIN}"):
            await self.ask("GET", path)
        await self.ask("PUT", f"/api/accounts/{PLAIN}", {"form": PLAIN, "secrets": {PLAIN: ACCOUNT}})
        await self.ask("POST", "/api/verbs/github.connect", {"user": "owner", "token": PLAIN})
        await self.ask("POST", f"/api/verbs/{ACCOUNT}", {"token": TOKEN})
        await self.command("push", PLAIN)
        await self.command("task", "stop", PLAIN)
        printed = self.service.output
        self.service.signal()
        await self.service.exit()
        written = Path(self.folder / "uaihost.log").read_text(encoding="utf-8")
        records = [json.loads(line) for line in written.splitlines()]
        # The host did log: the bridge that is not there, the accounts, its end.
        self.assertGreater(len(records), 20)
        self.assertIn("warn", {record["level"] for record in records})
        self.assertIn(f"{self.folder.parent}/[secret]/state.db: schema 0001 core", written)
        for text in (written, printed.decode(), self.service.output.decode()):
            for secret in (TOKEN, ACCOUNT, PLAIN, BRIDGE_KEY):
                self.assertFalse(secret in text, f"{secret} is in the log")

    async def command(self, *words: str) -> None:
        await getProcessOutputAndValue(
            str(BIN / "uaihost"), words, env=self.service.env, path=str(self.folder), reactor=reactor
        )
