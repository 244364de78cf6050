"""What taskDiff tells of any work copy leads from the base to the work copy, and is the same however often it
was asked before.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import example
from twisted.internet.defer import Deferred

from uaihost.blocking import Inline
from uaihost.test.integration.git_rig import ANN, Folders, WorkspacesCase, commit, git
from uaihost.test.integration.test_saving_property import run_at_once
from uaihost.test.integration.work_states import Step, steps, take
from uaihost.test.support import given, settings
from uaihost.workspaces import safe_git
from uaihost.workspaces.workspaces import Workspaces

T = TypeVar("T")

EXAMPLES = 40
# What git itself records differently from one time to the next, or as one thing where files are shown.
_OTHERS = {"ends", "nested", "inside", "inside stash"}
_GITLINK = "160000"


class DiffPropertyTests(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(safe_git, "run", run_at_once)
        self.library = self.root / "code" / "library"
        self.library.mkdir()
        git(self.library, "init", "-q", "-b", "main")
        commit(self.library, "library", own_txt="library\n")
        (self.remote / ".gitignore").write_text("*.log\nignored/\n.env\n")
        commit(self.remote, "second", a_txt="two\n", long="".join(f"line {n}\n" for n in range(60)))
        self.number = 0

    def done(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def host(self) -> Workspaces:
        folders = Folders(self.mirrors, self.tasks, self.saved)
        return Workspaces(None, folders, Inline(), self.uid, self.gid, (self.root / "code",), {})

    def asked(self, task: str) -> dict[str, Any]:
        return self.done(self.workspaces.diff(task, "p", "app"))

    @settings(max_examples=EXAMPLES)
    @given(steps())
    @example([("merge", "other"), ("write", b"a.txt", b"half\n")])
    @example([("rename", b"a.txt", b"d/new"), ("stage all",), ("link", b"d/b.txt", b"a.txt")])
    @example([("submodule",), ("commit",), ("write", b"sub/own.txt", b"x"), ("mode", b"a.txt")])
    @example([("delete", b"d"), ("write", b"d", b"one\n"), ("write", b"a.txt", b"two\r\nlines\r\n")])
    @example([("unborn",), ("write", b"a.txt", b""), ("unstage", b"*")])
    def test_the_hunks_lead_from_the_base_to_the_work_copy(self, taken: list[Step]) -> None:
        taken = [step for step in taken if step[0] not in _OTHERS]
        self.number += 1
        task = f"t{self.number}"
        made = self.done(self.workspaces.prepare(task, "app", str(self.remote), task, ANN, lambda _: None))
        copy = Path(made.path)
        # Half of the way it is looked at as well: what is known from then must not show.
        take(copy, taken[: len(taken) // 2], self.library)
        self.asked(task)
        take(copy, taken[len(taken) // 2 :], self.library)
        if (copy / "sub").is_dir() and "sub" not in git(copy, "ls-files", "sub"):
            # A repository that git does not know as one is shown as the files it is.
            shutil.rmtree(copy / "sub")
        found = self.asked(task)
        self.assertEqual(
            applied(copy, found, self.root / "index"), as_it_is(copy, self.root / "index"), taken
        )
        self.assertEqual(self.asked(task), found, taken)
        self.workspaces = self.host()
        self.assertEqual(self.asked(task), found, taken)


def run(copy: Path, index: Path, *words: str, stdin: bytes = b"") -> bytes:
    """git in the work copy, as a person would run it, on another index."""
    settings = ["-c", "safe.directory=*", "-c", "core.autocrlf=false"]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_INDEX_FILE": str(index), "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *settings, *words], cwd=copy, env=env, input=stdin, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"git {words}: {done.stderr!r} {stdin[:2000]!r}")
    return done.stdout


def as_it_is(copy: Path, index: Path) -> bytes:
    """The tree that `git add -A` makes."""
    own = copy / ".git" / "index"
    index.unlink(missing_ok=True)
    if own.exists():
        # With its time: by that git knows which files were written too soon after it to be told by theirs.
        shutil.copy2(own, index)
    run(copy, index, "add", "-A")
    return listed(copy, index)


def applied(copy: Path, found: dict[str, Any], index: Path) -> bytes:
    """The tree that comes of applying what taskDiff tells to its base."""
    index.unlink(missing_ok=True)
    run(copy, index, "read-tree", found["base"])
    patch = b""
    set_to: list[tuple[str, bytes]] = []
    for file in found["files"]:
        path, old = name(file, "path"), name(file, "oldPath")
        if _GITLINK in (file.get("oldMode"), file.get("newMode")):
            set_to.append(("0" if file["submodule"]["to"] is None else _GITLINK, path))
        elif file["truncated"] or file["binary"] or "\ufffd" in (file["hunks"] or ""):
            set_to += [("0", old)] if old and file["status"] == "renamed" else []
            set_to.append((file.get("newMode", "0"), path))
        elif file["status"] != "unmerged":
            patch += section(file, path, old or path)
    if patch:
        run(copy, index, "apply", "--cached", "--unidiff-zero", "--whitespace=nowarn", stdin=patch)
    links = {name(file, "path"): file["submodule"]["to"] for file in found["files"] if "submodule" in file}
    for mode, path in set_to:
        oid = links.get(path) or (content(copy, path, mode) if mode != "0" else "0" * 40)
        line = f"{mode} {oid}\t".encode() + path + b"\0"
        run(copy, index, "update-index", "-z", "--index-info", stdin=line)
    return listed(copy, index)


def listed(copy: Path, index: Path) -> bytes:
    return run(copy, index, "ls-tree", "-r", "-z", run(copy, index, "write-tree").decode().strip())


def name(file: dict[str, Any], field: str) -> bytes:
    if f"{field}Base64" in file:
        return base64.b64decode(file[f"{field}Base64"])
    return str(file.get(field, "")).encode()


def content(copy: Path, path: bytes, mode: str) -> str:
    """The object of a file whose content is not told."""
    place = os.fsencode(copy) + b"/" + path
    data = os.readlink(place) if mode == "120000" else Path(os.fsdecode(place)).read_bytes()  # noqa: PTH115
    return run(copy, copy / "unused", "hash-object", "-w", "--stdin", stdin=data).decode().strip()


def section(file: dict[str, Any], path: bytes, old: bytes) -> bytes:
    """A part of a patch, from what is told of one file."""
    before, after = file.get("oldMode"), file.get("newMode")
    if file["status"] == "typechange":
        halves = re.split(r"(?m)^(?=@@ -0,0 )", file["hunks"] or "")
        new = halves.pop() if halves[-1].startswith("@@ -0,0 ") else ""
        gone = {**file, "status": "deleted", "hunks": "".join(halves), "newMode": None}
        added = {**file, "status": "added", "hunks": new, "oldMode": None}
        return section(gone, path, path) + section(added, path, path)
    head = b"diff --git " + quoted(b"a/" + old) + b" " + quoted(b"b/" + path) + b"\n"
    if before is None:
        head += f"new file mode {after}\n".encode()
    elif after is None:
        head += f"deleted file mode {before}\n".encode()
    elif before != after:
        head += f"old mode {before}\nnew mode {after}\n".encode()
    if file["status"] == "renamed":
        head += f"similarity index {file['similarity']}%\n".encode()
        head += b"rename from " + quoted(old) + b"\nrename to " + quoted(path) + b"\n"
    if not file["hunks"]:
        # An empty file has no hunks, and git wants to be told that it has not.
        return (
            head
            + f"index {'e69de29' if before else '0000000'}..{'e69de29' if after else '0000000'}\n".encode()
        )
    head += b"--- " + (quoted(b"a/" + old) if before else b"/dev/null") + b"\n"
    head += b"+++ " + (quoted(b"b/" + path) if after else b"/dev/null") + b"\n"
    return head + str(file["hunks"]).encode()


def quoted(path: bytes) -> bytes:
    return b'"' + b"".join(b"\\%03o" % byte for byte in path) + b'"'
