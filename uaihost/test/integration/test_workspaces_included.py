"""What is in a work copy beside the commit: files that `.worktreeinclude` names, and LFS pointers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from uaihost.test.integration.git_rig import ANN, WorkspacesCase, commit, git
from uaihost.workspaces import included
from uaihost.workspaces.workspaces import WorkCopy

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1000000\n"


class IncludedTests(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        commit(self.remote, "ignore", _gitignore=".env*\nsecrets/\nnode_modules/\nlink\n*.log\n")
        self.put(".worktreeinclude", ".env*\n!.env.no\nsecrets/**\nlink\nplain\n")

    def put(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.remote / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    async def copied(self, branch: str = "fix/x", task: str = "t1", url: str = "") -> WorkCopy:
        return await self.workspaces.prepare(
            task, "app", url or str(self.remote), branch, ANN, self.lines.append
        )

    async def test_ignored_files_that_are_named_are_copied(self) -> None:
        self.put(".env", "KEY=1\n", 0o600)
        self.put(".env.no", "not named")
        self.put("secrets/deep/a b#c.pem", "pem\n")
        self.put("x.log", "ignored, not named")
        self.put("plain", "named, not ignored")
        self.put("node_modules/x/.env", "named and ignored")
        copy = await self.copied()
        path = Path(copy.path)
        self.assertEqual((path / ".env").read_text(), "KEY=1\n")
        self.assertEqual((path / ".env").stat().st_mode & 0o777, 0o600)
        self.assertEqual((path / "secrets/deep/a b#c.pem").read_text(), "pem\n")
        self.assertTrue((path / "node_modules/x/.env").exists())
        for name in (".env.no", "x.log", "plain", ".worktreeinclude"):
            self.assertFalse((path / name).exists(), name)
        self.assertEqual((path / ".env").stat().st_uid, self.uid)
        (note,) = copy.notes
        self.assertIn("'.env'", note)

    async def test_they_are_never_committed_whatever_the_branch_ignores(self) -> None:
        git(self.remote, "checkout", "-q", "-b", "bare")
        commit(self.remote, "nothing ignored", _gitignore="")
        git(self.remote, "checkout", "-q", "main")
        self.put(".worktreeinclude", ".env*\nsecrets/**\n")
        self.put(".env", "KEY=1\n")
        self.put("secrets/a b#c!.pem", "pem\n")
        path = Path((await self.copied("bare")).path)
        self.assertEqual((path / "secrets/a b#c!.pem").read_text(), "pem\n")
        self.assertEqual(git(path, "status", "--porcelain"), "")

    async def test_files_that_info_exclude_ignores(self) -> None:
        self.put(".worktreeinclude", "local\n")
        (self.remote / ".git" / "info").mkdir(exist_ok=True)
        (self.remote / ".git" / "info" / "exclude").write_text("local\n")
        self.put("local", "x")
        self.assertEqual((Path((await self.copied()).path) / "local").read_text(), "x")

    async def test_a_linked_worktree_is_a_checkout_too(self) -> None:
        linked = self.root / "code" / "linked"
        git(self.remote, "worktree", "add", "-q", str(linked))
        (linked / ".worktreeinclude").write_text(".env\n")
        (linked / ".env").write_text("linked")
        path = Path((await self.copied(url=str(linked))).path)
        self.assertEqual((path / ".env").read_text(), "linked")

    async def test_the_owners_checkout_is_not_written_and_its_settings_do_nothing(self) -> None:
        self.put(".env", "KEY=1\n")
        mark = self.root / "mark"
        git(self.remote, "config", "core.fsmonitor", f"touch {mark}")
        git(self.remote, "config", "core.hooksPath", str(self.root))
        before = self.digest()
        await self.copied()
        self.assertEqual(self.digest(), before)
        self.assertFalse(mark.exists())

    def digest(self) -> dict[str, tuple[str, int]]:
        return {
            str(found): (hashlib.sha256(found.read_bytes()).hexdigest(), found.stat().st_mtime_ns)
            for found in self.remote.rglob("*")
            if found.is_file()
        }

    async def test_no_link_leads_out_on_either_side(self) -> None:
        outside = self.root / "outside"
        outside.mkdir()
        (outside / "file").write_text("top-secret")
        (self.remote / "link").symlink_to(outside / "file")
        (self.remote / "secrets").symlink_to(outside)
        copy = await self.copied()
        self.assertFalse((Path(copy.path) / "link").exists())
        self.assertFalse((Path(copy.path) / "secrets").exists())
        (self.remote / "secrets").unlink()
        self.put("secrets/file", "harmless")
        git(self.remote, "checkout", "-q", "-b", "trap")
        blob = git(self.remote, "hash-object", "-w", "--stdin-paths", check=False)
        self.assertEqual(blob, "")
        (self.remote / "target").write_text(str(outside))
        oid = git(self.remote, "hash-object", "-w", "target")
        (self.remote / "target").unlink()
        git(self.remote, "update-index", "--add", "--cacheinfo", f"120000,{oid},secrets")
        git(self.remote, "commit", "-q", "-m", "trap")
        git(self.remote, "read-tree", "main")
        copy = await self.copied("trap", "t2")
        self.assertTrue((Path(copy.path) / "secrets").is_symlink())
        self.assertEqual((outside / "file").read_text(), "top-secret")
        self.assertTrue(any("Left out" in note for note in copy.notes), copy.notes)

    async def test_what_is_large_or_no_plain_file_is_left_out_and_told(self) -> None:
        self.patch(included, "LARGEST", 10)
        self.put(".env", "small")
        self.put(".env.large", "x" * 11)
        os.mkfifo(self.remote / ".env.pipe")
        copy = await self.copied()
        self.assertEqual((Path(copy.path) / ".env").read_text(), "small")
        self.assertFalse((Path(copy.path) / ".env.large").exists())
        self.assertTrue(any("Left out" in note and ".env.large" in note for note in copy.notes), copy.notes)

    async def test_a_file_of_the_commit_is_never_replaced(self) -> None:
        git(self.remote, "checkout", "-q", "-b", "has")
        self.put(".env", "committed")
        git(self.remote, "add", "-f", ".env")
        git(self.remote, "commit", "-q", "-m", "env")
        git(self.remote, "checkout", "-q", "main")
        self.put(".env", "the owner's")
        copy = await self.copied("has")
        self.assertEqual(((Path(copy.path) / ".env").read_text(), copy.notes), ("committed", ()))

    async def test_a_bare_repository_has_none(self) -> None:
        git(self.root / "code", "clone", "-q", "--bare", str(self.remote), "bare.git")
        self.assertEqual((await self.copied(url=str(self.root / "code" / "bare.git"))).notes, ())


class PointerTests(WorkspacesCase):
    async def test_pointers_stay_pointers_and_are_told(self) -> None:
        mark = self.root / "mark"
        commit(
            self.remote,
            "lfs",
            _gitattributes="*.psd filter=lfs diff=lfs merge=lfs -text\n*.trap filter=trap\n",
            one_psd=POINTER.format(oid="0" * 64),
            d__two_psd=POINTER.format(oid="1" * 64),
            three_psd="content that was never moved\n",
            x_trap="x\n",
        )
        for kind in ("clean", "smudge", "process"):
            git(self.remote, "config", f"filter.trap.{kind}", f"touch {mark}")
            git(self.remote, "config", f"filter.lfs.{kind}", f"touch {mark}")
        copy = await self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", ANN, self.lines.append)
        path = Path(copy.path)
        self.assertEqual((path / "one.psd").read_text(), POINTER.format(oid="0" * 64))
        (note,) = copy.notes
        self.assertIn("2 files are pointers", note)
        self.assertIn("git lfs pull", note)
        self.assertEqual(git(path, "status", "--porcelain"), "")
        self.assertFalse(mark.exists())

    async def test_without_pointers_there_is_nothing_to_tell(self) -> None:
        commit(self.remote, "lfs", _gitattributes="*.psd filter=lfs\n")
        copy = await self.workspaces.prepare("t1", "app", str(self.remote), "fix/x", ANN, self.lines.append)
        self.assertEqual(copy.notes, ())
