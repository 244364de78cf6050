"""Work copies in which an agent planted traps: nothing runs on the host, nothing of the host gets in."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import WorkspacesCase, commit, git

HOOKS = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "post-rewrite",
    "fsmonitor-watchman",
    "post-index-change",
]

SETTINGS = """\
[core]
    fsmonitor = {trap}
    hooksPath = {hooks}
    sshCommand = {trap}
    gitProxy = {trap}
    editor = {trap}
    pager = {trap}
    askPass = {trap}
    alternateRefsCommand = {trap}
    worktree = {secret}
[diff]
    external = {trap}
[diff "trap"]
    command = {trap}
    textconv = {trap}
[filter "trap"]
    clean = {trap}
    smudge = {trap}
    process = {trap}
    required = true
[merge "trap"]
    driver = {trap}
[uploadpack]
    packObjectsHook = {trap}
[credential]
    helper = {trap}
[gpg]
    program = {trap}
[commit]
    gpgSign = true
[remote "origin"]
    url = ext::{trap}
    uploadpack = {trap}
    promisor = true
    partialCloneFilter = blob:none
[remote "path"]
    url = {secret}
    uploadpack = {trap}
[extensions]
    partialClone = origin
[protocol]
    allow = always
[pager]
    diff = {trap}
    log = {trap}
[alias]
    fetch = !{trap}
    add = !{trap}
[submodule]
    recurse = true
[include]
    path = {secret}/config
