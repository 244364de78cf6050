"""What verbs print goes through one place, which lets nothing of others reach the terminal as an order."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import click
from click.testing import CliRunner
from rich.console import Console
from rich.table import Table
from rich.text import Text
from twisted.trial.unittest import SynchronousTestCase

from uaihost import cli
from uaihost.cli.said import Said, echo, echo_json, says
from uaihost.cli.terminals import terminal

ATTACK = "na\x1b]52;c;eA==\x07me \u202eevil\x9b2J"
SHOWN = "na\ufffd]52;c;eA==\ufffdme \ufffdevil\ufffd2J"
# Rich leaves bells out.
RICH = SHOWN.replace("==\ufffd", "==")


class SaidTests(SynchronousTestCase):
    def test_lines_and_json(self) -> None:
        @click.command()
        def verb() -> None:
            echo(ATTACK)
            echo_json({"name": ATTACK})

        printed = CliRunner().invoke(verb).output.splitlines()
        self.assertEqual(printed[0], SHOWN)
        self.assertTrue(printed[1].isascii() and printed[1].isprintable(), printed[1])

    def test_a_sentence(self) -> None:
        @click.command()
        @says
        def verb() -> Said:
            return {"name": ATTACK}, ATTACK

        self.assertEqual(CliRunner().invoke(verb).output, f"{SHOWN}\n")
        self.assertTrue(CliRunner().invoke(verb, ["--json"]).output.strip().isprintable())


class TerminalTests(SynchronousTestCase):
    def rendered(self, *, color: bool) -> tuple[Console, StringIO]:
        file = StringIO()
        made = terminal(file=file, force_terminal=color, width=80, color_system="standard" if color else None)
        return made, file

    def test_colors_are_ours_alone(self) -> None:
        console, file = self.rendered(color=True)
        console.print(Text(ATTACK, style="red"))
        console.print(f"[green]{ATTACK}[/]", highlight=False)
        for line, style in zip(file.getvalue().splitlines(), ("31", "32"), strict=True):
            self.assertEqual(line, f"\x1b[{style}m{RICH}\x1b[0m")

    def test_tables_and_what_is_written_over(self) -> None:
        console, file = self.rendered(color=True)
        table = Table("name")
        table.add_row(ATTACK)
        console.print(table)
        with console.status(ATTACK):
            pass
        text = file.getvalue()
        self.assertIn(f" {RICH}", text)
        for order in ("\x07", "\x9b", "\u202e"):
            self.assertNotIn(order, text)
        # What is left are rich's own: colors, moving the cursor, hiding it.
        for found in re.findall(r"\x1b(.{3})", text, re.DOTALL):
            self.assertEqual(found[0], "[", text)

    def test_every_verb_prints_there(self) -> None:
        allowed = {
            "said.py": {"click.echo("},
            # What the shell is to run, made of our own names.
            "completion.py": {"click.echo("},
        }
        folder = Path(cli.__file__).parent
        for path in sorted(folder.glob("*.py")):
            found = set(re.findall(r"click\.echo\(|(?<![\w.])Console\(", path.read_text(encoding="utf-8")))
            self.assertEqual(found, allowed.get(path.name, set()), path.name)
