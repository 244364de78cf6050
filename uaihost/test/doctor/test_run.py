"""How checks are run: in their order, within their time, whatever one of them does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from uaihost.doctor.checks import CHECKS
from uaihost.doctor.model import Check, Finding, Report, Verdict, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient
from uaihost.doctor.run import CLEARING, Examination, chosen, in_the_file, without_sudo
from uaihost.errors import ErrorCode, HostError
from uaihost.test.doctor.patients import patient


def finds(finding: Finding) -> Callable[[Patient], Awaitable[Finding]]:
    async def look(_: Patient) -> Finding:
        return finding

    return look


def waits(on: Deferred[Finding]) -> Callable[[Patient], Awaitable[Finding]]:
    async def look(_: Patient) -> Finding:
        return await on

    return look


def raises(error: Exception) -> Callable[[Patient], Awaitable[Finding]]:
    async def look(_: Patient) -> Finding:
        raise error

    return look


class ModelTests(SynchronousTestCase):
    def test_the_worst_of_several_leads(self) -> None:
        found = together(
            [ok("fine", a=1), warn("slow", "faster"), fail("broken", "mend"), warn("old", "mend")]
        )
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertEqual(found.text, "broken; slow; old")
        self.assertEqual(found.fix, ("mend", "faster"))
        self.assertEqual(found.facts, {"a": 1})

    def test_what_is_well_is_told_when_all_is(self) -> None:
        self.assertEqual(together([ok("one"), ok(""), ok("two")]).text, "one; two")

    def test_verdicts_have_an_order(self) -> None:
        self.assertEqual(sorted(Verdict, key=lambda verdict: verdict.badness), list(Verdict))


class SudoTests(SynchronousTestCase):
    def test_root_without_sudo_types_the_rest(self) -> None:
        for line, typed in (
            ("sudo systemctl start docker", "systemctl start docker"),
            ("sudo apt-get update && sudo apt-get install git", "apt-get update && apt-get install git"),
            ("sudo -u uaihost uaihost doctor", "runuser -u uaihost -- uaihost doctor"),
            ("date   # if not: sudo timedatectl set-ntp true", "date   # if not: timedatectl set-ntp true"),
            ("ls /etc/sudoers", "ls /etc/sudoers"),
        ):
            self.assertEqual(without_sudo(line), typed)

    def test_a_setting_of_a_service_stands_in_its_file(self) -> None:
        file = Path("/nonexistent/uaihost.toml")
        edits = f"sudo ${{EDITOR:-nano}} {file}"
        self.assertEqual(
            in_the_file("export UAI_DISK_BUDGET=1G", file),
            f'{edits}   # disk_budget = "1G"; then: uaihost restart',
        )
        self.assertEqual(
            in_the_file("# or for good: export UAI_HOST_BRIDGE_PORT=8790", file),
            f'# or for good: {edits}   # bridge_port = "8790"; then: uaihost restart',
        )
        # Its unit says where the data lies.
        self.assertEqual(in_the_file("export UAI_DATA_DIR=/srv", file), "export UAI_DATA_DIR=/srv")
        mine = Path(self.mktemp()).absolute()
        mine.touch()
        self.assertTrue(in_the_file("export UAI_EGRESS=proxy", mine).startswith("${EDITOR:-nano} /"))


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.heard: list[str] = []

    def begin(self, *checks: Check, whole: float = 55.0) -> Deferred[Report]:
        examination = Examination(
            patient(Path("/nonexistent"), reactor=self.clock),
            checks,
            began=lambda check: self.heard.append(f"began {check.name}"),
            done=lambda result: self.heard.append(f"done {result.name}"),
            whole=whole,
        )
        return Deferred.fromCoroutine(examination.run())

    def test_results_come_in_the_order_of_the_checks(self) -> None:
        slow: Deferred[Finding] = Deferred()
        running = self.begin(Check("a", "A", waits(slow)), Check("b", "B", finds(ok("b"))))
        self.assertEqual(self.heard, ["began a", "began b", "done b"])
        self.clock.advance(2)
        slow.callback(ok("a"))
        report = self.successResultOf(running)
        self.assertEqual([one.name for one in report.results], ["a", "b"])
        self.assertEqual(report.results[0].seconds, 2)
        self.assertFalse(report.failed)

    def test_what_needs_a_failed_one_is_skipped(self) -> None:
        report = self.successResultOf(
            self.begin(
                Check("a", "A", finds(fail("no", "mend"))),
                Check("b", "B", finds(ok("b")), ("a",)),
                Check("c", "C", finds(ok("c")), ("b",)),
            )
        )
        self.assertEqual([one.finding.verdict for one in report.results], ["fail", "skipped", "skipped"])
        self.assertIn("`a`, which failed", report.results[1].finding.text)
        self.assertIn("`b`, which was skipped", report.results[2].finding.text)
        self.assertTrue(report.failed)

    def test_a_need_that_is_not_run_hinders_nothing(self) -> None:
        report = self.successResultOf(self.begin(Check("b", "B", finds(ok("b")), ("a",))))
        self.assertEqual(report.results[0].finding.verdict, Verdict.OK)

    def test_a_warning_hinders_nothing(self) -> None:
        report = self.successResultOf(
            self.begin(Check("a", "A", finds(warn("so"))), Check("b", "B", finds(ok("b")), ("a",)))
        )
        self.assertEqual(report.results[1].finding.verdict, Verdict.OK)

    def test_what_a_check_raises_is_a_finding(self) -> None:
        report = self.successResultOf(
            self.begin(
                Check("a", "A", raises(HostError(ErrorCode.UNAVAILABLE, "the disk is full"))),
                Check("b", "B", raises(ZeroDivisionError("division by zero"))),
                Check("c", "C", finds(ok("c"))),
            )
        )
        self.assertEqual([one.finding.verdict for one in report.results], ["fail", "fail", "ok"])
        self.assertEqual(report.results[0].finding.text, "the disk is full")
        self.assertIn("ZeroDivisionError", report.results[1].finding.text)
        self.assertEqual(report.results[1].finding.fix, ("uaihost doctor --only b",))

    def test_a_check_that_hangs_is_stopped_at_its_limit(self) -> None:
        ended: list[str] = []

        async def hangs(_: Patient) -> Finding:
            try:
                await Deferred()
            finally:
                ended.append("cleared up")
            return ok("never")

        running = self.begin(Check("a", "A", hangs, limit=3))
        self.clock.advance(2.9)
        self.assertNoResult(running)
        self.clock.advance(0.2)
        report = self.successResultOf(running)
        self.assertEqual(ended, ["cleared up"])
        self.assertEqual(report.results[0].finding.verdict, Verdict.FAIL)
        self.assertIn("within 3 s", report.results[0].finding.text)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_does_not_end_even_then_is_left_behind(self) -> None:
        async def stubborn(_: Patient) -> Finding:
            while True:
                try:
                    await Deferred()
                except CancelledError:
                    continue

        running = self.begin(Check("a", "A", stubborn, limit=3))
        self.clock.advance(3)
        self.assertNoResult(running)
        self.clock.advance(CLEARING)
        self.assertEqual(self.successResultOf(running).results[0].finding.verdict, Verdict.FAIL)

    def test_the_whole_has_a_limit_too(self) -> None:
        first: Deferred[Finding] = Deferred()
        running = self.begin(
            Check("a", "A", waits(first), limit=50), Check("b", "B", finds(ok("b")), ("a",)), whole=10
        )
        self.clock.advance(10)
        report = self.successResultOf(running)
        self.assertEqual(report.results[0].finding.verdict, Verdict.FAIL)
        self.assertEqual(report.results[1].finding.verdict, Verdict.SKIPPED)

    def test_an_interrupt_lets_checks_clear_up(self) -> None:
        ended: list[str] = []

        async def hangs(_: Patient) -> Finding:
            try:
                await Deferred()
            finally:
                ended.append("cleared up")
            return ok("never")

        running = self.begin(Check("a", "A", hangs))
        running.cancel()
        self.failureResultOf(running, CancelledError)
        self.assertEqual(ended, ["cleared up"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_interrupt_waits_for_what_takes_a_moment_to_clear_up(self) -> None:
        removed: Deferred[None] = Deferred()

        async def hangs(_: Patient) -> Finding:
            try:
                await Deferred()
            finally:
                await removed
            return ok("never")

        running = self.begin(Check("a", "A", hangs))
        running.cancel()
        self.assertNoResult(running)
        removed.callback(None)
        self.failureResultOf(running, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_interrupt_waits_for_nothing_that_never_ends(self) -> None:
        async def hangs(_: Patient) -> Finding:
            try:
                await Deferred()
            finally:
                await Deferred()
            return ok("never")

        running = self.begin(Check("a", "A", hangs))
        running.cancel()
        self.clock.advance(CLEARING)
        self.failureResultOf(running, CancelledError)

    def test_the_json_has_everything(self) -> None:
        report = self.successResultOf(self.begin(Check("a", "A", finds(warn("so", "type this", n=1)))))
        shown = report.json()
        self.assertEqual(shown["schema"], 1)
        self.assertEqual(shown["ok"], True)
        self.assertEqual(
            shown["checks"],
            [
                {
                    "name": "a",
                    "title": "A",
                    "verdict": "warn",
                    "text": "so",
                    "fix": ["type this"],
                    "seconds": 0.0,
                    "facts": {"n": 1},
                }
            ],
        )


class ChosenTests(SynchronousTestCase):
    def test_a_name_brings_what_it_needs(self) -> None:
        names = [check.name for check in chosen(CHECKS, ["bridge-websocket"], False)]
        self.assertEqual(names, ["bridge-name", "bridge-tcp", "bridge-tls", "bridge-websocket"])

    def test_quick_starts_no_container(self) -> None:
        quick = chosen(CHECKS, [], True)
        self.assertEqual([check.name for check in CHECKS if check not in quick], ["container"])

    def test_a_name_that_is_none(self) -> None:
        with self.assertRaises(KeyError):
            chosen(CHECKS, ["nonsense"], False)

    def test_needs_stand_before_what_needs_them(self) -> None:
        seen: set[str] = set()
        for check in CHECKS:
            self.assertLessEqual(set(check.needs), seen, check.name)
            seen.add(check.name)
        self.assertEqual(len(seen), len(CHECKS))

    def test_skipped_has_no_fix(self) -> None:
        self.assertEqual(skipped("so").fix, ())
