"""What is staged in an index that an agent wrote, as trees; and which files git would write back differently.

git reads the index, in a repository whose configuration is ours; names and objects are checked before use.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from uaihost.workspaces.safe_git import Git, GitFailed
from uaihost.workspaces.untrusted import is_plain

_GITLINK = b"160000"
_LINK = b"120000"
_SHA1 = 40
# Files larger than this are read in pieces.
_PIECE = 1 << 20


@attrs.frozen
class Staged:
    """An entry of an index. stage: 0, or the side of a conflict: 1 base, 2 ours, 3 theirs."""

    mode: bytes
    oid: bytes
    stage: bytes
    name: bytes


def entries(listed: bytes) -> list[Staged]:
    """What `ls-files --stage -z` prints."""
    found = []
    for line in listed.split(b"\0"):
        if line:
            meta, _, name = line.partition(b"\t")
            mode, oid, number = meta.split(b" ")
            found.append(Staged(mode, oid, number, name))
    return found


async def existing(git: Git, view: Path, lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those (object, name) whose object is there and is a commit or a tag."""
    kinds = await _kinds(git, view, [oid.encode("ascii") for oid, _ in lines])
    return [(oid, name) for oid, name in lines if kinds.get(oid.encode("ascii")) in (b"commit", b"tag")]


async def index_trees(git: Git, view: Path, prefix: str) -> list[tuple[str, str]]:
    """(tree, name) of what the index of `view` holds: `<prefix>index`, and `<prefix>unmerged` if it is so.

    An entry whose object is missing, as after `git add -N`, or whose name no tree can have, is left out.
    """
    try:
        listed = await git.run("ls-files", "--stage", "-z", git_dir=view)
    except GitFailed:
        return []
    found = [one for one in entries(listed.out) if is_plain(one.name)]
    kinds = await _kinds(git, view, [one.oid for one in found if one.mode != _GITLINK])
    found = [one for one in found if one.mode == _GITLINK or kinds.get(one.oid) == b"blob"]
    trees = []
    sides = [one for one in found if one.stage != b"0"]
    # A tree knows no sides: of a file in conflict it gets ours, else what there is.
    chosen = {one.name: one for one in sorted(sides, key=lambda one: (one.stage != b"2", one.stage))[::-1]}
    plain = [one for one in found if one.stage == b"0"] + list(chosen.values())
    if tree := await _write(git, view, plain):
        trees.append((tree, f"{prefix}index"))
    if sides:
        apart = [attrs.evolve(one, name=one.stage + b"/" + one.name) for one in sides]
        if tree := await _write(git, view, apart):
            trees.append((tree, f"{prefix}unmerged"))
    return trees


def changed_bytes(stage: Path, names: Iterable[bytes], kept: Sequence[Staged]) -> list[bytes]:
    """Those of `names`, files in the folder `stage`, that are kept with other bytes than they have.

    Blocking. git converts line ends and encodings where attributes ask for it, and not always back.
    """
    oids = {one.name: one for one in kept if one.stage == b"0" and one.mode not in (_GITLINK, _LINK)}
    top = os.fsencode(stage)
    return [name for name in names if name in oids and _blob(top + b"/" + name, oids[name].oid) is False]


def _blob(path: bytes, oid: bytes) -> bool | None:
    """Whether the file is this blob; None when it is no plain file."""
    file = Path(os.fsdecode(path))
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        return None
    digest = hashlib.sha1() if len(oid) == _SHA1 else hashlib.sha256()
    digest.update(b"blob %d\0" % found.st_size)
    with file.open("rb") as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest().encode("ascii") == oid


async def _kinds(git: Git, view: Path, oids: Sequence[bytes]) -> dict[bytes, bytes]:
    checked = await git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype)", git_dir=view,
        stdin=b"".join(oid + b"\n" for oid in oids),
    )  # fmt: skip
    return dict(line.split(b" ", 1) for line in checked.out.splitlines())


async def _write(git: Git, view: Path, staged: Sequence[Staged]) -> str | None:
    """A tree of them; None when one has a name that no tree may have."""
    index = view / "index.kept"
    index.unlink(missing_ok=True)
    lines = b"".join(one.mode + b" " + one.oid + b"\t" + one.name + b"\0" for one in staged)
    try:
        await git.run("update-index", "-z", "--index-info", git_dir=view, index=index, stdin=lines)
        written = await git.run("write-tree", git_dir=view, index=index)
    except GitFailed:
        return None
    finally:
        index.unlink(missing_ok=True)
    return written.out.decode("ascii").strip()
