"""The verbs about connections to GitHub: what they ask the daemon for, and what people read."""

from __future__ import annotations

import time
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import TestCase

from uaihost.cli import github as verbs
from uaihost.cli.main import cli

APP = {
    "userId": "ada",
    "form": "app",
    "login": "ada-l",
    "host": "github.com",
    "since": 0,
    "expires": 3_600_000,
    "problem": None,
}


class GitHubTests(TestCase):
    def run_verb(self, answer: dict[str, Any], *words: str, typed: str | None = None) -> Result:
        self.asked: list[tuple[str, dict[str, Any]]] = []

        def verb(name: str, asked: dict[str, Any], patience: float = 30.0) -> dict[str, Any]:
            self.asked.append((name, asked))
            return answer

        self.patch(verbs, "verb", verb)
        self.patch(time, "time", lambda: 1800.0)
        return CliRunner().invoke(cli, ["github", *words], input=typed)

    def test_a_token_is_typed_without_being_shown(self) -> None:
        done = self.run_verb({"login": "ada-l"}, "login", typed=" ghp_secret \n")
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertEqual(self.asked[1], ("github.connect", {"user": "owner", "token": "ghp_secret"}))
        self.assertNotIn("ghp_secret", done.output)
        self.assertIn("owner is connected to GitHub as ada-l", done.output)

    def test_a_token_from_a_pipe(self) -> None:
        done = self.run_verb({"login": "l"}, "login", "--user", "ada", "--token-file", "-", typed="ghp_x\n")
        self.assertEqual(done.exit_code, 0, done.output)
        self.assertEqual(self.asked[1], ("github.connect", {"user": "ada", "token": "ghp_x"}))
        done = self.run_verb({"login": "l"}, "login", "--token-file", "-", typed="two\nlines\n")
        self.assertEqual((done.exit_code, len(self.asked)), (1, 1))

    def test_who_is_connected(self) -> None:
        done = self.run_verb({"connections": []}, "status")
        self.assertIn("uaihost github login", done.output)
        own = {**APP, "userId": "bob", "form": "token", "expires": None}
        failed = {**APP, "userId": "cid", "problem": "GitHub does not take the token"}
        done = self.run_verb({"connections": [APP, own, failed]}, "status")
        first, second, third = done.output.splitlines()
        self.assertIn("ada-l at github.com since 1970-01-01 00:00 UTC, token until 1970-01-01 01:00", first)
        self.assertIn("personal access token", second)
        self.assertIn("does not take", third)
        self.patch(time, "time", lambda: 4000.0)
        self.assertIn("renewed when it is next used", verbs._connection(APP, 4000.0))

    def test_forgetting_and_trying_again(self) -> None:
        done = self.run_verb({}, "logout", "--user", "ada")
        self.assertEqual(self.asked, [("github.clear", {"user": "ada"})])
        self.assertIn("revoke it at GitHub", done.output)
        done = self.run_verb({"said": "GitHub works again"}, "retry")
        self.assertEqual(
            (done.output, self.asked), ("GitHub works again\n", [("github.retry", {"user": "owner"})])
        )
