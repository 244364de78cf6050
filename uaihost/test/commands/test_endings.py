"""Containers that end unasked, engines and machines that restart, agents that ask: what becomes of a task."""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from uaihost.commands.adoption import LOOK, read_boot_id
from uaihost.commands.endings import DELAYS, OOM_PAUSE, OOM_SETTLE
from uaihost.commands.lanes import Lanes
from uaihost.commands.registry import lifecycle_key
from uaihost.commands.waits import LIMITS, LINGER
from uaihost.containers.readiness import Forwarded
from uaihost.containers.watch import EngineEvent
from uaihost.errors import ErrorCode
from uaihost.interfaces import AgentStatus
from uaihost.test.commands.bench import CommandCase, trouble
from uaihost.test.commands.fakes import task, task_down, task_up
from uaihost.wire.events import ChannelActivity
from uaihost.wire.inputs import ChannelEnsure
from uaihost.wire.reasons import Reason


class EndingCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.done(self.tasks.up("up", task_up()))
        (self.folders.work_copy("t1", "shop") / "work").touch()
        self.adoption.start()
        self.channels.notes.clear()

    def die(self, status: int = 1, out_of_memory: bool = False) -> None:
        self.engine.stop("t1", status)
        ended = attrs.evolve(self.engine.containers["t1"], out_of_memory=out_of_memory)
        self.engine.containers["t1"] = ended
        self.adoption.engine_heard(EngineEvent("t1", "die", status, 0))

    def oom(self) -> None:
        self.adoption.engine_heard(EngineEvent("t1", "oom", None, 0))

    def shown(self) -> str | None:
        waiting = self.tasks.waiting("t1")
        return None if waiting is None else waiting.reason.value

    def kept(self) -> bool:
        return (self.folders.work_copy("t1", "shop") / "work").exists()


