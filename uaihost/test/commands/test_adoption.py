"""After a restart: rows against the engine, and the truth told."""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from uaihost.commands.adoption import BACK_OFF, LOOK
from uaihost.commands.registry import lifecycle_key
from uaihost.interfaces import Launch
from uaihost.test.commands.bench import EDITOR_PORT, CommandCase, trouble
from uaihost.test.commands.fakes import files_below, task_up
from uaihost.test.commands.test_tasks import Died
from uaihost.wire.events import PortsChanged, TaskStatus


class AdoptionTests(CommandCase):
    def up(self) -> None:
        self.done(self.tasks.up("up", task_up()))

    def adopt(self) -> None:
        self.restart()
        self.done(self.adoption.adopt())

    def test_a_running_task_is_taken_over(self) -> None:
        self.up()
        ports = self.ports.tasks
        self.adopt()
        self.assertEqual((self.ports.tasks, self.running), (ports, ["t1"]))
        self.assertEqual(self.statuses(), ["preparing", "starting", "running"])
        self.assertEqual(len(self.events("ports.changed")), 1)

    def test_ports_that_moved_are_told(self) -> None:
        self.up()
        self.engine.containers["t1"] = attrs.evolve(
            self.engine.containers["t1"], ports={3000: 50001, EDITOR_PORT: 50002}
        )
        self.adopt()
        self.assertEqual(self.ports.tasks["t1"][1]["web"].port, 50001)
        told = self.events("ports.changed")[-1]["previewPorts"]
        self.assertEqual(told, [{"name": "web", "containerPort": 3000, "hostPort": 50001}])

    def test_one_that_should_run_is_started_with_the_work_that_is_there(self) -> None:
        self.up()
        (self.folders.work_copy("t1", "shop") / "work").touch()
        self.engine.stop("t1")
        self.adopt()
        self.assertEqual(self.engine.containers["t1"].state, "running")
        self.assertEqual((self.record().status, self.channels.calls[-1]), ("running", "resume t1"))
        self.assertEqual(self.ports.tasks["t1"][1]["web"].port, self.engine.containers["t1"].ports[3000])
        self.assertEqual(self.workspaces.calls.count("prepare shop"), 1)

    def test_one_that_does_not_start_has_failed_and_keeps_its_work(self) -> None:
        self.up()
        self.engine.stop("t1")
        self.engine.broken.add("t1")
        self.adopt()
        self.assertEqual((self.record().status, self.running), ("failed", []))
        self.assertIn("cannot start", str(self.record().message))
        self.assertTrue(self.folders.work_copy("t1", "shop").is_dir())

    def test_a_container_that_is_gone_is_made_anew_with_the_work_that_is_there(self) -> None:
        self.up()
        (self.folders.work_copy("t1", "shop") / "work").touch()
        self.engine.containers.clear()
        self.adopt()
        self.assertEqual(self.record().status, "running")
        self.assertIn("its container was removed", self.channels.notes[-2])
        self.assertTrue((self.folders.work_copy("t1", "shop") / "work").exists())

    def test_a_container_that_nobody_knows_is_removed(self) -> None:
        self.up()
        self.done(self.engine.launch(Launch("orphan", "i", 1, 1, (), ())))
        self.adopt()
        self.assertEqual(list(self.engine.containers), ["t1"])

    def test_a_command_that_was_given_up_leaves_a_task_that_failed(self) -> None:
        self.readiness.broken["ready"] = Died()
        work = self.tasks.up("c", task_up())
        with self.assertRaises(Died):
            work.send(None)
        self.readiness.broken.clear()
        self.adopt()
        self.assertEqual(self.record().status, "failed")
        self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))

    def test_it_takes_its_turn_with_the_tasks_commands(self) -> None:
        self.up()
        self.restart()
        seen: list[str] = []

        async def command() -> None:
            seen.append("command")
            await gate

        gate: Deferred[None] = Deferred()
        ensureDeferred(self.dispatch.lanes.turn(lifecycle_key("t1"), command))
        adopting = ensureDeferred(self.adoption.adopt())
        self.assertNoResult(adopting)
        self.assertEqual(self.running, [])
        gate.callback(None)
        self.successResultOf(adopting)
        self.assertEqual(self.running, ["t1"])

    def test_an_engine_that_is_away_is_asked_again(self) -> None:
        self.up()
        self.restart()
        self.engine.fail = trouble("no engine")
        self.adoption.start()
        for delay in (*BACK_OFF, BACK_OFF[-1]):
            self.clock.advance(delay - 0.01)
            self.assertEqual(self.running, [])
            self.clock.advance(0.01)
        self.engine.fail = None
        self.clock.advance(BACK_OFF[-1])
        self.assertEqual((self.running, self.record().status), (["t1"], "running"))

    def test_an_engine_that_comes_back_is_adopted_anew(self) -> None:
        self.up()
        self.restart()
        self.adoption.start()
        self.clock.advance(LOOK)
        self.assertEqual(self.running, ["t1"])
        self.engine.fail = trouble("restarting")
        self.clock.advance(LOOK)
        self.engine.fail = None
        self.engine.stop("t1")
        self.clock.advance(BACK_OFF[0])
        self.assertEqual((self.running, self.channels.calls[-1]), (["t1"], "resume t1"))
        self.assertEqual(self.engine.containers["t1"].state, "running")
        self.adoption.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_snapshot_holds_every_live_task_and_stores_nothing(self) -> None:
        self.up()
        self.done(self.exposed.expose("demo", {"web": 9000}))
        self.readiness.broken["ready"] = trouble("hook failed")
        self.refused(self.tasks.up("c", task_up(task_id="t2")))
        before = len(self.events("task.status"))
        found = self.done(self.adoption.snapshot())
        self.assertEqual(len(self.events("task.status")), before)
        statuses = {one.taskId: (one.status, one.message) for one in found if isinstance(one, TaskStatus)}
        self.assertEqual(
            statuses,
            {"t1": ("running", None), "t2": ("failed", "setup: hook failed"), "demo": ("running", None)},
        )
        ports = {
            one.taskId: [p.name for p in one.previewPorts] for one in found if isinstance(one, PortsChanged)
        }
        self.assertEqual(ports, {"t1": ["web"], "t2": [], "demo": ["web"]})
