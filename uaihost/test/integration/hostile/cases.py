"""The form of a hostile case, and what a plant has to work with."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import attrs

from uaihost.test.integration.git_rig import git

SECRET = "top-secret"


@attrs.frozen
class Rig:
    """copy: the work copy, with a committed, a changed and a new file of honest work. trap: a program that
    leaves a mark. secret: a folder of the host with the file `file` and the repository `repo`, all of which
    say SECRET. remote: where the copy came from.
    """

    copy: Path
    trap: Path
    secret: Path
    remote: Path

    @property
    def git(self) -> Path:
        return self.copy / ".git"

    def set(self, *lines: str) -> None:
        """Further configuration of the work copy; `{trap}` and `{secret}` are put in."""
        text = "\n".join(lines).replace("{trap}", str(self.trap)).replace("{secret}", str(self.secret))
        with (self.git / "config").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def write(self, name: str | bytes, text: str | bytes) -> Path:
        """A file of the work copy."""
        path = self.copy / (name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def run(self, *words: str) -> str:
        """git, as the agent runs it in the work copy."""
        return git(self.copy, *words)

    def loose(self, kind: str, content: bytes) -> str:
        """An object that git itself would perhaps not write; its name."""
        data = f"{kind} {len(content)}".encode() + b"\0" + content
        return self.put(hashlib.sha1(data).hexdigest(), zlib.compress(data))

    def put(self, oid: str, data: bytes) -> str:
        folder = self.git / "objects" / oid[:2]
        folder.mkdir(exist_ok=True)
        if not (folder / oid[2:]).exists():
            (folder / oid[2:]).write_bytes(data)
        return oid

    def tree(self, entries: Iterable[tuple[str, bytes, str]]) -> str:
        """A tree of (mode, name, object) just as they are given."""
        return self.loose(
            "tree", b"".join(f"{m} ".encode() + n + b"\0" + bytes.fromhex(o) for m, n, o in entries)
        )

    def commit(self, tree: str, *parents: str) -> str:
        """A commit on which the task's branch then is."""
        who = "agent <agent@example.org> 1700000000 +0000"
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents or (self.head,))]
        made = self.loose(
            "commit", "\n".join([*lines, f"author {who}", f"committer {who}", "", "odd", ""]).encode()
        )
        (self.git / "refs/heads/fix/x").write_text(f"{made}\n")
        return made

    @property
    def head(self) -> str:
        return self.run("rev-parse", "HEAD")

    def top(self) -> list[tuple[str, bytes, str]]:
        """What the tree of HEAD holds."""
        found = []
        for line in self.run("ls-tree", "-z", "HEAD").split("\0"):
            if line:
                mode, _, oid, name = re.split(r"[ \t]", line, maxsplit=3)
                found.append((mode.lstrip("0"), name.encode("utf-8", "surrogateescape"), oid))
        return found

    def blob(self, name: str = "a.txt") -> str:
        return self.run("rev-parse", f"HEAD:{name}")

    def index(self, entries: Sequence[tuple[bytes, int]], extension: bytes = b"") -> None:
        """Replace the index by one of (name, mode) with an extension, in version 2 (gitformat-index(5))."""
        body = b""
        oid = bytes.fromhex(self.blob())
        for name, mode in entries:
            entry = struct.pack(">10L20sH", *[0] * 6, mode, 0, 0, 0, oid, min(len(name), 0xFFF)) + name
            body += entry + bytes(8 - len(entry) % 8)
        data = b"DIRC" + struct.pack(">2L", 2, len(entries)) + body + extension
        (self.git / "index").write_bytes(data + hashlib.sha1(data).digest())


@attrs.frozen
class Case:
    """plant: writes it; its name is the test's and the catalogue's. refused: a part of the error with which
    the diff is refused; None where it must be right. head: whether what was committed can still be read.
    seconds: for each of the things that the host does. changed: whether saving has to change the work copy.
    """

    plant: Callable[[Rig], None]
    refused: str | None = None
    head: bool = True
    seconds: float = 60.0
    changed: bool = False

    @property
    def name(self) -> str:
        return self.plant.__name__
