"""Submodules over a real server: checked out at their commit, working at once, told when left empty."""

from __future__ import annotations

import os
from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.test.integration.git_rig import ANN, GitServer, WorkspacesCase, commit, git
from uaihost.workspaces import submodules
from uaihost.workspaces.places import Places, Record
from uaihost.workspaces.workspaces import WorkCopy


class SubmoduleCase(WorkspacesCase):
    """Repositories `app`, `lib` and `deep`, bare and served; `lib` has `deep` in it, `app` has `lib`."""

    def setUp(self) -> None:
        super().setUp()
        self.served = self.root / "served"
        self.served.mkdir()
        (self.served / "config").write_text("[safe]\n directory = *\n")
        self.server = GitServer(self.served)
        self.addCleanup(self.server.stop)
        self.deep = self.make("deep")
        self.lib = self.make("lib", {"inner/deep": "../deep.git"})

    def make(self, name: str, inner: dict[str, str] | None = None, **settings: str) -> str:
        """A repository with submodules (path to address, of the repository that the address ends with)."""
        work = self.root / "made" / name
        work.mkdir(parents=True)
        git(work, "init", "-q", "-b", "main")
        commit(work, "first", own_txt=name)
        text = ""
        for path, url in (inner or {}).items():
            inner_name = url.rpartition("/")[2].removesuffix(".git")
            known = self.root / "made" / inner_name
            oid = git(known, "rev-parse", "HEAD") if known.is_dir() else "1" * 40
            git(work, "update-index", "--add", "--cacheinfo", f"160000,{oid},{path}")
            text += f'[submodule "{path.rpartition("/")[2]}"]\n\tpath = {path}\n\turl = {url}\n'
            text += "".join(f"\t{key} = {value}\n" for key, value in settings.items())
        if text:
            (work / ".gitmodules").write_text(text)
            git(work, "add", ".gitmodules")
            git(work, "commit", "-q", "-m", "submodules")
        git(self.root, "clone", "-q", "--bare", str(work), str(self.served / f"{name}.git"))
        return git(work, "rev-parse", "HEAD")

    async def copied(self, name: str, task: str = "t1") -> WorkCopy:
        return await self.workspaces.prepare(
            task, "app", f"{self.server.url}/{name}.git", "fix/x", ANN, self.lines.append
        )


