"""The verbs about a user's SSH key: what they ask the daemon for, and what stands on which stream."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import TestCase

from uaihost.cli import ssh_key as verbs
from uaihost.cli.main import cli

KEY = {"publicKey": "ssh-ed25519 AAAA uaihost", "fingerprint": "SHA256:abc"}
NONE = {"publicKey": None, "fingerprint": None}


class SshKeyTests(TestCase):
    def run_verb(self, answer: dict[str, Any], *words: str) -> Result:
        def verb(name: str, asked: dict[str, Any]) -> dict[str, Any]:
            self.asked = (name, asked)
            return answer

        self.patch(verbs, "verb", verb)
        return CliRunner().invoke(cli, ["ssh-key", *words])

    def test_the_key_alone_on_standard_output(self) -> None:
        for word in ("show", "ensure"):
            done = self.run_verb(KEY, word)
            self.assertEqual((done.exit_code, done.stdout), (0, "ssh-ed25519 AAAA uaihost\n"))
            self.assertEqual(done.stderr, "SHA256:abc\n")
            self.assertEqual(self.asked, (f"ssh.{word}", {"user": "owner"}))

    def test_none_says_how_to_get_one(self) -> None:
        done = self.run_verb(NONE, "show", "--user", "ada")
        self.assertEqual((done.exit_code, done.stdout), (1, ""))
        self.assertIn("uaihost ssh-key ensure --user ada", done.stderr)

    def test_delete(self) -> None:
        done = self.run_verb(NONE, "delete", "--user", "ada")
        self.assertEqual((done.exit_code, self.asked), (0, ("ssh.delete", {"user": "ada"})))
        self.assertIn("ada has no SSH key", done.stdout)
