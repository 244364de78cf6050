"""Measuring what tasks use: on a clock, with the engine in memory."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.commands.resources import PERIOD, Resources
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Engine, Journal, Launch
from uaihost.test.fakes_containers import FakeEngine


class Listener:
    """The part of a journal that is used: what is told for the moment."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def fleeting(self, event: Any) -> None:
        self.told.append(event)


class ResourcesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = FakeEngine()
        self.journal = Listener()
        self.resources = Resources(
            self.clock, cast(Journal, self.journal), cast(Engine, self.engine), self.running
        )
        for task_id in ("one", "two"):
            launch = Launch(task_id, "small", 1000, 1000, (), ())
            self.successResultOf(self.engine.launch(launch))

    async def running(self) -> list[str]:
        return ["one", "two"]

    def test_each_running_task_is_told_every_period(self) -> None:
        self.resources.start()
        self.clock.advance(PERIOD)
        self.assertEqual([event.taskId for event in self.journal.told], ["one", "two"])
        self.assertEqual({event.at for event in self.journal.told}, {int(PERIOD * 1000)})
        self.clock.advance(PERIOD)
        self.assertEqual(len(self.journal.told), 4)
        usage = self.successResultOf(self.engine.usage("one"))
        self.assertEqual(self.resources.last("one"), usage)
        self.assertEqual(self.journal.told[0].memoryBytes, usage.memory)

    def test_one_that_ended_is_left_out_and_forgotten(self) -> None:
        self.resources.start()
        self.clock.advance(PERIOD)
        self.engine.stop("one")
        self.clock.advance(PERIOD)
        self.assertEqual([event.taskId for event in self.journal.told], ["one", "two", "two"])
        self.assertIsNone(self.resources.last("one"))

    def test_an_absent_engine_stops_nothing(self) -> None:
        self.engine.fail = HostError(ErrorCode.UNAVAILABLE, "the engine is away")
        self.resources.start()
        self.clock.advance(PERIOD)
        self.assertEqual(self.journal.told, [])
        self.engine.fail = None
        self.clock.advance(PERIOD)
        self.assertEqual(len(self.journal.told), 2)

    def test_after_the_end_nothing_is_measured(self) -> None:
        self.resources.start()
        self.resources.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
