"""Whatever an agent made of its work copy is there again after it was saved, removed and restored."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import example
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.children import Finished
from uaihost.test.integration.git_rig import ANN, Folders, WorkspacesCase, commit, git
from uaihost.test.integration.work_states import Picture, Step, picture, reachable, steps, take
from uaihost.test.support import given, settings
from uaihost.workspaces import safe_git
from uaihost.workspaces.workspaces import Workspaces

T = TypeVar("T")

EXAMPLES = 30


async def run_at_once(
    _reactor: object,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    stdin: bytes = b"",
    timeout: float,
    limit: int = 1 << 20,
    **_: object,
) -> Finished:
    """children.run without a reactor, so that cases can be made one after the other."""
    done = subprocess.run(  # noqa: ASYNC221 (nothing else is to run meanwhile)
        list(argv), env=dict(env), cwd=cwd, input=stdin, capture_output=True, check=False, timeout=timeout
    )
    return Finished(
        done.returncode, done.stdout[:limit], done.stderr[:limit], len(done.stdout) > limit, False
    )


class PropertyTests(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        self.patch(safe_git, "run", run_at_once)
        self.library = self.root / "code" / "library"
        self.library.mkdir()
        git(self.library, "init", "-q", "-b", "main")
        commit(self.library, "library", own_txt="library\n")
        (self.remote / ".gitignore").write_text("*.log\nignored/\n.env\n")
        commit(self.remote, "second", a_txt="two\n")
        self.number = 0

    def done(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def host(self) -> Workspaces:
        folders = Folders(self.mirrors, self.tasks, self.saved)
        return Workspaces(None, folders, Inline(), self.uid, self.gid, (self.root / "code",), {})

    @settings(max_examples=EXAMPLES)
    @given(steps())
    @example([("merge", "other"), ("write", b"a.txt", b"half\n")])
    @example([("rebase", "other"), ("write", b"new\nline", b"one\n")])
    @example([("submodule",), ("inside",), ("inside stash",), ("commit",), ("write", b"sub/own.txt", b"x")])
    @example([("nested",), ("inside",), ("stage", b"d"), ("write", b".env", b"KEY=1\n"), ("reset",)])
    @example([("ends",), ("stage all",), ("commit",), ("write", b"a.txt", b"mixed\r\nends\n")])
    @example([("unborn",), ("write", b"a.txt", b""), ("unstage", b"*")])
    @example([("ends",), ("commit",), ("stash all",), ("unborn",), ("write", b"\xff\xfe", b"no end")])
    def test_nothing_is_lost(self, taken: list[Step]) -> None:
        self.number += 1
        task = f"t{self.number}"
        made = self.done(self.workspaces.prepare(task, "app", str(self.remote), task, ANN, lambda _: None))
        copy = Path(made.path)
        take(copy, taken, self.library)
        before = picture(copy)
        self.done(self.workspaces.save(task, ["app"]))
        self.done(self.workspaces.remove(task))
        (kept,) = self.done(self.workspaces.kept(task))
        target = self.root / "restored" / task
        notes = self.done(self.workspaces.restore(kept, target))
        same(self, before, picture(target), target, f"{taken} {notes}")
        shutil.rmtree(target)


def same(case: TestCase, before: Picture, after: Picture, top: Path, why: str) -> None:
    """Hold that all of `before` is in `after`, which was made in the folder `top`."""
    case.assertEqual(as_git_sees(after, before), as_git_sees(before, before), why)
    case.assertEqual(after.head, before.head, why)
    case.assertEqual({**after.refs, **before.refs}, after.refs, why)
    case.assertEqual(after.stashes, before.stashes, why)
    case.assertEqual(after.staged, before.staged, why)
    case.assertEqual(before.commits - reachable(top), set(), why)
    fsck = ["git", "fsck", "--no-dangling", "--no-progress"]
    found = subprocess.run(fsck, cwd=top, capture_output=True, check=False)
    case.assertEqual((found.stdout, found.returncode), (b"", 0), f"{found.stderr!r} {why}")
    case.assertEqual(after.inner.keys(), before.inner.keys(), why)
    for name, inner in before.inner.items():
        same(case, inner, after.inner[name], top / os.fsdecode(name), f"{name!r} {why}")


def as_git_sees(one: Picture, before: Picture) -> dict[bytes, tuple[str, bytes]]:
    """The files, byte for byte; but line ends that git converts and takes for unchanged are all alike."""
    return {
        name: (kind, content.replace(b"\r\n", b"\n") if name in before.converted else content)
        for name, (kind, content) in one.files.items()
    }
