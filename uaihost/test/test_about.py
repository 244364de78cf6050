"""Names follow the work that they are about, and no other."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from uaihost.about import about, current
from uaihost.logs.observers import ProcessLog


class AboutTests(SynchronousTestCase):
    def test_it_is_about_nothing_to_begin_with(self) -> None:
        self.assertEqual(current(), {})

    def test_inner_names_stand_beside_outer_ones_and_go(self) -> None:
        with about(command="c1"):
            with about(task="t1", command=None):
                self.assertEqual(current(), {"command": "c1", "task": "t1"})
            self.assertEqual(current(), {"command": "c1"})
        self.assertEqual(current(), {})

    def test_two_coroutines_that_take_turns_keep_their_own(self) -> None:
        gates: list[Deferred[None]] = [Deferred(), Deferred()]
        process = ProcessLog("info")
        log = Logger("room", observer=LogPublisher(process))

        async def work(name: str, gate: Deferred[None]) -> None:
            with about(task=name):
                await gate
                log.info("awake", command="own")

        running: list[Deferred[Any]] = [
            Deferred.fromCoroutine(work(name, gate)) for name, gate in zip("ab", gates, strict=True)
        ]
        for gate in reversed(gates):
            gate.callback(None)
        for each in running:
            self.successResultOf(each)
        log.info("outside")
        found = [(made.get("task"), made.get("command")) for _, made in process.recent.after()]
        self.assertEqual(found, [("b", "own"), ("a", "own"), (None, None)])
