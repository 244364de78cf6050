"""Letting tasks in: the rule on tables, the waiting on a clock, the files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.containers import admission
from uaihost.containers.admission import Admission, Room, obstacle
from uaihost.interfaces import Doing, Limits
from uaihost.test.support import given, short_folder, strategies
from uaihost.wire.reasons import Reason

GIB = 1 << 30
PLENTY = Room(memory=20 * GIB, total=24 * GIB, disk=100 * GIB, some=0.0, full=0.0)
LIMITS = Limits()


def reason(room: Room, limits: Limits = LIMITS, promised: int = 0) -> Reason | None:
    found = obstacle(room, limits, promised)
    return None if found is None else found.reason


class RuleTests(SynchronousTestCase):
    def test_plenty(self) -> None:
        self.assertIsNone(reason(PLENTY))

    def test_each_obstacle(self) -> None:
        for change, expected in (
            ({"memory": GIB}, Reason.MEMORY),
            ({"some": 20.0}, Reason.MEMORY),
            ({"full": 5.0}, Reason.MEMORY),
            ({"disk": GIB}, Reason.DISK),
            ({"memory": GIB, "disk": GIB}, Reason.DISK),
        ):
            self.assertEqual(reason(attrs.evolve(PLENTY, **change)), expected, change)

    def test_the_sentence_says_how_much_and_what_to_do(self) -> None:
        found = obstacle(attrs.evolve(PLENTY, memory=2 * GIB), LIMITS, 0)
        assert found is not None
        self.assertIn("2.0 GiB of memory are free and the task needs 1.0 GiB", found.text)
        self.assertIn("take a task down", found.text)

    def test_a_small_machine_lets_one_task_in(self) -> None:
        self.assertIsNone(reason(Room(memory=int(1.2 * GIB), total=2 * GIB, disk=10 * GIB)))

    def test_what_is_promised_is_not_free(self) -> None:
        tight = attrs.evolve(PLENTY, memory=3 * GIB)
        self.assertIsNone(reason(tight))
        self.assertEqual(reason(tight, promised=GIB), Reason.MEMORY)

    def test_a_system_that_tells_nothing_is_trusted(self) -> None:
        self.assertIsNone(reason(Room(memory=None, total=None, disk=10 * GIB)))

    @given(
        strategies.integers(0, 64 * GIB),
        strategies.integers(64 << 20, 64 * GIB),
        strategies.integers(0, 8 * GIB),
        strategies.integers(0, 8 * GIB),
    )
    def test_more_memory_never_shuts_a_task_out(self, free: int, total: int, limit: int, more: int) -> None:
        room = Room(memory=free, total=total, disk=10 * GIB)
        if obstacle(room, Limits(memory=limit), 0) is None:
            self.assertIsNone(obstacle(attrs.evolve(room, memory=free + more), Limits(memory=limit), 0))


class FileTests(SynchronousTestCase):
    def test_as_the_kernel_writes_them(self) -> None:
        folder = short_folder(self)
        (folder / "pressure").mkdir()
        (folder / "meminfo").write_text(
            "MemTotal:       24684092 kB\nMemFree:        100 kB\nMemAvailable:   24162508 kB\n"
        )
        (folder / "pressure" / "memory").write_text(
            "some avg10=12.50 avg60=0.00 avg300=0.00 total=18979\n"
            "full avg10=3.25 avg60=0.00 avg300=0.00 total=9380\n"
        )
        room = admission.look(folder, folder)
        self.assertEqual((room.total, room.memory), (24684092 << 10, 24162508 << 10))
        self.assertEqual((room.some, room.full), (12.5, 3.25))

    def test_this_machine(self) -> None:
        room = admission.look(Path("/tmp"))
        assert room.memory is not None and room.total is not None
        self.assertTrue(0 < room.memory <= room.total)
        self.assertGreater(room.disk, 0)

    def test_where_there_are_no_such_files(self) -> None:
        room = admission.look(Path("/tmp"), short_folder(self))
        self.assertEqual((room.memory, room.total, room.some, room.full), (None, None, None, None))


class AdmissionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.room = PLENTY
        self.said: list[str | Doing] = []
        self.admission = Admission(self.clock, Inline(), Path("/"), lambda _: self.room)

    def admit(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.admission.admit(LIMITS, self.said.append))

    def test_at_once_and_silently_when_there_is_room(self) -> None:
        self.successResultOf(self.admit())
        self.assertEqual(self.said, [])

    def test_it_waits_says_why_once_and_goes_on(self) -> None:
        self.room = attrs.evolve(PLENTY, memory=GIB)
        waiting = self.admit()
        self.clock.pump([1.0] * 5)
        self.assertNoResult(waiting)
        self.assertEqual([one.reason for one in self.said if isinstance(one, Doing)], [Reason.MEMORY])
        self.room = PLENTY
        self.clock.advance(1.0)
        self.successResultOf(waiting)

    def test_another_reason_is_told(self) -> None:
        self.room = attrs.evolve(PLENTY, memory=GIB)
        waiting = self.admit()
        self.room = attrs.evolve(PLENTY, disk=0)
        self.clock.advance(1.0)
        self.assertEqual(
            [one.reason for one in self.said if isinstance(one, Doing)], [Reason.MEMORY, Reason.DISK]
        )
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_ten_at_once_do_not_all_take_the_same_memory(self) -> None:
        # 5 GiB free, 1.2 GiB of them kept: room for three tasks.
        self.room = attrs.evolve(PLENTY, memory=5 * GIB)
        waiting = [self.admit() for _ in range(10)]
        self.assertEqual(sum(one.called for one in waiting), 3)
        # What they really use shows after a while; here it was little.
        self.clock.advance(61.0)
        self.assertEqual(sum(one.called for one in waiting), 6)
        self.assertEqual(len(self.clock.getDelayedCalls()), 4)
        for one in waiting[6:]:
            one.cancel()
            self.failureResultOf(one, CancelledError)

    def test_who_gives_up_holds_nothing(self) -> None:
        self.room = attrs.evolve(PLENTY, memory=GIB)
        waiting = self.admit()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.room = PLENTY
        self.successResultOf(self.admit())