"""


class HostileCase(WorkspacesCase):
    def setUp(self) -> None:
        super().setUp()
        self.mark = self.root / "mark"
        self.secret = self.root / "secret"
        self.secret.mkdir()
        (self.secret / "file").write_text("top-secret")
        (self.secret / "config").write_text(f"[core]\n fsmonitor = touch {self.mark}\n")
        self.trap = self.root / "trap"
        self.trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {self.mark}\ncat\n')
        self.trap.chmod(0o755)

    def plant(self, git_dir: Path) -> None:
        """Every way by which a repository can make git run something."""
        hooks = git_dir / "hooks"
        hooks.mkdir(exist_ok=True)
        for name in HOOKS:
            shutil.copy(self.trap, hooks / name)
        with (git_dir / "config").open("a") as file:
            file.write(SETTINGS.format(trap=self.trap, hooks=hooks, secret=self.secret))
        (git_dir / "info").mkdir(exist_ok=True)
        (git_dir / "info" / "attributes").write_text("* filter=trap diff=trap merge=trap\n")

    async def exercise(self) -> str:
        """Everything the daemon does with a work copy, again with a new daemon; what it brought in."""
        brought = ""
        for number, workspaces in enumerate((self.workspaces, self.host())):
            brought += str(await workspaces.diff("t1", "p1", "app"))
            brought += str(await workspaces.save("t1", ["app"]))
            await workspaces.prepare("t1", "app", str(self.remote), "fix/x", None, self.lines.append)
            (self.tasks / "t1" / "work" / "app" / f"again-{number}").write_text("x")
        brought += git(self.vault(), "log", "--all", "-p")
        return brought

    def assert_nothing_ran(self) -> None:
        self.assertEqual(self.mark.read_text() if self.mark.exists() else "", "")


class TrapTests(HostileCase):
    async def test_nothing_that_a_configuration_names_runs(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", a_txt="committed\n")
        (copy / ".gitattributes").write_text("* filter=trap diff=trap merge=trap\n")
        (copy / "a.txt").write_text("changed\n")
        (copy / "new").write_text("new\n")
        self.plant(copy / ".git")
        # The traps are good ones: git in the copy itself steps into them.
        git(copy, "-c", "core.worktree=" + str(copy), "status", check=False)
        self.assertTrue(self.mark.exists())
        self.mark.unlink()
        brought = await self.exercise()
        self.assert_nothing_ran()
        self.assertIn("+changed", brought)
        self.assertIn("+new", brought)
        self.assertNotIn("top-secret", brought)

    async def test_missing_objects_are_not_fetched_from_where_the_copy_says(self) -> None:
        copy = await self.prepared()
        commit(copy, "work", a_txt="committed\n")
        blob = git(copy, "rev-parse", "HEAD:a.txt")
        self.plant(copy / ".git")
        (copy / ".git/objects" / blob[:2] / blob[2:]).unlink()
        with self.assertRaises(HostError) as caught:
            await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(caught.exception.code, ErrorCode.CONFLICT)
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assert_nothing_ran()
        self.assertEqual(git(self.vault(), "show", f"{saved.wip}:a.txt"), "committed")
        self.assertIn("cannot be read", str(saved.note))

    async def test_repositories_inside_the_copy_run_nothing(self) -> None:
        copy = await self.prepared()
        for name in ("nested", "nested/deeper", "a-submodule"):
            (copy / name).mkdir()
            git(copy / name, "init", "-q")
            commit(copy / name, "inner", in_txt=name)
        git(copy, "add", "a-submodule")
        git(copy, "commit", "-q", "-m", "with a submodule")
        modules = '[submodule "s"]\n path = a-submodule\n url = ext::{0}\n ignore = none\n update = !{0}\n'
        (copy / ".gitmodules").write_text(modules.format(self.trap))
        for name in ("nested", "nested/deeper", "a-submodule"):
            self.plant(copy / name / ".git")
            (copy / name / "in.txt").write_text("changed\n")
        self.plant(copy / ".git")
        brought = await self.exercise()
        self.assert_nothing_ran()
        self.assertIn("nested/deeper/in.txt", brought)
        self.assertIn("Subproject commit", brought)

    async def test_names_that_look_like_options_or_git_folders(self) -> None:
        copy = await self.prepared()
        for name in ("--upload-pack=x", "-c", ".GIT", "git~1", ".git ", ".g\u200cit"):
            (copy / name).mkdir()
            (copy / name / "config").write_text("x\n")
        commit_id = git(copy, "rev-parse", "HEAD")
        (copy / ".git/refs/heads/-x").write_text(commit_id)
        (copy / ".git/packed-refs").write_text(
            f"{commit_id} refs/heads/--exec=x\n{commit_id} refs/heads/../../x\n"
        )
        found = await self.changes()
        self.assertEqual(
            {"--upload-pack=x/config", "-c/config"} & set(found), {"--upload-pack=x/config", "-c/config"}
        )
        self.assertNotIn(".GIT/config", found)
        await self.workspaces.save("t1", ["app"])

    async def test_an_index_that_git_cannot_read_blocks_nothing(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("x\n")
        for index in (b"", b"DIRC" + bytes(2000), b"junk"):
            (copy / ".git/index").write_bytes(index)
            self.assertEqual(list(await self.changes()), ["new"])
        (copy / ".git/index").unlink()
        (copy / ".git/index").symlink_to(self.secret / "file")
        self.assertEqual(list(await self.changes()), ["new"])

    async def test_an_index_that_names_files_outside_brings_none(self) -> None:
        copy = await self.prepared()
        (copy / "new").write_text("x\n")
        entries = b""
        names = [b"../../../../../secret/file", b".git/config", os.fsencode(self.secret / "file")]
        for name in names:
            entry = struct.pack(">10L20sH", *[0] * 6, 0o100644, 0, 0, 0, bytes(20), len(name)) + name
            entries += entry + bytes(8 - len(entry) % 8)
        data = b"DIRC" + struct.pack(">2L", 2, len(names)) + entries
        (copy / ".git/index").write_bytes(data + hashlib.sha1(data).digest())
        self.assertIn("secret/file", git(copy, "ls-files"))
        self.assertEqual(list(await self.changes()), ["new"])
        await self.workspaces.save("t1", ["app"])
        self.assertNotIn("top-secret", git(self.vault(), "log", "--all", "-p"))

    async def test_a_commit_with_names_that_no_tree_may_have_blocks_nothing(self) -> None:
        copy = await self.prepared()
        blob = git(copy, "rev-parse", "HEAD:a.txt")
        entry = (
            b"100644 ..\0"
            + bytes.fromhex(blob)
            + b"40000 .git\0"
            + bytes.fromhex(git(copy, "rev-parse", "HEAD:d"))
        )
        (copy / "tree").write_bytes(entry)
        tree = git(copy, "hash-object", "-t", "tree", "-w", "--literally", "tree")
        (copy / "tree").unlink()
        made = git(copy, "commit-tree", tree, "-p", "HEAD", "-m", "odd")
        git(copy, "update-ref", "refs/heads/fix/x", made)
        (copy / "new").write_text("x\n")
        self.assertEqual(list(await self.changes()), ["new"])
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual((saved.commit, git(self.vault(), "show", f"{saved.wip}:new")), (made, "x"))
        await self.workspaces.remove("t1")
        with self.assertRaises(HostError) as caught:
            await self.prepared("fix/x", "t2")
        self.assertEqual(caught.exception.code, ErrorCode.CLONE_FAILED)

    async def test_attributes_that_cannot_be_met_block_nothing(self) -> None:
        copy = await self.prepared()
        (copy / ".gitattributes").write_text("* working-tree-encoding=UTF-99\n")
        (copy / "a.txt").write_text("changed\n")
        self.assertIn("+changed", (await self.changes())["a.txt"]["hunks"])


class BorrowingTests(HostileCase):
    """A `.git` that points to somebody else's repository brings nothing from there."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.root / "other"
        self.other.mkdir()
        git(self.other, "init", "-q", "-b", "main")
        self.secret_commit = commit(self.other, "top-secret", file="top-secret")

    async def refused(self) -> str:
        with self.assertRaises(HostError) as caught:
            await self.workspaces.diff("t1", "p1", "app")
        self.assertEqual(caught.exception.code, ErrorCode.CONFLICT)
        return str(caught.exception)

    async def check(self, why: str) -> None:
        """The diff is refused; saving keeps the working tree, says so, and brings nothing from elsewhere."""
        copy = self.tasks / "t1" / "work" / "app"
        (copy / "new").write_text("work\n")
        self.assertIn(why, await self.refused())
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertIn(why, str(saved.note))
        self.assertEqual(git(self.vault(), "show", f"{saved.wip}:new"), "work")
        self.assertNotIn("top-secret", git(self.vault(), "log", "--all", "-p"))

    async def test_a_link(self) -> None:
        copy = await self.prepared()
        shutil.rmtree(copy / ".git")
        (copy / ".git").symlink_to(self.other / ".git")
        await self.check("not a plain folder")

    async def test_a_gitdir_file(self) -> None:
        copy = await self.prepared()
        shutil.rmtree(copy / ".git")
        (copy / ".git").write_text(f"gitdir: {self.other}/.git\n")
        await self.check("not a plain folder")

    async def test_none_at_all(self) -> None:
        shutil.rmtree(await self.prepared() / ".git")
        await self.check("missing")

    async def test_alternates(self) -> None:
        copy = await self.prepared()
        (copy / ".git/objects/info").mkdir(exist_ok=True)
        (copy / ".git/objects/info/alternates").write_text(f"{self.other}/.git/objects\n")
        (copy / ".git/refs/heads/stolen").write_text(self.secret_commit)
        await self.check("borrows")

    async def test_a_common_directory(self) -> None:
        copy = await self.prepared()
        (copy / ".git/commondir").write_text(f"{self.other}/.git\n")
        await self.check("borrows")

    async def test_links_among_refs_and_objects(self) -> None:
        copy = await self.prepared()
        shutil.rmtree(copy / ".git/refs/heads")
        (copy / ".git/refs/heads").symlink_to(self.other / ".git/refs/heads")
        head = git(self.other, "rev-parse", "HEAD")
        shutil.rmtree(copy / ".git/objects" / head[:2], ignore_errors=True)
        (copy / ".git/objects" / head[:2]).symlink_to(self.other / ".git/objects" / head[:2])
        (copy / ".git/packed-refs").write_text(f"{head} refs/heads/stolen\n")
        found = str(await self.workspaces.save("t1", ["app"]))
        self.assertNotIn("top-secret", found + git(self.vault(), "log", "--all", "-p"))

    async def test_commits_of_earlier_snapshots_survive_a_broken_git(self) -> None:
        copy = await self.prepared()
        made = commit(copy, "work", a_txt="committed\n")
        await self.changes()
        shutil.rmtree(copy / ".git")
        (copy / "a.txt").write_text("later\n")
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual((saved.branch, saved.commit), ("fix/x", made))
        self.assertEqual(git(self.vault(), "rev-parse", f"{saved.wip}^"), made)

    async def test_another_tasks_objects_cannot_be_had_by_their_names(self) -> None:
        copy = await self.prepared()
        (copy / ".git/refs/heads/stolen").write_text(self.secret_commit)
        (saved,) = await self.workspaces.save("t1", ["app"])
        self.assertEqual(git(self.vault(), "for-each-ref", "refs/uai"), "")
        self.assertEqual(saved.commit, self.first)


