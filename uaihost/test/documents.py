"""The commands that the documents show: where each can be run, how it ends, what it prints.

Knows how a document is written (CONTRIBUTING.md, "Commands in documents"), and runs nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import attrs

TOP = Path(__file__).parents[2]

# Where commands can be run -> the test module that runs all of them.
PLACES = {
    "host": "uaihost.test.integration.test_documents_host",
    "checkout": "uaihost.test.integration.test_documents_checkout",
    "wheel": "uaihost.test.integration.test_documents_checkout",
    "debian": "uaihost.test.integration.test_package",
    "systemd": "uaihost.test.integration.test_services_systemd",
    "ci": "uaihost.test.test_documents_written",
}
STANDARD = "host"

# A comment on the line before a block: a place, then how its commands end.
_PLACE = re.compile(r"^<!-- run: (?P<place>[a-z]+)(?:, status (?P<status>\d+))?(?P<stays>, stays)? -->$")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>\S*)\s*$")


@attrs.frozen
class Command:
    """One line that a reader types.

    page: relative to the project. line: where it stands, from 1. status: its exit status. stays: it goes on
    until it is interrupted; it has worked when what is shown has been printed. shown: what it prints, with
    `...` for what differs.
    """

    page: str
    line: int
    place: str
    text: str
    status: int
    stays: bool
    shown: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@attrs.frozen
class Block:
    """A fenced block. info: the word behind the fence; before: the line above it, without blank ones."""

    page: str
    line: int
    info: str
    before: str
    lines: tuple[str, ...]


def pages() -> list[Path]:
    """Every document that people read: the site's pages, and what lies beside the code."""
    return sorted([*(TOP / "docs").rglob("*.md"), TOP / "README.md", TOP / "CONTRIBUTING.md"])


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a document.

    Raises:
        ValueError: one does not end.
    """
    page = str(path.relative_to(TOP))
    before, inside, began = "", None, 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is None and fence:
            inside, began, lines = fence, number, list[str]()
        elif inside is not None and fence and not fence["info"]:
            yield Block(page, began, inside["info"], before, tuple(lines))
            inside, before = None, ""
        elif inside is not None:
            lines.append(line.removeprefix(inside["indent"]))
        elif line.strip():
            before = line.strip()
    if inside is not None:
        raise ValueError(f"{page}:{began}: this block does not end")


@cache
def commands() -> tuple[Command, ...]:
    """Every command of every document, in the order of the pages.

    Raises:
        ValueError: a block is not written as it must be.
    """
    return tuple(
        command
        for path in pages()
        for block in blocks(path)
        if block.info == "console"
        for command in _commands(block)
    )


def commands_of(place: str, page: str | None = None) -> list[Command]:
    """The commands to run in one place, in order; of one page alone when it is given."""
    return [c for c in commands() if c.place == place and page in (None, c.page)]


def agrees(shown: tuple[str, ...], printed: str) -> bool:
    """Whether what is shown was printed: the same lines, in order and side by side.

    `...` in a line stands for anything in it, alone for any number of lines. How many blanks there are does
    not count, nor lines without anything, nor what a terminal is told about colours.
    """
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    text = "".join(f"{' '.join(line.split())}\n" for line in plain.splitlines() if line.strip())
    wanted = ""
    for line in (" ".join(each.split()) for each in shown):
        if line == "...":
            wanted += r"(?:.*\n)*?"
        elif line:
            wanted += r"[^\n]*?".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.fullmatch(wanted, text) is not None


def _commands(block: Block) -> Iterator[Command]:
    place = _PLACE.match(block.before)
    if block.before.startswith("<!-- run:") and not place:
        raise ValueError(
            f"{block.page}:{block.line}: {block.before} is not a place as CONTRIBUTING.md has it"
        )
    where = place["place"] if place else STANDARD
    if not block.lines or not block.lines[0].startswith("$ "):
        raise ValueError(f"{block.page}:{block.line}: a block of commands begins with one: `$ ...`")
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(block.lines, block.line + 1):
        if line.startswith("$ "):
            found.append((number, line[2:], []))
        elif found[-1][1].endswith("\\") and line.startswith("> "):
            found[-1] = (found[-1][0], f"{found[-1][1]}\n{line[2:]}", [])
        else:
            found[-1][2].append(line)
    status = int(place["status"] or 0) if place else 0
    stays = bool(place and place["stays"])
    for number, text, shown in found:
        yield Command(block.page, number, where, text, status, stays, tuple(shown))