class RestartTests(EndingCase):
    def test_it_is_started_again_after_a_pause_that_grows(self) -> None:
        for delay in DELAYS:
            self.die(3)
            self.assertEqual((self.record().status, self.shown()), ("starting", "restart"))
            self.assertEqual((self.ports.tasks, self.watch.watched), ({}, set()))
            self.clock.advance(delay - 0.01)
            self.assertEqual(self.engine.containers["t1"].state, "exited")
            self.clock.advance(0.01)
            self.assertEqual((self.record().status, self.shown()), ("running", None))
            self.assertEqual(self.engine.containers["t1"].state, "running")
            self.assertEqual((self.channels.calls[-1], self.watch.watched), ("resume t1", {"t1"}))
        self.assertTrue(self.kept())
        self.assertIn("The task's container ended: its container ended with status 3", self.channels.notes)

    def test_one_that_keeps_ending_is_given_up_with_its_last_words(self) -> None:
        for delay in DELAYS:
            self.die(3)
            self.clock.advance(delay)
        self.die(3)
        record = self.record()
        self.assertEqual((record.status, self.engine.containers), ("failed", {}))
        for part in ("5 times in 10 minutes", "status 3", "printed last:\nready"):
            self.assertIn(part, str(record.message))
        self.assertTrue(self.kept())
        self.assertEqual(self.done(self.tasks.up("again", task_up()))["status"], "running")

    def test_ends_that_are_long_ago_do_not_count(self) -> None:
        for _ in range(3 * len(DELAYS)):
            self.die()
            self.clock.advance(DELAYS[1])
            self.assertEqual(self.record().status, "running")
            self.clock.advance(301)

    def test_the_longest_pause_is_within_its_limit(self) -> None:
        limit = LIMITS[Reason.RESTART]
        assert limit is not None
        self.assertTrue(max(DELAYS) < limit)

    def test_an_end_that_was_asked_for_is_none(self) -> None:
        self.done(self.tasks.down("down", task_down()))
        self.adoption.engine_heard(EngineEvent("t1", "die", 143, 0))
        self.clock.advance(100)
        self.assertEqual((self.record().status, self.channels.notes), ("stopped", []))
        self.assertEqual(self.engine.containers, {})

    def test_a_task_that_is_taken_down_in_the_pause_stays_down(self) -> None:
        self.die()
        self.done(self.tasks.down("down", task_down()))
        self.clock.advance(100)
        self.assertEqual((self.record().status, self.engine.containers), ("stopped", {}))

    def test_the_daemon_that_ends_in_the_pause_starts_it_at_its_next_start(self) -> None:
        self.die()
        self.restart()
        self.done(self.adoption.adopt())
        self.assertEqual(self.record().status, "running")

    def test_one_that_is_started_over_and_over_by_daemons_that_die_is_given_up(self) -> None:
        self.die()
        for _ in range(len(DELAYS) - 1):
            self.restart()
            self.readiness.slow["ready t1"] = Deferred()
            self.assertNoResult(ensureDeferred(self.adoption.adopt()))
            self.assertEqual(self.record().status, "starting")
        self.restart()
        self.done(self.adoption.adopt())
        self.assertEqual(self.record().status, "failed")
        self.assertTrue(self.kept())

    def test_an_engine_that_goes_away_in_the_start_is_waited_for(self) -> None:
        self.die()
        self.engine.fail = trouble("the engine is gone")
        self.clock.advance(DELAYS[0])
        limit = LIMITS[Reason.ENGINE]
        assert limit is not None
        self.clock.pump([1.0] * int(limit + 1))
        self.assertEqual((self.record().status, self.shown()), ("starting", "engine-unreachable"))
        self.engine.fail = None
        self.adoption.engine_found()
        self.clock.advance(1)
        self.assertEqual((self.record().status, self.shown()), ("running", None))

    def test_an_engine_that_hiccups_once_is_asked_again(self) -> None:
        """Its events went on, so nothing else tells that it is back."""
        self.adoption.engine_found()
        self.clock.advance(1)
        self.engine.fail = trouble("the engine did not answer in time")
        self.die()
        self.engine.fail = None
        self.assertEqual(self.record().status, "running")
        self.clock.advance(LOOK)
        self.assertEqual((self.record().status, self.engine.containers["t1"].state), ("running", "running"))
        self.assertEqual((self.shown(), self.watch.watched), (None, {"t1"}))

    def test_trouble_of_another_task_does_not_end_a_pause(self) -> None:
        self.adoption.engine_found()
        self.clock.advance(1)
        for delay in DELAYS[:3]:
            self.die()
            self.clock.advance(delay)
        self.die()
        self.adoption.engine_found()
        self.clock.advance(DELAYS[3] - 0.1)
        self.assertEqual((self.record().status, self.shown()), ("starting", "restart"))
        self.clock.advance(0.1)
        self.assertEqual(self.record().status, "running")

    def test_one_that_its_owner_paused_is_left_so(self) -> None:
        paused = attrs.evolve(self.engine.containers["t1"], state="paused")
        self.engine.containers["t1"] = paused
        self.running.clear()
        self.restart()
        self.done(self.adoption.adopt())
        self.assertEqual((self.engine.containers["t1"], self.record().status), (paused, "running"))
        self.assertEqual(self.running, ["t1"])


