"""What a pull request says of its task: short, without secrets, and nobody is called."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.commands import summary
from uaihost.state.channel import MessageRow
from uaihost.test.support import given, strategies


def row(kind: Any, text: str) -> MessageRow:
    return MessageRow("t", 0, "m", 1, kind, "a", "A", text, ())


class SummaryTests(SynchronousTestCase):
    def test_what_was_asked_and_the_last_answer(self) -> None:
        rows = [
            row("user", "Mend it\nplease"),
            row("agent", "Looking."),
            row("system", "A note"),
            row("user", "/status"),
            row("agent", "Mended."),
        ]
        self.assertEqual(
            summary.body(rows, ["One", "Two"]),
            "## Asked\n\n> Mend it\n> please\n\n## Answer\n\nMended.\n\n## Commits\n\n- One\n- Two",
        )
        self.assertEqual(summary.body([], []), "")

    def test_secrets_are_left_out(self) -> None:
        for secret in (
            "ghp_" + "a" * 36,
            "github_pat_" + "b" * 40,
            "sk-ant-api03-" + "c" * 40,
            "AKIA" + "D" * 16,
            "glpat-" + "e" * 20,
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMe",
        ):
            shown = summary.clean(f"use {secret} now")
            self.assertEqual(shown, "use [left out] now")
        self.assertEqual(summary.clean("password: hunter22 ok"), "password: [left out] ok")
        self.assertEqual(summary.clean("https://me:pw@host/x"), "https://[left out]@\u200bhost/x")
        self.assertEqual(summary.clean("a task-force of ghosts"), "a task-force of ghosts")

    def test_nobody_is_called_and_nothing_hides(self) -> None:
        self.assertEqual(
            summary.clean("thanks @ada and @team/x, a@b"), "thanks @\u200bada and @\u200bteam/x, a@\u200bb"
        )
        self.assertEqual(summary.clean("a\u202eb\x1b[31mc\r"), "ab[31mc")

    def test_it_is_short(self) -> None:
        rows = [row("user", "x" * 5000) for _ in range(30)] + [row("agent", "y" * 90_000)]
        body = summary.body(rows, ["z" * 200] * 50)
        self.assertIn("20 earlier requests are left out.", body)
        self.assertLess(len(body), 25_000)
        self.assertEqual(len(summary.title("t" * 500)), summary.TITLE)
        self.assertEqual(summary.title(" two\n words "), "two words")

    @given(strategies.text(max_size=300))
    def test_any_text_becomes_a_summary(self, text: str) -> None:
        body = summary.body([row("user", text), row("agent", text)], [text])
        self.assertNotRegex(body, r"@[A-Za-z0-9]")
