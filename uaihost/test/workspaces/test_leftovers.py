"""What a work copy holds beside what git keeps, and what of it is kept."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.test.support import given, short_folder, strategies
from uaihost.workspaces import leftovers
from uaihost.workspaces.leftovers import Inner, Survey, choose, safe_to_unpack, survey


class SurveyTests(TestCase):
    def setUp(self) -> None:
        self.copy = short_folder(self) / "copy"
        self.copy.mkdir()

    def put(self, *names: str) -> None:
        for name in names:
            path = self.copy / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)

    def test_everything_but_git_is_found(self) -> None:
        self.put("a", "d/e", ".git/config", ".GIT/x")
        (self.copy / "empty" / "in").mkdir(parents=True)
        (self.copy / "link").symlink_to("/etc")
        os.mkfifo(self.copy / "d" / "pipe")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.copy / "sock"))
        found = survey(self.copy)
        self.assertEqual(set(found.files), {b"a", b"d/e", b".GIT/x", b"link"})
        self.assertEqual((found.empty, sorted(found.odd)), ([b"empty/in"], [b"d/pipe", b"sock"]))
        self.assertEqual((found.files[b"a"], found.inner, found.complete), (1, [], True))

    def test_odd_names(self) -> None:
        names = [b"a\nb", b"-x", b"\xff\xfe", b" ", b"\xc3\xbc"]
        for name in names:
            Path(os.fsdecode(os.fsencode(self.copy) + b"/" + name)).write_text("x")
        self.assertEqual(set(survey(self.copy).files), set(names))

    def test_repositories_inside(self) -> None:
        self.put("lib/.git/HEAD", "lib/x", ".git/modules/s/t/HEAD", ".git/modules/s/t/objects/x", "sub/y")
        self.put(".git/modules/gone/HEAD", ".git/modules/gone/objects/x", "out/z")
        (self.copy / "sub" / ".git").write_text("gitdir: ../.git/modules/s/t\n")
        (self.copy / "out" / ".git").write_text("gitdir: ../../../elsewhere\n")
        found = survey(self.copy).inner
        self.assertEqual(
            set(found),
            {
                Inner(b"lib", b"lib/.git"),
                Inner(b"sub", b".git/modules/s/t"),
                Inner(None, b".git/modules/gone"),
            },
        )

    def test_a_huge_folder_is_looked_through_in_part(self) -> None:
        self.patch(leftovers, "MOST_ENTRIES", 3)
        self.put(*(f"f{number}" for number in range(5)))
        found = survey(self.copy)
        self.assertEqual((len(found.files), found.complete), (3, False))
        self.assertIn("3 files", choose(found, set()).left[-1])

    def test_a_folder_that_cannot_be_read_is_told(self) -> None:
        def closed(name: str, *_: object) -> None:
            if name == "closed":
                raise PermissionError(13, "Permission denied")

        self.patch(leftovers, "open_up", closed)
        self.put("closed/x", "open/x")
        found = survey(self.copy)
        self.assertEqual((found.closed, set(found.files)), ([b"closed"], {b"open/x"}))

    def test_a_very_deep_folder_ends(self) -> None:
        self.patch(leftovers, "_DEEPEST", 3)
        self.put("a/b/c/d/e/f")
        self.assertFalse(survey(self.copy).complete)


class ChooseTests(TestCase):
    def setUp(self) -> None:
        for name, value in (
            ("LARGEST_FILE", 10), ("LARGEST_FOLDER", 20), ("MOST_IN_FOLDER", 3), ("LARGEST_ALL", 50),
        ):  # fmt: skip
            self.patch(leftovers, name, value)

    def test_what_git_keeps_is_not_kept_again(self) -> None:
        found = Survey({b"a": 1, b"b": 2})
        self.assertEqual(choose(found, {b"a"}).files, {b"b": 2})

    def test_large_files_and_folders_are_told(self) -> None:
        found = Survey({b"big": 11, b"cache/1": 10, b"cache/2": 11, b"few/1": 9, b"few/2": 9, b".env": 3})
        chosen = choose(found, {b"kept"})
        self.assertEqual(set(chosen.files), {b".env", b"few/1", b"few/2"})
        self.assertEqual([text.split(" ")[0] for text in sorted(chosen.left)], ["big", "cache"])

    def test_a_folder_with_many_files_goes_by_its_top(self) -> None:
        found = Survey({b"src/node_modules/a/%d" % number: 0 for number in range(4)}, [b"src/node_modules/b"])
        chosen = choose(found, {b"src/main"})
        self.assertEqual((chosen.files, chosen.folders), ({}, []))
        self.assertTrue(chosen.left[0].startswith("src/node_modules (4 files"), chosen.left)

    def test_the_smallest_are_kept_when_there_is_no_room_for_all(self) -> None:
        found = Survey({b"f%d" % size: size for size in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)})
        chosen = choose(found, set())
        self.assertEqual(sum(chosen.files.values()), 45)
        self.assertEqual(len(chosen.left), 1)
        self.assertIn("no room", chosen.left[0])

    def test_names_for_people_are_on_one_line(self) -> None:
        chosen = choose(Survey({b"a\nb\x1b[31m": 11}), set())
        self.assertTrue(chosen.left[0].isprintable())

    @given(strategies.dictionaries(strategies.binary(min_size=1, max_size=6), strategies.integers(0, 30)))
    def test_every_file_is_kept_or_told(self, files: dict[bytes, int]) -> None:
        plain = {name.replace(b"\0", b"0"): size for name, size in files.items()}
        chosen = choose(Survey(dict(plain)), set())
        self.assertLessEqual(sum(chosen.files.values()), leftovers.LARGEST_ALL)
        self.assertEqual(not chosen.left, chosen.files == plain)

    def test_names_that_may_be_written_for_a_person(self) -> None:
        for name in (b"a", b"a/b", b"-x", b"a\nb"):
            self.assertTrue(safe_to_unpack(name), name)
        for name in (b"", b"/a", b"../a", b"a/../b", b".git/config", b"a/.GIT/hooks/x", b"a//b", b"./a"):
            self.assertFalse(safe_to_unpack(name), name)