class MemoryTests(EndingCase):
    def test_a_first_process_that_is_killed_is_explained(self) -> None:
        self.oom()
        self.die(137, out_of_memory=True)
        (note,) = self.channels.notes
        for part in ("out of memory", "first process was killed", "4096 MiB", "UAI_TASK_MEMORY"):
            self.assertIn(part, note)
        (found,) = self.done(self.tasks.overview())
        self.assertEqual((found["ended"]["exitCode"], found["ended"]["outOfMemory"]), (137, True))
        self.clock.advance(DELAYS[0] + OOM_SETTLE)
        self.assertEqual((self.record().status, len(self.channels.notes)), ("running", 2))

    def test_a_child_that_is_killed_is_explained_and_the_task_goes_on(self) -> None:
        self.oom()
        self.oom()
        self.clock.advance(OOM_SETTLE)
        (note,) = self.channels.notes
        self.assertIn("a process in it was killed, the task goes on", note)
        self.assertEqual(self.record().status, "running")
        value = self.done(self.tasks.status("s", "t1"))
        self.assertEqual((value["ended"]["exitCode"], value["ended"]["outOfMemory"]), (None, True))
        self.oom()
        self.clock.advance(OOM_SETTLE)
        self.assertEqual(len(self.channels.notes), 1)
        self.clock.advance(OOM_PAUSE)
        self.oom()
        self.clock.advance(OOM_SETTLE)
        self.assertEqual(len(self.channels.notes), 2)

    def test_a_killed_one_whose_memory_sufficed_is_no_case_of_it(self) -> None:
        self.die(137)
        self.assertIn("status 137", self.channels.notes[0])
        self.assertNotIn("memory", self.channels.notes[0])

    def test_a_kill_long_after_a_child_was_killed_is_no_case_of_it(self) -> None:
        """The engine goes on to say that memory ran out once."""
        self.oom()
        self.clock.advance(OOM_SETTLE)
        self.clock.advance(3600)
        self.die(137, out_of_memory=True)
        self.assertIn("ended with status 137", self.channels.notes[-1])

    def test_one_that_ended_well_after_a_child_was_killed_is_no_case_of_it(self) -> None:
        self.die(0, out_of_memory=True)
        self.assertIn("status 0", self.channels.notes[0])


class EngineTests(EndingCase):
    def test_while_it_is_away_tasks_that_should_run_say_so(self) -> None:
        self.engine.fail = trouble("the container engine does not answer; start Docker")
        self.adoption.engine_lost()
        self.assertEqual(self.shown(), "engine-unreachable")
        self.clock.advance(LINGER)
        told = self.events("task.status")[-1]
        self.assertEqual((told["status"], told["waiting"]["reason"]), ("running", "engine-unreachable"))
        self.assertNotIn("deadline", told["waiting"])
        self.engine.fail = None
        self.adoption.engine_found()
        self.clock.advance(LINGER)
        self.assertIsNone(self.shown())
        self.assertNotIn("waiting", self.events("task.status")[-1])

    def test_when_it_comes_back_tasks_that_ended_with_it_come_back(self) -> None:
        self.engine.stop("t1", 143)
        self.adoption.engine_lost()
        self.adoption.engine_found()
        self.clock.advance(0)
        self.assertEqual((self.record().status, self.engine.containers["t1"].state), ("running", "running"))
        self.assertEqual(self.record().restarts, b"[]")

    def test_a_container_that_is_gone_with_its_network_is_made_anew(self) -> None:
        self.engine.containers.clear()
        self.adoption.engine_heard(EngineEvent("t1", "die", 137, 0))
        self.clock.advance(DELAYS[0])
        self.assertEqual(self.engine.containers["t1"].state, "running")

    def test_what_a_failed_way_up_left_while_it_was_away_is_removed(self) -> None:
        async def vanish(task_id: str, on_progress: object) -> list[Forwarded]:
            self.engine.fail = trouble("the engine is gone")
            raise trouble("set-up failed")

        self.readiness.ready = vanish  # type: ignore[method-assign]
        self.refused(self.tasks.up("c", task_up(task_id="t2")))
        self.flushLoggedErrors()
        self.assertTrue(self.folders.task("t2").exists())
        self.engine.fail = None
        self.adoption.engine_found()
        self.clock.advance(0)
        self.assertEqual((list(self.engine.containers), self.folders.task("t2").exists()), (["t1"], False))

    def test_a_long_command_does_not_keep_the_others_waiting(self) -> None:
        slow: Deferred[None] = Deferred()
        self.workspaces.slow["prepare shop"] = slow
        lane = self.dispatch.lanes
        ensureDeferred(lane.turn(lifecycle_key("t2"), lambda: self.tasks.up("c", task_up(task_id="t2"))))
        self.engine.stop("t1", 143)
        self.adoption.engine_found()
        self.clock.advance(0)
        self.assertEqual(self.record().status, "running")
        self.assertEqual(self.engine.containers["t1"].state, "running")
        self.clock.advance(LOOK)
        self.assertEqual(self.record("t2").status, "preparing")
        slow.callback(None)
        self.assertEqual(self.record("t2").status, "running")


