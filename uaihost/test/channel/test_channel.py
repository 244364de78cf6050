"""Channels with agents in memory: words, mentions, budgets, orders, crews that change."""

from __future__ import annotations

import sqlite3

from twisted.internet.defer import Deferred

from uaihost.channel.admission import TEXT_LIMIT
from uaihost.channel.channel import Rules
from uaihost.channel.governor import PING_PONG, Budgets
from uaihost.errors import ErrorCode
from uaihost.test.agents.container import talk
from uaihost.test.channel.case import ChannelCase
from uaihost.test.channel.rig import agent, crew


class WordTests(ChannelCase):
    def test_a_word_is_stored_told_routed_and_answered(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.assertEqual(self.deliver("hello", "m1"), ["a"])
        self.tick()
        self.assertEqual(self.journal.texts(), ["hello", "you said hello"])
        first = self.journal.of("channel.message")[0]
        self.assertEqual(first["author"], {"kind": "user", "id": "ann", "label": "ann"})
        self.assertEqual(first["messageId"], "m1")

    def test_a_repeated_word_has_the_same_answer_and_no_effect(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.assertEqual(self.deliver("hello @b", "m1"), ["b"])
        self.assertEqual(self.deliver("hello @b", "m1"), ["b"])
        self.tick()
        self.assertEqual(self.engine.of("b").prompts(), ["hello @b"])
        self.assertEqual(len(self.journal.texts("ann")), 1)

    def test_the_last_partner_hears_what_mentions_nobody_also_after_a_restart(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.deliver("@b hello")
        self.assertEqual(self.deliver("and?"), ["b"])
        self.assertEqual(self.deliver("hello", by="bob"), ["a"])
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.assertEqual(self.deliver("still there?"), ["b"])

    def test_what_cannot_be_a_word_is_refused(self) -> None:
        self.ensure(agent("a"))
        deliver = self.channels.deliver
        self.fails(ErrorCode.TOO_LARGE, deliver("t1", "ann", "ü" * (TEXT_LIMIT // 2 + 1)))
        self.fails(ErrorCode.INVALID_ARGS, deliver("t1", "ann", " \n"))
        self.fails(ErrorCode.NOT_FOUND, deliver("t2", "ann", "hello"))
        self.fails(ErrorCode.NOT_FOUND, self.channels.append("t2", "ann", "hello"))
        self.fails(ErrorCode.NOT_FOUND, self.channels.interrupt("t1", "b"))
        self.assertEqual(self.journal.texts(), [])
        self.assertEqual(self.deliver("half a pair \ud800"), ["a"])

    def test_a_word_that_cannot_be_stored_is_not_told_and_can_be_said_again(self) -> None:
        self.ensure(agent("a"))
        self.store.fail_after = 0
        self.failureResultOf(self.channels.deliver("t1", "ann", "hello", "m1"), sqlite3.OperationalError)
        self.store.fail_after = None
        self.assertEqual(self.journal.texts(), [])
        self.assertEqual(self.deliver("hello", "m1"), ["a"])
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), ["hello"])

    def test_a_line_for_the_transcript_is_heard_by_no_agent(self) -> None:
        self.ensure(agent("a"))
        self.assertEqual(self.successResultOf(self.channels.append("t1", "ann", "noted", "m1")), 1)
        self.assertEqual(self.successResultOf(self.channels.append("t1", "ann", "noted", "m1")), 1)
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), [])
        self.assertEqual(self.journal.texts(), ["noted"])

    def test_a_note_needs_no_channel_but_a_name_that_is_no_path(self) -> None:
        self.successResultOf(self.channels.note("t9", "gone"))
        self.assertTrue((self.folder / "transcripts" / "t9.jsonl").exists())
        for bad in ("../t9", "", ".", "..", "a/b", "x\n"):
            self.fails(ErrorCode.INVALID_ARGS, self.channels.note(bad, "gone"))


class CrewTests(ChannelCase):
    def test_ensuring_twice_changes_nothing(self) -> None:
        self.ensure(agent("a", initialPrompt="begin"))
        self.tick()
        self.ensure(agent("a", initialPrompt="begin"))
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), ["begin"])
        self.assertEqual(self.engine.of("a").runs, 1)

    def test_standing_instructions_and_the_working_directory_reach_the_agent(self) -> None:
        self.ensure(agent("a", defaultPrompt="Write tests."))
        self.assertIn("Write tests.", self.engine.of("a").applied[0]["instructions"])
        argv = list(self.engine.of("a").argv[0])
        self.assertEqual(argv[argv.index("--cwd") + 1], "/workspace/app")
        self.assertEqual(argv[:4], ["python3", "/opt/uai/agentd.py", "--dir", "/run/uai/agents/a"])

    def test_members_come_and_go(self) -> None:
        self.ensure(agent("a"))
        self.ensure(agent("b"))
        self.assertEqual(self.states(), [("b", "idle")])
        self.assertIsNone(self.engine.of("a").run)
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.assertEqual([agent_id for agent_id, _ in self.states()], ["b"])

    def test_what_a_leaving_member_had_begun_to_say_is_kept(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.engine.of("a").script["work"] = [{"type": "delta", "text": "half a sen"}]
        self.deliver("work")
        self.tick()
        self.ensure(agent("b"))
        self.assertEqual(self.journal.texts("a"), ["half a sen"])
        self.assertEqual(self.states(), [("b", "idle")])

    def test_another_model_is_another_start(self) -> None:
        self.ensure(agent("a"))
        self.ensure(agent("a", model="free"))
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.engine.of("a").runs, 2)
        self.assertEqual(self.engine.of("a").argv[-1][-4:-2], ["--model", "free"])

    def test_a_bad_crew_is_refused_whole(self) -> None:
        for bad in (
            [agent("a b")],
            [agent("")],
            [agent("x" * 33)],
            [agent("a"), agent("a")],
            [agent(kind="x")],
        ):
            self.fails(ErrorCode.INVALID_ARGS, self.channels.ensure(crew(*bad)))
        self.fails(ErrorCode.INVALID_ARGS, self.channels.ensure(crew(agent(), task="../x")))
        self.assertEqual(self.engine.agents, {})

    def test_a_closed_channel_is_silent_and_can_be_opened_again(self) -> None:
        self.ensure(agent("a"))
        self.deliver("hello")
        self.tick()
        self.successResultOf(self.channels.teardown("t1"))
        self.successResultOf(self.channels.teardown("t1"))
        self.assertEqual(self.states(), [])
        self.assertIsNone(self.engine.of("a").run)
        self.fails(ErrorCode.NOT_FOUND, self.channels.deliver("t1", "ann", "hello"))
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.assertEqual(self.states(), [])
        self.ensure(agent("a"))
        self.assertEqual(self.states(), [("a", "idle")])
        self.assertEqual(self.journal.texts(), ["hello", "you said hello"])


