"""Signing in, out and looking: what is asked of people, what reaches the daemon, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import interactive
from uaihost.cli import login as verbs
from uaihost.cli.main import cli
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

TOKEN = "sk-ant-oat01-" + "s" * 95
KEY = "sk-ant-api03-of-a-test"
SEEN = 1_700_000_000_000
DAY = "2023-11-14 22:13 UTC"


class LoginCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answer: Any = {}
        self.patch(verbs, "daemon", self.daemon)
        self.patch(interactive, "sign_in", self.sign_in)

    def daemon(self, method: str, path: str, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        if isinstance(self.answer, HostError):
            raise self.answer
        return self.answer

    def sign_in(self, provider: str) -> tuple[str, dict[str, str]]:
        return "login", {"auth": f"of {provider}"}

    def run_verb(self, *words: str, typed: str | bytes = "") -> Result:
        return CliRunner().invoke(cli, words, input=typed)

    def stored(self) -> Any:
        """What the daemon was told to keep, after it was asked whether it is there."""
        self.assertEqual(self.asked[0], ("GET", "/api/accounts", None))
        ((method, path, body),) = self.asked[1:]
        self.assertEqual(method, "PUT")
        return path, body


class SignInTests(LoginCase):
    def file(self, data: bytes) -> Path:
        path = short_folder(self) / "key"
        path.write_bytes(data)
        return path

    def test_a_key_or_token_from_a_file_without_what_editors_add(self) -> None:
        done = self.run_verb("login", "claude", "--api-key-file", str(self.file(f"{KEY}\r\n\n".encode())))
        self.assertEqual((done.exit_code, done.exception), (0, None))
        self.assertEqual(self.stored(), ("/api/accounts/claude", {"form": "key", "secrets": {"key": KEY}}))
        self.assertNotIn(KEY, done.output)
        self.asked.clear()
        self.run_verb("login", "claude", "--token-file", str(self.file(TOKEN.encode())))
        self.assertEqual(self.stored()[1], {"form": "token", "secrets": {"token": TOKEN}})

    def test_a_key_from_standard_input(self) -> None:
        done = self.run_verb("login", "codex", "--api-key-file", "-", typed="sk-piped\n")
        self.assertEqual(done.exit_code, 0)
        self.assertEqual(self.stored()[1], {"form": "key", "secrets": {"key": "sk-piped"}})

    def test_what_is_typed_is_not_shown(self) -> None:
        done = self.run_verb("login", "claude", "--token", typed=f" {TOKEN} \n")
        self.assertEqual(self.stored()[1], {"form": "token", "secrets": {"token": TOKEN}})
        self.assertIn("claude token: ", done.output)
        self.assertNotIn(TOKEN, done.output)
        self.asked.clear()
        done = self.run_verb("login", "codex", "--api-key", typed="sk-typed\n")
        self.assertEqual(self.stored()[1], {"form": "key", "secrets": {"key": "sk-typed"}})
        self.assertNotIn("sk-typed", done.output)

    def test_without_an_option_its_own_sign_in_runs(self) -> None:
        done = self.run_verb("login", "codex")
        self.assertEqual(
            self.stored(), ("/api/accounts/codex", {"form": "login", "secrets": {"auth": "of codex"}})
        )
        self.assertIn("signed in to codex by login", done.output)

    def test_files_that_are_no_key_are_refused_before_anything_is_stored(self) -> None:
        for data in (b"", b"\n \n", b"one\ntwo\n", b"\xff\xfe", "schl\u00fcssel".encode(), b"k" * (65 << 10)):
            self.asked.clear()
            done = self.run_verb("login", "claude", "--api-key-file", str(self.file(data)))
            assert isinstance(done.exception, HostError), data
            self.assertEqual(done.exception.code, ErrorCode.INVALID_ARGS)
            self.assertIn("nothing was changed", done.exception.message)
            self.assertEqual([method for method, _, _ in self.asked], ["GET"])

    def test_bad_usage_says_what_is_legal_and_asks_nobody(self) -> None:
        for words, said in (
            (["login", "gemini"], "'claude', 'codex'"),
            (["login", "codex", "--token"], "only claude has long-lived tokens"),
            (["login", "codex", "--token-file", "-"], "only claude has long-lived tokens"),
            (["login", "claude", "--token", "--api-key"], "give one of"),
            (["login", "claude", "--api-key-file", "/nowhere/key"], "No such file"),
        ):
            done = self.run_verb(*words)
            self.assertEqual(done.exit_code, 2, words)
            self.assertIn(said, done.output)
        self.assertEqual(self.asked, [])

    def test_without_a_daemon_nobody_types_a_secret(self) -> None:
        self.answer = HostError(ErrorCode.UNAVAILABLE, "no host is running here")
        done = self.run_verb("login", "claude", "--api-key", typed="sk-ant-api03-x\n")
        self.assertIs(done.exception, self.answer)
        self.assertNotIn("claude key", done.output)


class LookTests(LoginCase):
    def account(self, **fields: Any) -> dict[str, Any]:
        plain = {"form": "none", "since": None, "expires": None, "gateway": None, "problem": None}
        return {"provider": "codex", **plain, **fields}

    def shown(self, *accounts: dict[str, Any]) -> str:
        kinds = [{"kind": "codex", "problem": None}, {"kind": "claude", "problem": "not signed in"}]
        self.answer = {"accounts": list(accounts), "kinds": kinds}
        done = self.run_verb("accounts")
        self.assertEqual(done.exit_code, 0)
        return done.output

    def test_each_state_has_its_sentence(self) -> None:
        for fields, said in (
            ({}, "not signed in; type: uaihost login codex"),
            ({"form": "key", "since": SEEN}, f"signed in by key since {DAY}"),
            ({"problem": "it was sealed with another key"}, "it was sealed with another key"),
            ({"form": "login", "since": SEEN, "expires": SEEN}, "renewed when it is next used"),
            ({"form": "login", "since": SEEN, "expires": 32_503_680_000_000}, "token until 3000-01-01"),
            ({"form": "key", "since": SEEN, "gateway": "http://g"}, "through http://g"),
        ):
            self.assertIn(said, self.shown(self.account(**fields)))

    def test_kinds_that_work_and_why_others_do_not(self) -> None:
        lines = self.shown(self.account()).splitlines()
        self.assertEqual(
            [line.split() for line in lines[-2:]], [["@codex", "works"], ["@claude", "not", "signed", "in"]]
        )

    def test_the_answer_as_it_is(self) -> None:
        self.answer = {"accounts": [self.account()], "kinds": []}
        self.assertEqual(json.loads(self.run_verb("accounts", "--json").output), self.answer)

    def test_signing_out_says_what_it_does_not_do(self) -> None:
        done = self.run_verb("logout", "claude")
        self.assertEqual(self.asked, [("DELETE", "/api/accounts/claude", None)])
        self.assertIn("revoke it at its vendor", done.output)
