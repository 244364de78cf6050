"""Reading what git-diff-tree(1) prints: which files changed, by how many lines, and their unified text; and
the shape in which a file is shown.

Pure: bytes in, records out. Names and content are an agent's and may hold anything.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

# Why something of a file is not shown: the file has too many hunks, all together have, it is too large to be
# compared, it is too large to be read.
REASONS = ("file", "total", "large", "unread")
# Where a change is.
PLACES = ("committed", "staged", "unstaged", "untracked", "conflict")

# Statuses of git's raw output format (gitdiff-core(7)), in our words.
_STATUS = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "C": "copied", "T": "typechange"}
_NO_MODE = "000000"

_RAW = re.compile(rb":(\d{6}) (\d{6}) ([0-9a-f]+) ([0-9a-f]+) ([AMDRCT])(\d*)\Z")
_COUNTS = re.compile(rb"(\d+|-)\t(\d+|-)\t(.*)\Z", re.DOTALL)
_HUNK = re.compile(rb"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")


@attrs.define
class File:
    """A changed file.

    Modes are git's six digits, None where the file is not there on that side; `old` and `new` are the object
    ids, old_size and new_size their bytes, where somebody asked. similarity: percent, of a rename or copy.
    hunks: unified text from the first @@, None when there is nothing to show; truncated: some of it is
    missing, and why is one of `REASONS`. where: some of `PLACES`. submodule, conflict: as in the result.
    """

    path: bytes
    old_path: bytes | None
    status: str
    old_mode: str | None
    new_mode: str | None
    old: str
    new: str
    additions: int = 0
    deletions: int = 0
    binary: bool = False
    hunks: bytes | None = None
    why: str | None = None
    where: Sequence[str] = ()
    similarity: int | None = None
    old_size: int | None = None
    new_size: int | None = None
    submodule: dict[str, Any] | None = None
    conflict: dict[str, Any] | None = None

    @property
    def truncated(self) -> bool:
        """Whether something of it is not shown."""
        return self.why is not None

    def as_json(self) -> dict[str, Any]:
        """The shape of `files` in the result of taskDiff; bytes that are no UTF-8 become U+FFFD."""
        found: dict[str, Any] = {
            **_named("path", self.path),
            "where": list(self.where),
            "status": self.status,
            "binary": self.binary,
            "additions": self.additions,
            "deletions": self.deletions,
            "hunks": None if self.hunks is None else self.hunks.decode("utf-8", "replace"),
            "truncated": self.truncated,
        }
        if self.old_path is not None:
            found |= _named("oldPath", self.old_path)
        rest = {
            "oldMode": self.old_mode,
            "newMode": self.new_mode,
            "oldSize": self.old_size,
            "newSize": self.new_size,
            "similarity": self.similarity,
            "truncatedBy": self.why,
            "submodule": self.submodule,
            "conflict": self.conflict,
        }
        return found | {name: value for name, value in rest.items() if value is not None}


def _named(field: str, path: bytes) -> dict[str, str]:
    text = path.decode("utf-8", "replace")
    if text.encode() == path:
        return {field: text}
    return {field: text, f"{field}Base64": base64.b64encode(path).decode("ascii")}


def parse(data: bytes, most: int, *, complete: bool) -> tuple[list[File], int]:
    """The output of `--raw --numstat --patch -z`: the first `most` files with their hunks, and how many
    there are.

    complete: whether `data` is all of it. The list of files must be there in any case.

    Raises:
        ValueError: it is not that.
    """
    # No name is empty, so this is the end of the list and no part of it.
    listed, _, patch = data.partition(b"\0\0")
    files = parse_files(listed + b"\0" if patch else data)
    shown = files[:most]
    parse_patch(patch, shown, complete=complete, all_of_them=len(shown) == len(files))
    return shown, len(files)


def parse_files(data: bytes) -> list[File]:
    """The output of `--raw --numstat -z` with full object ids: all raw records, then all counts.

    Raises:
        ValueError: it is not that.
    """
    words = data.split(b"\0")
    if words.pop() != b"":
        raise ValueError("the list of changed files has no end")
    files = []
    at = 0
    while at < len(words) and words[at].startswith(b":"):
        found = _RAW.match(words[at])
        if found is None:
            raise ValueError(f"not a record of a changed file: {words[at][:80]!r}")
        letter = found[5].decode()
        paths = words[at + 1 : at + (3 if letter in "RC" else 2)]
        if len(paths) != (2 if letter in "RC" else 1):
            raise ValueError("a changed file without a name")
        at += 1 + len(paths)
        old_mode, new_mode = found[1].decode(), found[2].decode()
        files.append(
            File(
                path=paths[-1],
                old_path=paths[0] if len(paths) == 2 else None,
                status=_STATUS[letter],
                old_mode=None if old_mode == _NO_MODE else old_mode,
                new_mode=None if new_mode == _NO_MODE else new_mode,
                old=found[3].decode(),
                new=found[4].decode(),
                similarity=int(found[6]) if letter in "RC" and found[6] else None,
            )
        )
    for file in files:
        found = _COUNTS.match(words[at]) if at < len(words) else None
        if found is None:
            raise ValueError(f"no counts for {file.path[:80]!r}")
        # With two names the third column is empty and they follow.
        name = found[3] or b"".join(words[at + 2 : at + 3])
        at += 1 if found[3] else 3
        if name != file.path:
            raise ValueError(f"counts of {name[:80]!r} where those of {file.path[:80]!r} were expected")
        if found[1] == b"-":
            file.binary = True
        else:
            file.additions, file.deletions = int(found[1]), int(found[2])
    if at != len(words):
        raise ValueError("more counts than changed files")
    return files


def parse_patch(data: bytes, files: list[File], *, complete: bool, all_of_them: bool = True) -> None:
    """Give every file of `files` its hunks from the output of `--patch` over the same files, in order.

    complete: whether `data` is the whole output; if not, the files that it does not reach are truncated.
    all_of_them: whether `files` are; if not, what follows them is passed over.

    Raises:
        ValueError: it does not fit the files.
    """
    sections = _sections(data, complete)
    for file in files:
        # git shows a file that becomes a link, or the reverse, as a deletion and an addition.
        texts = []
        for _ in range(2 if file.status == "typechange" else 1):
            section = next(sections, None)
            if section is None:
                if complete:
                    raise ValueError(f"no patch for {file.path[:80]!r}")
                file.why = "total"
                break
            texts.append(section)
        if file.truncated or file.binary:
            continue
        file.hunks = b"".join(texts) or None
    if all_of_them and complete and next(sections, None) is not None:
        raise ValueError("more patches than changed files")


def clip(hunks: bytes, limit: int) -> bytes | None:
    """As many whole hunks from the start as fit in `limit` bytes; None when not even the first does."""
    if len(hunks) <= limit:
        return hunks
    end = 0
    for start, stop in _hunk_spans(hunks):
        if start != end or stop > limit:
            break
        end = stop
    return hunks[:end] or None


def _sections(data: bytes, complete: bool) -> Iterator[bytes]:
    """The hunks of each `diff --git` section; the one at which incomplete data ends is left out.

    Lines of content are skipped by the counts in the hunk's head, so no content can pass for a head.
    """
    if not complete:
        data = data[: data.rfind(b"\n") + 1]
    at = 0
    while at < len(data):
        if not data.startswith(b"diff --git ", at):
            raise ValueError(f"not the start of a patch: {data[at : at + 80]!r}")
        at = _line_end(data, at)
        while at < len(data) and not data.startswith((b"@@ ", b"diff --git "), at):
            at = _line_end(data, at)
        first = at
        for _, stop in _hunk_spans(data, at):
            at = stop
        if not complete and at >= len(data):
            return
        yield data[first:at]


def _hunk_spans(data: bytes, at: int = 0) -> Iterator[tuple[int, int]]:
    """(start, end) of each hunk from `at` on; one that is cut off is left out and ends the data."""
    while head := _HUNK.match(data, at):
        start, at = at, _line_end(data, at)
        old, new = (1 if count is None else int(count) for count in head.groups())
        while (old > 0 or new > 0) and at < len(data):
            kind = data[at : at + 1]
            if kind in (b" ", b"-"):
                old -= 1
            if kind in (b" ", b"+"):
                new -= 1
            if kind not in (b" ", b"-", b"+", b"\\"):
                raise ValueError(f"not a line of a hunk: {data[at : at + 80]!r}")
            at = _line_end(data, at)
        if data.startswith(b"\\", at):
            at = _line_end(data, at)
        yield start, at


def _line_end(data: bytes, at: int) -> int:
    found = data.find(b"\n", at)
    return len(data) if found < 0 else found + 1
