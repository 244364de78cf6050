"""What the documents state in tables is what the code does."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from unittest.mock import Mock

import msgspec
from twisted.trial.unittest import TestCase

from uaihost.commands.registry import registry
from uaihost.errors import ErrorCode
from uaihost.wire import events, frames, inputs

DOCS = Path(__file__).parents[2] / "docs"


def section(number: int) -> str:
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {number}. ")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, str]:
    """First cell -> the rest, of every table row whose first cell is code."""
    return {m[1]: m[2] for m in re.finditer(r"^\| `([^`]+)` \|(.*)\|$", text, re.M)}


def tags(union: object) -> dict[str, type[msgspec.Struct]]:
    return {kind.__struct_config__.tag: kind for kind in typing.get_args(union)}


class ProtocolTests(TestCase):
    def check(self, table: dict[str, str], types: dict[str, type[msgspec.Struct]], skip: set[str]) -> None:
        self.assertEqual(set(table), set(types))
        for name, kind in types.items():
            for field in kind.__struct_fields__:
                if field not in skip:
                    self.assertIn(f"`{field}", table[name].replace("`{", "`"), f"{name}.{field}")

    def test_frames_of_the_bridge(self) -> None:
        self.check(rows(section(2)), tags(frames.FromBridge), set())

    def test_frames_of_the_host(self) -> None:
        self.check(rows(section(3)), tags(frames.FromHost), {"publicKey"})

    def test_events(self) -> None:
        table = rows(section(6))
        self.check(table, tags(events.Event), {"taskId", "at"})
        fleeting = {name for name, row in table.items() if row.rstrip().endswith("| no")}
        self.assertEqual(fleeting, set(tags(events.Fleeting)))

    def test_commands(self) -> None:
        self.assertEqual(set(rows(section(4))), set(registry(Mock(), Mock(), Mock(), Mock())))

    def test_error_codes(self) -> None:
        listed = section(3).partition("Error codes: ")[2].partition("The message")[0]
        self.assertEqual(set(re.findall(r"`(\w+)`", listed)), {code.value for code in ErrorCode})

    def test_statuses(self) -> None:
        for status in inputs.TASK_STATUSES:
            self.assertRegex(rows(section(6))["task.status"], rf"\b{status}\b")


class LinkTests(TestCase):
    def test_every_link_between_documents_leads_somewhere(self) -> None:
        broken = []
        for path in [*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")]:
            for target in re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8")):
                if "://" not in target and not (path.parent / target).exists():
                    broken.append(f"{path.relative_to(DOCS.parent)}: {target}")
        self.assertEqual(broken, [])
