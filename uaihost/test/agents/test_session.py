"""The session: turns in order, every line once whatever restarts, interruption in bounded time, recovery."""

from __future__ import annotations

from uaihost.agents.adapter import PermissionAsked, Usage
from uaihost.agents.course import GO_ON
from uaihost.agents.life import FAULT_PAUSE, INTERRUPT_LIMIT, KILL_AFTER, LAZY
from uaihost.agents.progress import PermissionsOrphaned
from uaihost.agents.recovery import BACKOFF
from uaihost.agents.turn import State
from uaihost.errors import ErrorCode, HostError
from uaihost.state import channel as table
from uaihost.test.agents.cases import ASK, SessionCase
from uaihost.test.agents.container import run, talk
from uaihost.test.support import given, settings, strategies


class TurnTests(SessionCase):
    def test_an_agent_starts_and_answers(self) -> None:
        self.ready()
        self.queue("hello")
        self.tick(10)
        self.assertEqual(self.room.said(), ["you said hello"])
        self.assertEqual(self.states(), ["starting", "idle", "thinking", "idle"])
        self.assertIn(Usage(1, 2), self.room.happened)

    def test_what_comes_while_it_is_busy_waits_in_order(self) -> None:
        for text in ("one", "two", "three"):
            self.queue(text)
        self.tick(40)
        self.assertEqual(self.container.prompts(), ["one", "two", "three"])
        self.assertEqual(self.room.said(), ["you said one", "you said two", "you said three"])

    def test_only_pieces_of_an_unfinished_message_are_streamed(self) -> None:
        self.ready()
        self.container.script["x"] = talk("x")[:2]
        self.queue("x")
        self.tick(5)
        self.assertEqual(self.room.pieces, ["you said ", "x"])
        self.assertEqual(self.room.said(), [])

    def test_a_failed_turn_says_why_and_the_next_one_runs(self) -> None:
        self.container.script["x"] = [{"type": "end", "reason": "failed", "error": "no quota"}]
        self.queue("x")
        self.queue("y")
        self.tick(30)
        self.assertEqual(self.room.notes(), ["@a could not finish: no quota\nTo try again write: /retry @a"])
        self.assertEqual(self.room.said(), ["you said y"])

    def test_a_message_that_never_came_whole_is_kept_at_the_end_of_the_turn(self) -> None:
        self.container.script["x"] = [
            {"type": "delta", "text": "half"},
            {"type": "end", "reason": "cancelled"},
        ]
        self.queue("x")
        self.tick(20)
        self.assertEqual(self.room.said(), ["half"])

    def test_a_huge_message_is_cut_and_says_so(self) -> None:
        self.container.script["x"] = [{"type": "message", "text": "x" * 300_000}, {"type": "end"}]
        self.queue("x")
        self.tick(20)
        self.assertTrue(self.room.said()[0].endswith("[cut: 37856 more characters]"))

    def test_many_lines_at_once_are_stored_in_few_transactions(self) -> None:
        self.ready()
        self.container.script["x"] = [{"type": "delta", "text": "."}] * 500
        self.queue("x")
        stored = self.store.db.total_changes
        self.tick(200)
        self.assertLessEqual(self.store.db.total_changes - stored, 4 * (0.2 / LAZY + 1))

    def test_a_permission_is_asked_once_answered_once_and_the_turn_goes_on(self) -> None:
        self.asking()
        self.assertIn(PermissionAsked("r1", "Run", "ls", {"command": "ls"}), self.room.happened)
        self.successResultOf(self.session.answer(self.decided))
        self.assertEqual(self.container.applied[-1], {"type": "answer", "request": "r1", "accept": True})
        self.assertEqual(self.session.state, State.BUSY)

    def test_a_refused_decision_changes_nothing(self) -> None:
        self.asking()

        def refuse() -> None:
            raise HostError(ErrorCode.CONFLICT, "settled already")

        self.failureResultOf(run(self.session.answer(refuse)), HostError)
        self.successResultOf(self.session.answer(lambda: None))
        self.assertEqual(self.session.state, State.AWAITING)
        self.assertEqual(self.container.applied[-1]["type"], "prompt")


