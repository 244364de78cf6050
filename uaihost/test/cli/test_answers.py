"""The schema in docs/ is the types' own, names every verb that has `--json`, and refuses what is not so."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import manual
from uaihost.cli.answers import ANSWERS, Error, Failed, Version, schemas

DOCUMENT = Path(__file__).parents[3] / "docs" / "cli-schema.json"


class SchemaTests(SynchronousTestCase):
    def test_the_document_is_made_of_the_types(self) -> None:
        self.assertEqual(
            DOCUMENT.read_text(encoding="utf-8"),
            schemas(),
            "type: python -m uaihost.cli.answers > docs/cli-schema.json",
        )

    def test_every_verb_with_json_has_a_type(self) -> None:
        verbs = {
            " ".join(words)
            for _, words, command, _ in manual.commands()
            if any("--json" in option.opts for option in command.params)
        }
        self.assertEqual(verbs - set(ANSWERS), set())
        self.assertEqual(set(ANSWERS) - verbs, set())

    def test_readers_may_meet_fields_that_they_do_not_know(self) -> None:
        self.assertNotIn(
            "additionalProperties", {key for each in json.loads(schemas())["$defs"].values() for key in each}
        )

    def test_the_types_refuse_what_is_not_so(self) -> None:
        for wrong in (b"{}", b'{"uaihost": 1}', b'{"more": 1}'):
            with self.assertRaises(msgspec.ValidationError):
                msgspec.json.decode(wrong, type=Version)

    def test_a_failure_has_a_code_and_a_sentence(self) -> None:
        found = msgspec.json.decode(b'{"error": {"code": "conflict", "message": "m"}}', type=Failed)
        self.assertEqual(found, Failed(Error("conflict", "m")))
