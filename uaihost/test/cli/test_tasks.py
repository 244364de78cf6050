"""`uaihost task`: shown by its id alone, stopped, and exported without overwriting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import exits, tasks
from uaihost.cli.main import cli

EXPORT = {
    "download": "/api/downloads/x",
    "file": "t1.tar.gz",
    "bytes": 5,
    "live": True,
    "notes": {"shop": ["n"]},
}


class TaskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.asked: list[tuple[Any, ...]] = []
        self.answer: dict[str, Any] = {}
        self.patch(tasks, "verb", self.verb)
        self.patch(tasks, "fetch", lambda path, target: target.write_bytes(b"12345"))

    def verb(self, *asked: Any, patience: float) -> Any:
        self.asked.append(asked)
        return self.answer

    def run_verb(self, *words: str) -> Any:
        return CliRunner().invoke(cli, ["task", *words])

    def test_an_id_alone_shows_the_task(self) -> None:
        shown: list[str] = []

        def ask(path: str) -> Any:
            shown.append(path)
            return {"id": "t1"}

        self.patch(tasks, "_ask", ask)
        for words in (("t1", "--json"), ("show", "t1", "--json")):
            self.assertEqual(json.loads(self.run_verb(*words).output), {"id": "t1"})
        self.assertEqual(shown, ["/api/tasks/t1"] * 2)

    def test_a_task_named_like_a_verb_is_shown_by_the_whole_verb(self) -> None:
        self.patch(tasks, "_ask", lambda path: {"path": path})
        self.assertEqual(
            json.loads(self.run_verb("show", "stop", "--json").output), {"path": "/api/tasks/stop"}
        )

    def test_stopping_says_how_to_get_the_work_back(self) -> None:
        self.answer = {"status": "stopped", "saved": [{}], "restore": "uaihost restore t1"}
        output = self.run_verb("stop", "t1").output
        self.assertEqual(self.asked, [("task.stop", {"taskId": "t1"})])
        self.assertIn("t1 is stopped", output)
        self.assertIn("to get it back: uaihost restore t1", output)

    def test_an_export_lands_in_the_file_that_was_named(self) -> None:
        self.answer = EXPORT
        target = self.folder / "work.tar.gz"
        done = json.loads(self.run_verb("export", "t1", str(target), "--json").stdout)
        self.assertEqual(target.read_bytes(), b"12345")
        self.assertEqual(done, {"file": str(target), "bytes": 5, "live": True, "notes": {"shop": ["n"]}})

    def test_what_is_to_know_of_an_export_is_said(self) -> None:
        self.answer = {**EXPORT, "live": False}
        output = self.run_verb("export", "t1", str(self.folder / "w.tar.gz")).output
        self.assertIn("5 bytes, as it was kept", output)
        self.assertIn("shop: n", output)

    def test_a_file_that_exists_stays(self) -> None:
        target = self.folder / "mine"
        target.write_text("mine")
        done = self.run_verb("export", "t1", str(target))
        self.assertIn("exists; name another file", str(done.exception))
        self.assertEqual((self.asked, target.read_text()), ([], "mine"))

    def test_a_group_without_words_shows_its_verbs(self) -> None:
        done = self.run_verb()
        self.assertEqual(done.exit_code, exits.USAGE)
        self.assertIn("export", done.output)