class CrowdTests(ChannelCase):
    def test_an_answer_that_mentions_another_is_passed_on(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.engine.of("a").script["go"] = talk("ask @b")
        self.engine.of("b").script["@a says:\nyou said ask @b"] = []
        self.deliver("go")
        self.tick()
        self.assertEqual(self.engine.of("b").prompts(), ["@a says:\nyou said ask @b"])

    def passed(self) -> int:
        """How many words of agents have begun a turn of another."""
        return len([p for name in "ab" for p in self.engine.of(name).prompts() if "says:" in p])

    def start_talk(self) -> None:
        self.engine.of("a").script["go"] = talk("you, @b")
        self.ensure(agent("a"), agent("b"))
        self.deliver("go")

    def test_talk_without_work_pauses_and_any_word_lets_it_go_on(self) -> None:
        self.start_talk()
        self.tick(300)
        # The last word is passed on before the turn that says it has ended.
        self.assertEqual(self.passed(), PING_PONG + 1)
        self.assertIn("did nothing", self.journal.texts("system")[-1])
        self.assertEqual(set(self.states()), {("a", "idle"), ("b", "idle")})
        self.deliver("/status")
        self.tick(300)
        self.assertEqual(self.passed(), 2 * (PING_PONG + 1))

    def test_the_pause_outlives_the_daemon(self) -> None:
        self.start_talk()
        for _ in range(60):
            self.tick(5)
            self.successResultOf(self.channels.stop())
            self.channels = self.daemon()
            self.successResultOf(self.channels.resume(["t1"]))
        self.tick(300)
        self.assertEqual(self.passed(), PING_PONG + 1)


class BudgetTests(CrowdTests):
    rules = Rules(Budgets(hops=3, turns=0, tokens=0, minutes=10))

    def test_talk_without_work_pauses_and_any_word_lets_it_go_on(self) -> None:
        self.start_talk()
        self.tick(300)
        self.assertEqual(self.passed(), 3)
        self.assertIn("spoken 3 times", self.journal.texts("system")[-1])
        self.deliver("go on")
        self.tick(300)
        self.assertEqual(self.passed(), 7)

    def test_the_pause_outlives_the_daemon(self) -> None:
        self.start_talk()
        self.tick(300)
        self.successResultOf(self.channels.stop())
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.tick(300)
        self.assertEqual(self.passed(), 3)

    def test_a_turn_that_takes_too_long_is_interrupted(self) -> None:
        self.engine.of("a").script["work"] = []
        self.ensure(agent("a"))
        self.deliver("work")
        self.tick()
        self.clock.advance(9 * 60)
        self.assertNotIn({"type": "cancel"}, self.engine.of("a").applied)
        self.clock.advance(60)
        self.tick()
        self.assertIn({"type": "cancel"}, self.engine.of("a").applied)
        self.assertIn("worked for 10 minutes", self.journal.texts("system")[-1])


class SilenceTests(ChannelCase):
    def setUp(self) -> None:
        super().setUp()
        self.engine.of("a").script["think"] = []
        self.engine.of("a").script["build"] = [
            {"type": "tool", "id": "t", "name": "Run", "detail": "make", "state": "started"}
        ]
        self.ensure(agent("a"))

    def told(self) -> int:
        return len([text for text in self.journal.texts("system") if "no sign of life" in text])

    def wait(self, minutes: int) -> None:
        for _ in range(minutes):
            self.clock.advance(60)
            self.tick(2)

    def test_one_that_thinks_in_silence_is_told_of_once_for_each_silence(self) -> None:
        self.deliver("think")
        self.wait(9)
        self.assertEqual(self.told(), 0)
        self.engine.of("a").print(type="delta", text="hm")
        self.wait(9)
        self.assertEqual(self.told(), 0)
        self.wait(30)
        self.assertEqual(self.told(), 1)
        self.assertIn("/interrupt @a", self.journal.texts("system")[-1])
        self.engine.of("a").print(type="delta", text="hm")
        self.wait(12)
        self.assertEqual(self.told(), 2)

    def test_a_long_command_and_one_that_rests_are_not(self) -> None:
        self.wait(30)
        self.deliver("build")
        self.tick()
        self.assertEqual(self.states(), [("a", "tool")])
        self.wait(30)
        self.assertEqual(self.told(), 0)

    def test_a_daemon_that_comes_back_waits_anew(self) -> None:
        self.deliver("think")
        self.wait(9)
        self.successResultOf(self.channels.stop())
        self.channels = self.daemon()
        self.successResultOf(self.channels.resume(["t1"]))
        self.wait(9)
        self.assertEqual(self.told(), 0)
        self.wait(3)
        self.assertEqual(self.told(), 1)


class OrderTests(ChannelCase):
    def test_orders_are_answered_and_heard_by_no_agent(self) -> None:
        self.ensure(agent("a"))
        for text, answer in (
            ("/help", "@id addresses"),
            ("/status", "@a (mock): idle"),
            ("/rules", "No tool is accepted"),
            ("/ask Run", "No tool is accepted"),
            ("/retry @a", ""),
            ("/retry-gh", "GitHub"),
            ("/restart", "Say whom"),
            ("/interrupt @x", "No such agent here: @x"),
        ):
            self.assertEqual(self.deliver(text), [])
            self.assertIn(answer, self.journal.texts("system")[-1])
        self.tick()
        self.assertEqual(self.engine.of("a").prompts(), [])

    def test_github_is_tried_again_and_nobody_waits_for_it(self) -> None:
        tried: list[Deferred[str]] = []

        class Trying:
            async def retry(self, task_id: str) -> str:
                tried.append(Deferred())
                return f"{task_id}: {await tried[-1]}"

        self.recovery = Trying()
        self.channels = self.daemon()
        self.ensure(agent("a"))
        self.assertEqual(self.deliver("/retry-gh"), [])
        before = self.journal.texts("system")
        tried[0].callback("GitHub works again")
        self.assertEqual(self.journal.texts("system")[len(before) :], ["t1: GitHub works again"])

    def test_restart_is_a_new_process_with_the_same_session(self) -> None:
        self.ensure(agent("a"))
        self.deliver("/restart @a")
        self.clock.advance(1)
        self.tick(20)
        self.assertEqual(self.engine.of("a").runs, 2)
        self.assertEqual(self.engine.of("a").applied[-1]["session"], "s1")
        self.assertEqual(self.states(), [("a", "idle")])

    def test_interrupt_reaches_whoever_is_busy(self) -> None:
        self.ensure(agent("a"), agent("b"))
        self.engine.of("b").script["@b work"] = []
        self.deliver("@b work")
        self.deliver("/interrupt")
        self.assertEqual(self.engine.of("b").applied[-1], {"type": "cancel"})
        self.assertEqual(self.engine.of("a").applied[-1]["type"], "start")
