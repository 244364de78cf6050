"""A repository written without git, as git reads it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, short_folder, strategies
from uaihost.workspaces.git_folder import Contents, Owner, alternates, configure, copy_objects, write

OID = "1" * 40
# What can stand in a setting: everything but NUL, which no program can be given.
VALUES = strategies.text(
    strategies.characters(blacklist_characters="\0\r", blacklist_categories=["Cs"]), max_size=30
)


def git(git_dir: Path, *words: str) -> str:
    env = {"PATH": os.environ["PATH"], "GIT_DIR": str(git_dir), "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/x"}
    done = subprocess.run(["git", *words], env=env, cwd=git_dir, capture_output=True, check=False)
    return done.stdout.decode("utf-8", "surrogateescape")


class GitFolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.place = self.folder / "x" / ".git"

    def contents(self, branch: str | None = "fix/x", commit: str = OID) -> Contents:
        refs = {"refs/remotes/origin/main": commit, "refs/tags/v1": "2" * len(commit)}
        return Contents(refs, branch, commit, "main", {"user.name": "A"}, "https://h/x", "A <a@h>")

    def test_git_sees_branches_tags_and_the_remotes_default(self) -> None:
        write(self.place, self.contents())
        self.assertEqual(git(self.place, "symbolic-ref", "HEAD"), "refs/heads/fix/x\n")
        self.assertEqual(
            git(self.place, "symbolic-ref", "refs/remotes/origin/HEAD"), "refs/remotes/origin/main\n"
        )
        names = ("HEAD", "refs/heads/fix/x", "refs/remotes/origin/main", "v1")
        self.assertEqual(git(self.place, "rev-parse", *names).split(), [OID, OID, OID, "2" * 40])
        self.assertEqual(git(self.place, "config", "user.name"), "A\n")

    def test_a_detached_head(self) -> None:
        write(self.place, self.contents(None))
        self.assertEqual(git(self.place, "rev-parse", "HEAD"), f"{OID}\n")
        self.assertEqual(git(self.place, "symbolic-ref", "-q", "HEAD"), "")

    def test_a_repository_of_the_other_object_format(self) -> None:
        write(self.place, self.contents(commit="a" * 64))
        self.assertEqual(git(self.place, "rev-parse", "--show-object-format"), "sha256\n")

    @given(VALUES, VALUES)
    def test_a_setting_is_read_as_it_was_written(self, value: str, middle: str) -> None:
        name = f"branch.{middle.replace(chr(10), '')}.remote" if middle.strip("\n") else "user.name"
        (self.folder / "config").write_text("")
        configure(self.folder, {name: value})
        listed = git(self.folder, "config", "--file", "config", "--list", "-z")
        self.assertEqual(listed, f"{name}\n{value}\0")

    def test_objects_are_copied_and_nothing_else(self) -> None:
        source = self.folder / "source" / "objects"
        pack = f"pack-{'a' * 40}"
        for name in (
            "info/alternates",
            "ab/" + "c" * 38,
            f"pack/{pack}.pack",
            f"pack/{pack}.idx",
            "pack/tmp_x",
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(name)
        (source / "tmp_file").write_text("x")
        write(self.place, self.contents())
        copy_objects(source.parent, self.place, Owner(os.getuid(), os.getgid()))
        found = {str(file.relative_to(self.place / "objects")) for file in self.place.glob("objects/*/*")}
        self.assertEqual(found, {"ab/" + "c" * 38, f"pack/{pack}.pack", f"pack/{pack}.idx"})
        copied = self.place / "objects" / "pack" / f"{pack}.pack"
        self.assertEqual((copied.read_text(), copied.stat().st_nlink), (f"pack/{pack}.pack", 1))

    def test_alternates_may_lie_anywhere(self) -> None:
        odd = self.folder / 'a:b "c"'
        git(self.folder, "init", "-q", "--bare", str(odd))
        write(self.place, self.contents())
        env = {"PATH": os.environ["PATH"], "GIT_DIR": str(odd)}
        oid = (
            subprocess.check_output(["git", "hash-object", "-w", "--stdin"], env=env, input=b"x")
            .decode()
            .strip()
        )
        env = {**env, "GIT_DIR": str(self.place), "GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates(odd)}
        self.assertEqual(subprocess.check_output(["git", "cat-file", "blob", oid], env=env), b"x")