class InterruptTests(SessionCase):
    def test_the_agents_own_interrupt_ends_the_turn(self) -> None:
        self.container.script["x"] = []
        self.ready()
        self.queue("x")
        self.successResultOf(self.session.interrupt())
        self.assertEqual(self.container.applied[-1], {"type": "cancel"})
        self.container.print(type="end", reason="cancelled")
        self.tick(3)
        self.assertEqual(self.session.state, State.IDLE)
        self.clock.advance(INTERRUPT_LIMIT + KILL_AFTER)
        self.assertEqual(self.container.signals, [])

    def test_one_that_does_not_obey_is_ended_and_starts_again_with_its_session(self) -> None:
        self.container.script["x"] = [{"type": "delta", "text": "so far"}]
        self.ready()
        self.queue("x")
        self.tick(3)
        self.successResultOf(self.session.interrupt())
        self.clock.advance(INTERRUPT_LIMIT)
        self.assertEqual(self.container.signals, ["TERM"])
        self.clock.advance(KILL_AFTER)
        self.assertEqual(self.container.signals, ["TERM", "KILL"])
        self.container.die(-9)
        self.tick(400)
        self.assertEqual(self.session.state, State.IDLE)
        self.assertEqual(self.container.applied[-1]["session"], "s1")
        self.assertEqual(self.room.said(), ["so far"])
        self.assertIn("did not stop when asked", self.room.notes()[0])
        self.queue("next")
        self.tick(10)
        self.assertEqual(self.room.said()[-1], "you said next")

    def test_an_idle_agent_is_left_alone(self) -> None:
        self.ready()
        self.successResultOf(self.session.interrupt())
        self.assertEqual(self.container.applied[-1]["type"], "start")

    def test_the_limit_counts_again_after_a_restart_of_the_daemon(self) -> None:
        self.container.script["x"] = []
        self.ready()
        self.queue("x")
        self.successResultOf(self.session.interrupt())
        self.restart_daemon()
        self.tick(3)
        self.clock.advance(INTERRUPT_LIMIT)
        self.assertEqual(self.container.signals, ["TERM"])


class RecoveryTests(SessionCase):
    def test_a_crash_is_told_and_followed_by_a_start_with_the_session(self) -> None:
        self.container.script["x"] = [{"type": "delta", "text": "so far"}, ASK]
        self.ready()
        self.queue("x")
        self.tick(5)
        self.container.die(3)
        self.tick(2)
        self.assertEqual(self.room.said(), ["so far"])
        self.assertIn(PermissionsOrphaned(("r1",)), self.room.happened)
        self.assertIn("status 3: the last words", self.room.notes()[0])
        self.assertIn("goes on with what it was doing", self.room.notes()[0])
        self.assertEqual(self.session.state, State.STARTING)
        self.clock.advance(BACKOFF[0])
        self.tick(10)
        self.assertEqual(self.session.state, State.IDLE)
        self.assertEqual(self.container.argv[-1][-2:], ("--resume", "s1"))
        self.assertEqual(self.container.prompts(), ["x", GO_ON + "x"])

    def test_a_word_that_the_dead_process_never_got_is_said_to_the_next(self) -> None:
        self.ready()
        self.container.die(1)
        self.queue("hello")
        self.tick(3)
        self.clock.advance(BACKOFF[0])
        self.tick(20)
        self.assertEqual(self.container.prompts(), ["hello"])
        self.assertEqual(self.room.said(), ["you said hello"])

    def test_it_stays_down_after_too_many_crashes_until_somebody_restarts_it(self) -> None:
        for pause in BACKOFF:
            self.ready()
            self.container.die(1)
            self.tick(5)
            self.assertEqual(self.session.state, State.STARTING)
            self.clock.advance(pause)
        self.ready()
        self.container.die(1)
        self.tick(5)
        self.assertEqual(self.session.state, State.FAILED)
        self.assertEqual(self.session.activity, "failed")
        self.assertIn("/restart @a", self.room.notes()[-1])
        self.clock.advance(100)
        self.assertEqual(self.session.state, State.FAILED)
        self.successResultOf(self.session.restart())
        self.clock.advance(1)
        self.tick(10)
        self.assertEqual(self.session.state, State.IDLE)

    def test_a_finished_turn_ends_the_row_of_crashes(self) -> None:
        for _ in range(8):
            self.clock.advance(BACKOFF[0])
            self.ready()
            self.queue("x")
            self.tick(10)
            self.container.die(1)
            self.tick(5)
        self.assertEqual(self.session.state, State.STARTING)
        self.assertTrue(all("It starts again in 1 s" in note for note in self.room.notes()))

    def test_a_keeper_that_dies_in_a_turn_is_noticed_and_what_it_left_is_read(self) -> None:
        self.container.script["x"] = talk("x")[:3]
        self.ready()
        self.queue("x")
        self.container.lose_keeper()
        self.tick(20)
        self.assertEqual(self.room.said(), ["you said x", f"you said {GO_ON}x"])
        self.assertIn("started anew in the middle of its turn and goes on", self.room.notes()[0])
        self.assertEqual(self.session.state, State.IDLE)

    def test_a_log_that_was_cut_short_stops_nobody(self) -> None:
        self.ready()
        self.container.log.clear()
        self.container.lose_keeper()
        self.container.stdin_next = 0
        self.tick(10)
        self.queue("x")
        self.tick(10)
        self.assertEqual(self.room.said(), ["you said x"])

    def test_a_stop_ends_agent_and_keeper_and_forgets_what_was_on_its_way(self) -> None:
        self.ready()
        self.successResultOf(self.session.stop())
        self.assertIsNone(self.container.run)
        self.assertEqual(self.states()[-1], "stopped")
        self.assertEqual(table.lines(self.store.db, "t", "a"), [])
        self.queue("x")
        self.tick(10)
        self.assertEqual(self.container.prompts(), [])

    def test_going_away_leaves_the_agent_alone_and_no_call_behind(self) -> None:
        self.container.script["x"] = talk("x")[:1]
        self.ready()
        self.queue("x")
        self.tick(3)
        self.successResultOf(self.session.detach())
        self.tick(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.container.run, "run1")
        row = table.agent(self.store.db, "t", "a")
        assert row is not None
        self.assertEqual((row.partial, row.state), ("you said ", "busy"))


