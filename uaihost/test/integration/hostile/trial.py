"""Everything that the host does with a work copy, done with one in which a case was planted."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import WorkspacesCase, commit, git
from uaihost.test.integration.hostile.cases import SECRET, Case, Rig
from uaihost.workspaces import confinement, safe_git

# Bytes of heap for each git, far below what a machine has: a case that needs more is to be refused.
HEAP = 512 << 20
# Seconds of processor time, and of doing nothing, of those that read the work copy's files.
PROCESSOR, STALL = 2, 1.0
# Bytes by which the daemon itself may grow.
GROWTH = 300 << 20
HONEST = {"committed.txt", "a.txt", "new.txt"}
_REFUSED = {ErrorCode.CONFLICT, ErrorCode.TOO_LARGE}


class HostileCase(WorkspacesCase):
    """A host with an honest work copy and things outside that are nobody's business."""

    timeout = 900

    def setUp(self) -> None:
        super().setUp()
        for name in ("LEAST_HEAP", "MOST_HEAP"):
            self.patch(confinement, name, HEAP)
        self.patch(
            safe_git, "PROCESSOR", dict.fromkeys(safe_git.PROCESSOR, PROCESSOR) | {"update-index": None}
        )
        self.patch(safe_git, "STALL", STALL)
        self.workspaces = self.host()
        self.mark = self.root / "mark"
        self.secret = self.root / "secret"
        (self.secret / "repo").mkdir(parents=True)
        (self.secret / "file").write_text(f"{SECRET}\n")
        git(self.secret / "repo", "init", "-q", "-b", "main")
        commit(self.secret / "repo", SECRET, file=f"{SECRET} in a repository\n")
        self.trap = self.root / "trap"
        self.trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {self.mark}\ncat\n')
        self.trap.chmod(0o755)

    async def check(self, case: Case) -> None:
        copy = await self.prepared()
        commit(copy, "work", committed_txt="committed\n")
        (copy / "a.txt").write_text("changed\n")
        (copy / "new.txt").write_text("new\n")
        case.plant(Rig(copy, self.trap, self.secret, self.remote))
        self.mark.unlink(missing_ok=True)
        before, memory = self.outside(), _resident()
        within = None if case.changed else _state(copy)
        works = [self.workspaces.diff("t1", "p1", "app"), self.workspaces.fingerprint("t1")]
        brought = [await self.looked(case, work) for work in works]
        saved = await self.within(case, self.workspaces.save("t1", ["app"]))
        await self.within(case, self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", None, print))
        self.kept(case, saved[0])
        # A daemon that knows nothing of what the first one saw.
        brought.append(await self.looked(case, self.host().diff("t1", "p1", "app"), again=True))
        await self.restored(case)
        if within is not None:
            self.assertEqual(_state(copy), within, "the host changed the work copy")
        self.assertFalse(self.mark.exists(), "something was executed")
        self.assertEqual(self.outside(), before, "something outside was written")
        self.assertLess(_resident() - memory, GROWTH)
        self.assertNotIn(SECRET, str(brought))
        await self.within(case, self.workspaces.remove("t1"))
        self.assertFalse(copy.exists())

    async def looked(self, case: Case, work: Awaitable[Any], again: bool = False) -> Any:
        """What a look at the changes gives: it is right, or refused as the case says."""
        try:
            found = await self.within(case, work)
        except HostError as error:
            self.assertIn(error.code, _REFUSED)
            self.assertIsNotNone(case.refused, f"{case.name} is refused: {error}")
            self.assertIn(str(case.refused), str(error))
            return str(error)
        self.assertFalse(case.refused and not (again and case.changed), "this was to be refused")
        if isinstance(found, dict) and case.head:
            files = {file["path"]: file for file in found["files"]}
            self.assertLessEqual(HONEST if not found["truncated"] else set(), set(files))
            if "a.txt" in files:
                self.assertIn("+changed", files["a.txt"]["hunks"])
        return found

    async def within(self, case: Case, work: Awaitable[Any]) -> Any:
        begun = time.monotonic()
        try:
            return await work
        finally:
            self.assertLess(time.monotonic() - begun, case.seconds)

    def kept(self, case: Case, saved: Any) -> None:
        """The honest work is in the vault, and nothing of others."""
        for name, text in (("a.txt", "changed"), ("new.txt", "new")):
            self.assertEqual(git(self.vault(), "show", f"{saved.wip}:{name}"), text)
        if case.head:
            self.assertEqual(git(self.vault(), "show", f"{saved.commit}:committed.txt"), "committed")
        for name in ("file", "repo/file"):
            oid = git(self.secret, "hash-object", name)
            self.assertEqual(
                git(self.vault(), "cat-file", "-t", oid, check=False), "", f"{name} is in the vault"
            )

    async def restored(self, case: Case) -> None:
        (kept, *_) = await self.workspaces.kept("t1")
        target = self.root / "back"
        try:
            await self.within(case, self.workspaces.restore(kept, target))
        except HostError as error:
            self.assertIn(error.code, {*_REFUSED, ErrorCode.UNAVAILABLE})
            self.assertFalse(target.exists())
            return
        self.assertEqual((target / "new.txt").read_text(), "new\n")
        for path in _plain(target):
            if path.stat().st_size < 1 << 20:
                self.assertNotIn(SECRET.encode(), path.read_bytes(), path)

    def outside(self) -> list[tuple[str, int, int, int]]:
        """Everything beside the host's own folder and the one that saved work is brought back to."""
        ours = {self.root / "data", self.root / "back"}
        return [entry for path in sorted(self.root.iterdir()) if path not in ours for entry in _state(path)]


def holding(cases: Sequence[Case]) -> Callable[[type[HostileCase]], type[HostileCase]]:
    """Give a class a test for each of the cases."""

    def filled(into: type[HostileCase]) -> type[HostileCase]:
        for case in cases:

            async def test(self: HostileCase, case: Case = case) -> None:
                await self.check(case)

            setattr(into, f"test_{case.name}", test)
        return into

    return filled


def _entries(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """`top` and all below that a path can name, no link followed."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        try:
            found = path.lstat()
            yield path, found
            if stat.S_ISDIR(found.st_mode):
                waiting += sorted(path.iterdir())
        except OSError:
            continue


def _state(top: Path) -> list[tuple[str, int, int, int]]:
    """Names, kinds, sizes and times. Not the times of objects: git dates those anew that it needs, which a
    work copy shares with what is made of it for reading.
    """
    return [
        (str(path), found.st_mode, found.st_size, 0 if "/.git/objects" in str(path) else found.st_mtime_ns)
        for path, found in _entries(top)
    ]


def _plain(top: Path) -> list[Path]:
    return [path for path, found in _entries(top) if stat.S_ISREG(found.st_mode)]


def _resident() -> int:
    """Bytes of memory that this process has (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
