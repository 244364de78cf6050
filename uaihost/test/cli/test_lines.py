"""What is said of tasks on a terminal."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.lines import line, size, story, wait

NOW = 1000.0
WAITING = {"reason": "cloning", "text": "Receiving objects", "since": 990_000, "percent": 43}
TASK: dict[str, Any] = {"id": "01x", "status": "preparing", "message": None, "waiting": WAITING}


class LineTests(SynchronousTestCase):
    def test_a_wait_with_all_it_has(self) -> None:
        said = wait({**WAITING, "deadline": 1_090_000}, NOW)
        self.assertEqual(said, "cloning 43 %: Receiving objects (for 10 s, gives up in 90 s)")

    def test_a_wait_for_a_person_has_no_end(self) -> None:
        said = wait({"reason": "waiting-for-approval", "text": "", "since": 400_000}, NOW)
        self.assertEqual(said, "waiting-for-approval (for 10 min)")

    def test_a_task_that_waits(self) -> None:
        self.assertEqual(line(TASK, NOW), "01x  preparing  cloning 43 %: Receiving objects (for 10 s)")

    def test_a_task_that_runs(self) -> None:
        ports = [{"name": "web", "hostPort": 49153}, {"name": "port-5173", "hostPort": 0}]
        usage = {"memoryBytes": 734 << 20, "cpuPercent": 12.4}
        task = {"id": "01x", "status": "running", "previewPorts": ports, "usage": usage}
        self.assertEqual(line(task, NOW), "01x  running  734 MiB 12 %  web=49153  port-5173=tunnel")

    def test_a_failure_shows_its_first_line(self) -> None:
        task = {"id": "01x", "status": "failed", "message": "clone: gone\nmore"}
        self.assertEqual(line(task, NOW), "01x  failed  clone: gone")

    def test_the_whole_story(self) -> None:
        steps = [
            {"step": "image", "state": "done", "elapsedMs": 12},
            {
                "step": "clone shop",
                "state": "failed",
                "elapsedMs": 2100,
                "message": "status 128\nno such branch",
            },
            {"step": "container", "state": "started", "elapsedMs": None},
        ]
        check = {"name": "metadata", "outcome": "blocked", "required": True, "detail": "not reached"}
        report = {"passed": True, "checks": [check]}
        ended = {"at": 1, "exitCode": 137, "outOfMemory": True, "text": "it was out of memory"}
        task = {**TASK, "message": "trying", "steps": steps, "report": report, "ended": ended}
        said = story(task, NOW).splitlines()
        self.assertEqual(said[1], "  trying")
        self.assertRegex(said[2], r"^  ok +0\.01 s  image$")
        self.assertRegex(said[3], r"^  FAILED +2\.10 s  clone shop$")
        self.assertEqual([text.strip() for text in said[4:6]], ["status 128", "no such branch"])
        self.assertRegex(said[6], r"^  \.\.\. +container$")
        self.assertEqual(said[7], "  last end of its container: it was out of memory")
        self.assertEqual(said[8], "  isolation: all that must be closed is")
        self.assertEqual(said[9:], ["    blocked  metadata: not reached"])

    def test_sizes(self) -> None:
        self.assertEqual([size(5 << 20), size(3 << 30)], ["5 MiB", "3.0 GiB"])
