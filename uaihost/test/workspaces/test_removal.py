"""Deleting what an agent left."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from uaihost.test.support import short_folder
from uaihost.workspaces.removal import Trash


class RemovalTests(TestCase):
    def setUp(self) -> None:
        self.root = short_folder(self)
        self.place = self.root / ".trash"
        self.trash = Trash(self.place)
        self.victim = self.root / "task"
        self.victim.mkdir()

    def test_links_are_removed_and_not_followed(self) -> None:
        kept = self.root / "kept"
        kept.mkdir()
        (kept / "file").write_text("x")
        (self.victim / "folder").symlink_to(kept)
        (self.victim / "file").symlink_to(kept / "file")
        self.trash.remove(self.victim)
        self.assertFalse(self.victim.exists())
        self.assertEqual((kept / "file").read_text(), "x")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_a_link_in_its_own_place_is_removed_and_not_followed(self) -> None:
        link = self.root / "link"
        link.symlink_to(self.victim)
        self.trash.remove(link)
        self.assertFalse(os.path.lexists(link))
        self.assertTrue(self.victim.is_dir())

    def test_a_very_deep_tree(self) -> None:
        descriptor = os.open(self.victim, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=descriptor)
            deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        os.close(descriptor)
        self.trash.remove(self.victim)
        self.assertEqual(sorted(found.name for found in self.root.iterdir()), [".trash"])

    def test_folders_without_permissions_pipes_and_odd_names(self) -> None:
        (self.victim / "closed" / "inner").mkdir(parents=True)
        (self.victim / "closed" / "inner" / "file").write_text("x")
        os.mkfifo(self.victim / "pipe")
        (self.victim / "a\nb").write_text("")
        (self.victim / "closed" / "inner").chmod(0o000)
        (self.victim / "closed").chmod(0o500)
        self.trash.remove(self.victim)
        self.assertEqual(list(self.place.iterdir()), [])

    def test_what_is_not_there_is_no_error(self) -> None:
        self.trash.remove(self.root / "nothing")
        self.assertEqual(list(self.place.iterdir()), [])

    def test_what_an_interrupted_deletion_left_goes_too(self) -> None:
        (self.place / "old" / "deep").mkdir(parents=True)
        (self.place / "file").write_text("x")
        self.trash.remove(self.root / "nothing")
        self.assertEqual(list(self.place.iterdir()), [])
