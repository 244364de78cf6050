"""What becomes of a turn when something fails: limits, faults, crashes, lost conversations; trying again."""

from __future__ import annotations

from typing import Any

import attrs

from uaihost.agents.course import GO_ON, TRIES
from uaihost.agents.faults import UNTOLD
from uaihost.agents.life import INTERRUPT_LIMIT, KILL_AFTER, START_LIMIT
from uaihost.agents.progress import Activity, Decided, PermissionsOrphaned, TurnBegan, TurnFinished
from uaihost.agents.recovery import BACKOFF
from uaihost.agents.turn import State
from uaihost.errors import ErrorCode, HostError
from uaihost.state import channel as table
from uaihost.test.agents.cases import ASK, NOW, SessionCase
from uaihost.test.agents.container import TICK, run, talk


def ended(fault: str, text: str = "sorry", resets: float | None = None) -> dict[str, Any]:
    at = None if resets is None else int(resets * 1000)
    return {"type": "end", "reason": "failed", "error": text, "fault": fault, "resets": at}


class TurnCase(SessionCase):
    def does(self, *lines: dict[str, Any], text: str = "work") -> None:
        """The agent is told `text`, and does this."""
        self.container.script[text] = list(lines)
        self.ready()
        self.queue(text)
        self.tick(5)

    def crash(self, pause: float = BACKOFF[-1]) -> None:
        self.container.die(1)
        self.tick(3)
        self.clock.advance(pause)
        self.tick(10)

    def began(self) -> list[str]:
        return [each.text for each in self.room.happened if isinstance(each, TurnBegan)]

    def finished(self) -> list[TurnFinished]:
        return [each for each in self.room.happened if isinstance(each, TurnFinished)]


class LimitTests(TurnCase):
    def parked(self, resets: float | None = NOW + 3600) -> None:
        self.does(ended("quota", "5-hour limit reached", resets))
        self.assertEqual(self.session.state, State.PARKED)
        del self.container.script["work"]

    def test_it_is_parked_with_the_time_shown_and_goes_on_once_after_it(self) -> None:
        self.parked()
        until = int((NOW + 3600) * 1000)
        self.assertIn(Activity("idle", "usage limit until 23:13 UTC", until), self.room.happened)
        self.assertIn("5-hour limit reached", self.room.notes()[0])
        self.assertIn("at 23:13 UTC", self.room.notes()[0])
        self.queue("later")
        self.clock.advance(3590)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work"])
        self.clock.advance(10)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work", "work", "later"])
        self.assertEqual(self.room.said(), ["you said work", "you said later"])
        self.assertEqual(self.began(), ["work", "work", "later"])
        self.assertEqual([each.reason for each in self.finished()], ["failed", "done", "done"])

    def test_the_same_across_restarts_of_the_daemon_at_any_boundary(self) -> None:
        for boundary in range(20):
            self.begin()
            self.parked()
            self.restart_daemon()
            self.clock.advance(3600 - 5 * TICK)
            self.tick(boundary)
            self.restart_daemon()
            self.tick(40)
            self.assertEqual(self.container.prompts(), ["work", "work"], boundary)
            self.assertEqual(self.room.said(), ["you said work"], boundary)
            self.assertEqual(self.session.state, State.IDLE)

    def test_a_limit_that_is_over_when_the_daemon_comes_back(self) -> None:
        self.parked()
        self.successResultOf(self.session.detach())
        self.clock.advance(5000)
        self.restart_daemon()
        self.tick(20)
        self.assertEqual(self.room.said(), ["you said work"])

    def test_a_process_that_dies_while_parked_stays_parked(self) -> None:
        self.parked()
        self.crash()
        self.assertEqual(self.session.state, State.PARKED)
        self.clock.advance(3600)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work", "work"])

    def test_an_end_that_is_not_told_is_half_an_hour(self) -> None:
        self.parked(None)
        self.assertEqual(self.session.row.parked_until, int((NOW + 10 * TICK) * 1000) + UNTOLD)

    def test_an_end_that_is_none_does_not_become_a_loop(self) -> None:
        self.does(ended("quota", resets=NOW - 5))
        self.clock.pump([1.0] * 50)
        self.assertEqual(len(self.container.prompts()), 2)

    def test_what_it_had_done_before_the_limit_is_not_asked_for_again(self) -> None:
        self.does({"type": "message", "text": "half"}, ended("quota", resets=NOW + 60))
        self.clock.advance(60)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work", GO_ON + "work"])

    def test_a_retry_does_not_wait(self) -> None:
        self.parked()
        self.successResultOf(self.session.retry())
        self.tick(10)
        self.assertEqual(self.room.said(), ["you said work"])
        self.clock.advance(4000)
        self.tick(10)
        self.assertEqual(self.container.prompts(), ["work", "work"])

    def test_an_interrupt_gives_the_words_up_and_keeps_the_limit(self) -> None:
        self.parked()
        self.successResultOf(self.session.interrupt())
        self.assertEqual(self.session.state, State.PARKED)
        self.clock.advance(3600)
        self.tick(10)
        self.assertEqual(self.container.prompts(), ["work"])
        self.assertEqual(self.session.state, State.IDLE)


