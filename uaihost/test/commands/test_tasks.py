"""taskUp, taskDown, taskStatus between fakes: what is done, told and left behind, also when a step fails."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, ensureDeferred

from uaihost.blocking import Inline
from uaihost.commands.dispatch import PATIENCE
from uaihost.commands.tasks import Surroundings, Tasks
from uaihost.containers.readiness import Forwarded
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Address, Mount
from uaihost.state import commands
from uaihost.state.saved import every
from uaihost.test.commands.bench import EDITOR_PORT, CommandCase, trouble
from uaihost.test.commands.fakes import files_below, project, task_down, task_up
from uaihost.wire.codec import encode_value
from uaihost.wire.frames import Command


def plain(value: Any) -> Any:
    """As it travels."""
    return msgspec.json.decode(msgspec.json.encode(value))


class UpTests(CommandCase):
    def test_a_task_comes_up(self) -> None:
        value = plain(self.done(self.tasks.up("c", task_up())))
        launched = self.engine.containers["t1"].ports
        self.assertEqual(
            value,
            {
                "status": "running",
                "codeServerPort": 0,
                "previewPorts": [{"name": "web", "containerPort": 3000, "hostPort": launched[3000]}],
                "workspacePath": "/workspace",
            },
        )
        self.assertEqual(self.statuses(), ["preparing", "starting", "running"])
        happened = {each.name for each, count in self.tasks.records.happened.items() if count == 1}
        self.assertEqual(happened, {"UP", "PREPARED", "READY"})
        self.assertEqual(self.events("ports.changed")[-1]["previewPorts"], value["previewPorts"])
        editor, previews = self.ports.tasks["t1"]
        relay = str(self.folders.run("t1") / "relay.sock")
        self.assertEqual(editor, Address("127.0.0.1", 0, relay, EDITOR_PORT))
        self.assertEqual(previews, {"web": Address("127.0.0.1", launched[3000], relay, 3000)})

    def test_the_container_sees_its_work_copies_and_nothing_else(self) -> None:
        self.done(self.tasks.up("c", task_up(project("a", env='{"A": "1"}'), project("b", env='{"B": "2"}'))))
        launch = self.engine.launches["t1"]
        self.assertEqual(
            set(launch.mounts),
            {
                Mount(str(self.folders.work("t1")), "/workspace"),
                Mount(str(self.folders.home("t1")), "/home/dev"),
                Mount(str(self.folders.scratch("t1")), "/tmp"),
                Mount(str(self.folders.run("t1")), "/run/uai"),
                Mount(str(self.folders.control("t1")), "/run/host", read_only=True),
                Mount(str(self.folders.tools), "/opt/uai-tools", read_only=True),
                Mount(str(self.folders.attachments("t1")), "/attachments", read_only=True),
            },
        )
        self.assertEqual(dict(launch.env), {"A": "1", "B": "2"})
        self.assertEqual((launch.uid, launch.gid, launch.image), (1000, 1000, "uai/task:1"))
        self.assertEqual((launch.read_only, launch.network, launch.ports), (True, "own", (3000,)))

    def test_only_what_is_its_own_can_be_written_by_the_container(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        folders = self.folders
        mode = {
            path.name: path.stat().st_mode & 0o7777
            for path in (
                folders.work("t1"),
                folders.home("t1"),
                folders.scratch("t1"),
                folders.run("t1"),
                folders.control("t1"),
                folders.attachments("t1"),
            )
        }
        root = os.geteuid() == 0
        self.assertEqual(
            mode,
            {
                "work": 0o755 if root else 0o555,
                "home": 0o700,
                "scratch": 0o1777,
                "run": 0o700,
                "control": 0o755,
                "attachments": 0o755,
            },
        )
        gate = folders.control("t1") / "go"
        self.assertEqual(gate.stat().st_mode & 0o777, 0o444)
        if root:
            owners = {path.name: path.stat().st_uid for path in folders.task("t1").iterdir()}
            self.assertEqual({name for name, uid in owners.items() if uid == 1000}, {"home", "run"})

    def test_what_may_only_leave_through_the_host_has_no_network(self) -> None:
        self.egress.mode = "deny"
        value = self.done(self.tasks.up("c", task_up(project("a", env='{"A": "1"}'))))
        launch = self.engine.launches["t1"]
        self.assertEqual((launch.network, dict(launch.env)), ("none", {"A": "1", "UAI_EGRESS": "proxy"}))
        self.assertEqual(self.isolation.calls, ["check t1 none 1000:1000"])
        self.assertEqual(self.egress.opened, {"t1"})
        self.assertEqual(value["status"], "running")

    def test_each_step_is_told(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        told = [(event["step"], event["state"]) for event in self.events("task.progress")]
        for step in ("clone shop", "image", "container", "setup"):
            self.assertEqual(next(state for name, state in told if name == step), "started")
            self.assertEqual([state for name, state in told if name == step][-1], "done")
        self.assertIn(("setup: hook", "done"), told)
        done = [event for event in self.events("task.progress") if event["state"] == "done"]
        self.assertTrue(all(event["elapsedMs"] >= 0 for event in done))

    def test_a_running_task_is_left_as_it_is(self) -> None:
        first = self.done(self.tasks.up("c", task_up()))
        calls = list(self.workspaces.calls)
        again = self.done(self.tasks.up("d", task_up(project("other"))))
        self.assertEqual(again, first)
        self.assertEqual(self.workspaces.calls, calls)
        self.assertEqual(self.statuses(), ["preparing", "starting", "running"])

    def test_a_task_whose_container_ended_comes_up_again_with_its_work(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        work = self.folders.work_copy("t1", "shop") / "work"
        work.touch()
        self.engine.stop("t1")
        value = self.done(self.tasks.up("d", task_up()))
        self.assertEqual(value["previewPorts"][0].hostPort, self.engine.containers["t1"].ports[3000])
        self.assertTrue(work.exists())

    def test_a_failed_step_leaves_nothing_behind_and_is_named(self) -> None:
        for step, break_it in (
            ("clone b", lambda: self.workspaces.broken.update({"prepare b": trouble()})),
            ("image", lambda: self.images.broken.update({"ensure": trouble()})),
            ("container", lambda: self.engine.broken.add("t1")),
            ("setup", lambda: self.readiness.broken.update({"ready": trouble()})),
        ):
            break_it()
            error = self.refused(self.tasks.up("c", task_up(project("a"), project("b"))))
            self.assertEqual(error.message.split(": ")[0], step)
            self.assertEqual(self.engine.containers, {})
            self.assertEqual(files_below(self.folders.tasks), [])
            self.assertEqual((self.record().status, self.record().message), ("failed", error.message))
            self.assertEqual(self.ports.tasks, {})
            failed = [event for event in self.events("task.progress") if event["state"] == "failed"]
            self.assertEqual(failed[-1]["step"], step)
            for faulty in (self.workspaces, self.images, self.readiness):
                faulty.broken.clear()
            self.engine.broken.clear()
        self.assertEqual(self.done(self.tasks.up("d", task_up()))["status"], "running")

    def test_a_failure_keeps_what_was_attached_and_what_was_worked_on(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        (self.folders.work_copy("t1", "shop") / "work").touch()
        self.engine.stop("t1")
        self.readiness.broken["ready"] = trouble()
        self.refused(self.tasks.up("d", task_up()))
        self.assertTrue((self.folders.work_copy("t1", "shop") / "work").exists())
        self.folders.attachments("t2").mkdir(parents=True)
        (self.folders.attachments("t2") / "plan.txt").touch()
        self.refused(self.tasks.up("e", task_up(task_id="t2")))
        self.assertEqual(files_below(self.folders.task("t2")), ["attachments", "attachments/plan.txt"])

    def test_a_defect_cleans_up_too(self) -> None:
        self.readiness.broken["ready"] = ZeroDivisionError("defect")
        work = self.tasks.up("c", task_up())
        with self.assertRaises(ZeroDivisionError):
            self.done_or_raise(work)
        self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))
        self.assertNotIn("defect", str(self.record().message).removeprefix("a defect of the host"))

    def done_or_raise(self, work: Any) -> Any:
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        raise self.failureException("it waits")

    def test_without_cleaning_up_the_first_failure_is_told(self) -> None:
        """The engine went away in the middle: that nothing could be removed hides no reason."""

        async def vanish(task_id: str, on_progress: object) -> list[Forwarded]:
            self.engine.fail = trouble("the engine is gone")
            raise trouble("set-up failed")

        self.readiness.ready = vanish  # type: ignore[method-assign]
        error = self.refused(self.tasks.up("c", task_up()))
        self.assertIn("set-up failed", error.message)
        self.assertEqual(self.record().status, "failed")
        self.assertEqual(len(self.flushLoggedErrors(HostError)), 1)

    def test_bad_arguments_touch_nothing(self) -> None:
        for bad in (
            task_up(task_id="../x"),
            task_up(task_id="a.b"),
            task_up(branch="--upload-pack=x"),
            task_up(branch="a..b"),
            task_up(project("../x")),
            task_up(project("a"), project("a")),
            task_up(project("a", previewPorts="[")),
            task_up(project("a", env='{"A": 1}')),
            task_up(project("A_b"), project("c")),
        ):
            self.assertIs(self.refused(self.tasks.up("c", bad)).code, ErrorCode.INVALID_ARGS)
        self.assertEqual((self.statuses(), self.workspaces.calls), ([], []))

    def test_previews_that_are_named_alike_get_their_projects_name(self) -> None:
        value = self.done(
            self.tasks.up(
                "c", task_up(project("a"), project("b", previewPorts='[{"name": "web", "port": 4}]'))
            )
        )
        self.assertEqual(
            [(one.name, one.containerPort) for one in value["previewPorts"]], [("a-web", 3000), ("b-web", 4)]
        )

    def test_a_variable_that_two_projects_give_is_the_first_ones_and_is_said(self) -> None:
        self.done(
            self.tasks.up(
                "c",
                task_up(
                    project("a", env='{"P": "1"}', position=2), project("b", env='{"P": "2"}', position=1)
                ),
            )
        )
        self.assertEqual(dict(self.engine.launches["t1"].env), {"P": "2"})
        said = [
            event.get("message") for event in self.events("task.progress") if event["step"] == "container"
        ]
        self.assertIn("P of a is not set: b gives it another value", said)

    def test_the_owner_commits_under_both_names_or_none(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.done(self.tasks.up("d", msgspec.structs.replace(task_up(task_id="t2"), ownerName=None)))
        self.assertEqual([None if i is None else i.name for i in self.workspaces.identities], ["Ada", None])

    def test_without_an_editor_its_port_is_null(self) -> None:
        around = Surroundings(
            self.workspaces, self.engine, self.images, self.readiness, self.channels, self.ports,
            self.folders, 1000, 1000,
        )  # fmt: skip
        assert self.db is not None
        tasks = Tasks(self.db, self.journal, self.clock, Inline(), around, self.exposed)
        value = self.done(tasks.up("c", task_up()))
        self.assertIsNone(value["codeServerPort"])
        self.assertIsNone(self.ports.tasks["t1"][0])
        self.assertEqual(self.engine.launches["t1"].ports, (3000,))


class TogetherCase(CommandCase):
    """Commands of the bridge that are under way together."""

    def command(self, command_id: str, name: str, value: Any) -> None:
        self.dispatch.received(Command(command_id, name, [json.loads(encode_value(value))]))

    def result(self, command_id: str) -> dict[str, Any]:
        assert self.db is not None
        record = self.done(self.db.run(lambda db: commands.find(db, command_id)))
        assert record is not None and record.result is not None
        found: dict[str, Any] = json.loads(record.result)
        return found


class GivenUpTests(TogetherCase):
    """taskDown while taskUp is under way."""

    def test_what_brings_a_task_up_ends_when_it_is_to_be_taken_down(self) -> None:
        self.workspaces.slow["prepare shop"] = Deferred()
        self.command("up", "taskUp", task_up())
        self.assertEqual(self.record().status, "preparing")
        self.command("down", "taskDown", task_down())
        self.assertEqual(self.result("up")["code"], "cancelled")
        self.assertTrue(self.result("down")["ok"])
        self.assertEqual((self.record().status, self.engine.containers), ("stopped", {}))
        self.assertEqual(files_below(self.folders.tasks), [])

    def test_also_while_it_sets_itself_up(self) -> None:
        self.readiness.slow["ready t1"] = Deferred()
        self.command("up", "taskUp", task_up())
        self.assertEqual(self.record().status, "starting")
        self.command("down", "taskDown", task_down())
        self.assertEqual(self.result("up")["code"], "cancelled")
        self.assertEqual((self.record().status, self.engine.containers), ("stopped", {}))

    def test_another_task_goes_on(self) -> None:
        waiting = self.workspaces.slow["prepare shop"] = Deferred()
        self.command("up", "taskUp", task_up())
        self.command("down", "taskDown", task_down(task_id="t2"))
        waiting.callback(None)
        self.assertTrue(self.result("up")["ok"])
        self.assertEqual(self.record().status, "running")


class HostEndTests(TogetherCase):
    """The host is told to end while a command is under way."""

    def end(self) -> None:
        drained = ensureDeferred(self.dispatch.drain())
        self.clock.advance(PATIENCE)
        self.successResultOf(drained)
        self.restart()

    def test_a_task_that_waits_for_memory_does_not_hold_it_and_goes_on_after(self) -> None:
        self.admission.held = Deferred()
        self.command("up", "taskUp", task_up())
        self.end()
        self.assertEqual(self.statuses()[-1], "preparing")
        self.admission.held = None
        self.done(self.dispatch.recover())
        self.assertTrue(self.result("up")["ok"])
        self.assertNotIn("failed", self.statuses())

    def test_a_clone_ends_and_what_is_queued_behind_it_keeps_its_place(self) -> None:
        ended: list[str] = []
        self.workspaces.slow["prepare shop"] = Deferred(lambda _: ended.append("clone"))
        self.command("up", "taskUp", task_up())
        self.command("again", "taskUp", task_up())
        self.end()
        self.assertEqual(ended, ["clone"])
        self.workspaces.slow.clear()
        self.done(self.dispatch.recover())
        self.assertTrue(self.result("up")["ok"] and self.result("again")["ok"])

    def test_a_task_that_is_saved_is_saved_at_the_next_start(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        at_once = self.channels.teardown

        async def never(task_id: str) -> None:
            await Deferred()

        self.channels.teardown = never  # type: ignore[method-assign]
        self.command("down", "taskDown", task_down())
        self.end()
        self.channels.teardown = at_once  # type: ignore[method-assign]
        self.done(self.dispatch.recover())
        self.assertEqual([one["slug"] for one in self.result("down")["value"]["saved"]], ["shop"])


class ForwardedTests(CommandCase):
    def test_ports_that_repositories_name_are_previews(self) -> None:
        self.readiness.forwarded = [
            Forwarded(9000, "Storybook 8"),
            Forwarded(3000, "again"),
            Forwarded(EDITOR_PORT, "mine"),
            Forwarded(9001, "web"),
            Forwarded(9002, "port-1"),
            Forwarded(9003, "\u2603"),
        ]
        value = plain(self.done(self.tasks.up("c", task_up())))
        names = [(one["name"], one["containerPort"], one["hostPort"]) for one in value["previewPorts"]]
        self.assertEqual([name[:2] for name in names], [("web", 3000), ("storybook-8", 9000)])
        self.assertEqual(names[1][2], 0)
        self.assertEqual(self.ports.tasks["t1"][1]["storybook-8"].inner, 9000)

    def test_they_outlive_the_daemon_and_what_is_heard(self) -> None:
        self.readiness.forwarded = [Forwarded(9000, "storybook")]
        self.done(self.tasks.up("c", task_up()))
        self.restart()
        self.done(self.adoption.adopt())
        self.tasks.on_ports("t1", [9000, 5173])
        self.clock.advance(2)
        told = self.events("ports.changed")[-1]["previewPorts"]
        self.assertEqual([one["name"] for one in told], ["web", "storybook", "port-5173"])


class DownTests(CommandCase):
    def up(self) -> None:
        self.done(self.tasks.up("up", task_up()))
        self.workspaces.calls.clear()

    def test_work_is_put_away_before_anything_is_removed(self) -> None:
        self.up()
        value = plain(self.done(self.tasks.down("c", task_down())))
        self.assertEqual(value["status"], "stopped")
        self.assertEqual([saved["slug"] for saved in value["saved"]], ["shop"])
        self.assertEqual(self.channels.calls[-1], "teardown t1")
        self.assertEqual((self.watch.watched, self.egress.opened), (set(), set()))
        self.assertEqual(self.workspaces.calls, ["save shop", "save shop", "remove"])
        self.assertEqual((self.engine.containers, self.ports.tasks), ({}, {}))
        self.assertEqual(files_below(self.folders.tasks), [])
        self.assertEqual(self.statuses()[-2:], ["stopping", "stopped"])
        self.assertEqual(self.events("ports.changed")[-1]["previewPorts"], [])
        self.assertIsNone(self.record().input)
        assert self.db is not None
        (kept,) = self.done(self.db.run(every))
        told = value["saved"][0]
        self.assertEqual(
            (kept.task_id, kept.name, kept.key, kept.branch),
            ("t1", "shop", "shop", told["branch"]),
        )

    def test_again_it_answers_the_same_and_does_nothing(self) -> None:
        self.up()
        first = plain(self.done(self.tasks.down("c", task_down())))
        calls = list(self.workspaces.calls)
        self.assertEqual(plain(self.done(self.tasks.down("d", task_down()))), first)
        self.assertEqual(self.workspaces.calls, calls)

    def test_a_project_that_is_not_named_any_more_is_saved_too(self) -> None:
        self.done(self.tasks.up("up", task_up(project("a"), project("b"))))
        value = self.done(self.tasks.down("c", task_down(project("a"))))
        self.assertEqual([saved["slug"] for saved in value["saved"]], ["a", "b"])

    def test_what_cannot_be_saved_is_kept(self) -> None:
        self.up()
        self.workspaces.broken["save"] = HostError(ErrorCode.TOO_LARGE, "a file is too large")
        error = self.refused(self.tasks.down("c", task_down()))
        self.assertIs(error.code, ErrorCode.TOO_LARGE)
        self.assertIn("send taskDown again", error.message)
        self.assertTrue(self.folders.work_copy("t1", "shop").is_dir())
        self.assertIn("t1", self.engine.containers)
        self.assertEqual((self.record().status, self.record().message), ("stopped", error.message))
        self.assertNotIn("remove", self.workspaces.calls)
        self.workspaces.broken.clear()
        self.assertEqual(len(self.done(self.tasks.down("d", task_down()))["saved"]), 1)
        self.assertEqual(self.engine.containers, {})

    def test_what_is_written_until_the_container_ends_is_saved(self) -> None:
        self.up()
        self.done(self.tasks.down("c", task_down()))
        saves = [event for event in self.events("task.progress") if event["step"] in ("save", "container")]
        self.assertEqual(
            [event["step"] for event in saves][-6:],
            ["save", "save", "container", "container", "save", "save"],
        )
        self.assertEqual(self.workspaces.calls.count("save shop"), 2)

    def test_a_failure_to_remove_does_not_save_half_a_copy(self) -> None:
        self.up()
        self.workspaces.broken["remove"] = trouble("busy")
        self.assertIn("busy", self.refused(self.tasks.down("c", task_down())).message)
        self.assertEqual(self.record().status, "failed")
        self.workspaces.broken.clear()
        self.workspaces.calls.clear()
        value = self.done(self.tasks.down("d", task_down()))
        self.assertEqual([saved["slug"] for saved in value["saved"]], ["shop"])
        self.assertEqual(self.workspaces.calls, ["remove"])

    def test_a_half_removed_task_comes_up_from_nothing(self) -> None:
        self.up()
        self.workspaces.broken["remove"] = trouble("busy")
        self.refused(self.tasks.down("c", task_down()))
        self.workspaces.broken.clear()
        (self.folders.work_copy("t1", "shop") / "half").touch()
        self.assertEqual(self.done(self.tasks.up("d", task_up()))["status"], "running")
        self.assertFalse((self.folders.work_copy("t1", "shop") / "half").exists())

    def test_a_task_that_nobody_knows_is_down(self) -> None:
        value = self.done(self.tasks.down("c", task_down()))
        self.assertEqual(plain(value), {"status": "stopped", "saved": []})
        self.assertEqual(self.record().status, "stopped")


class StatusTests(CommandCase):
    def test_a_running_task(self) -> None:
        up = self.done(self.tasks.up("up", task_up()))
        value = self.done(self.tasks.status("c", "t1"))
        self.assertEqual(value["previewPorts"], up["previewPorts"])
        self.assertEqual(
            (value["status"], value["memoryBytes"], value["startedAt"]),
            ("running", 1 << 20, 1_700_000_000_000),
        )
        self.assertEqual(
            set(value),
            {
                *("status", "codeServerPort", "previewPorts", "memoryBytes", "startedAt", "agents"),
                *("message", "waiting", "steps", "report", "ended", "memoryLimit"),
            },
        )
        self.assertEqual((value["waiting"], value["ended"], value["memoryLimit"]), (None, None, 4 << 30))
        self.assertTrue(value["report"]["passed"])

    def test_one_whose_container_ended(self) -> None:
        self.done(self.tasks.up("up", task_up()))
        self.engine.stop("t1")
        value = self.done(self.tasks.status("c", "t1"))
        self.assertEqual((value["status"], value["memoryBytes"], value["startedAt"]), ("stopped", 0, None))
        self.assertEqual((value["codeServerPort"], value["previewPorts"]), (None, []))

    def test_one_that_nobody_knows(self) -> None:
        self.assertIs(self.refused(self.tasks.status("c", "t1")).code, ErrorCode.NOT_FOUND)
        self.assertIs(self.refused(self.tasks.status("c", "../t1")).code, ErrorCode.INVALID_ARGS)

    def test_while_the_engine_is_away(self) -> None:
        self.done(self.tasks.up("up", task_up()))
        self.engine.fail = trouble("the engine does not answer")
        self.assertIs(self.refused(self.tasks.status("c", "t1")).code, ErrorCode.UNAVAILABLE)


class CutOffTests(CommandCase):
    """The daemon dies at every call of a neighbour in turn, and the command runs again."""

    def neighbours(self) -> list[Any]:
        return [self.workspaces, self.images, self.readiness, self.channels]

    def die_at(self, call: str) -> None:
        for neighbour in self.neighbours():
            neighbour.broken[call] = Died()

    def revive(self) -> None:
        for neighbour in self.neighbours():
            neighbour.broken.clear()
        self.restart()

    def run_until_death(self, work: Any) -> None:
        try:
            work.send(None)
        except Died:
            return
        except StopIteration:
            raise self.failureException("it did not die") from None
        finally:
            work.close()

    def test_up_is_completed(self) -> None:
        for call in ("prepare b", "ensure", "ready"):
            self.setUp()
            self.die_at(call)
            self.run_until_death(self.tasks.up("c", task_up(project("a"), project("b"))))
            self.assertIn(self.record().status, ("preparing", "starting"))
            self.revive()
            value = self.done(self.tasks.up("c", task_up(project("a"), project("b"))))
            self.assertEqual((value["status"], self.record().status), ("running", "running"), call)
            self.assertEqual(list(self.engine.containers), ["t1"])

    def test_down_is_completed(self) -> None:
        for call in ("teardown", "save", "remove"):
            self.setUp()
            self.done(self.tasks.up("up", task_up()))
            self.die_at(call)
            self.run_until_death(self.tasks.down("c", task_down()))
            self.assertEqual(self.record().status, "stopping")
            self.revive()
            value = self.done(self.tasks.down("c", task_down()))
            self.assertEqual([saved["slug"] for saved in value["saved"]], ["shop"], call)
            self.assertEqual((self.engine.containers, files_below(self.folders.tasks)), ({}, []))

    def test_up_while_going_down_is_a_conflict(self) -> None:
        self.done(self.tasks.up("up", task_up()))
        self.die_at("remove")
        self.run_until_death(self.tasks.down("c", task_down()))
        self.revive()
        error = self.refused(self.tasks.up("d", task_up()))
        self.assertIs(error.code, ErrorCode.CONFLICT)
        self.assertIn("taskDown", error.message)


class Died(BaseException):
    """Nothing in the daemon may handle this, as nothing handles a SIGKILL."""