class ExactlyOnceTests(SessionCase):
    def script(self) -> None:
        self.container.script["act"] = [
            {"type": "delta", "text": "I "},
            {"type": "tool", "id": "1", "name": "Run", "detail": "ls", "state": "started"},
            {"type": "tool", "id": "1", "name": "Run", "detail": "ls", "state": "ended", "ok": True},
            {"type": "delta", "text": "did"},
            {"type": "message", "text": "I did"},
            {"type": "message", "text": "and more"},
            {"type": "usage", "input": 1, "output": 2},
            {"type": "end", "reason": "done"},
        ]
        for text in ("one", "act", "three"):
            table.enqueue(self.store.db, "t", "a", text)

    def check(self, label: object) -> None:
        self.assertEqual(self.room.said(), ["you said one", "I did", "and more", "you said three"], label)
        self.assertEqual(self.container.prompts(), ["one", "act", "three"], label)
        self.assertEqual(self.room.happened.count(Usage(1, 2)), 3, label)
        self.assertEqual(self.container.runs, 1, label)
        self.assertEqual(self.session.state, State.IDLE)

    def test_a_restart_of_the_daemon_at_any_boundary(self) -> None:
        for boundary in range(32):
            self.begin()
            self.script()
            self.tick(boundary)
            self.restart_daemon()
            self.tick(60)
            self.check(boundary)

    @given(strategies.lists(strategies.integers(0, 12), min_size=1, max_size=20))
    @settings(max_examples=60)
    def test_any_number_of_restarts(self, pauses: list[int]) -> None:
        self.begin()
        self.script()
        for pause in pauses:
            self.tick(pause)
            self.restart_daemon()
        self.tick(80)
        self.check(pauses)

    def test_a_transaction_that_fails_is_as_if_nothing_had_happened(self) -> None:
        failures = 0
        for transaction in range(30):
            self.begin()
            self.script()
            self.store.fail_after = transaction
            self.tick(50)
            if self.store.fail_after < 0:
                failures += len(self.flushLoggedErrors())
                self.store.fail_after = None
                self.clock.advance(FAULT_PAUSE)
                self.clock.advance(BACKOFF[0])
            self.store.fail_after = None
            self.tick(80)
            self.check(transaction)
        self.assertGreater(failures, 10)

    def test_an_open_request_survives_and_is_answered_once(self) -> None:
        self.asking()
        self.restart_daemon()
        self.tick(5)
        self.assertEqual(self.session.state, State.AWAITING)
        self.successResultOf(self.session.answer(self.decided))
        self.restart_daemon()
        self.tick(5)
        answers = [each for each in self.container.applied if each["type"] == "answer"]
        self.assertEqual(len(answers), 1)
        self.assertEqual(sum(isinstance(each, PermissionAsked) for each in self.room.happened), 1)
