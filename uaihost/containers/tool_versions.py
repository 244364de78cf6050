"""Which tool versions a work copy names: `.tool-versions` (asdf's format) and the `[tools]` of a mise.toml.

The repository is hostile: files are read without following links, up to a limit, and of what they say only
known tools' names and plain versions are taken. Nothing else of a mise.toml is looked at: no env, no hooks,
no tasks, no options of a tool. Parsing is pure. It must not know who installs what.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs

# What mise installs by itself (its registry's `core:`) as one folder that can be moved into place and shared.
SHARED = ("node", "python", "go", "java", "ruby", "bun", "deno", "zig", "erlang", "elixir", "swift")
# Of mise's own tools those that spread over a home folder, where an installer of theirs keeps them.
PRIVATE = ("rust", "dotnet")
# asdf's names for the same.
_OTHER_NAMES = {"nodejs": "node", "golang": "go", "dotnet-core": "dotnet"}

# Read in this order; what one says is added to what the others say, as mise itself chooses among them.
FILES = (".tool-versions", "mise.toml", ".mise.toml")
# Bytes of one file: people write them, a line for each tool.
FILE_LIMIT = 64 << 10
# Versions of one work copy: more is no project's need, and each may take minutes to install.
REQUEST_LIMIT = 24
# Sentences about one work copy, and characters of what a sentence quotes.
NOTE_LIMIT = 12
QUOTE_LIMIT = 60

# A number or the beginning of one, a vendor's name and number (`temurin-21`), `latest`, `lts`. It becomes a
# part of a path and of a command's word: no slash, no leading dash, no colon (mise's `path:` and `ref:`).
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")
_PREFIX = "prefix:"
_NUMBER_LIMIT = 1_000_000
# The image's own program is meant: nothing is to be installed.
_IMAGES_OWN = "system"


@attrs.frozen(order=True)
class Request:
    """A tool by mise's name and the version that was asked for: whole, a prefix of one, `latest` or `lts`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@attrs.frozen
class Wanted:
    """What a work copy names. notes: sentences about what is not taken, for people."""

    requests: tuple[Request, ...] = ()
    notes: tuple[str, ...] = ()


def legal_version(text: str) -> bool:
    """Whether it can be a version: safe as a part of a path and of a word of a command."""
    return _VERSION.match(text) is not None


def read(folder: Path) -> Wanted:
    """What the files in `folder` name. Blocks; never raises because of what lies there."""
    found = Wanted()
    try:
        inside = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return found
    try:
        for name in FILES:
            try:
                data = _content(inside, name)
            except OSError as error:
                found = _joined(found, Wanted(notes=(f"{name} is not read: {error.strerror}",)))
                continue
            if data is not None:
                found = _joined(found, parse(name, data))
    finally:
        os.close(inside)
    return Wanted(found.requests, found.notes[:NOTE_LIMIT])


def parse(name: str, data: bytes) -> Wanted:
    """What a file of this name says; its content may be anything."""
    if len(data) > FILE_LIMIT:
        return Wanted(notes=(f"{name} is not read: it is larger than {FILE_LIMIT >> 10} KiB",))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return Wanted(notes=(f"{name} is not read: it is not UTF-8",))
    if not name.endswith(".toml"):
        return _taken(name, _lines(text))
    try:
        table = tomllib.loads(text).get("tools", {})
    except (ValueError, RecursionError) as error:
        return Wanted(notes=(f"{name} is not read: {quoted(str(error))}",))
    if not isinstance(table, dict):
        return Wanted(notes=(f"{name} is not read: its `tools` is not a table",))
    return _taken(name, ((tool, _versions(value)) for tool, value in table.items()))


def quoted(text: str) -> str:
    """A part of a sentence: one line, printable and short."""
    plain = "".join(sign if sign.isprintable() else "?" for sign in text[: QUOTE_LIMIT + 1])
    return plain if len(text) <= QUOTE_LIMIT else plain[:QUOTE_LIMIT] + "..."


def _content(inside: int, name: str) -> bytes | None:
    """The file's bytes, one more than the limit at most; None when there is none."""
    try:
        # A pipe would otherwise keep us waiting for its writer.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=inside)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(0, "it is not a file")
        return opened.read(FILE_LIMIT + 1)


def _lines(text: str) -> Iterable[tuple[str, Sequence[object]]]:
    """`name version [version ...] [# comment]` for each line."""
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            yield words[0], words[1:]


def _versions(value: Any) -> Sequence[object]:
    """The versions in a value of `[tools]`: a string, a table with `version`, or a list of these."""
    every = value if isinstance(value, list) else [value]
    return [one.get("version") if isinstance(one, dict) else one for one in every]


def _taken(file: str, entries: Iterable[tuple[str, Sequence[object]]]) -> Wanted:
    requests: list[Request] = []
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(f"{file}: {text}")

    for tool, versions in entries:
        if len(notes) >= NOTE_LIMIT:
            break
        name = tool.removeprefix("core:")
        name = _OTHER_NAMES.get(name, name)
        if name in PRIVATE:
            note(f"{name} is not shared: `MISE_OFFLINE=0 mise install {name}` in the task installs it there")
            continue
        if name not in SHARED:
            note(f"{quoted(tool)} is not installed by the host; known are {', '.join(SHARED)}")
            continue
        for version in versions:
            text = _text(version)
            if legal_version(text) and text != _IMAGES_OWN:
                requests.append(Request(name, text))
            elif text != _IMAGES_OWN:
                note(f"{name} {quoted(text)!r} is no version that the host installs")
    return _joined(Wanted(), Wanted(tuple(requests), tuple(notes)))


def _text(version: object) -> str:
    """A version as it is written; empty for what is none. TOML's numbers count: `node = 24`."""
    if isinstance(version, str):
        return version.removeprefix(_PREFIX)
    number = isinstance(version, (int, float)) and not isinstance(version, bool)
    # A longer one takes Python long to write down, or for ever.
    return str(version) if number and 0 <= version < _NUMBER_LIMIT else ""  # type: ignore[operator]


def _joined(one: Wanted, other: Wanted) -> Wanted:
    """Both, each request once, in order and within the limit."""
    every = tuple(dict.fromkeys(one.requests + other.requests))
    notes = one.notes + other.notes
    if len(every) > REQUEST_LIMIT:
        notes += (f"more than {REQUEST_LIMIT} tool versions are named; the first {REQUEST_LIMIT} are taken",)
    return Wanted(every[:REQUEST_LIMIT], notes)
