"""A process that is killed while it saves or removes: the next one loses nothing."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from uaihost.test.integration.git_rig import WorkspacesCase, commit, git
from uaihost.test.integration.test_saving_property import same
from uaihost.test.integration.work_states import Picture, Step, picture, take

# A bit of everything, so that each stage of saving has something to do.
STEPS: list[Step] = [
    ("submodule",), ("inside",), ("nested",), ("write", b"a.txt", b"stashed\n"), ("stash",), ("tag",),
    ("write", b"a.txt", b"lost\n"), ("commit",), ("reset",), ("merge", "other"),
    ("write", b"d/new", bytes(2_000_000)), ("stage", b"d/new"), ("write", b"d/new", b"x" * 70_000),
    ("write", b".env", b"KEY=1\n"), ("write", b"new\nline", b"untracked\n"), ("folder", b"left"),
]  # fmt: skip
ROUNDS = 8


class KilledTests(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        self.library = self.root / "code" / "library"
        self.library.mkdir()
        git(self.library, "init", "-q", "-b", "main")
        commit(self.library, "library", own_txt="library\n")
        (self.remote / ".gitignore").write_text("*.log\nignored/\n.env\n")
        commit(self.remote, "second", a_txt="two\n")

    def child(self, task: str) -> subprocess.Popen[str]:
        """The process, once it begins."""
        argv = [sys.executable, "-m", "uaihost.test.integration.saving_child"]
        process = subprocess.Popen(
            [*argv, str(self.root / "data"), str(self.root / "code"), task],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "begins\n")
        return process

    def whole(self, task: str) -> float:
        """Let one run to its end; the seconds it took."""
        process = self.child(task)
        start = time.monotonic()
        out, err = process.communicate(timeout=60)
        self.assertEqual((out, err, process.returncode), ("ends\n", "", 0))
        return time.monotonic() - start

    def killed(self, task: str, after: float) -> None:
        process = self.child(task)
        time.sleep(after)
        process.kill()
        process.communicate(timeout=60)

    async def made(self, task: str) -> Picture:
        copy = await self.prepared(task, task)
        take(copy, STEPS, self.library)
        return picture(copy)

    async def blocking(self, function: object, *values: object) -> object:
        done: Deferred[object] = deferToThread(function, *values)  # type: ignore[arg-type]
        return await done

    async def test_whenever_it_is_killed_nothing_is_lost(self) -> None:
        chance = random.Random(4)
        await self.made("t0")
        took = await self.blocking(self.whole, "t0")
        assert isinstance(took, float)
        cut_short = 0
        for number in range(1, ROUNDS + 1):
            task = f"t{number}"
            before = await self.made(task)
            await self.blocking(self.killed, task, took * chance.random())
            saved = self.root / "data" / f"{task}.saved"
            if not saved.exists():
                cut_short += 1
                # What a killed git was at ends with it, but not at once.
                await deferLater(reactor, 0.05, lambda: None)
                self.assertEqual(picture(self.tasks / task / "work" / "app"), before)
                await self.blocking(self.whole, task)
            self.workspaces = self.host()
            await self.workspaces.remove(task)
            (kept,) = await self.workspaces.kept(task)
            target = self.root / "restored" / task
            notes = await self.workspaces.restore(kept, target)
            same(self, before, picture(target), target, f"killed in {task}: {notes}")
            self.assertEqual(list((self.tasks / ".trash").iterdir()), [])
        self.assertGreater(cut_short, ROUNDS // 4)
