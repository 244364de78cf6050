"""Events of Twisted's log as records and lines, the ring of the newest ones, and the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.logger import Logger, LogPublisher
from twisted.python import log as older_log
from twisted.trial.unittest import TestCase

from uaihost.logs.file import RecordFile
from uaihost.logs.observers import ProcessLog
from uaihost.logs.recent import Recent
from uaihost.logs.records import FIELD_LIMIT, at_least, line
from uaihost.logs.redaction import MARK


class Case(TestCase):
    def setUp(self) -> None:
        process = ProcessLog("debug")
        self.redactor = process.redactor
        self.records: list[Mapping[str, Any]] = []
        process.to(self.records.append)
        self.publisher = LogPublisher(process)
        self.log = Logger("uaihost.some.room", observer=self.publisher)


class RecordTests(Case):
    def test_the_plain_fields_of_an_event(self) -> None:
        self.log.warn(
            "{task} waits for {what}", task="t1", command="c9", what="a disk", count=3, thing=object()
        )
        [made] = self.records
        self.assertRegex(made["time"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
        self.assertEqual(
            made,
            {
                "time": made["time"],
                "level": "warn",
                "logger": "uaihost.some.room",
                "message": "t1 waits for a disk",
                "task": "t1",
                "command": "c9",
                "fields": {"what": "a disk", "count": 3},
            },
        )

    def test_a_failure_has_its_trace_without_secrets(self) -> None:
        self.redactor.learn("hunter2hunter2")
        try:
            raise RuntimeError("the password was hunter2hunter2")
        except RuntimeError:
            self.log.failure("it failed")
        [made] = self.records
        self.assertEqual(made["level"], "critical")
        self.assertIn(f"the password was {MARK}", made["trace"])
        self.assertNotIn("hunter2", json.dumps(made))

    def test_a_secret_in_pieces_is_not_shown_piece_by_piece(self) -> None:
        self.redactor.learn("hunter2hunter2")
        self.log.info("{a}{b}", a="hunter2", b="hunter2", task="t1")
        [made] = self.records
        self.assertEqual((made["message"], made["task"], made.get("fields")), (MARK, "t1", None))

    def test_an_event_of_the_older_interface(self) -> None:
        older_log.LogPublisher(publishPublisher=self.publisher).msg("a line", "in parts", system="http")
        [made] = self.records
        found = (made["message"], made["level"], made.get("fields"))
        self.assertEqual(found, ("a line in parts", "info", None))

    def test_what_is_long_is_cut_and_says_so(self) -> None:
        self.log.info("{text}", text="x" * (FIELD_LIMIT + 5))
        [made] = self.records
        self.assertTrue(made["fields"]["text"].endswith("... (5 more characters)"))

    def test_what_cannot_be_formatted_is_still_a_record(self) -> None:
        self.log.info("{missing} and {broken.attribute}", broken=3)
        [made] = self.records
        self.assertIn("missing", made["message"])

    def test_a_message_cannot_look_like_another_record_nor_give_orders(self) -> None:
        said = "done\n2026-11-23T18:00:00.000Z info  uaihost.app: all is well\x1b]0;x\x07"
        shown = line({"time": "T", "level": "info", "logger": "l", "message": said, "task": "t\x9b"})
        first, second = shown.split("\n")
        self.assertEqual(first, "T info  l: done")
        self.assertTrue(second.startswith("    2026-11-23"))
        self.assertNotIn("\x1b", shown)
        self.assertNotIn("\x9b", shown)

    def test_a_line_for_people(self) -> None:
        made = {
            "time": "T",
            "level": "info",
            "logger": "room",
            "message": "t1 runs",
            "task": "t1",
            "command": "c2",
        }
        self.assertEqual(line(made), "T info  room: t1 runs command=c2")
        self.assertEqual(
            line({**made, "trace": "raised\nhere\n"}).splitlines()[1:], ["    raised", "    here"]
        )

    def test_levels_are_in_order(self) -> None:
        self.assertTrue(at_least("critical", "error"))
        self.assertFalse(at_least("info", "warn"))


class RecentTests(TestCase):
    def test_the_newest_are_kept_with_their_numbers(self) -> None:
        recent = Recent(kept=2)
        for message in "abc":
            recent.add({"message": message})
        self.assertEqual(recent.after(0), [(2, {"message": "b"}), (3, {"message": "c"})])
        self.assertEqual(recent.after(2), [(3, {"message": "c"})])

    def test_a_subscriber_hears_until_it_leaves(self) -> None:
        recent = Recent()
        heard: list[int] = []
        leave = recent.subscribe(lambda number, _: heard.append(number))
        recent.add({})
        leave()
        recent.add({})
        self.assertEqual(heard, [1])
        leave()

    def test_one_that_raises_is_not_told_again_and_harms_no_other(self) -> None:
        recent = Recent()
        calls: list[str] = []

        def broken(number: int, _: Any) -> None:
            calls.append("broken")
            raise ValueError

        recent.subscribe(broken)
        recent.subscribe(lambda number, _: calls.append("whole"))
        recent.add({})
        recent.add({})
        self.assertEqual(calls, ["broken", "whole", "whole"])


class FileTests(TestCase):
    def test_one_object_a_line_readable_by_its_owner_alone(self) -> None:
        path = Path(self.mktemp())
        file = RecordFile(path)
        file.add({"message": "two\nlines, ünïcode"})
        file.close()
        self.assertEqual(json.loads(path.read_text(encoding="utf-8")), {"message": "two\nlines, ünïcode"})
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_it_is_rotated_and_bounded(self) -> None:
        path = Path(self.mktemp())
        path.parent.mkdir(exist_ok=True)
        file = RecordFile(path, limit=200, older=2)
        for number in range(40):
            file.add({"message": f"{number:03}"})
        file.close()
        kept = sorted(found.name for found in path.parent.iterdir() if found.name.startswith(path.name))
        self.assertEqual(kept, [path.name, f"{path.name}.1", f"{path.name}.2"])
        lines = [json.loads(text)["message"] for text in path.read_text().splitlines()]
        self.assertEqual(lines[-1], "039")
        for name in kept:
            self.assertLess((path.parent / name).stat().st_size, 300)
            self.assertEqual((path.parent / name).stat().st_mode & 0o777, 0o600)
