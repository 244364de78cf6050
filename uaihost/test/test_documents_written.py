"""The documents as they are written: their commands run somewhere, and what they name is there."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.main import cli
from uaihost.config.table import SETTINGS
from uaihost.test.documents import PLACES, TOP, agrees, blocks, commands, commands_of, pages

DOCS = TOP / "docs"
# Information of blocks that nobody types.
SHOWN = {"text", "ini", "nginx", "python", "json", "toml", "yaml", "xml", "promql"}
# Words that begin a line which somebody would type.
PROGRAMS = r"uaihost|twistd|make|sudo|apt-get|apt|pip|git|docker|systemctl|curl|journalctl|python3?|uv"
# A call of the command with its verb: at the beginning, or where a shell begins another command.
VERB = r"(?:^|&& |sudo )(?:[A-Z_]+=\S+ )*(?:\S*/)?uaihost((?: [a-z][a-z-]*)+)"
# Variables of the documents that are no settings: what a task's processes or the proxy get, and a family.
OTHERS = {"UAI_BUDGET_", "UAI_", "UAI_CONFIG", "UAI_NO_"}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(path: Path) -> str:
    """A document without its blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text_of(path), flags=re.M | re.S)


class CommandTests(SynchronousTestCase):
    def test_there_are_commands_to_run(self) -> None:
        self.assertGreater(len(commands()), 20)

    def test_every_place_is_run_by_a_test(self) -> None:
        self.assertLessEqual({command.place for command in commands()}, set(PLACES))
        for place, module in PLACES.items():
            source = Path(str(import_module(module).__file__)).read_text(encoding="utf-8")
            self.assertTrue(
                re.search(rf'commands_of\(\s*"{place}"', source), f"{module} types nothing of {place}"
            )

    def test_what_the_tests_themselves_are_started_by(self) -> None:
        """`make test` cannot run inside of itself: what it runs is everything that these say."""
        checks = text_of(TOP / ".ci" / "run").splitlines()
        whole = tiers("make test")
        self.assertEqual(whole, {"lint", "unit", "integration", "browser"})
        for command in commands_of("ci"):
            self.assertTrue(command.text in checks or tiers(command.text) <= whole, str(command))
            self.assertTrue(tiers(command.text), f"{command} runs no tier")

    def test_no_command_hides_in_another_kind_of_block(self) -> None:
        for path in pages():
            for block in blocks(path):
                if block.info != "console":
                    self.assertIn(block.info, SHOWN, f"{block.page}:{block.line}")
                    for line in block.lines if block.info not in {"text"} else ():
                        self.assertNotRegex(line, rf"^\s*(\$ )?({PROGRAMS}) ", f"{block.page}:{block.line}")

    def test_no_command_hides_in_an_indented_block(self) -> None:
        for path in pages():
            for line in re.findall(rf"^(?: {{4,}}|\t)(?:\$ )?(?:{PROGRAMS}) .*$", prose(path), re.M):
                self.fail(f"{path.relative_to(TOP)}: {line.strip()}")


class AgreementTests(SynchronousTestCase):
    def test_what_differs_is_left_open_and_nothing_else(self) -> None:
        self.assertTrue(agrees(("host ...", "...", "end"), "host a\nb\nc\n  end\n"))
        self.assertTrue(agrees(("...",), ""))
        self.assertTrue(agrees(("a ... c",), "\x1b[1ma b c\x1b[0m\n\n"))
        self.assertFalse(agrees(("host ...",), "host a\nmore\n"))
        self.assertFalse(agrees(("a", "b"), "b\na\n"))
        self.assertFalse(agrees(("a.c",), "abc\n"))
        self.assertFalse(agrees(("a ... c",), "a\nc\n"))


