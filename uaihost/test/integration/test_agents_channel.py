"""Channels on a real database with real keepers and mock agents, as processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.agents.registry import AgentRegistry
from uaihost.blocking import Inline, Threads
from uaihost.channel.channel import Channels
from uaihost.events import EventJournal
from uaihost.state.database import Database
from uaihost.test.channel.rig import ROOT, Heard, LocalEngine, agent, crew
from uaihost.test.support import short_folder

# Seconds after which something that should happen is missing.
PATIENCE = 10.0


class ChannelCase(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.work = self.folder / "work"
        (self.work / "app").mkdir(parents=True)
        (self.folder / "tasks" / "t1" / "run").mkdir(parents=True)
        threads = Threads(cast(IReactorFromThreads, reactor), "database", 1)
        self.addCleanup(threads.stop)
        self.store = await Database.open(self.folder / "state.db", ROOT / "migrations", threads)
        self.real_journal = EventJournal(self.store, cast(IReactorTime, reactor))
        self.journal = Heard()
        self.real_journal.subscribe(self.journal.hear)
        self.engine = LocalEngine(self.folder / "tasks", self.work)
        self.addCleanup(self.engine.end)
        self.channels = self.daemon()

    def daemon(self) -> Channels:
        """A daemon's channels over what is stored."""
        channels = Channels(
            self.store,
            self.real_journal,
            self.engine,
            reactor,
            AgentRegistry(),
            Inline(),
            self.folder / "tasks",
            self.folder / "transcripts",
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(channels.stop()))
        return channels

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        waited = 0.0
        while not (found := condition()):
            if waited > PATIENCE:
                self.fail(f"never: {what or condition}; {json.dumps(self.journal.events[-12:], indent=1)}")
            await deferLater(reactor, 0.01)
            waited += 0.01
        return found

    async def idle(self, agent_id: str = "a") -> None:
        """Wait until it is idle and everybody has been told so."""

        def told() -> str | None:
            own = [each for each in self.journal.of("channel.activity") if each["agentId"] == agent_id]
            return own[-1]["state"] if own else None

        await self.until(lambda: (agent_id, "idle") in self.states() and told() == "idle", f"{agent_id} idle")

    def states(self) -> list[tuple[str, str]]:
        return [(each.id, each.state) for each in self.channels.states("t1")]

    async def say(self, text: str, answer: str, by: str = "a") -> str:
        """Say it and wait for an answer that holds `answer`."""
        await self.channels.deliver("t1", "ann", text)
        await self.until(lambda: any(answer in said for said in self.journal.texts(by)), answer)
        await self.idle(by)
        return next(said for said in self.journal.texts(by) if answer in said)

    async def asked(self, count: int = 1) -> dict[str, Any]:
        requests: list[dict[str, Any]] = await self.until(
            lambda: (
                len(self.journal.of("permission.requested")) >= count
                and self.journal.of("permission.requested")
            )
        )
        return requests[count - 1]

    def keeper_pid(self) -> int:
        found = [keeper for keeper in self.engine.started if keeper.poll() is None]
        return found[-1].pid

    def agent_pid(self) -> int:
        parent = str(self.keeper_pid())
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything (proc(5)).
                if stat.read_text().rpartition(")")[2].split()[1] == parent:
                    return int(stat.parent.name)
        raise AssertionError("the keeper has no agent")


