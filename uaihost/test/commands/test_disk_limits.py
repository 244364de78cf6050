"""Tasks that fill their share of the disk, on a clock."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.commands.disk import Disk, TaskUsage
from uaihost.commands.disk_limits import PERIOD, REPEAT, DiskLimits, shown
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, strategies

LIMIT = 10 << 30


class FakeDisk:
    def __init__(self) -> None:
        self.usages: dict[str, TaskUsage] = {}

    async def usage(self, task_id: str) -> TaskUsage:
        if task_id not in self.usages:
            raise HostError(ErrorCode.UNAVAILABLE, "cannot be read")
        return self.usages[task_id]


class DiskLimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.disk = FakeDisk()
        self.notes: list[tuple[str, str]] = []
        self.tasks = ["broken", "one"]
        self.limits = DiskLimits(self.clock, cast(Disk, self.disk), self.running, self.note, LIMIT)
        self.limits.start()
        self.addCleanup(self.limits.stop)

    async def running(self) -> list[str]:
        return self.tasks

    async def note(self, task_id: str, text: str) -> None:
        self.notes.append((task_id, text))

    def full(self, percent: int, **changes: Any) -> None:
        half = LIMIT * percent // 200
        self.disk.usages["one"] = TaskUsage(
            half, half, 0, (("/workspace/shop/node_modules", half),), **changes
        )

    def passes(self, seconds: float = PERIOD) -> list[str]:
        """What is told meanwhile."""
        before = len(self.notes)
        for _ in range(round(seconds / PERIOD)):
            self.clock.advance(PERIOD)
        return [text for task_id, text in self.notes[before:] if task_id == "one"]

    def test_a_task_with_room_hears_nothing(self) -> None:
        self.full(89)
        self.assertEqual(self.passes(3 * PERIOD), [])

    def test_nearly_full_is_told_once_with_what_is_large(self) -> None:
        self.full(91)
        told = self.passes(5 * PERIOD)
        self.assertEqual(len(told), 1)
        self.assertIn("nearly full: it uses 9.1 GiB of 10.0 GiB", told[0])
        self.assertIn("/workspace/shop/node_modules 4.5 GiB", told[0])
        self.assertIn("UAI_TASK_DISK", told[0])

    def test_to_and_fro_at_the_border_is_told_once(self) -> None:
        for percent in (91, 89, 91, 85, 92):
            self.full(percent)
            self.passes()
        self.assertEqual(len(self.notes), 1)
        for percent in (70, 91):
            self.full(percent)
            self.passes()
        self.assertEqual(len(self.notes), 2)

    def test_full_is_told_every_hour_and_at_once(self) -> None:
        self.full(91)
        self.passes()
        self.full(100)
        self.assertIn("disk is full", self.passes()[0])
        self.assertEqual(self.passes(REPEAT - PERIOD), [])
        self.assertEqual(len(self.passes()), 1)
        self.assertEqual(len(self.passes(3 * REPEAT)), 3)

    def test_what_was_not_counted_is_admitted(self) -> None:
        self.full(120, whole=False)
        self.assertIn("at least 12.0 GiB", self.passes()[0])

    def test_a_task_that_ended_is_forgotten(self) -> None:
        self.full(100)
        self.passes()
        self.tasks = []
        self.passes()
        self.tasks = ["one"]
        self.assertEqual(len(self.passes()), 1)

    @given(strategies.text())
    def test_names_of_agents_speak_to_nobody(self, name: str) -> None:
        self.assertRegex(shown(name), r"\A[A-Za-z0-9._/+?-]*\Z")
        self.assertLessEqual(len(shown(name)), 80)
