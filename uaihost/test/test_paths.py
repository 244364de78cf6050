"""Where things lie, and which names may become parts of paths."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.paths import SOCKET_LIMIT, Folders, checked, checked_task, data_files
from uaihost.test.support import given, strategies


class FolderTests(TestCase):
    def test_the_layout(self) -> None:
        folders = Folders(Path("/data"))
        found = [
            folders.database, folders.lock, folders.control_socket, folders.mirror("k"),
            folders.work_copy("t", "s"), folders.run("t"), folders.run_socket("t", "init.sock"),
            folders.attachments("t"), folders.transcript("t"),
        ]  # fmt: skip
        self.assertEqual(
            [str(path.relative_to("/data")) for path in found],
            [
                "state.db", "lock", "control.sock", "mirrors/k.git", "tasks/t/work/s",
                "tasks/t/run", "tasks/t/run/init.sock", "tasks/t/attachments", "transcripts/t.jsonl",
            ],
        )  # fmt: skip

    @given(strategies.text(alphabet="aZ0._-/\\ \0\n\u00e9", max_size=70))
    def test_no_name_leaves_its_folder(self, name: str) -> None:
        root = Path("/data/tasks")
        for check in (checked_task, lambda value: checked(value, "slug")):
            try:
                path = root / check(name)
            except HostError as error:
                self.assertIs(error.code, ErrorCode.INVALID_ARGS)
                continue
            self.assertEqual((path.parent, path.name), (root, name))
            self.assertNotIn(name[0], ".-")

    def test_a_task_id_is_part_of_a_host_name(self) -> None:
        self.assertEqual(checked_task("Task_1-a"), "Task_1-a")
        for bad in ("", "a.b", "_a", "a" * 65, "a\n"):
            self.assertRaises(HostError, checked_task, bad)

    def test_a_path_too_long_for_a_socket_is_refused_with_what_to_do(self) -> None:
        fits = Folders(Path("/" + "x" * (SOCKET_LIMIT - len("/control.sock") - 1)))
        self.assertEqual(len(str(fits.control_socket)), SOCKET_LIMIT)
        too_long = Folders(Path(f"{fits.root}x"))
        error = self.assertRaises(HostError, lambda: too_long.control_socket)
        self.assertIn("UAI_DATA_DIR", error.message)
        self.assertRaises(HostError, fits.run_socket, "t", "init.sock")

    def test_the_migrations_are_found(self) -> None:
        self.assertTrue((data_files("migrations") / "0001_core.sql").is_file())
        self.assertRaises(FileNotFoundError, data_files, "nothing-of-that-name")