class ConversationTests(ChannelCase):
    async def test_a_word_gets_a_streamed_answer_that_is_told_whole(self) -> None:
        states = await self.channels.ensure(crew(agent()))
        self.assertEqual([(each.id, each.state) for each in states], [("a", "starting")])
        answer = await self.say("hello there", "hello there")
        self.assertIn("message 1 of our conversation", answer)
        message = self.journal.of("channel.message")[-1]
        deltas = [event for event in self.journal.fleeted if event["messageId"] == message["messageId"]]
        self.assertGreater(len(deltas), 1)
        self.assertTrue(answer.startswith("".join(event["text"] for event in deltas)))
        self.assertEqual(message["author"], {"kind": "agent", "id": "a", "label": "A"})
        states_told = [event["state"] for event in self.journal.of("channel.activity")]
        self.assertEqual(states_told, ["starting", "idle", "thinking", "idle"])
        self.assertEqual(len(self.journal.of("agent.usage")), 1)

    async def test_a_change_waits_for_consent_and_happens_in_the_projects_folder(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.channels.deliver("t1", "ann", "write notes.txt one\\ntwo")
        request = await self.asked()
        self.assertEqual((request["tool"], request["input"]["path"]), ("Write", "notes.txt"))
        self.assertEqual(self.states(), [("a", "awaiting-permission")])
        self.assertFalse((self.work / "app" / "notes.txt").exists())
        await self.channels.resolve("t1", "a", request["requestId"], "accept", "ann")
        await self.idle()
        self.assertEqual((self.work / "app" / "notes.txt").read_text(), "one\ntwo\n")
        resolved = self.journal.of("permission.resolved")[-1]
        self.assertEqual((resolved["decision"], resolved["by"]), ("accept", "ann"))
        self.assertIn("wrote notes.txt", self.journal.texts("a")[-1])

    async def test_what_is_declined_does_not_happen(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.channels.deliver("t1", "ann", "run touch made ;; say after")
        request = await self.asked()
        await self.channels.resolve("t1", "a", request["requestId"], "decline", "ann")
        await self.idle()
        self.assertEqual(self.journal.texts("a"), ["declined: touch made\nafter"])
        self.assertFalse((self.work / "app" / "made").exists())

    async def test_an_interrupt_ends_the_turn_and_keeps_the_conversation(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.channels.deliver("t1", "ann", "slow 1000 word")
        await self.until(lambda: self.journal.fleeted)
        await self.channels.interrupt("t1", "a")
        await self.idle()
        self.assertIn("word", self.journal.texts("a")[0])
        self.assertIn("message 2 of", await self.say("still there?", "still there?"))

    async def test_an_interrupt_withdraws_what_was_asked(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.channels.deliver("t1", "ann", "run touch made")
        await self.asked()
        await self.channels.interrupt("t1", "a")
        await self.idle()
        resolved = self.journal.of("permission.resolved")[-1]
        self.assertEqual((resolved["decision"], resolved["by"]), ("decline", "withdrawn"))

    async def test_agents_pass_work_on_and_the_first_prompt_opens_a_turn(self) -> None:
        await self.channels.ensure(crew(agent("a", initialPrompt="say @b say got it"), agent("b")))
        await self.until(lambda: "got it" in self.journal.texts("b"))
        self.assertEqual(self.journal.texts("a"), ["@b say got it"])


class SurvivalTests(ChannelCase):
    async def test_the_daemon_goes_and_comes_back_in_the_middle_of_a_turn(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.idle()
        words = " ;; ".join(f"say part{n}" for n in range(60))
        await self.channels.deliver("t1", "ann", words)
        for _ in range(20):
            await deferLater(reactor, 0.05)
            await self.channels.stop()
            self.channels = self.daemon()
            await self.channels.resume(["t1"])
        await self.until(lambda: self.journal.texts("a"))
        await self.idle()
        self.assertEqual(self.journal.texts("a"), ["\n".join(f"part{n}" for n in range(60))])
        self.assertEqual(len(self.engine.started), 1)

    async def test_a_request_waits_through_a_restart_of_the_daemon(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.channels.deliver("t1", "ann", "write a.txt x")
        request = await self.asked()
        await self.channels.stop()
        self.channels = self.daemon()
        await self.channels.resume(["t1"])
        self.assertEqual(self.states(), [("a", "awaiting-permission")])
        await self.channels.resolve("t1", "a", request["requestId"], "accept", "ann")
        await self.idle()
        self.assertTrue((self.work / "app" / "a.txt").exists())
        self.assertEqual(len(self.journal.of("permission.requested")), 1)

    async def test_a_word_said_while_nobody_was_attached_is_heard_once(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.idle()
        await self.channels.deliver("t1", "ann", "say one", "m1")
        await self.channels.stop()
        self.channels = self.daemon()
        await self.channels.resume(["t1"])
        self.assertEqual(await self.channels.deliver("t1", "ann", "say one", "m1"), ("m1", ["a"]))
        await self.say("say two", "two")
        self.assertEqual(self.journal.texts("a"), ["one", "two"])

    async def test_a_crash_is_told_and_the_agent_resumes_its_conversation(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.say("hello", "message 1 of")
        await self.channels.deliver("t1", "ann", "say before ;; crash ;; say after")
        await self.until(lambda: any("stopped unexpectedly" in said for said in self.journal.texts("system")))
        note = self.journal.texts("system")[-1]
        self.assertIn("signal 9: mock agent: told to crash", note)
        self.assertIn("goes on with what it was doing", note)
        self.assertIn("before", self.journal.texts("a")[-1])
        await self.until(lambda: "after" in self.journal.texts("a"))
        self.assertIn("message 4 of", await self.say("hello again", "hello again"))

    async def test_a_request_outlives_its_process_and_a_decision_made_meanwhile_is_given_once(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.idle()
        await self.channels.deliver("t1", "ann", "say before ;; run echo once >> done ;; say after")
        await self.until(lambda: self.journal.of("permission.requested"))
        os.kill(self.keeper_pid(), signal.SIGKILL)
        (asked,) = self.journal.of("permission.requested")
        await self.channels.resolve("t1", "a", asked["requestId"], "accept", "ann")
        await self.until(lambda: "after" in "".join(self.journal.texts("a")))
        self.assertEqual([path.read_text() for path in self.work.rglob("done")], ["once\n"])
        self.assertEqual(len(self.journal.of("permission.requested")), 1)
        self.assertEqual([each["decision"] for each in self.journal.of("permission.resolved")], ["accept"])

    async def test_a_usage_limit_is_over_across_a_restart_of_the_daemon(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.idle()
        await self.channels.deliver("t1", "ann", "say before ;; limit 2 enough ;; say after")
        await self.until(lambda: any("usage limit" in said for said in self.journal.texts("system")))
        self.assertIsNotNone(self.journal.of("channel.activity")[-1]["until"])
        await self.channels.stop()
        self.channels = self.daemon()
        await self.channels.resume(["t1"])
        await self.until(lambda: "after" in "".join(self.journal.texts("a")))
        self.assertEqual(sum("after" in said for said in self.journal.texts("a")), 1)

    async def test_a_killed_keeper_is_replaced(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.say("hello", "message 1 of")
        os.kill(self.keeper_pid(), signal.SIGKILL)
        self.assertIn("message 2 of", await self.say("are you there", "are you there"))
        self.assertEqual(len(self.engine.started), 2)

    async def test_teardown_ends_agents_and_keepers_and_keeps_the_transcript(self) -> None:
        await self.channels.ensure(crew(agent()))
        await self.say("hello", "message 1 of")
        pid = self.agent_pid()
        await self.channels.teardown("t1")
        self.assertEqual(self.engine.started[0].wait(PATIENCE), 0)
        self.assertFalse(Path(f"/proc/{pid}").exists())
        self.assertEqual(self.states(), [])
        lines = [json.loads(line) for line in (self.folder / "transcripts" / "t1.jsonl").open()]
        self.assertEqual([line["author_kind"] for line in lines], ["user", "agent"])

    async def test_a_channel_can_be_opened_again(self) -> None:
        await self.channels.ensure(crew(agent(initialPrompt="say kickoff")))
        await self.until(lambda: "kickoff" in self.journal.texts("a"))
        await self.channels.teardown("t1")
        await self.channels.ensure(crew(agent(initialPrompt="say kickoff")))
        self.assertIn("message 2 of", await self.say("hello", "hello"))
        self.assertEqual(self.journal.texts("a").count("kickoff"), 1)
