"""Attachments: names, limits, storing and reading."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces.attachments import LIMIT, Attachments, checked

REFUSED = {
    "": "empty",
    ".": "folder",
    "..": "folder",
    "a/b": "path",
    "/a": "path",
    "..\\a": "path",
    "a\0": "control",
    "a\n": "control",
    "\ud800": "half a character",
    "ä" * 128: "longer than 255",
}


class AttachmentTests(TestCase):
    def setUp(self) -> None:
        self.tasks = short_folder(self) / "tasks"
        self.attachments = Attachments(self.tasks, Inline())

    async def test_what_is_written_is_read_and_the_container_is_told_its_path(self) -> None:
        path = await self.attachments.write("t1", "notes ü.txt", b"\0data")
        self.assertEqual(path, "/attachments/notes ü.txt")
        self.assertEqual(await self.attachments.read("t1", "notes ü.txt"), b"\0data")
        self.assertEqual((self.tasks / "t1" / "attachments" / "notes ü.txt").stat().st_mode & 0o777, 0o644)

    async def test_a_second_file_of_a_name_replaces_the_first_and_leaves_nothing_beside(self) -> None:
        await self.attachments.write("t1", "a", b"first")
        await self.attachments.write("t1", "a", b"second")
        self.assertEqual(await self.attachments.read("t1", "a"), b"second")
        self.assertEqual([found.name for found in (self.tasks / "t1").rglob("*")], ["attachments", "a"])

    async def test_the_longest_name_is_taken(self) -> None:
        await self.attachments.write("t1", "x" * 255, b"")
        self.assertEqual(await self.attachments.read("t1", "x" * 255), b"")

    async def test_a_file_that_is_not_there_is_not_found(self) -> None:
        with self.assertRaises(HostError) as caught:
            await self.attachments.read("t1", "a")
        self.assertEqual(caught.exception.code, ErrorCode.NOT_FOUND)

    async def test_a_link_is_not_followed(self) -> None:
        await self.attachments.write("t1", "a", b"")
        (self.tasks / "t1" / "attachments" / "b").symlink_to("/etc/passwd")
        with self.assertRaises(OSError):
            await self.attachments.read("t1", "b")

    async def test_too_large(self) -> None:
        with self.assertRaises(HostError) as caught:
            await self.attachments.write("t1", "a", bytes(LIMIT + 1))
        self.assertEqual(caught.exception.code, ErrorCode.TOO_LARGE)
        self.assertFalse(self.tasks.exists())

    async def test_a_task_id_cannot_lead_elsewhere(self) -> None:
        for task in ("..", "a/b", "", "x" * 65):
            with self.assertRaises(HostError) as caught:
                await self.attachments.write(task, "a", b"")
            self.assertEqual(caught.exception.code, ErrorCode.INVALID_ARGS)

    def test_names_that_are_refused_say_why(self) -> None:
        for name, why in REFUSED.items():
            error = self.assertRaises(HostError, checked, name)
            self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
            self.assertIn(why, error.message)