class FaultTests(TurnCase):
    def test_each_fault_says_what_to_do(self) -> None:
        for kind, words in (
            ("overloaded", ["no room", "/retry @a"]),
            ("signed-out", ["not signed in", "uaihost login mock", "/retry @a"]),
            ("?", ["could not finish: sorry", "/retry @a"]),
        ):
            self.begin()
            self.does(ended(kind))
            for word in words:
                self.assertIn(word, self.room.notes()[0])
            self.assertEqual(self.session.state, State.IDLE)
            self.assertEqual(self.finished()[0].reason, "failed")

    def test_a_retry_says_it_again_and_there_is_none_of_what_was_done(self) -> None:
        self.does(ended("overloaded"))
        del self.container.script["work"]
        self.successResultOf(self.session.retry())
        self.tick(10)
        self.assertEqual(self.room.said(), ["you said work"])
        refused = self.failureResultOf(run(self.session.retry()), HostError).value
        self.assertIn("nothing to try again", refused.message)
        self.assertEqual(self.session.state, State.IDLE)

    def test_a_retry_in_a_turn_is_refused(self) -> None:
        self.does()
        refused = self.failureResultOf(run(self.session.retry()), HostError).value
        self.assertEqual(refused.code, ErrorCode.CONFLICT)
        self.assertEqual(self.session.state, State.BUSY)

    def test_words_wait_for_the_sign_in_and_then_all_are_said(self) -> None:
        self.does(ended("signed-out"))
        del self.container.script["work"]
        self.queue("more")
        self.tick(10)
        self.assertEqual(self.container.prompts(), ["work"])
        self.successResultOf(self.session.renew())
        self.clock.advance(1)
        self.tick(30)
        self.assertEqual(self.container.runs, 2)
        self.assertEqual(self.room.said(), ["you said work", "you said more"])

    def test_a_sign_in_while_the_daemon_was_away_is_found_out(self) -> None:
        self.does(ended("signed-out"))
        del self.container.script["work"]
        self.restart_daemon()
        self.tick(10)
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.room.said(), ["you said work"])
        self.assertEqual(self.container.runs, 2)

    def test_a_changed_account_waits_for_the_end_of_the_turn(self) -> None:
        self.does(*talk("work")[:2])
        self.successResultOf(self.session.renew())
        self.tick(10)
        self.assertEqual(self.container.runs, 1)
        self.restart_daemon()
        self.tick(5)
        for line in talk("work")[2:]:
            self.container.print(**line)
        self.tick(10)
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.container.runs, 2)
        self.assertEqual(self.container.applied[-1]["session"], "s1")
        self.assertEqual(self.container.prompts(), ["work"])