class LinkTests(HostileCase):
    async def test_links_are_recorded_as_links(self) -> None:
        copy = await self.prepared()
        (copy / "file").symlink_to(self.secret / "file")
        (copy / "folder").symlink_to(self.secret)
        shutil.rmtree(copy / "d")
        (copy / "d").symlink_to(self.secret)
        (copy / ".gitignore").unlink()
        (copy / ".gitignore").symlink_to(self.secret / "file")
        os.mkfifo(copy / "pipe")
        found = await self.changes()
        self.assertNotIn("top-secret", str(found))
        self.assertEqual(found["file"]["newMode"], "120000")
        self.assertEqual(found["d/b.txt"]["status"], "deleted")
        self.assertNotIn("pipe", found)

    async def test_files_that_become_links_while_they_are_read(self) -> None:
        copy = await self.prepared()
        (copy / "e").mkdir()
        done = threading.Event()

        def swap() -> None:
            number = 0
            while not done.is_set():
                number += 1
                for name, target in (("a.txt", self.secret / "file"), ("e/file", self.secret / "file")):
                    beside = copy / f".swap-{number % 2}"
                    beside.unlink(missing_ok=True)
                    if number % 2:
                        beside.symlink_to(target)
                    else:
                        beside.write_text(f"harmless {number}\n")
                    try:
                        beside.rename(copy / name)
                    except OSError:
                        continue
                (copy / "e").rename(copy / "e2")
                (copy / "e").symlink_to(self.secret)
                (copy / "e").unlink()
                (copy / "e2").rename(copy / "e")

        agent = threading.Thread(target=swap)
        agent.start()
        try:
            found = [str(await self.changes()) for _ in range(12)]
        finally:
            done.set()
            agent.join()
        self.assertIn("harmless", "".join(found))
        self.assertNotIn("+top-secret", "".join(found))