class ParkTests(EndingCase):
    def reboot(self) -> None:
        self.engine.stop("t1", 255)
        self.boot = "second boot"
        self.restart()
        self.done(self.adoption.restore())

    def test_after_a_restart_of_the_machine_tasks_are_parked(self) -> None:
        self.reboot()
        record = self.record()
        self.assertEqual((record.status, self.shown()), ("stopped", "parked"))
        (found,) = self.done(self.tasks.overview())
        self.assertEqual([one["name"] for one in found["previewPorts"]], ["web"])
        self.assertEqual(found["waiting"]["reason"], "parked")
        told = self.events("task.status")[-1]
        self.assertEqual((told["status"], told["waiting"]["reason"]), ("stopped", "parked"))
        self.done(self.adoption.adopt())
        self.assertEqual((self.record().status, self.engine.containers["t1"].state), ("stopped", "exited"))

    def test_a_restart_of_the_daemon_alone_keeps_them_so(self) -> None:
        self.reboot()
        count = len(self.events("task.status"))
        self.restart()
        self.done(self.adoption.adopt())
        self.assertEqual((self.shown(), len(self.events("task.status"))), ("parked", count))

    def test_the_bridge_hears_of_parked_tasks(self) -> None:
        self.reboot()
        events = self.done(self.adoption.snapshot())
        self.assertEqual([type(one).__name__ for one in events], ["TaskStatus", "PortsChanged"])

    def test_a_word_wakes_it(self) -> None:
        self.reboot()
        self.done(self.channel.deliver("c", "t1", "ada", "hello"))
        self.assertEqual((self.record().status, self.shown()), ("running", None))
        self.assertEqual([call.split()[0] for call in self.channels.calls][-2:], ["resume", "deliver"])
        self.assertTrue(self.kept())
        self.assertEqual(self.workspaces.calls.count("prepare shop"), 1)

    def test_a_word_that_comes_while_it_is_woken_waits_for_that(self) -> None:
        self.reboot()
        slow: Deferred[None] = Deferred()
        self.readiness.slow["ready t1"] = slow
        self.waking.on_missing("t1")
        said = ensureDeferred(self.channel.deliver("c", "t1", "ada", "hello"))
        self.assertNoResult(said)
        slow.callback(None)
        self.successResultOf(said)
        self.assertEqual([call.split()[0] for call in self.channels.calls][-2:], ["resume", "deliver"])

    def test_a_word_for_an_open_channel_waits_for_no_start(self) -> None:
        self.channels.agents = [AgentStatus("ada", "idle")]
        self.readiness.slow["ready t1"] = Deferred()
        self.die()
        self.clock.advance(DELAYS[0])
        self.assertEqual(self.record().status, "starting")
        self.done(self.channel.deliver("c", "t1", "ada", "hello"))

    def test_a_word_that_the_end_of_the_daemon_cut_off_wakes_it_after_all(self) -> None:
        self.reboot()
        self.readiness.slow["ready t1"] = Deferred()
        ensureDeferred(self.channel.deliver("c", "t1", "ada", "hello"))
        self.readiness.slow.clear()
        self.restart()
        self.assertEqual(self.record().status, "starting")
        self.done(self.channel.deliver("c", "t1", "ada", "hello"))
        self.assertEqual(self.record().status, "running")

    def test_a_crew_wakes_it_in_its_own_turn(self) -> None:
        self.reboot()
        wanted = ChannelEnsure("t1", task().agents, [], "b", "/workspace", "running")
        turn = self.dispatch.lanes.turn(lifecycle_key("t1"), lambda: self.channel.ensure("c", wanted))
        self.done(turn)
        self.assertEqual(self.record().status, "running")

    def test_a_tunnel_wakes_it_once(self) -> None:
        self.reboot()
        self.waking.on_missing("t1")
        self.waking.on_missing("t1")
        self.waking.on_missing("t9")
        self.assertEqual(self.record().status, "running")
        self.assertEqual(self.channels.calls.count("resume t1"), 1)

    def test_one_that_cannot_be_woken_says_why(self) -> None:
        self.reboot()
        self.engine.broken.add("t1")
        self.assertIn("cannot start", self.refused(self.waking.wake("t1")).message)
        self.assertEqual((self.record().status, self.kept()), ("failed", True))
        self.waking.on_missing("t1")
        self.assertEqual(self.record().status, "failed")

    def test_taskup_and_taskdown_work_on_it(self) -> None:
        self.reboot()
        self.assertEqual(self.done(self.tasks.up("c", task_up()))["status"], "running")
        self.reboot()
        value = self.done(self.tasks.down("d", task_down()))
        self.assertEqual([one["slug"] for one in value["saved"]], ["shop"])
        self.assertIsNone(self.shown())

    def test_where_the_engine_did_not_restart_it_is_taken_over(self) -> None:
        self.boot = "second boot"
        self.running.clear()
        self.restart()
        self.done(self.adoption.adopt())
        self.assertEqual((self.record().status, self.shown(), self.running), ("running", None, ["t1"]))

    def test_this_machine_has_a_boot_id(self) -> None:
        self.assertRegex(str(read_boot_id()), r"[0-9a-f-]{36}")


