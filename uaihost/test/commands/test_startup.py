"""A task's way up: what runs beside what, behind which gate, what cuts it off, what is told and kept."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred

from uaihost.commands.progress import INNER_LIMIT, LAST_WORDS
from uaihost.commands.waits import LIMITS, LINGER
from uaihost.containers.readiness import Forwarded
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Doing, Json, Launch, Say, Step
from uaihost.state.steps import KEPT_ATTEMPTS, STEP_LIMIT
from uaihost.test.commands.bench import CommandCase, trouble
from uaihost.test.commands.fakes import FakeCheck, FakeReport, files_below, project, task_down, task_up
from uaihost.wire.reasons import Reason


class WayUpCase(CommandCase):
    def begin(self, *projects: Any, task_id: str = "t1") -> Deferred[Json]:
        return ensureDeferred(self.tasks.up("c", task_up(*projects, task_id=task_id)))

    def shown(self) -> str | None:
        waiting = self.tasks.waiting("t1")
        return None if waiting is None else waiting.reason.value

    def steps(self) -> dict[str, tuple[str, str | None]]:
        (found,) = self.done(self.tasks.overview("t1"))
        return {one["step"]: (one["state"], one["message"]) for one in found["steps"]}


class SideBySideTests(WayUpCase):
    def test_the_container_starts_while_the_copies_are_made(self) -> None:
        slow: Deferred[None] = Deferred()
        self.workspaces.slow["prepare a"] = slow
        up = self.begin(project("a"), project("b"))
        self.assertNoResult(up)
        self.assertEqual(self.engine.containers["t1"].state, "running")
        self.assertEqual(self.isolation.calls, ["check t1 own 1000:1000"])
        self.assertTrue(self.folders.work_copy("t1", "b").is_dir())
        self.assertEqual((self.shown(), self.statuses()[-1]), ("cloning", "preparing"))
        self.assertFalse((self.folders.control("t1") / "go").exists())
        slow.callback(None)
        self.assertEqual(self.successResultOf(up)["status"], "running")
        self.assertTrue((self.folders.control("t1") / "go").exists())

    def test_nothing_runs_before_the_gate_and_the_set_up_after_it(self) -> None:
        slow: Deferred[None] = Deferred()
        self.readiness.slow["ready t1"] = slow
        up = self.begin()
        self.assertTrue((self.folders.control("t1") / "go").exists())
        self.assertEqual((self.shown(), self.statuses()[-1]), ("setup", "starting"))
        slow.callback(None)
        self.successResultOf(up)

    def test_a_failed_copy_ends_the_others_and_removes_the_container(self) -> None:
        cancelled: list[str] = []
        self.workspaces.slow["prepare a"] = Deferred(lambda _: cancelled.append("a"))
        self.workspaces.broken["prepare b"] = HostError(ErrorCode.CLONE_FAILED, "no such repository")
        error = self.refused(self.tasks.up("c", task_up(project("a"), project("b"))))
        self.assertEqual((error.code, cancelled), (ErrorCode.CLONE_FAILED, ["a"]))
        self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))
        self.assertEqual(self.steps()["clone a"], ("failed", "cut off, since another step failed"))

    def test_a_container_that_fails_ends_the_copies(self) -> None:
        cancelled: list[str] = []
        self.workspaces.slow["prepare shop"] = Deferred(lambda _: cancelled.append("shop"))
        self.engine.broken.add("t1")
        error = self.refused(self.tasks.up("c", task_up()))
        self.assertEqual((error.message.split(":")[0], cancelled), ("container", ["shop"]))
        self.assertEqual(files_below(self.folders.tasks), [])

    def test_a_launch_that_is_under_way_is_waited_for_and_undone(self) -> None:
        """It goes on in a thread whatever becomes of who asked."""
        launching: Deferred[None] = Deferred()
        at_once = self.engine.launch

        async def slowly(launch: Launch) -> Container:
            await launching
            return await at_once(launch)

        self.engine.launch = slowly  # type: ignore[method-assign]
        copying: Deferred[None] = Deferred()
        self.workspaces.slow["prepare shop"] = copying
        up = self.begin()
        copying.errback(trouble("the disk is full"))
        self.assertNoResult(up)
        launching.callback(None)
        self.assertIn("the disk is full", self.failureResultOf(up, HostError).value.message)
        self.assertEqual((self.engine.containers, self.record().status), ({}, "failed"))

    def test_what_an_earlier_container_left_is_gone_but_home_and_work(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        for folder in (self.folders.home("t1"), self.folders.scratch("t1"), self.folders.run("t1")):
            (folder / "left").touch()
        self.engine.stop("t1")
        self.done(self.tasks.up("d", task_up()))
        self.assertTrue((self.folders.home("t1") / "left").exists())
        self.assertFalse((self.folders.scratch("t1") / "left").exists())
        self.assertFalse((self.folders.run("t1") / "left").exists())

    def test_the_gate_is_closed_before_every_start(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.engine.stop("t1")
        # FakeIsolation fails when the gate is open at its look.
        self.assertEqual(self.done(self.tasks.up("d", task_up()))["status"], "running")
        self.assertEqual(len(self.isolation.calls), 2)


class ReportTests(WayUpCase):
    def test_the_report_is_a_card_and_is_kept(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.assertEqual(self.channels.notes, ["engine socket: blocked\ndisk quota: open"])
        (found,) = self.done(self.tasks.overview())
        self.assertEqual([one["name"] for one in found["report"]["checks"]], ["engine socket", "disk quota"])

    def test_one_that_fails_closes_the_task_and_runs_nothing(self) -> None:
        self.isolation.report = FakeReport(
            (FakeCheck("engine socket", "open"), FakeCheck("metadata", "unknown"))
        )
        error = self.refused(self.tasks.up("c", task_up()))
        self.assertIn("engine socket, metadata", error.message)
        self.assertTrue(error.message.startswith("isolation: "))
        self.assertEqual(self.readiness.calls, [])
        self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))
        self.assertEqual((self.record().status, self.egress.opened), ("failed", set()))
        self.assertEqual(len(self.channels.notes), 1)

    def test_one_that_fails_at_a_later_start_keeps_the_work(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        (self.folders.work_copy("t1", "shop") / "work").touch()
        self.engine.stop("t1")
        self.isolation.report = FakeReport((FakeCheck("engine socket", "open"),))
        self.refused(self.tasks.up("d", task_up()))
        self.assertTrue((self.folders.work_copy("t1", "shop") / "work").exists())
        self.assertEqual(self.engine.containers, {})


class ToolsTests(WayUpCase):
    def test_tools_are_installed_from_the_copies(self) -> None:
        self.done(self.tasks.up("c", task_up(project("a"), project("b"))))
        self.assertEqual(self.tools.calls, ["ensure t1 a b"])

    def test_tools_that_fail_are_a_note(self) -> None:
        self.tools.broken["ensure"] = trouble("nodejs.org does not answer")
        self.assertEqual(self.done(self.tasks.up("c", task_up()))["status"], "running")
        self.assertIn("Tool versions are missing: tools: nodejs.org does not answer", self.channels.notes)


class LimitTests(WayUpCase):
    def expire(self, up: Deferred[Json], reason: Reason) -> HostError:
        limit = LIMITS[reason]
        assert limit is not None
        self.clock.advance(limit - 1)
        self.assertNoResult(up)
        self.clock.advance(1)
        error = self.failureResultOf(up, HostError).value
        assert isinstance(error, HostError)
        self.assertIs(error.code, ErrorCode.TIMEOUT)
        self.assertIn(f"{limit:.0f} s", error.message)
        self.assertEqual((self.record().status, self.record().message), ("failed", error.message))
        self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))
        return error

    def test_of_memory(self) -> None:
        self.admission.held = Deferred()
        up = self.begin()
        self.assertEqual(self.shown(), "memory")
        self.assertEqual(self.engine.containers, {})
        self.assertIn("1.0 GiB are free", self.expire(up, Reason.MEMORY).message)

    def test_of_a_clone(self) -> None:
        self.workspaces.slow["prepare shop"] = Deferred()
        error = self.expire(self.begin(), Reason.CLONING)
        self.assertTrue(error.message.startswith("clone shop: gave up"), error.message)
        self.assertIn("check the network", error.message)

    def test_of_the_set_up(self) -> None:
        self.readiness.slow["ready t1"] = Deferred()
        error = self.expire(self.begin(), Reason.SETUP)
        self.assertIn("(hook)", error.message)

    def test_of_an_engine_that_does_not_answer(self) -> None:
        self.engine.fail = trouble("cannot ask the engine's version")
        up = self.begin()
        self.assertEqual(self.shown(), "engine-unreachable")
        self.clock.advance(LINGER)
        waiting = self.events("task.status")[-1]["waiting"]
        self.assertEqual(
            (waiting["reason"], waiting["deadline"] - waiting["since"]), ("engine-unreachable", 60_000)
        )
        self.engine.fail = None
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(up)["status"], "running")

    def test_of_saving_keeps_everything(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        saving: Deferred[None] = Deferred()

        async def slowly(task_id: str, slugs: list[str]) -> list[Any]:
            await saving
            return []

        self.workspaces.save = slowly  # type: ignore[method-assign]
        down = ensureDeferred(self.tasks.down("d", task_down()))
        self.assertEqual(self.shown(), "saving")
        self.clock.advance(1800)
        error = self.failureResultOf(down, HostError).value
        self.assertIs(error.code, ErrorCode.TIMEOUT)
        self.assertEqual(self.record().status, "stopped")
        self.assertTrue(self.folders.work_copy("t1", "shop").is_dir())


class StepTests(WayUpCase):
    def test_steps_are_kept_with_their_durations(self) -> None:
        slow: Deferred[None] = Deferred()
        self.workspaces.slow["prepare shop"] = slow
        up = self.begin()
        self.clock.advance(2.5)
        slow.callback(None)
        self.successResultOf(up)
        value = self.done(self.tasks.status("s", "t1"))
        steps = {one["step"]: one for one in value["steps"]}
        self.assertEqual(
            list(steps),
            ["admission", "image", "clone shop", "container", "isolation", "tools", "setup", "setup: hook"],
        )
        self.assertEqual({one["state"] for one in value["steps"]}, {"done"})
        self.assertEqual(steps["clone shop"]["elapsedMs"], 2500)
        self.assertEqual(steps["clone shop"]["startedAt"], 1_000_000)
        self.assertEqual(steps["setup: hook"]["elapsedMs"], 12)

    def test_the_last_lines_of_what_failed_are_kept(self) -> None:
        lines = "\n".join(f"line {number} of the build" for number in range(500))
        self.images.broken["ensure"] = HostError(ErrorCode.UNAVAILABLE, lines)
        self.refused(self.tasks.up("c", task_up()))
        state, message = self.steps()["image"]
        assert message is not None
        self.assertEqual((state, len(message)), ("failed", LAST_WORDS))
        self.assertTrue(message.endswith("line 499 of the build"))
        told = [one for one in self.events("task.progress") if one["step"] == "image"][-1]
        self.assertEqual(told["message"], message)

    def test_old_attempts_are_forgotten(self) -> None:
        self.images.broken["ensure"] = trouble()
        for _ in range(KEPT_ATTEMPTS + 3):
            self.refused(self.tasks.up("c", task_up()))
        assert self.db is not None
        kept = self.done(
            self.db.run(lambda db: db.execute("SELECT count(DISTINCT attempt) FROM task_steps").fetchone()[0])
        )
        self.assertEqual(kept, KEPT_ATTEMPTS)

    def test_a_container_that_names_many_steps_fills_no_disk(self) -> None:
        async def flood(task_id: str, on_progress: Any) -> list[Forwarded]:
            for number in range(2000):
                on_progress(Step(f"step {number}", "done", "x" * 60_000, 1))
            return []

        self.readiness.ready = flood  # type: ignore[method-assign]
        self.done(self.tasks.up("c", task_up()))
        (found,) = self.done(self.tasks.overview("t1"))
        self.assertTrue(len(found["steps"]) <= STEP_LIMIT)
        self.assertTrue(all(len(one["message"] or "") <= LAST_WORDS for one in found["steps"]))

    def test_a_container_that_goes_on_telling_fills_no_outbox(self) -> None:
        async def ready(task_id: str, on_progress: Any) -> list[Forwarded]:
            for _ in range(3 * INNER_LIMIT):
                on_progress(Step("flood", "failed", "x" * LAST_WORDS))
            return []

        self.readiness.ready = ready  # type: ignore[method-assign]
        self.successResultOf(self.begin())
        told = [one for one in self.events("task.progress") if one["step"] == "setup: flood"]
        self.assertEqual(len(told), INNER_LIMIT)

    def test_what_the_container_is_at_is_what_is_waited_for(self) -> None:
        slow: Deferred[None] = Deferred()

        async def ready(task_id: str, on_progress: Any) -> list[Forwarded]:
            on_progress(Step("tools shop", "started"))
            await slow
            on_progress(Step("editor", "started"))
            await Deferred()
            return []

        self.readiness.ready = ready  # type: ignore[method-assign]
        self.begin()
        self.assertEqual(self.shown(), "tools")
        slow.callback(None)
        self.assertEqual(self.shown(), "editor-starting")

    def test_events_row_and_memory_say_the_same(self) -> None:
        self.workspaces.slow["prepare shop"] = Deferred()
        say: list[Say] = []
        prepare = self.workspaces.prepare

        async def telling(*args: Any) -> Any:
            say.append(args[5])
            return await prepare(*args)

        self.workspaces.prepare = telling  # type: ignore[method-assign, assignment]
        self.begin()
        self.clock.advance(1)
        say[0](Doing(Reason.CLONING, "Receiving objects", 43))
        self.clock.advance(1)
        told = self.events("task.status")[-1]
        (found,) = self.done(self.tasks.overview("t1"))
        expected = {
            "reason": "cloning",
            "text": "Receiving objects",
            "percent": 43,
            "since": 1_000_000,
            "deadline": 2_800_000,
        }
        self.assertEqual((told["status"], told["waiting"]), ("preparing", expected))
        self.assertEqual(found["waiting"], expected)
        self.restart()
        (kept,) = self.done(self.tasks.overview("t1"))
        self.assertEqual(kept["waiting"], expected)


class PortTests(WayUpCase):
    def test_ports_that_are_opened_are_previews_while_they_are_open(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.tasks.on_ports("t1", [5173, 3000, 8100, 9229])
        self.clock.advance(0)
        told = [one["name"] for one in self.events("ports.changed")[-1]["previewPorts"]]
        self.assertEqual(told, ["web", "port-5173", "port-9229"])
        address = self.ports.tasks["t1"][1]["port-5173"]
        self.assertEqual((address.port, address.inner), (0, 5173))
        self.tasks.on_ports("t1", [9229])
        self.clock.advance(1)
        told = [one["name"] for one in self.events("ports.changed")[-1]["previewPorts"]]
        self.assertEqual(told, ["web", "port-9229"])
        value = self.done(self.tasks.up("d", task_up()))
        self.assertEqual([one.name for one in value["previewPorts"]], told)

    def test_they_are_announced_once_a_second_and_not_without_end(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        before = len(self.events("ports.changed"))
        for count in range(200):
            self.tasks.on_ports("t1", list(range(10_000, 10_001 + count)))
            self.clock.advance(0.01)
        self.clock.advance(1)
        told = self.events("ports.changed")[before:]
        self.assertTrue(2 <= len(told) <= 4, len(told))
        self.assertEqual(len(told[-1]["previewPorts"]), 65)

    def test_a_declared_name_stays(self) -> None:
        declared = project("shop", previewPorts='[{"name": "port-5173", "port": 5173}]')
        self.done(self.tasks.up("c", task_up(declared)))
        before = len(self.events("ports.changed"))
        self.tasks.on_ports("t1", [])
        self.tasks.on_ports("t1", [5173])
        self.clock.advance(2)
        self.assertEqual(len(self.events("ports.changed")), before)

    def test_of_a_task_that_is_down_nothing_is_heard(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.done(self.tasks.down("d", task_down()))
        before = len(self.events("ports.changed"))
        self.tasks.on_ports("t1", [5173])
        self.clock.advance(2)
        self.assertEqual((len(self.events("ports.changed")), self.ports.tasks), (before, {}))
