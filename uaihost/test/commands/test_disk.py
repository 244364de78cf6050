"""Measuring disk: real trees in temporary folders, also such as nobody should make."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.commands.disk import Disk, Stopped, size
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders
from uaihost.test.support import given, short_folder, strategies
from uaihost.workspaces.removal import Trash


def fill(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * count)


def du(path: Path) -> int:
    """What du says, in bytes."""
    said = subprocess.run(["du", "-sx", "-B1", path], capture_output=True, check=True, text=True)
    return int(said.stdout.split()[0])


class SizeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = short_folder(self)

    @given(
        strategies.lists(
            strategies.tuples(
                strategies.lists(strategies.sampled_from("abcd"), min_size=1, max_size=4),
                strategies.integers(0, 100_000),
            ),
            max_size=8,
        )
    )
    def test_it_is_what_du_says(self, files: list[tuple[list[str], int]]) -> None:
        top = short_folder(self)
        for parts, count in files:
            # A folder and a file of one name cannot both be.
            fill(top.joinpath(*(f"{part}.d" for part in parts[:-1]), parts[-1]), count)
        self.assertEqual(size(top).bytes, du(top))
        self.assertTrue(size(top).whole)

    def test_links_are_not_followed_and_files_of_two_names_count_once(self) -> None:
        outside = short_folder(self)
        fill(outside / "large", 1 << 20)
        fill(self.top / "tree" / "one", 1 << 16)
        os.link(self.top / "tree" / "one", self.top / "tree" / "two")
        (self.top / "tree" / "file").symlink_to(outside / "large")
        (self.top / "tree" / "folder").symlink_to(outside)
        (self.top / "tree" / "itself").symlink_to(self.top / "tree")
        self.assertEqual(size(self.top / "tree").bytes, du(self.top / "tree"))
        self.assertLess(size(self.top / "tree").bytes, 1 << 19)

    def test_a_link_in_the_place_of_a_folder_is_not_entered(self) -> None:
        fill(self.top / "real" / "large", 1 << 20)
        (self.top / "link").symlink_to(self.top / "real")
        self.assertLess(size(self.top / "link").bytes, 1 << 16)

    def test_what_is_not_there_takes_nothing(self) -> None:
        fill(self.top / "file", 1)
        self.assertEqual(size(self.top / "none").bytes, 0)
        self.assertEqual(size(self.top / "file" / "below").bytes, 0)

    def test_pipes_and_sockets_do_not_stop_it(self) -> None:
        os.mkfifo(self.top / "pipe")
        fill(self.top / "file", 5000)
        self.assertEqual(size(self.top).bytes, du(self.top))

    def test_a_deep_tree_is_counted_as_far_as_the_bound(self) -> None:
        here = os.open(self.top, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        # Python's own way to remove a tree goes as deep as the tree.
        self.addCleanup(Trash(short_folder(self)).remove, self.top / "d")
        opened = len(list(Path("/proc/self/fd").iterdir()))
        found = size(self.top)
        self.assertFalse(found.whole)
        self.assertGreater(found.bytes, 0)
        self.assertEqual(len(list(Path("/proc/self/fd").iterdir())), opened)

    def test_a_wide_tree_is_counted_as_far_as_the_bound(self) -> None:
        for number in range(30):
            fill(self.top / str(number), 4096)
        found = size(self.top, entries=10)
        self.assertFalse(found.whole)
        self.assertLess(found.bytes, size(self.top).bytes)

    def test_it_can_be_called_off(self) -> None:
        for number in range(600):
            (self.top / str(number)).touch()
        with self.assertRaises(Stopped):
            size(self.top, off=lambda: True)

    def test_the_second_level_is_told_apart(self) -> None:
        fill(self.top / "shop" / "node_modules" / "a" / "b", 100_000)
        fill(self.top / "shop" / "src" / "a", 10)
        fill(self.top / "core", 5000)
        parts = size(self.top).parts
        self.assertEqual(set(parts), {"shop/node_modules", "shop/src", "core"})
        self.assertGreater(parts["shop/node_modules"], 100_000)


class DiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.clock = Clock()
        self.disk = Disk(self.clock, Inline(), self.folders)

    def test_everything_has_its_class(self) -> None:
        folders = self.folders
        places = {
            "mirrors": folders.mirror("m"),
            "saved": folders.saved / "m.git",
            "tools": folders.tools / "installs",
            "images": folders.root / "images",
            "work": folders.work("t"),
            "homes": folders.home("t"),
            "scratch": folders.scratch("t"),
            "attachments": folders.attachments("t"),
            "transcripts": folders.transcripts,
        }
        for number, place in enumerate(places.values(), 1):
            fill(place / "file", number * 100_000)
        fill(folders.database, 1_000_000)
        fill(folders.tasks / ".trash" / "file", 1_100_000)
        found = self.successResultOf(self.disk.measure())
        for number, name in enumerate(places, 1):
            self.assertGreaterEqual(found.classes[name], number * 100_000, name)
            self.assertLess(found.classes[name], number * 100_000 + 50_000, name)
        self.assertGreaterEqual(found.classes["database"], 1_000_000)
        self.assertGreaterEqual(found.classes["trash"], 1_100_000)
        self.assertEqual(set(found.mirrors), {"m"})
        usage = found.tasks["t"]
        self.assertEqual(self.disk.last("t"), usage)
        self.assertEqual(usage.total, usage.work + usage.home + usage.scratch)
        self.assertEqual(usage.largest[0][0], "/tmp/file")

    def test_sums_hold_for_a_while(self) -> None:
        first = self.successResultOf(self.disk.measure())
        fill(self.folders.mirror("m") / "file", 100_000)
        self.clock.advance(100)
        self.assertIs(self.successResultOf(self.disk.measure()), first)
        self.clock.advance(300)
        self.assertGreaterEqual(self.successResultOf(self.disk.measure()).classes["mirrors"], 100_000)

    def test_a_task_is_measured_alone(self) -> None:
        fill(self.folders.work_copy("t", "shop") / "file", 200_000)
        self.assertIsNone(self.disk.last("t"))
        usage = self.successResultOf(self.disk.usage("t"))
        self.assertGreaterEqual(usage.work, 200_000)
        self.assertEqual((usage.home, usage.scratch), (0, 0))
        self.assertEqual(usage.largest[0][0], "/workspace/shop/file")

    def test_free_space_is_the_file_systems(self) -> None:
        space = self.successResultOf(self.disk.space())
        self.assertEqual(space.total, os.statvfs(self.folders.root).f_blocks * os.statvfs("/tmp").f_frsize)
        self.assertLessEqual(space.free, space.total)

    def test_called_off_it_says_so(self) -> None:
        for number in range(600):
            fill(self.folders.work("t") / str(number), 0)
        self.disk.stop()
        failure = self.failureResultOf(self.disk.measure(), HostError)
        assert isinstance(failure.value, HostError)
        self.assertEqual(failure.value.code, ErrorCode.CANCELLED)
