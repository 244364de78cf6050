"""Commands reach their host at least once, and their callers exactly one result."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from uaihost.bridge import store
from uaihost.bridge.calls import LATE, within
from uaihost.errors import ErrorCode, HostError
from uaihost.test.bridge.rig import BridgeCase


class CallsTests(BridgeCase):
    def call(
        self, name: str = "taskStatus", timeout: float | None = 10, task: str | None = None
    ) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.calls.command("host-1", name, ["t"], timeout, task))

    def error(self, work: Deferred[Any]) -> HostError:
        error: HostError = self.failureResultOf(work, HostError).value
        return error

    def pending(self) -> list[str]:
        rows = self.successResultOf(self.database.run(store.commands))
        return [row.name for row in rows]

    def test_a_value(self) -> None:
        socket = self.connect()
        work = self.call()
        (command,) = self.commands(socket)
        self.assertEqual((command["command"], command["args"]), ("taskStatus", ["t"]))
        self.answer(socket, command, {"status": "running"})
        self.assertEqual(self.successResultOf(work), {"status": "running"})
        self.assertEqual(self.pending(), [])

    def test_a_failure(self) -> None:
        socket = self.connect()
        work = self.call()
        self.refuse(socket, self.commands(socket)[0], "clone_failed", "no such repository")
        error = self.error(work)
        self.assertEqual((error.code, error.message), (ErrorCode.CLONE_FAILED, "no such repository"))

    def test_results_that_are_none(self) -> None:
        socket = self.connect()
        results: tuple[Any, ...] = (
            None,
            [],
            {},
            {"ok": False},
            {"ok": False, "code": "new_code", "message": "x"},
            {"ok": 1},
        )
        for result in results:
            work = self.call()
            command = self.commands(socket)[-1]
            socket.hear(kind="result", commandId=command["commandId"], result=result)
            self.assertEqual(self.error(work).code, ErrorCode.INTERNAL)

    def test_a_command_is_a_row_before_it_is_sent(self) -> None:
        self.call()
        self.assertEqual(self.pending(), ["taskStatus"])

    def test_it_is_sent_again_with_the_same_id_until_it_is_answered(self) -> None:
        first = self.connect()
        work = self.call()
        first.receiver.closed(1006, "")
        second = self.connect()
        self.assertEqual(self.commands(first), self.commands(second))
        self.answer(second, self.commands(second)[0], 1)
        self.assertEqual(self.successResultOf(work), 1)
        third = self.connect()
        self.assertEqual(self.commands(third), [])

    def test_what_waits_is_sent_in_the_order_in_which_it_was_asked(self) -> None:
        for name in ("one", "two", "three"):
            self.call(name)
            self.clock.advance(0.01)
        socket = self.connect()
        self.assertEqual([command["command"] for command in self.commands(socket)], ["one", "two", "three"])

    def test_only_its_own_host_is_asked_and_believed(self) -> None:
        other = self.connect("host-2")
        socket = self.connect("host-1")
        work = self.call()
        self.assertEqual(self.commands(other), [])
        self.answer(other, self.commands(socket)[0], "forged")
        self.assertNoResult(work)

    def test_a_repeated_result_changes_nothing(self) -> None:
        socket = self.connect()
        work = self.call()
        command = self.commands(socket)[0]
        self.answer(socket, command, 1)
        self.answer(socket, command, 2)
        self.assertEqual(self.successResultOf(work), 1)

    def test_time_is_up(self) -> None:
        socket = self.connect()
        work = self.call(timeout=10)
        self.clock.advance(10)
        self.assertEqual(self.error(work).code, ErrorCode.TIMEOUT)
        self.assertEqual(self.pending(), [])
        self.answer(socket, self.commands(socket)[0], "late")

    def test_a_timeout_says_that_the_host_is_gone(self) -> None:
        work = self.call(timeout=10)
        self.clock.advance(10)
        self.assertIn("not connected", self.error(work).message)

    def test_a_restarted_bridge_goes_on_with_what_was_pending(self) -> None:
        socket = self.connect()
        self.call("taskUp", None, "t")
        sent = self.commands(socket)
        self.begin(self.database)
        resumed = self.calls.resume("t", "taskUp")
        assert resumed is not None
        self.assertIsNone(self.calls.resume("t", "taskDown"))
        socket = self.connect()
        self.assertEqual(self.commands(socket), sent)
        self.answer(socket, sent[0], {"status": "running"})
        self.assertEqual(self.successResultOf(resumed), {"status": "running"})

    def test_a_failure_that_nobody_waits_for_any_more_is_logged_only(self) -> None:
        self.call("taskUp", None, "t")
        self.begin(self.database)
        socket = self.connect()
        self.refuse(socket, self.commands(socket)[0], "internal", "too late")
        self.assertEqual(self.pending(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class WithinTests(BridgeCase):
    def test_in_time(self) -> None:
        work: Deferred[int] = Deferred()
        waiting = Deferred.fromCoroutine(within(self.clock, work, 5, self.fail))
        work.callback(1)
        self.assertEqual(self.successResultOf(waiting), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_work_goes_on_and_its_failure_is_told(self) -> None:
        told: list[HostError] = []
        work: Deferred[int] = Deferred()
        waiting = Deferred.fromCoroutine(within(self.clock, work, 5, told.append))
        self.clock.advance(5)
        self.assertIs(self.successResultOf(waiting), LATE)
        work.errback(HostError(ErrorCode.CONFLICT, "no"))
        self.assertEqual([error.message for error in told], ["no"])