class ApprovalTests(EndingCase):
    def says(self, agent: str, state: str) -> None:
        at = int(self.clock.seconds() * 1000)
        self.done(self.journal.emit(ChannelActivity("t1", at, agent, state)))  # type: ignore[arg-type]

    def test_a_task_waits_while_an_agent_asks(self) -> None:
        self.says("ada", "thinking")
        self.assertIsNone(self.shown())
        self.says("ada", "awaiting-permission")
        self.says("bob", "awaiting-permission")
        self.assertEqual(self.shown(), "waiting-for-approval")
        self.clock.advance(LINGER)
        told = self.events("task.status")[-1]["waiting"]
        self.assertIn("@ada, @bob", told["text"])
        self.says("ada", "tool")
        self.assertEqual(self.shown(), "waiting-for-approval")
        self.says("bob", "idle")
        self.clock.advance(1)
        self.assertIsNone(self.shown())
        self.assertNotIn("waiting", self.events("task.status")[-1])

    def test_after_a_restart_the_channel_is_asked(self) -> None:
        self.channels.agents = [AgentStatus("ada", "awaiting-permission"), AgentStatus("bob", "idle")]
        self.restart()
        self.approvals.look("t1")
        self.assertEqual(self.shown(), "waiting-for-approval")

    def test_what_waited_in_an_earlier_life_is_not_told_for_ever(self) -> None:
        self.says("ada", "awaiting-permission")
        self.clock.advance(LINGER)
        self.restart()
        self.done(self.adoption.adopt())
        (found,) = self.done(self.tasks.overview())
        self.assertIsNone(found["waiting"])


class QueueTests(CommandCase):
    def test_a_command_that_waits_for_its_turn_gives_up_at_its_limit(self) -> None:
        limit = LIMITS[Reason.QUEUED]
        assert limit is not None
        key = lifecycle_key("t1")
        forever: Deferred[None] = Deferred()
        lanes = Lanes()

        async def hold() -> None:
            await forever

        ensureDeferred(lanes.turn(key, hold))
        queued = self.dispatch._queued("taskUp", key)
        waiting = ensureDeferred(lanes.turn(key, hold, queued))
        now = self.tasks.waiting("t1")
        assert now is not None
        self.assertEqual((now.reason, now.text), (Reason.QUEUED, "taskUp waits for its turn"))
        self.clock.advance(limit)
        error = self.refused(waiting)
        self.assertIs(error.code, ErrorCode.TIMEOUT)
        self.assertIsNone(self.tasks.waiting("t1"))
        after = ensureDeferred(lanes.turn(key, self._nothing))
        forever.callback(None)
        self.assertEqual(self.successResultOf(after), 1)

    async def _nothing(self) -> int:
        return 1
