"""Files in conflict: what each side made of the common beginning."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from uaihost.workspaces.diff_parser import File, clip, parse
from uaihost.workspaces.indexes import entries, index_trees
from uaihost.workspaces.safe_git import Git
from uaihost.workspaces.staging import empty_tree
from uaihost.workspaces.untrusted import is_plain

# Conflicts whose sides are shown, and bytes of hunks of one side.
MOST = 100
SIDE_LIMIT = 64 << 10
# Bytes of output for a side.
_OUTPUT = 8 << 20

# What the index holds of a file (git-status(1)): 1 the common beginning, 2 ours, 3 theirs.
_KINDS = {
    "1": "both deleted",
    "2": "added by us",
    "3": "added by them",
    "12": "deleted by them",
    "13": "deleted by us",
    "23": "both added",
    "123": "both modified",
}


async def sides(git: Git, view: Path, options: Collection[str]) -> dict[bytes, dict[str, Any]]:
    """The `conflict` of each file of taskDiff's result, by its name.

    view: a repository of ours with the objects and the index of the copy. options: for git-diff-tree(1).

    Raises:
        GitFailed: git cannot read the index.
        ValueError: git prints something else than was asked for.
    """
    listed = await git.run("ls-files", "--unmerged", "-z", git_dir=view)
    stages: dict[bytes, str] = {}
    for one in entries(listed.out):
        if is_plain(one.name):
            stages[one.name] = stages.get(one.name, "") + one.stage.decode("ascii")
    found: dict[bytes, dict[str, Any]] = {
        name: {"kind": _KINDS.get(held, "both modified"), "ours": None, "theirs": None}
        for name, held in stages.items()
    }
    trees = {name: tree for tree, name in await index_trees(git, view, "")}
    if "unmerged" not in trees:
        return found
    parts = await _folders(git, view, trees["unmerged"])
    nothing = empty_tree("sha1" if len(trees["unmerged"]) == 40 else "sha256")
    for number, side in (("2", "ours"), ("3", "theirs")):
        done = await git.run(
            "diff-tree", *options, "--no-renames", "--raw", "--numstat", "--patch", "--unified=3", "-z",
            git_dir=view, operands=[parts.get("1", nothing), parts.get(number, nothing)], limit=_OUTPUT,
        )  # fmt: skip
        files, _ = parse(done.out, MOST, complete=not done.truncated)
        changed = {file.path: file for file in files}
        for name, held in stages.items():
            if number in held:
                found[name][side] = _side(changed.get(name))
    return found


async def _folders(git: Git, view: Path, tree: str) -> dict[str, str]:
    """The folders of the tree, by their names."""
    listed = await git.run("ls-tree", "-z", git_dir=view, operands=[tree])
    lines = (line.decode("utf-8", "replace").partition("\t") for line in listed.out.split(b"\0") if line)
    return {name: meta.split(" ")[2] for meta, _, name in lines}


def _side(file: File | None) -> dict[str, Any]:
    """One that is as the common beginning is in no list."""
    if file is None:
        return {"hunks": None, "additions": 0, "deletions": 0, "binary": False, "truncated": False}
    hunks = None if file.hunks is None else clip(file.hunks, SIDE_LIMIT)
    return {
        "hunks": None if hunks is None else hunks.decode("utf-8", "replace"),
        "additions": file.additions,
        "deletions": file.deletions,
        "binary": file.binary,
        "truncated": file.truncated or hunks != file.hunks,
    }
