"""The manual is the commands' own: the document holds what is made of them, and man(1) can read the page."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import manual
from uaihost.cli.exits import MEANINGS
from uaihost.cli.main import VERBS

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli.md"


class ManualTests(SynchronousTestCase):
    def test_the_document_is_what_the_commands_say(self) -> None:
        self.assertEqual(
            DOCUMENT.read_text(encoding="utf-8"),
            manual.markdown(),
            "type: python -m uaihost.cli.manual > docs/cli.md",
        )

    def test_every_verb_and_those_below_it_are_in_both(self) -> None:
        page, document = manual.man(), manual.markdown()
        paths = [" ".join(words) for _, words, _, _ in manual.commands()]
        self.assertTrue({verb for group in VERBS.values() for verb in group} <= set(paths))
        self.assertIn("image build", paths)
        for path in paths:
            self.assertIn(f" uaihost {path}\n", document)
            self.assertIn(f".SS uaihost {path.replace('-', chr(92) + '-')}", page)

    def test_every_option_of_every_verb_says_what_it_means(self) -> None:
        for _, words, command, context in manual.commands():
            for name, meaning in manual.options(command, context):
                self.assertTrue(meaning, f"{' '.join(words)} {name}")

    def test_every_status_is_in_both(self) -> None:
        for status, meaning in MEANINGS.items():
            self.assertIn(f"| {status} | {meaning} |", manual.markdown())
            escaped = meaning.replace("-", "\\-")
            self.assertTrue(f".B {status}\n{escaped}" in manual.man(), meaning)

    def test_no_line_of_text_is_taken_for_a_request(self) -> None:
        known = {"TH", "SH", "SS", "PP", "TP", "B", "I", "BR"}
        for line in manual.man().splitlines():
            if line.startswith((".", "'")):
                self.assertIn(re.match(r"\.(\w+)", line)[1], known, line)  # type: ignore[index]
            self.assertNotRegex(line, r"(?<!\\)-[a-z]")
