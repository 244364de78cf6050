"""Random states of work copies, as an agent's git would leave them, and pictures of them to be compared.

A state is made by steps; one that git refuses there changes nothing. A picture is taken by looking, with the
machine's git and the file system, and knows nothing of how work is kept.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
from hypothesis import strategies

Step = tuple[Any, ...]

NAMES = (
    b"a.txt", b"d/b.txt", b"d/new", b"deep/er/file", b"new\nline", b"\xff\xfe", b"-dash", b" two  spaces ",
    b"caf\xc3\xa9", b'quo"te', b"back\\slash", b":colon", b"*", b"tab\there", b"x.log", b"ignored/one",
    b"ignored/two", b"nested/inside", b"sub/own.txt", b"d", b".env",
)  # fmt: skip
CONTENTS = (b"", b"one\n", b"two\r\nlines\r\n", b"\0binary\xff", b"no end", b"x" * 70_000, bytes(2_000_000))
BRANCHES = ("main", "fix/x", "other", "a/b", "caf\xe9")

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_EDITOR": "true",
    "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_CONFIG_KEY_1": "protocol.file.allow",
    "GIT_CONFIG_VALUE_1": "always",
    "GIT_CONFIG_KEY_2": "gc.auto",
    "GIT_CONFIG_VALUE_2": "0",
    **{f"GIT_{role}_{part}": "agent" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")},
}


_PLAIN = (
    "commit", "commit", "amend", "detach", "stash", "stash", "stash all", "reset", "reset", "stage all",
    "unborn", "tag", "cherry", "nested", "nested", "submodule", "submodule", "inside", "inside stash",
    "pack", "ends", "bisect", "note",
)  # fmt: skip


def git(folder: Path, *words: str | bytes) -> bytes:
    """What git prints; nothing where it refuses."""
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env=_ENVIRONMENT,
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout if done.returncode == 0 else b""


# ---- steps ---------------------------------------------------------------------------------------------


def steps() -> strategies.SearchStrategy[list[Step]]:
    """Lists of steps for `take`."""
    names, branches = strategies.sampled_from(NAMES), strategies.sampled_from(BRANCHES)
    kinds = ("delete", "mode", "folder", "stage", "unstage")
    files = strategies.one_of(
        strategies.tuples(strategies.just("write"), names, strategies.sampled_from(CONTENTS)),
        strategies.tuples(strategies.sampled_from(("link", "rename")), names, names),
        strategies.tuples(strategies.sampled_from(kinds), names),
    )
    plain = strategies.tuples(strategies.sampled_from(_PLAIN))
    others = strategies.tuples(strategies.sampled_from(("switch", "branch", "merge", "rebase")), branches)
    mixed = strategies.lists(strategies.one_of(files, plain, others), min_size=3, max_size=9)
    return strategies.tuples(
        strategies.lists(plain, max_size=4), mixed, strategies.lists(plain, max_size=3)
    ).map(lambda lists: [step for steps in lists for step in steps])


def take(copy: Path, taken: list[Step], library: Path) -> None:
    """Do the steps in the work copy `copy`. library: a repository that can become a submodule."""
    for step, *values in taken:
        # A name may be a folder by now, or lie below a file.
        with suppress(OSError):
            if step == "submodule":
                git(copy, "submodule", "add", "--quiet", str(library), "sub")
            else:
                _STEPS[step](copy, *values)


def _path(copy: Path, name: bytes) -> Path:
    return copy / os.fsdecode(name)


def _write(copy: Path, name: bytes, content: bytes) -> None:
    path = _path(copy, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _link(copy: Path, name: bytes, to: bytes) -> None:
    path = _path(copy, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(os.fsdecode(to))


def _delete(copy: Path, name: bytes) -> None:
    path = _path(copy, name)
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _rename(copy: Path, name: bytes, to: bytes) -> None:
    _path(copy, to).parent.mkdir(parents=True, exist_ok=True)
    _path(copy, name).rename(_path(copy, to))


def _mode(copy: Path, name: bytes) -> None:
    path = _path(copy, name)
    path.chmod(path.stat().st_mode ^ 0o111)


def _commit(copy: Path) -> None:
    git(copy, "commit", "-q", "--allow-empty", "-a", "-m", "work")


def _diverge(copy: Path, branch: str) -> None:
    """Another line of work that changed the same file."""
    here = git(copy, "symbolic-ref", "--short", "HEAD").strip()
    git(copy, "stash", "-q")
    if here and git(copy, "rev-parse", "HEAD"):
        git(copy, "checkout", "-q", "-B", branch)
        _write(copy, b"a.txt", b"theirs\n")
        git(copy, "commit", "-q", "-am", "theirs")
        git(copy, "checkout", "-q", here)
        _write(copy, b"a.txt", b"ours\n")
        git(copy, "commit", "-q", "-am", "ours")


def _bring(copy: Path, branch: str, *words: str) -> None:
    """Begin what ends in a conflict."""
    _diverge(copy, branch)
    git(copy, *words, branch)


def _nested(copy: Path) -> None:
    (copy / "nested").mkdir()
    git(copy / "nested", "init", "-q", "-b", "main")
    _write(copy, b"nested/inside", b"committed\n")
    git(copy / "nested", "add", "-A")
    git(copy / "nested", "commit", "-q", "-m", "nested")
    _write(copy, b"nested/inside", b"changed\n")


def _inside(copy: Path) -> None:
    for place in ("sub", "nested"):
        if (copy / place / ".git").exists():
            _write(copy / place, b"more", b"more\n")
            git(copy / place, "add", "-A")
            git(copy / place, "commit", "-q", "-m", "inside")


def _inside_stash(copy: Path) -> None:
    for place in ("sub", "nested"):
        if (copy / place / ".git").exists():
            _write(copy / place, b"inside", b"stashed\n")
            git(copy / place, "add", "-A")
            git(copy / place, "stash", "-q")


def _ends(copy: Path) -> None:
    """Line ends that git converts."""
    _write(copy, b".gitattributes", b"*.txt text eol=crlf\n")
    _write(copy, b"ends.txt", b"one\ntwo\r\nthree\n")


_STEPS: dict[str, Callable[..., object]] = {
    "write": _write,
    "link": _link,
    "delete": _delete,
    "rename": _rename,
    "mode": _mode,
    "folder": lambda copy, name: _path(copy, name + b"-empty/deeper").mkdir(parents=True),
    "stage": lambda copy, name: git(copy, "add", "--", name),
    "stage all": lambda copy: git(copy, "add", "-A"),
    "unstage": lambda copy, name: git(copy, "reset", "-q", "--", name),
    "commit": _commit,
    "amend": lambda copy: git(copy, "commit", "-q", "--amend", "-a", "-m", "amended"),
    "branch": lambda copy, name: git(copy, "branch", name),
    "switch": lambda copy, name: git(copy, "checkout", "-q", "-B", name),
    "detach": lambda copy: (
        git(copy, "checkout", "-q", "--detach", "HEAD~1") or git(copy, "checkout", "-q", "--detach")
    ),
    "unborn": lambda copy: git(copy, "checkout", "-q", "--orphan", "unborn"),
    "stash": lambda copy: git(copy, "stash", "-q"),
    "stash all": lambda copy: git(copy, "stash", "-q", "-u"),
    "reset": lambda copy: git(copy, "reset", "-q", "--hard", "HEAD~1"),
    "merge": lambda copy, name: _bring(copy, name, "merge", "-q", "--no-edit"),
    "rebase": lambda copy, name: _bring(copy, name, "rebase", "-q"),
    "cherry": lambda copy: _bring(copy, "other", "cherry-pick"),
    "bisect": lambda copy: git(copy, "bisect", "start", "HEAD", "HEAD~1"),
    "tag": lambda copy: git(copy, "tag", "-a", "-m", "note", f"v{len(git(copy, 'tag').splitlines())}"),
    "nested": _nested,
    "inside": _inside,
    "inside stash": _inside_stash,
    "note": lambda copy: git(copy, "notes", "add", "-f", "-m", "note"),
    "pack": lambda copy: git(copy, "repack", "-q", "-d"),
    "ends": _ends,
}


# ---- pictures ------------------------------------------------------------------------------------------


@attrs.frozen
class Picture:
    """A repository with its files.

    files: path to (kind, content); a folder is there when it is empty. head: branch or commit, and commit;
    staged: as `git ls-files --stage` lists it. commits: what must be reachable from names, beside the refs.
    converted: files with line ends of git's own choice, which it takes for unchanged. inner: of the
    repositories inside it.
    """

    files: dict[bytes, tuple[str, bytes]]
    head: tuple[bytes, bytes]
    refs: dict[bytes, bytes]
    stashes: list[bytes]
    staged: list[bytes]
    commits: set[bytes]
    converted: set[bytes]
    inner: dict[bytes, Picture]


def picture(top: Path) -> Picture:
    """Of the work copy or clone `top`."""
    files: dict[bytes, tuple[str, bytes]] = {}
    inner: dict[bytes, Picture] = {}
    for directory, folders, names in os.walk(os.fsencode(top)):
        place = os.path.relpath(directory, os.fsencode(top))
        if place != b"." and os.path.lexists(directory + b"/.git"):
            inner[place] = picture(Path(os.fsdecode(directory)))
        for name in [*folders, *names]:
            path = directory + b"/" + name
            if name != b".git" and (entry := _entry(path)) is not None:
                files[os.path.relpath(path, os.fsencode(top))] = entry
        folders[:] = [name for name in folders if name != b".git"]
    return Picture(files, _head(top), _refs(top), _lines(top, "stash", "list", "--format=%H"), _staged(top),
                   _commits(top), _converted(top), inner)  # fmt: skip


def _entry(path: bytes) -> tuple[str, bytes] | None:
    what = os.lstat(path)
    if stat.S_ISLNK(what.st_mode):
        return "link", os.readlink(path)  # noqa: PTH115 (a name that is no text)
    if stat.S_ISREG(what.st_mode):
        with open(path, "rb") as file:  # noqa: PTH123 (a name that is no text)
            return "program" if what.st_mode & 0o100 else "file", file.read()
    return None if os.listdir(path) else ("folder", b"")  # noqa: PTH208


def _lines(top: Path, *words: str) -> list[bytes]:
    return git(top, *words).splitlines()


def _head(top: Path) -> tuple[bytes, bytes]:
    return git(top, "symbolic-ref", "-q", "HEAD").strip(), git(
        top, "rev-parse", "-q", "--verify", "HEAD"
    ).strip()


def _refs(top: Path) -> dict[bytes, bytes]:
    listed = _lines(top, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    return dict(line.rsplit(b" ", 1) for line in listed)


def _staged(top: Path) -> list[bytes]:
    return git(top, "ls-files", "--stage", "-z").split(b"\0")


def _commits(top: Path) -> set[bytes]:
    """What HEAD's log, notes and unfinished operations name."""
    found = set(_lines(top, "log", "-g", "-n", "100", "--format=%H", "HEAD"))
    found |= set(_lines(top, "for-each-ref", "--format=%(objectname)", "refs/notes"))
    for name in ("ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REBASE_HEAD"):
        found |= set(_lines(top, "rev-parse", "-q", "--verify", name))
    for name in ("orig-head", "onto"):
        for state in ("rebase-merge", "rebase-apply"):
            path = Path(os.fsdecode(git(top, "rev-parse", "--git-path", f"{state}/{name}").strip()))
            if (top / path).is_file():
                found.add((top / path).read_bytes().strip())
    return found


def _converted(top: Path) -> set[bytes]:
    listed = git(top, "ls-files", "-z", ":(attr:eol=crlf)").split(b"\0")
    changed = git(top, "diff", "--name-only", "-z", "HEAD").split(b"\0")
    return set(listed).difference(changed)


def reachable(top: Path) -> set[bytes]:
    """Every commit that a name in the repository leads to."""
    return set(_lines(top, "rev-list", "--all"))
