"""What is kept beside a work copy's own commits: ignored files, sessions, repositories inside it."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

from uaihost.test.integration.git_rig import commit, git
from uaihost.test.integration.vault_rig import VaultCase
from uaihost.workspaces import leftovers, task_files
from uaihost.workspaces.saving import Saved


class BesideTests(VaultCase):
    async def test_small_ignored_files_are_kept_and_large_folders_told(self) -> None:
        self.patch(leftovers, "MOST_IN_FOLDER", 5)
        self.patch(leftovers, "LARGEST_FILE", 100)
        copy = await self.prepared()
        (copy / ".gitignore").write_text("*.log\n.env\nnode_modules/\n*.db\n")
        (copy / ".env").write_text("KEY=1\n")
        (copy / "huge.db").write_bytes(b"x" * 101)
        for number in range(6):
            (copy / "node_modules" / f"p{number}").mkdir(parents=True)
            (copy / "node_modules" / f"p{number}" / "index.js").write_text("x")
        (copy / "empty" / "deeper").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(copy / "sock"))
        os.mkfifo(copy / "pipe")
        saved = await self.save()
        found = self.beside(saved)
        self.assertEqual(found["work/.env"], b"KEY=1\n")
        self.assertIsNone(found["work/empty/deeper"])
        self.assertEqual([name for name in found if "node_modules" in name or "huge" in name], [])
        for told in ("node_modules (6 files", "huge.db (", "pipe", "sock"):
            self.assertIn(told, str(saved.note))

    async def test_a_clean_copy_has_no_file_beside_it(self) -> None:
        await self.prepared()
        saved = await self.save()
        self.assertEqual((saved.extra, saved.note, saved.wip), (None, None, None))

    async def test_what_the_agent_closed_to_itself_is_read_nevertheless(self) -> None:
        copy = await self.prepared()
        (copy / "closed").mkdir()
        made = commit(copy, "work", a_txt="2")
        for name in ("closed/plain", "closed/x.log", "plain", "y.log"):
            (copy / name).write_text(name)
            (copy / name).chmod(0)
        (copy / ".git" / "objects" / made[:2] / made[2:]).chmod(0)
        (copy / ".git" / "objects").chmod(0)
        (copy / ".git").chmod(0o300)
        (copy / "closed").chmod(0)
        saved = await self.save()
        self.assertEqual([self.show(f"{saved.wip}:{name}") for name in ("closed/plain", "plain")],
                         ["closed/plain", "plain"])  # fmt: skip
        self.assertEqual((saved.commit, saved.note), (made, None))
        found = self.beside(saved)
        self.assertEqual((found["work/closed/x.log"], found["work/y.log"]), (b"closed/x.log", b"y.log"))

    async def test_names_that_git_cannot_hold(self) -> None:
        copy = await self.prepared()
        (copy / ".GIT").mkdir()
        (copy / ".GIT" / "x").write_text("1")
        (copy / "git~1").write_text("2")
        saved = await self.save()
        found = self.beside(saved)
        self.assertEqual((found["work/.GIT/x"], found["work/git~1"]), (b"1", b"2"))

    async def test_links_among_ignored_files_stay_links(self) -> None:
        copy = await self.prepared()
        secret = self.root / "secret"
        secret.mkdir()
        (secret / "file").write_text("top-secret")
        (copy / "file.log").symlink_to(secret / "file")
        (copy / "folder.log").symlink_to(secret)
        saved = await self.save()
        assert saved.extra is not None
        self.assertNotIn(b"top-secret", Path(saved.extra).read_bytes())
        with tarfile.open(saved.extra) as tar:
            self.assertEqual({entry.name: entry.type for entry in tar}["work/folder.log"], tarfile.SYMTYPE)

    async def test_sessions_of_agents_and_folders_that_are_no_copy(self) -> None:
        await self.prepared()
        session = self.tasks / "t1" / "home" / ".claude" / "projects" / "x" / "session.jsonl"
        session.parent.mkdir(parents=True)
        session.write_text("{}\n")
        stray = self.tasks / "t1" / "work" / "stray"
        stray.mkdir()
        git(stray, "init", "-q")
        commit(stray, "in it", f_txt="x")
        app, beside = await self.workspaces.save("t1", ["app", "stray"])
        self.assertEqual((app.slug, beside.slug), ("app", ""))
        found = self.beside(beside)
        self.assertEqual(found["home/.claude/projects/x/session.jsonl"], b"{}\n")
        self.assertEqual(found["work/stray/f.txt"], b"x")
        self.assertIn("work/stray/.git/HEAD", found)

    async def test_a_database_of_sessions_is_kept_whole_and_nothing_beside_it(self) -> None:
        await self.prepared()
        folder = self.tasks / "t1" / "home" / ".local" / "share" / "opencode"
        folder.mkdir(parents=True)
        names = ("opencode.db", "opencode.db-wal", "opencode.db-shm", "auth.json", "log.txt")
        for name in names:
            (folder / name).write_text(name)
        (beside,) = [one for one in await self.workspaces.save("t1", ["app"]) if not one.slug]
        found = self.beside(beside)
        place = "home/.local/share/opencode/"
        self.assertEqual(found, {place + name: name.encode() for name in names[:2]})

    async def test_a_database_without_room_for_all_of_it_is_left_out_and_told_of(self) -> None:
        self.patch(task_files, "SESSIONS_LIMIT", 100)
        await self.prepared()
        home = self.tasks / "t1" / "home"
        folder = home / ".local" / "share" / "opencode"
        folder.mkdir(parents=True)
        (folder / "opencode.db").write_bytes(b"x" * 60)
        (folder / "opencode.db-wal").write_bytes(b"x" * 60)
        session = home / ".claude" / "projects" / "x.jsonl"
        session.parent.mkdir(parents=True)
        session.write_text("{}\n")
        (beside,) = [one for one in await self.workspaces.save("t1", ["app"]) if not one.slug]
        self.assertEqual(list(self.beside(beside)), ["home/.claude/projects/x.jsonl"])
        self.assertIn("1 old sessions of agents were left out", str(beside.note))

    async def test_sessions_behind_a_link_are_not_followed(self) -> None:
        await self.prepared()
        secret = self.root / "secret" / "projects"
        secret.mkdir(parents=True)
        (secret / "file").write_text("top-secret")
        (self.tasks / "t1" / "home").mkdir()
        (self.tasks / "t1" / "home" / ".claude").symlink_to(secret.parent)
        self.assertEqual([one.slug for one in await self.workspaces.save("t1", ["app"])], ["app"])

    async def test_another_work_copy_of_the_same_name_does_not_touch_the_first_ones_files(self) -> None:
        for text in ("first", "second"):
            (await self.prepared() / "x.log").write_text(text)
            await self.save()
            saved = await self.save()
            await self.workspaces.remove("t1")
        self.assertEqual(saved.name, "app-2")
        files = sorted(path.name for path in (self.saved / "t1").iterdir())
        self.assertEqual(files, ["app-2.json", "app-2.tar", "app.json", "app.tar"])
        contents = [self.beside(Saved("", "", "", None, "", None, str(self.saved / "t1" / name)))
                    for name in ("app.tar", "app-2.tar")]  # fmt: skip
        self.assertEqual([found["work/x.log"] for found in contents], [b"first", b"second"])


class InnerTests(VaultCase):
    def inner(self, folder: Path, text: str = "in") -> str:
        folder.mkdir(parents=True)
        git(folder, "init", "-q")
        return commit(folder, "inner", in_txt=text)

    async def test_the_history_of_a_repository_inside_the_copy(self) -> None:
        copy = await self.prepared()
        made = self.inner(copy / "lib" / "own")
        (copy / "lib" / "own" / "in.txt").write_text("changed")
        saved = await self.save()
        found = self.refs("refs/uai/t1/app/sub/lib%2Fown")
        self.assertEqual(found["refs/uai/t1/app/sub/lib%2Fown/heads/master"], made)
        self.assertEqual(self.show("refs/uai/t1/app/sub/lib%2Fown/wip:in.txt"), "changed")
        self.assertEqual(self.part(saved, "lib/own")["gitDir"], "lib/own/.git")

    async def test_a_module_without_its_files(self) -> None:
        copy = await self.prepared()
        made = self.inner(self.root / "other")
        target = copy / ".git" / "modules" / "gone"
        target.parent.mkdir()
        (self.root / "other" / ".git").rename(target)
        saved = await self.save()
        self.assertEqual(
            self.refs("refs/uai/t1/app/sub"),
            {"refs/uai/t1/app/sub/%2Egit%2Fmodules%2Fgone/heads/master": made},
        )
        self.assertEqual(len(saved.parts), 2)

    async def test_a_submodule_that_the_task_added(self) -> None:
        library = self.root / "code" / "library"
        self.inner(library)
        copy = await self.prepared()
        git(copy, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib")
        git(copy, "commit", "-q", "-m", "with a library")
        made = commit(copy / "lib", "in the library", in_txt="mine")
        (copy / "lib" / "new").write_text("x")
        saved = await self.save()
        refs = self.refs("refs/uai/t1/app/sub/lib")
        self.assertEqual(refs["refs/uai/t1/app/sub/lib/heads/master"], made)
        self.assertEqual(self.show("refs/uai/t1/app/sub/lib/wip:new"), "x")
        self.assertEqual(self.part(saved, "lib")["gitDir"], ".git/modules/lib")

    async def test_one_of_another_form_is_kept_as_files(self) -> None:
        copy = await self.prepared()
        (copy / "lib").mkdir()
        git(copy / "lib", "init", "-q", "--object-format=sha256")
        commit(copy / "lib", "inner", in_txt="in")
        saved = await self.save()
        self.assertIn("cannot be read", str(saved.note))
        found = self.beside(saved)
        self.assertIn("git/lib/.git/refs/heads/master", found)
        self.assertEqual(self.show(f"{saved.wip}:lib/in.txt"), "in")

    async def test_one_too_deep_for_git_keeps_nothing_from_being_saved(self) -> None:
        copy = await self.prepared()
        self.inner(self.root / "inner")
        place = os.open(copy, os.O_RDONLY)
        try:
            for _ in range(30):
                os.mkdir("d" * 200, dir_fd=place)
                deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=place)
                os.close(place)
                place = deeper
            os.rename(self.root / "inner", "inner", dst_dir_fd=place)
            with os.fdopen(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=place), "w") as file:
                file.write("deep down")
        finally:
            os.close(place)
        saved = await self.save()
        found = self.beside(saved)
        self.assertIn(b"deep down", found.values())
        self.assertEqual(len([name for name in found if name.endswith("/inner/.git/HEAD")]), 1)
        self.assertIn("kept as files", str(saved.note))
        await self.workspaces.remove("t1")

    async def test_a_damaged_repository_inside_is_kept_as_files(self) -> None:
        copy = await self.prepared()
        made = self.inner(copy / "lib")
        (copy / "lib" / ".git" / "objects" / made[:2] / made[2:]).unlink()
        saved = await self.save()
        self.assertIn("cannot be read", str(saved.note))
        self.assertIn("git/lib/.git/HEAD", self.beside(saved))
        self.assertEqual(self.show(f"{saved.wip}:lib/in.txt"), "in")

    async def test_a_link_where_a_repository_says_its_files_are_brings_nothing(self) -> None:
        copy = await self.prepared()
        secret = self.root / "secret"
        self.inner(secret, "top-secret")
        (copy / "lib").symlink_to(secret)
        (copy / "dots").mkdir()
        (copy / "dots" / ".git").write_text(f"gitdir: {secret}/.git\n")
        (copy / "more").mkdir()
        (copy / "more" / ".git").write_text("gitdir: ../../../../../secret/.git\n")
        saved = await self.save()
        self.assertEqual(len(saved.parts), 1)
        self.assertNotIn("top-secret", git(self.vault(), "log", "--all", "-p"))
