"""The verbs about the key of stored secrets: what people see, with a daemon and without one."""

from __future__ import annotations

import json
import os
from typing import Any
from unittest.mock import patch

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import secrets as verbs
from uaihost.cli.local import run_now
from uaihost.cli.main import cli
from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.sealing import Sealer
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import DataLock, with_database
from uaihost.paths import Folders
from uaihost.state import accounts
from uaihost.state.database import Database
from uaihost.test.support import short_folder

KEY, OTHER = b"k" * 32, b"o" * 32
STATUS = {"where": "/data/secrets.key", "sealed": 3, "others": 0, "problem": None}


class WithDaemonTests(SynchronousTestCase):
    def run_verb(self, answer: dict[str, Any], *words: str, typed: str = "") -> Result:
        def ask(control: object, method: str, path: str, body: Any, patience: float) -> dict[str, Any]:
            self.asked = (method, path, body)
            return answer

        self.patch(verbs, "ask", ask)
        return CliRunner().invoke(cli, ["secrets", *words], input=typed)

    def test_status_says_where_the_key_lies_and_what_is_wrong(self) -> None:
        done = self.run_verb(STATUS, "status")
        self.assertEqual(done.output, "key      /data/secrets.key\nsealed   3 stored secrets\n")
        self.assertEqual(self.asked, ("POST", "/api/verbs/secrets.status", {}))
        done = self.run_verb({**STATUS, "sealed": 0, "others": 3, "problem": "it is missing"}, "status")
        self.assertIn("closed   3 stored secrets, which this key does not open", done.output)
        self.assertIn("problem  it is missing", done.output)
        self.assertEqual(json.loads(self.run_verb(STATUS, "status", "--json").output), STATUS)

    def test_rotate_says_where_the_new_key_lies(self) -> None:
        done = self.run_verb({"sealed": 3, "where": "/data/secrets.key"}, "rotate")
        self.assertEqual(self.asked, ("POST", "/api/verbs/secrets.rotate", {}))
        self.assertIn("a new key seals 3 stored secrets; it lies in /data/secrets.key", done.output)

    def test_nothing_is_given_up_without_a_yes(self) -> None:
        self.asked = ("", "", None)
        self.assertEqual(self.run_verb({"forgotten": 2}, "forget", typed="n\n").exit_code, 1)
        self.assertEqual(self.asked, ("", "", None))
        done = self.run_verb({"forgotten": 2}, "forget", typed="y\n")
        self.assertEqual(self.asked, ("POST", "/api/verbs/secrets.forget", {}))
        self.assertIn("2 stored secrets are forgotten", done.output)


class WithoutDaemonTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        FileSource(self.folders.secrets_key).write(KEY)
        self.put("claude", KEY)

    def put(self, provider: str, key: bytes) -> None:
        row = accounts.AccountRow(provider, "key", Sealer(key).seal(f"accounts/{provider}", b"sk-secret"), 1)
        self.on_database(lambda database: database.run(lambda db: accounts.put(db, row)))

    def on_database(self, work: Any) -> Any:
        return run_now(with_database(self.folders, work))

    def rows(self) -> list[accounts.AccountRow]:
        async def read(database: Database) -> list[accounts.AccountRow]:
            return await database.run(accounts.accounts)

        found: list[accounts.AccountRow] = self.on_database(read)
        return found

    def run_verb(self, *words: str) -> Result:
        with patch.dict(os.environ, {"UAI_DATA_DIR": str(self.folders.root), "UAI_SECRETS_KEY": "file"}):
            return CliRunner().invoke(cli, ["secrets", *words])

    def test_it_is_rotated_on_the_database_itself(self) -> None:
        done = self.run_verb("rotate")
        self.assertEqual((done.exit_code, done.exception), (0, None))
        key, old = FileSource(self.folders.secrets_key).read()
        assert key is not None
        self.assertNotEqual(key, KEY)
        self.assertIsNone(old)
        (row,) = self.rows()
        self.assertEqual(Sealer(key).open("accounts/claude", row.secret), b"sk-secret")
        self.assertIn("sealed   1 stored", self.run_verb("status").output)

    def test_what_does_not_open_stops_it_and_can_be_given_up(self) -> None:
        self.put("codex", OTHER)
        done = self.run_verb("rotate")
        assert isinstance(done.exception, HostError)
        self.assertIn("accounts/codex", done.exception.message)
        self.assertEqual(FileSource(self.folders.secrets_key).read(), (KEY, None))
        self.assertEqual(self.run_verb("forget", "--yes").exit_code, 0)
        self.assertEqual([row.provider for row in self.rows()], ["claude"])
        self.assertEqual(self.run_verb("rotate").exit_code, 0)

    def test_a_daemon_that_starts_or_hangs_is_not_gone_round(self) -> None:
        lock = DataLock(self.folders.lock)
        self.addCleanup(lock.release)
        done = self.run_verb("rotate")
        assert isinstance(done.exception, HostError)
        self.assertEqual(done.exception.code, ErrorCode.CONFLICT)

    def test_the_database_alone_says_nothing_and_no_leftover_does(self) -> None:
        self.assertEqual(self.run_verb("rotate").exit_code, 0)
        for path in self.folders.root.rglob("*"):
            if path.is_file():
                self.assertNotIn(b"sk-secret", path.read_bytes(), path)