class LostProcessTests(TurnCase):
    def test_a_turn_goes_on_twice_and_then_asks_people(self) -> None:
        self.does()
        self.container.script[GO_ON + "work"] = []
        for _ in range(TRIES + 1):
            self.assertEqual(self.session.state, State.BUSY)
            self.crash()
        self.assertEqual(self.container.prompts(), ["work", *[GO_ON + "work"] * TRIES])
        self.assertEqual(self.session.state, State.IDLE)
        last = next(note for note in self.room.notes() if "3 times in this turn" in note)
        self.assertIn("/retry @a", last)
        self.assertEqual((self.began(), [each.reason for each in self.finished()]), (["work"], ["failed"]))
        self.successResultOf(self.session.retry())
        self.tick(5)
        self.assertEqual(len(self.container.prompts()), TRIES + 2)

    def test_waiting_for_a_person_is_no_try(self) -> None:
        self.container.script[GO_ON + "act"] = [ASK]
        self.asking()
        for _ in range(5):
            self.container.lose_keeper()
            self.tick(20)
            self.assertEqual(self.session.state, State.AWAITING)
        orphaned = [each for each in self.room.happened if isinstance(each, PermissionsOrphaned)]
        self.assertEqual(orphaned, [PermissionsOrphaned(("r1",))] * 5)
        self.assertEqual(self.finished(), [])

    def test_what_was_decided_meanwhile_is_given_at_once_and_once(self) -> None:
        self.container.script[GO_ON + "act"] = [ASK]
        self.asking()
        self.container.lose_keeper()
        self.room.due = [self.decided()]
        self.tick(20)
        answers = [each for each in self.container.applied if each["type"] == "answer"]
        self.assertEqual(answers, [{"type": "answer", "request": "r1", "accept": True}])
        self.assertEqual(self.room.due, [])
        self.assertEqual(self.session.state, State.BUSY)

    def test_a_decision_that_a_dead_daemon_did_not_give_is_given_by_the_next(self) -> None:
        self.asking()
        self.room.due = [self.decided()]
        self.restart_daemon()
        self.tick(5)
        self.assertEqual(self.container.applied[-1], {"type": "answer", "request": "r1", "accept": True})

    def test_a_decision_that_the_dead_process_never_got_is_for_the_next(self) -> None:
        self.asking()
        self.container.exited = 1
        decided = self.decided()
        self.successResultOf(self.session.answer(lambda: decided))
        self.tick(3)
        kept = self.room.happened.index(Decided(decided.row, given=False))
        self.assertEqual(self.room.happened[kept + 1], PermissionsOrphaned(("r1",)))

    def test_an_interrupt_before_it_goes_on_ends_the_turn(self) -> None:
        self.does()
        self.container.die(1)
        self.tick(3)
        self.successResultOf(self.session.interrupt())
        self.clock.advance(BACKOFF[0])
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work"])
        self.assertEqual([each.reason for each in self.finished()], ["cancelled"])

    def test_one_that_dies_of_an_interrupt_does_not_go_on(self) -> None:
        for force in (False, True):
            self.begin()
            self.does()
            self.successResultOf(self.session.interrupt())
            if force:
                self.clock.pump([INTERRUPT_LIMIT, KILL_AFTER])
            self.crash()
            self.assertEqual(self.container.prompts(), ["work"])
            self.assertEqual([each.reason for each in self.finished()], ["cancelled"])
            self.assertEqual(self.session.state, State.IDLE)

    def test_a_restart_by_a_person_ends_the_turn(self) -> None:
        self.does()
        self.successResultOf(self.session.restart())
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work"])
        self.assertEqual([each.reason for each in self.finished()], ["cancelled"])

    def test_a_container_that_comes_back_late_finds_the_turn(self) -> None:
        self.does()
        self.container.refusal = HostError(ErrorCode.UNAVAILABLE, "the container does not run")
        self.container.lose_keeper()
        for pause in (TICK, *BACKOFF):
            self.clock.advance(pause)
            self.tick(5)
        self.assertEqual(self.session.state, State.FAILED)
        said = [note for note in self.room.notes() if "the container does not run" in note]
        self.assertEqual(len(said), 2, "told at first and at last")
        self.container.refusal = None
        self.successResultOf(self.session.revive())
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["work", GO_ON + "work"])
        self.assertEqual([each.reason for each in self.finished()], ["done"])

    def test_one_that_never_gets_ready_is_ended(self) -> None:
        self.container.silent = True
        self.tick(5)
        self.clock.advance(START_LIMIT)
        self.assertEqual(self.container.signals, ["KILL"])
        self.container.silent = False
        self.crash()
        self.assertIn("did not get ready in 180 s", self.room.notes()[0])
        self.assertEqual(self.session.state, State.IDLE)


