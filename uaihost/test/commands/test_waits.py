"""What tasks wait for: which reason is shown, when it is told, where it ends; and docs/tasks.md beside it."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.commands.lifecycle import TABLE
from uaihost.commands.waits import ADVICE, LIMITS, LINGER, PAUSE, Waits
from uaihost.errors import ErrorCode
from uaihost.interfaces import Doing
from uaihost.test.support import given, strategies
from uaihost.wire.reasons import Reason

DOCUMENT = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")


class DocumentTests(TestCase):
    def test_the_reasons_and_their_limits(self) -> None:
        found = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| (\d+|none) \|$", DOCUMENT, re.M))
        published = {
            reason.value: "none" if limit is None else f"{limit:.0f}" for reason, limit in LIMITS.items()
        }
        self.assertEqual(found, published)
        self.assertEqual(set(LIMITS), set(Reason))
        self.assertEqual(set(ADVICE), {reason for reason, limit in LIMITS.items() if limit is not None})

    def test_the_states(self) -> None:
        found = set(re.findall(r"^\| `(\w+)` \| `([A-Z_]+)` \| `(\w+)` \|$", DOCUMENT, re.M))
        table = {
            (status.value, happened.name, after.value)
            for status, row in TABLE.items()
            for happened, after in row.items()
        }
        self.assertEqual(found, table)


class WaitsTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.told: list[tuple[str, int | None] | None] = []
        self.waits = Waits(self.clock, self.tell)

    def tell(self, task_id: str) -> None:
        now = self.waits.now(task_id)
        self.told.append(None if now is None else (now.reason.value, now.percent))

    def shown(self) -> str | None:
        now = self.waits.now("t1")
        return None if now is None else now.reason.value

    def test_of_work_the_first_begun_is_shown_and_it_hides_what_stands(self) -> None:
        self.waits.stand("t1", Reason.APPROVAL, "@ada asks")
        self.assertEqual(self.shown(), "waiting-for-approval")
        clone = self.waits.begin("t1", Reason.CLONING, "clone")
        container = self.waits.begin("t1", Reason.CONTAINER, "container")
        self.assertEqual(self.shown(), "cloning")
        clone.end()
        clone.end()
        self.assertEqual(self.shown(), "container-starting")
        container.end()
        self.assertEqual(self.shown(), "waiting-for-approval")
        self.waits.lift("t1", Reason.APPROVAL)
        self.assertIsNone(self.shown())

    def test_what_it_says_of_itself(self) -> None:
        wait = self.waits.begin("t1", Reason.CLONING, "clone shop")
        self.clock.advance(3)
        wait.say(Doing(Reason.CLONING, "Receiving objects", 143))
        now = self.waits.now("t1")
        assert now is not None
        self.assertEqual(
            (now.reason, now.text, now.percent, now.since, now.deadline),
            (Reason.CLONING, "Receiving objects", 100, 1_000_000, 2_800_000),
        )
        self.assertEqual(self.waits.all(), {"t1": now})
        wait.end()
        self.assertEqual(self.waits.all(), {})

    def test_percents_are_told_once_a_second_and_the_last_one_is_told(self) -> None:
        wait = self.waits.begin("t1", Reason.CLONING, "clone")
        self.clock.advance(LINGER)
        for percent in range(100):
            wait.say(Doing(Reason.CLONING, "Receiving", percent))
            self.clock.advance(0.01)
        self.clock.advance(PAUSE)
        self.assertEqual(self.told[0], ("cloning", None))
        self.assertEqual(self.told[-1], ("cloning", 99))
        self.assertTrue(len(self.told) <= 3, self.told)

    def test_a_new_reason_is_told_at_once(self) -> None:
        wait = self.waits.begin("t1", Reason.CLONING, "clone")
        self.clock.advance(LINGER)
        wait.say(Doing(Reason.CLONING, "Receiving", 5))
        wait.say(Doing(Reason.COPYING, "copying"))
        self.clock.advance(LINGER)
        wait.end()
        self.clock.advance(LINGER)
        self.assertEqual(self.told, [("cloning", None), ("copying", None), None])

    def test_what_passes_at_once_is_not_told(self) -> None:
        self.waits.begin("t1", Reason.ISOLATION, "check").end()
        self.clock.advance(PAUSE)
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))

    def test_what_is_told_by_other_means_is_not_told_again(self) -> None:
        self.waits.stand("t1", Reason.PARKED, "parked", since=5)
        self.waits.quiet("t1")
        self.clock.advance(PAUSE)
        self.assertEqual(self.told, [])
        now = self.waits.now("t1")
        assert now is not None
        self.assertEqual((now.since, now.deadline), (5, None))

    def test_at_its_deadline_a_wait_says_what_to_do(self) -> None:
        ended: list[str] = []
        wait = self.waits.begin("t1", Reason.DISK, "0.1 GiB are free", lambda: ended.append("now"))
        self.clock.advance(599.9)
        self.assertEqual((ended, wait.expired), ([], None))
        self.clock.advance(0.2)
        self.assertEqual((ended, wait.expired), (["now"], Reason.DISK))
        error = wait.failure()
        self.assertIs(error.code, ErrorCode.TIMEOUT)
        for part in ("600 s", "0.1 GiB are free", "uaihost gc", "send taskUp again"):
            self.assertIn(part, error.message)

    @given(
        strategies.lists(strategies.sampled_from([Reason.SETUP, Reason.EDITOR, Reason.TOOLS]), max_size=60)
    )
    def test_changing_reasons_buys_no_time(self, reasons: list[Reason]) -> None:
        """What is said inside a container may be anybody's: each reason has its limit once."""
        clock = Clock()
        ended: list[float] = []
        waits = Waits(clock, lambda task_id: None)
        wait = waits.begin("t1", Reason.SETUP, "setup", lambda: ended.append(clock.seconds()))
        bound = 600.0 + 60.0 + 900.0
        for reason in reasons:
            wait.say(Doing(reason, "x"))
            clock.advance(31)
        clock.pump([10] * 156)
        self.assertEqual(len(ended), 1)
        self.assertTrue(ended[0] <= bound + 31)
        wait.say(Doing(Reason.CLONING, "too late"))
        self.assertEqual((wait.reason in (Reason.SETUP, *reasons), clock.getDelayedCalls()), (True, []))

    def test_what_waits_for_people_has_no_deadline(self) -> None:
        self.waits.stand("t1", Reason.APPROVAL, "@ada asks")
        self.clock.advance(LINGER)
        self.clock.advance(10_000_000)
        self.assertEqual(
            (self.shown(), self.told), ("waiting-for-approval", [("waiting-for-approval", None)])
        )

    def test_one_stands_per_reason(self) -> None:
        self.waits.stand("t1", Reason.ENGINE, "refused")
        self.waits.stand("t1", Reason.ENGINE, "does not answer")
        now = self.waits.now("t1")
        assert now is not None
        self.assertEqual(now.text, "does not answer")
        self.waits.lift("t1", Reason.ENGINE)
        self.assertIsNone(self.shown())