class SubmoduleTests(SubmoduleCase):
    async def test_they_are_checked_out_and_work(self) -> None:
        self.make("app", {"lib": "../lib.git"})
        copy = await self.copied("app")
        path = Path(copy.path)
        self.assertEqual(copy.notes, ())
        self.assertEqual((path / "lib" / "own.txt").read_text(), "lib")
        self.assertEqual((path / "lib/inner/deep" / "own.txt").read_text(), "deep")
        self.assertEqual(git(path, "status", "--porcelain"), "")
        listed = git(path, "submodule", "status", "--recursive").splitlines()
        self.assertEqual([line[:41] for line in listed], [f" {self.lib}", f" {self.deep}"])
        for place, oid in (("lib", self.lib), ("lib/inner/deep", self.deep)):
            self.assertEqual(git(path / place, "rev-parse", "HEAD", "origin/main"), f"{oid}\n{oid}")
            self.assertEqual(git(path / place, "config", "user.email"), ANN.email)
            git(path / place, "fsck", "--strict")
        made = commit(path / "lib", "inside", own_txt="changed")
        self.assertEqual(git(path, "status", "--porcelain"), " M lib")
        git(path, "submodule", "update", "--force", "lib")
        self.assertNotEqual(git(path / "lib", "rev-parse", "HEAD"), made)

    async def test_they_share_nothing_and_belong_to_the_containers_user(self) -> None:
        if os.geteuid() == 0:
            self.uid = self.gid = 1000
            self.workspaces = self.host()
        self.make("app", {"lib": "../lib.git"})
        path = Path((await self.copied("app")).path)
        found = [path, *path.rglob("*")]
        self.assertEqual({(one.lstat().st_uid, one.lstat().st_gid) for one in found}, {(self.uid, self.gid)})
        self.assertEqual([one for one in found if one.is_file() and one.stat().st_nlink != 1], [])
        self.assertEqual([one for one in found if one.name == "alternates"], [])

    async def test_the_record_names_them(self) -> None:
        self.make("app", {"lib": "../lib.git"})
        await self.copied("app")
        record = Record.load(Places.of(self.tasks, "t1", "app").record)
        assert record is not None
        self.assertEqual(
            [(made.path, made.git_dir, made.commit) for made in record.submodules],
            [
                ("lib", ".git/modules/lib", self.lib),
                ("lib/inner/deep", ".git/modules/lib/modules/deep", self.deep),
            ],
        )
        self.assertEqual(record.submodules[0].display, f"{self.server.url}/lib.git")

    async def test_a_commit_that_no_branch_leads_to(self) -> None:
        self.make("app", {"lib": "../lib.git"})
        git(self.served / "lib.git", "config", "uploadpack.allowAnySHA1InWant", "true")
        git(self.served / "lib.git", "update-ref", "refs/heads/main", f"{self.lib}^")
        path = Path((await self.copied("app")).path)
        self.assertEqual(git(path / "lib", "rev-parse", "HEAD"), self.lib)

    async def test_what_cannot_or_may_not_be_fetched_is_left_empty_and_told(self) -> None:
        cases = {
            "../missing.git": "no such repository",
            str(self.root / "code" / "app"): "path on this machine",
            "git@example.org:owner/private.git": "SSH key",
            "http://127.0.0.1:1/x.git": "not encrypted",
            "ext::touch mark": "run programs",
        }
        for number, (url, why) in enumerate(cases.items()):
            self.make(f"app{number}", {"lib": url, "good": "../deep.git"})
            copy = await self.copied(f"app{number}", f"t{number}")
            (note,) = copy.notes
            self.assertIn("'lib' was left empty", note)
            self.assertIn(why, note)
            self.assertEqual(list((Path(copy.path) / "lib").iterdir()), [])
            self.assertEqual((Path(copy.path) / "good/own.txt").read_text(), "deep")
            self.assertEqual(git(Path(copy.path), "status", "--porcelain"), "")

    async def test_update_none_is_left_empty_and_a_command_never_runs(self) -> None:
        mark = self.root / "mark"
        for number, (update, why) in enumerate({"none": "none", f"!touch {mark}": "command"}.items()):
            self.make(f"app{number}", {"lib": "../lib.git"}, update=update)
            (note,) = (await self.copied(f"app{number}", f"t{number}")).notes
            self.assertIn(why, note)
        self.assertFalse(mark.exists())

    async def test_those_within_those_end(self) -> None:
        self.make("d1", {"x": "../lib.git"})
        self.make("d2", {"x": "../d1.git"})
        copy = await self.copied("d2")
        path = Path(copy.path)
        self.assertTrue((path / "x/x/inner/deep/own.txt").is_file())
        self.make("d3", {"x": "../d2.git"})
        (note,) = (await self.copied("d3", "t2")).notes
        self.assertIn("more than 3 submodules deep", note)

    async def test_there_are_not_too_many(self) -> None:
        self.patch(submodules, "MOST", 2)
        self.make("app", {f"s{number}": "../deep.git" for number in range(4)})
        copy = await self.copied("app")
        self.assertEqual(len(copy.notes), 2, copy.notes)
        self.assertTrue(all("at most 2" in note for note in copy.notes), copy.notes)
        self.assertEqual(len(list(Path(copy.path).glob("s*/own.txt"))), 2)

    async def test_a_gitmodules_that_is_a_link_is_refused(self) -> None:
        work = self.root / "made" / "lib"
        (work / "real").write_text((work / ".gitmodules").read_text())
        (work / ".gitmodules").unlink()
        (work / ".gitmodules").symlink_to("real")
        git(work, "add", "-A")
        git(work, "commit", "-q", "-m", "link")
        git(work, "push", "-q", str(self.served / "lib.git"), "main")
        with self.assertRaises(HostError) as caught:
            await self.copied("lib")
        self.assertEqual(caught.exception.code, ErrorCode.CLONE_FAILED)
        self.assertIn("invalid path '.gitmodules'", caught.exception.message)

    async def test_an_owners_checkout_is_asked_where_it_came_from(self) -> None:
        self.make("app", {"lib": "../lib.git"})
        git(self.root / "code", "clone", "-q", f"{self.server.url}/app.git", "checkout")
        url = str(self.root / "code" / "checkout")
        copy = await self.workspaces.prepare("t1", "app", url, "fix/x", ANN, self.lines.append)
        self.assertEqual((copy.notes, (Path(copy.path) / "lib/own.txt").read_text()), ((), "lib"))
        git(Path(url), "config", "remote.origin.url", str(self.served / "app.git"))
        (note,) = (await self.workspaces.prepare("t2", "app", url, "fix/x", ANN, self.lines.append)).notes
        self.assertIn("'lib' was left empty", note)