class LostConversationTests(TurnCase):
    def test_it_begins_a_new_one_with_what_was_said(self) -> None:
        self.ready()
        self.room.told_before = "ann said: hello"
        self.container.forgotten.add("s1")
        self.crash()
        self.clock.advance(1)
        self.tick(10)
        self.assertEqual(self.session.state, State.IDLE)
        start = self.container.applied[-1]
        self.assertEqual((start["session"], start["instructions"]), (None, "be kind\n\nann said: hello"))
        self.assertNotIn("--resume", self.container.argv[-1])
        self.assertIn("no such conversation", "".join(self.room.notes()))
        self.assertEqual(self.session.row.session_id, "s3")

    def test_one_that_is_lost_in_a_turn_goes_on_in_the_new_one(self) -> None:
        self.does({"type": "lost", "text": "gone"})
        self.tick(5)
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.session.row.session_id, "s2")
        self.assertEqual(self.container.prompts(), ["work", GO_ON + "work"])


class GovernorTests(TurnCase):
    def test_words_wait_until_they_may_begin(self) -> None:
        self.room.open = False
        self.ready()
        self.queue("one", "agent:b")
        self.tick(10)
        self.assertEqual(self.container.prompts(), [])
        self.room.open = True
        self.session.pump()
        self.tick(10)
        self.assertEqual(self.container.prompts(), ["one"])
        self.assertEqual([each.origin for each in self.finished()], ["agent:b"])

    def test_a_turn_that_has_begun_goes_on_though_no_other_may_begin(self) -> None:
        self.does()
        self.room.open = False
        self.crash()
        self.assertEqual(self.container.prompts(), ["work", GO_ON + "work"])

    def test_the_end_tells_tools_and_answer(self) -> None:
        tool = {"type": "tool", "id": "1", "name": "Run", "detail": "ls"}
        self.does(
            tool | {"state": "started"}, tool | {"state": "ended", "ok": True}, *talk("work"), text="work"
        )
        self.tick(5)
        self.assertEqual(self.finished(), [TurnFinished("user:ann", "done", None, 1, "you said work")])


class SmallThingsTests(TurnCase):
    def test_retries_are_shown(self) -> None:
        self.does({"type": "retry", "text": "overloaded", "attempt": 2, "most": 3})
        self.assertIn(Activity("thinking", "retry 2 of 3: overloaded"), self.room.happened)

    def test_what_nobody_knows_is_told_once_a_kind_and_process(self) -> None:
        self.does(*[{"type": "odd"}] * 3, {"type": "odder"})
        self.restart_daemon()
        self.container.print(type="odd")
        self.tick(10)
        self.assertEqual(len(self.room.notes()), 2)
        self.assertIn("does not know (odd)", self.room.notes()[0])
        self.assertEqual(self.session.state, State.BUSY)

    def test_the_row_is_as_good_as_the_memory(self) -> None:
        self.does(ended("quota", resets=NOW + 60))
        row = table.agent(self.store.db, "t", "a")
        assert row is not None
        self.assertEqual(attrs.asdict(row), attrs.asdict(self.session.row))
