"""What reviews begin with: the mark of a task's files differs when they do, and not otherwise."""

from __future__ import annotations

import shutil

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import WorkspacesCase, commit, git


class FingerprintTests(WorkspacesCase):
    async def mark(self) -> str:
        return await self.workspaces.fingerprint("t1")

    async def test_it_stays_while_nothing_happens(self) -> None:
        await self.prepared()
        first = await self.mark()
        self.assertRegex(first, r"\A[0-9a-f]{64}\Z")
        self.assertEqual(await self.mark(), first)
        self.workspaces = self.host()
        self.assertEqual(await self.mark(), first)

    async def test_each_way_to_change_files_changes_it(self) -> None:
        copy = await self.prepared()
        marks = [await self.mark()]

        async def differs(what: str) -> None:
            found = await self.mark()
            self.assertNotIn(found, marks, what)
            marks.append(found)

        (copy / "a.txt").write_text("one\n")
        await differs("an edit")
        (copy / "a.txt").write_text("oNe\n")
        await differs("an edit that keeps the size")
        git(copy, "add", "a.txt")
        self.assertEqual(await self.mark(), marks[-1], "the index is no file")
        commit(copy, "an edit")
        await differs("a commit")
        (copy / "new.txt").write_text("x")
        await differs("a file that git does not know")
        (copy / "new.txt").chmod(0o755)
        await differs("a file that can be run now")
        (copy / "d" / "b.txt").unlink()
        await differs("a file that is gone")
        (copy / "d").mkdir(exist_ok=True)
        (copy / "d" / "b.txt").symlink_to("../a.txt")
        await differs("a link in its place")
        commit(copy, "nothing new in it")
        await differs("another commit")

    async def test_what_is_ignored_does_not_change_it(self) -> None:
        copy = await self.prepared()
        before = await self.mark()
        (copy / "out.log").write_text("x")
        (copy / "d" / "more.log").write_text("x")
        git(copy, "config", "user.name", "somebody")
        git(copy, "update-ref", "refs/heads/other", "HEAD")
        self.assertEqual(await self.mark(), before)

    async def test_undoing_a_change_brings_it_back(self) -> None:
        copy = await self.prepared()
        before = await self.mark()
        (copy / "a.txt").write_text("other\n")
        self.assertNotEqual(await self.mark(), before)
        git(copy, "checkout", "-q", "--", "a.txt")
        self.assertEqual(await self.mark(), before)

    async def test_each_of_a_tasks_work_copies_counts(self) -> None:
        await self.prepared()
        alone = await self.mark()
        second = await self.prepared(slug="lib")
        both = await self.mark()
        self.assertNotEqual(both, alone)
        (second / "a.txt").write_text("x")
        self.assertNotEqual(await self.mark(), both)

    async def test_a_work_copy_that_cannot_be_read_is_told_of(self) -> None:
        await self.prepared()
        await self.mark()
        shutil.rmtree(self.tasks / "t1" / "work")
        with self.assertRaises(HostError) as raised:
            await self.mark()
        self.assertEqual(raised.exception.code, ErrorCode.NOT_FOUND)
