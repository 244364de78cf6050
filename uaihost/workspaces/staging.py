"""How a work copy's own index, which an agent wrote, differs from a commit or from the files.

git reads a copy of the index with a git directory of ours; only names and object ids are compared, and no
object that the index names is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs

from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import is_plain

# A record of git's raw output format (gitdiff-core(7)); U is a file in conflict.
_RAW = re.compile(rb":(\d{6}) (\d{6}) ([0-9a-f]+) ([0-9a-f]+) ([AMDTU])\d*\Z")
_EMPTY_TREE = {
    "sha1": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "sha256": "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_EMPTY_BLOBS = (
    b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    b"473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
)
_GITLINK = b"160000"
# Bytes that are hashed at once.
_PIECE = 1 << 20


@attrs.frozen
class Staging:
    """added: names that the index has and the tree has not; missing: the reverse; changed: in both, but not
    the same; conflicts: in conflict; intended: of those added, the ones that are only meant to be added later
    (`git add -N`); links: name to commit of each repository that the index has instead of
    what the tree has."""

    added: frozenset[bytes] = frozenset()
    missing: frozenset[bytes] = frozenset()
    changed: frozenset[bytes] = frozenset()
    conflicts: frozenset[bytes] = frozenset()
    intended: frozenset[bytes] = frozenset()
    links: dict[bytes, str] = attrs.field(factory=dict)


def replaced(last: Staging, names: Collection[bytes], now: Staging) -> Staging:
    """`last`, with what `now` says of the files `names`."""
    gone = frozenset(names)
    return Staging(
        added=last.added - gone | now.added,
        missing=last.missing - gone | now.missing,
        changed=last.changed - gone | now.changed,
        conflicts=last.conflicts - gone | now.conflicts,
        intended=last.intended - gone | now.intended,
        links={name: oid for name, oid in last.links.items() if name not in gone} | now.links,
    )


def empty_tree(form: str) -> str:
    """The tree of nothing, in a repository with such objects."""
    return _EMPTY_TREE[form]


def digest(index: Path) -> bytes | None:
    """Of the content of a file; None when it is not there. Blocking."""
    found = hashlib.sha256()
    try:
        with index.open("rb") as file:
            while piece := file.read(_PIECE):
                found.update(piece)
    except FileNotFoundError:
        return None
    return found.digest()


async def compare(
    git: Git, repo: Path, index: Path, tree: str, paths: Sequence[bytes] = ()
) -> Staging | None:
    """How the index differs from `tree`, or only the files `paths` of both; None when git cannot read it."""
    try:
        listed = await _listed(git, repo, index, tree, paths=paths)
    except GitFailed:
        return None
    sets: dict[bytes, set[bytes]] = {letter: set() for letter in (b"A", b"D", b"M", b"T", b"U")}
    links: dict[bytes, str] = {}
    empty = False
    for meta, name in zip(listed[::2], listed[1::2], strict=False):
        found = _RAW.match(meta)
        if found is None or not is_plain(name):
            continue
        sets[found[5]].add(name)
        if found[2] == _GITLINK:
            links[name] = found[4].decode("ascii")
        empty = empty or (found[5] == b"A" and found[4] in _EMPTY_BLOBS)
    intended = set(sets[b"A"])
    if empty:
        try:
            words = await _listed(git, repo, index, tree, "--ita-invisible-in-index", paths=paths)
        except GitFailed:
            return None
        intended.difference_update(words[1::2])
    else:
        intended.clear()
    conflicts = sets[b"U"]
    return Staging(
        added=frozenset(sets[b"A"] - conflicts),
        missing=frozenset(sets[b"D"] - conflicts),
        changed=frozenset((sets[b"M"] | sets[b"T"]) - conflicts),
        conflicts=frozenset(conflicts),
        intended=frozenset(intended),
        links=links,
    )


async def _listed(
    git: Git, repo: Path, index: Path, tree: str, *words: str, paths: Sequence[bytes]
) -> list[bytes]:
    finished = await git.run(
        "diff-index", "--cached", "--raw", "-z", "--no-renames", "--full-index", "--ignore-submodules=none",
        *words, git_dir=repo, index=index, operands=[tree], paths=paths,
    )  # fmt: skip
    return finished.out.split(b"\0")