class NameTests(SynchronousTestCase):
    def test_every_setting_that_is_named_exists(self) -> None:
        known = {setting.env for setting in SETTINGS} | {
            f"{setting.env}_FILE" for setting in SETTINGS if setting.secret
        }
        code = "\n".join(
            text_of(path) for path in (TOP / "uaihost").rglob("*.py") if "test" not in path.parts
        )
        for path in pages():
            for name in set(re.findall(r"\bUAI_[A-Z_]+", text_of(path))) - known - OTHERS:
                self.assertIn(name, code, f"{path.relative_to(TOP)}: {name} is nowhere in the code")

    def test_every_verb_that_is_named_exists(self) -> None:
        context = click.Context(cli)
        for path in pages():
            for words in re.findall(VERB, code_of(path), re.M):
                verb, *more = words.split()
                command = cli.get_command(context, verb)
                self.assertIsNotNone(command, f"{path.relative_to(TOP)}: uaihost {verb}")
                if isinstance(command, click.Group) and more:
                    found = command.get_command(context, more[0])
                    self.assertIsNotNone(found, f"{path.relative_to(TOP)}: uaihost {verb} {more[0]}")

    def test_every_metric_that_is_named_exists(self) -> None:
        code = "\n".join(
            text_of(path) for path in (TOP / "uaihost").rglob("*.py") if "test" not in path.parts
        )
        for path in pages():
            for name in set(re.findall(r"\buaihost_[a-z]\w*[a-z]\b", code_of(path))):
                family = re.sub(r"_(total|bucket|sum|count|created|info)$", "", name)
                self.assertIn(family.removeprefix("uaihost_"), code, f"{path.relative_to(TOP)}: {name}")

    def test_every_file_that_is_named_exists(self) -> None:
        for path in pages():
            for name in re.findall(
                r"`((?:uaihost|docs|scripts|images|debian|dashboards)/[\w./-]+)`", prose(path)
            ):
                self.assertTrue((TOP / name).exists(), f"{path.relative_to(TOP)}: {name}")

    def test_every_test_that_is_named_exists(self) -> None:
        for name in re.findall(r"`(test_\w+)`", text_of(DOCS / "reliability.md")):
            self.assertTrue((TOP / "uaihost" / "test" / "integration" / f"{name}.py").exists(), name)
        for name in re.findall(r"`(uaihost/test/\w+)`", text_of(DOCS / "reliability.md")):
            self.assertTrue((TOP / name).is_dir(), name)


class LinkTests(SynchronousTestCase):
    def test_links_to_headings_lead_to_headings(self) -> None:
        for path in pages():
            for target, anchor in re.findall(r"\]\(([^)\s#:]*)#([^)\s]+)\)", text_of(path)):
                other = (path.parent / target).resolve() if target else path
                self.assertIn(anchor, headings(other), f"{path.relative_to(TOP)}: {target}#{anchor}")

    def test_addresses_outside_are_whole(self) -> None:
        for path in pages():
            for address in re.findall(r"\]\(((?:[a-z]+:)[^)]*)\)", text_of(path)):
                self.assertRegex(address, r"^https://[a-z0-9.-]+\.[a-z]+(/[^\s]*)?$", str(path))

    def test_pictures_are_there_and_say_what_they_show(self) -> None:
        for path in pages():
            for words, target in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text_of(path)):
                self.assertTrue((path.parent / target).exists(), f"{path.relative_to(TOP)}: {target}")
                self.assertGreater(len(words.split()), 3, f"{path.relative_to(TOP)}: {target}")

    def test_every_page_is_in_the_menu(self) -> None:
        menu = set(re.findall(r"([\w/-]+\.md)$", text_of(TOP / "mkdocs.yml"), re.M))
        self.assertEqual(menu, {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")})

    def test_pages_have_a_size_that_is_read(self) -> None:
        for path in pages():
            self.assertEqual(len(re.findall(r"^# ", prose(path), re.M)), 1, f"{path}: one title")
            self.assertLess(path.stat().st_size, 32 << 10, f"{path} is too long for one page")


def headings(path: Path) -> set[str]:
    """What links of a page lead to, as mkdocs makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", prose(path), re.M):
        plain = re.sub(r"[^\w\s-]", "", title).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", plain))
    return found


def code_of(path: Path) -> str:
    """What a document sets as code, a line each: spans, and the commands."""
    spans = re.findall(r"`([^`\n]+)`", prose(path))
    page = str(path.relative_to(TOP))
    return "\n".join([*spans, *(c.text.partition("#")[0] for c in commands() if c.page == page)])


def tiers(command: str) -> set[str]:
    """The tiers of scripts/test that a target of the Makefile runs."""
    if not re.fullmatch(r"make [a-z]+", command):
        return set()
    done = subprocess.run(
        ["make", "-n", *command.split()[1:]], cwd=TOP, capture_output=True, text=True, check=True
    )
    return set(" ".join(re.findall(r"scripts/test((?: [a-z]+)+)", done.stdout)).split())
