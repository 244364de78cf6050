"""`uaihost logs`: which records it shows, and that none is missed or shown twice at a rotation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import TestCase

from uaihost.cli.logs import Tail, _since, logs
from uaihost.logs.file import RecordFile
from uaihost.paths import Folders


def made(message: str, **more: str) -> dict[str, Any]:
    return {"time": "2026-01-02T03:04:05.000Z", "level": "info", "logger": "room", "message": message, **more}


class LogsTests(TestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.path = Folders(folder).log
        self.environ = {"UAI_DATA_DIR": str(folder)}

    def write(self, *records: dict[str, Any], **bounds: int) -> None:
        file = RecordFile(self.path, **bounds)
        for record in records:
            file.add(record)
        file.close()

    def run_logs(self, *words: str) -> Any:
        return CliRunner().invoke(logs, list(words), env=self.environ)

    def messages(self, *words: str) -> list[str]:
        output = self.run_logs("--json", *words).output
        return [json.loads(text)["message"] for text in output.splitlines()]

    def test_the_newest_come_last(self) -> None:
        self.write(*(made(str(number)) for number in range(5)))
        self.assertEqual(self.messages("-n", "3"), ["2", "3", "4"])

    def test_lines_for_people(self) -> None:
        self.write(made("hello", task="t1"))
        self.assertEqual(self.run_logs().output, "2026-01-02T03:04:05.000Z info  room: hello task=t1\n")

    def test_by_task_level_and_time(self) -> None:
        late = "2026-01-02T03:05:00.000Z"
        self.write(made("a", task="t1"), made("b", level="error"), made("c", time=late))
        self.assertEqual(self.messages("--task", "t1"), ["a"])
        self.assertEqual(self.messages("--level", "warn"), ["b"])
        self.assertEqual(self.messages("--since", "2026-01-02T03:04:30Z"), ["c"])
        self.assertEqual(self.messages("--since", "1m"), [])

    def test_a_bad_time_says_what_is_good(self) -> None:
        found = self.run_logs("--since", "yesterday")
        self.assertEqual(found.exit_code, 2)
        self.assertIn("10m", found.output)

    def test_spans(self) -> None:
        self.assertEqual(_since("90s", 1000.0), "1970-01-01T00:15:10.000Z")
        self.assertEqual(_since("2d", 172800.0), "1970-01-01T00:00:00.000Z")

    def test_older_files_come_first(self) -> None:
        self.write(*(made(f"{number:02}") for number in range(12)), limit=300, older=3)
        self.assertTrue(self.path.with_name(f"{self.path.name}.2").exists())
        found = self.messages()
        self.assertEqual(found, sorted(found))
        self.assertEqual(found[-1], "11")

    def test_lines_that_are_no_records_are_passed_over(self) -> None:
        self.path.write_text('half of a li\n{"message": 1}\n[]\n' + json.dumps(made("whole")) + "\n")
        self.assertEqual(self.messages(), ["whole"])

    def test_without_a_log_it_says_so(self) -> None:
        found = self.run_logs()
        self.assertIn("nothing was logged yet", str(found.exception))

    def test_what_comes_is_seen_once_whatever_is_rotated(self) -> None:
        tail = Tail(self.path)
        self.assertEqual(list(tail.stored()), [])
        file = RecordFile(self.path, limit=250, older=30)
        seen = []
        for number in range(20):
            file.add(made(f"{number:02}"))
            seen += [record["message"] for record in tail.more()]
        file.close()
        self.assertEqual(seen, [f"{number:02}" for number in range(20)])

    def test_a_line_that_is_not_whole_yet_waits(self) -> None:
        text = json.dumps(made("whole")) + "\n"
        tail = Tail(self.path)
        with self.path.open("w") as file:
            file.write(text[:20])
            file.flush()
            self.assertEqual(list(tail.more()), [])
            file.write(text[20:])
            file.flush()
            self.assertEqual([record["message"] for record in tail.more()], ["whole"])
