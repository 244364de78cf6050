"""Services that start in steps: their failures, and that they undo what they did, in order."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import ErrorCode, HostError, OwnerNeeded
from uaihost.staged import StagedService


class Two(StagedService):
    """Two steps; the second waits for `gate`."""

    def __init__(self) -> None:
        self.fatal: list[str] = []
        self.refused: list[str] = []
        super().__init__("the thing", self.fatal.append, self.refused.append)
        self.done: list[str] = []
        self.gate: Deferred[None] = Deferred()

    async def begin(self) -> None:
        self.undo.append(lambda: self.done.append("first undone"))
        await self.gate
        self.undo.append(self.slow)

    async def slow(self) -> None:
        self.done.append("second undone")


class StagedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.service = Two()
        self.service.startService()

    def test_started_waits_for_the_last_step(self) -> None:
        waiting = Deferred.fromCoroutine(self.service.started())
        self.assertNoResult(waiting)
        self.service.gate.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_steps_are_undone_in_the_opposite_order(self) -> None:
        self.service.gate.callback(None)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.service.done, ["second undone", "first undone"])

    def test_stopping_while_starting_undoes_what_was_done_and_is_no_failure(self) -> None:
        self.successResultOf(self.service.stopService())
        self.assertEqual((self.service.done, self.service.fatal), (["first undone"], []))

    def test_a_failure_with_advice_is_told_as_it_is(self) -> None:
        self.service.gate.errback(HostError(ErrorCode.CONFLICT, "stop the other one"))
        self.assertEqual(self.service.fatal, ["the thing cannot start: stop the other one"])
        error = self.failureResultOf(self.service.started(), HostError).value
        self.assertEqual(error.code, ErrorCode.CONFLICT)

    def test_what_only_the_owner_can_mend_is_told_apart(self) -> None:
        self.service.gate.errback(OwnerNeeded(ErrorCode.CONFLICT, "install the newer one"))
        self.assertEqual(self.service.refused, ["the thing cannot start: install the newer one"])
        self.assertEqual(self.service.fatal, [])

    def test_a_defect_is_logged_and_told(self) -> None:
        self.service.gate.errback(ZeroDivisionError("by zero"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("by zero", self.service.fatal[0])

    def test_one_part_that_does_not_stop_keeps_no_other_from_it(self) -> None:
        def broken() -> None:
            raise ZeroDivisionError

        self.service.gate.callback(None)
        self.service.undo.append(broken)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.service.done, ["second undone", "first undone"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
