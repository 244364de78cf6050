"""Pure parts: the table of states, preview names, file names, the surface of commands."""

from __future__ import annotations

import base64

from twisted.trial.unittest import TestCase

from uaihost.commands.files import MAX_ATTACHMENT, checked_filename
from uaihost.commands.lifecycle import TABLE, Input, Status, step
from uaihost.commands.plan import plan_of
from uaihost.commands.registry import Lane, lane_of
from uaihost.errors import ErrorCode, HostError
from uaihost.test.commands.bench import CommandCase
from uaihost.test.commands.fakes import project, task_down, task_up
from uaihost.test.support import given, strategies
from uaihost.wire import inputs
from uaihost.wire.inputs import TASK_STATUSES

# state: input -> state, for every pair that is allowed.
ALLOWED = {
    ("pending", "UP", "preparing"), ("pending", "DOWN", "stopping"),
    ("preparing", "UP", "preparing"), ("preparing", "DOWN", "stopping"),
    ("preparing", "PREPARED", "starting"), ("preparing", "BROKE", "failed"),
    ("starting", "UP", "preparing"), ("starting", "DOWN", "stopping"),
    ("starting", "READY", "running"), ("starting", "BROKE", "failed"),
    ("starting", "PREPARED", "starting"), ("starting", "ENDED", "starting"), ("starting", "PARK", "stopped"),
    ("running", "UP", "preparing"), ("running", "DOWN", "stopping"),
    ("running", "ENDED", "starting"), ("running", "BROKE", "failed"), ("running", "PARK", "stopped"),
    ("stopping", "DOWN", "stopping"), ("stopping", "GONE", "stopped"), ("stopping", "NOT_SAVED", "stopped"),
    ("stopping", "BROKE", "failed"), ("stopping", "LOST", "failed"),
    ("stopped", "UP", "preparing"), ("stopped", "DOWN", "stopping"), ("stopped", "WAKE", "starting"),
    ("failed", "UP", "preparing"), ("failed", "DOWN", "stopping"),
}  # fmt: skip


class LifecycleTests(TestCase):
    def test_the_states_are_the_protocols(self) -> None:
        self.assertEqual(tuple(Status), TASK_STATUSES)
        self.assertEqual(set(TABLE), set(Status))

    def test_every_state_and_input(self) -> None:
        found = set()
        for status in Status:
            for happened in Input:
                try:
                    found.add((status.value, happened.name, step(status, happened).value))
                except HostError as error:
                    self.assertIs(error.code, ErrorCode.CONFLICT)
                    self.assertIn(status.value, error.message)
        self.assertEqual(found, ALLOWED)


class PlanTests(TestCase):
    @given(
        strategies.lists(
            strategies.tuples(
                strategies.sampled_from(["a", "b", "a-b", "c"]),
                strategies.lists(strategies.sampled_from(["web", "b-web", "c"]), unique=True, max_size=3),
            ),
            unique_by=lambda item: item[0],
            max_size=4,
        )
    )
    def test_previews_have_distinct_names_or_are_refused(self, given_: list[tuple[str, list[str]]]) -> None:
        projects = []
        for slug, names in given_:
            ports = ", ".join(f'{{"name": "{name}", "port": {n + 1}}}' for n, name in enumerate(names))
            projects.append(project(slug, previewPorts=f"[{ports}]"))
        wanted = inputs.TaskUp(task_up().task, projects)
        try:
            plan = plan_of(wanted)
        except HostError as error:
            self.assertIn("previewPorts", error.message)
            return
        names = [one.name for one in plan.previews]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(len(names), sum(len(names) for _, names in given_))
        self.assertTrue(all(inputs.is_label(name) for name in names))

    def test_projects_are_in_order_of_position_then_slug(self) -> None:
        some = [project("d", previewPorts=""), project("c", position=-1), project("b", previewPorts="")]
        plan = plan_of(task_up(*some))
        self.assertEqual([one.slug for one in plan.projects], ["c", "b", "d"])


class SurfaceTests(CommandCase):
    def test_every_command_of_the_protocol_is_there(self) -> None:
        self.assertEqual(
            set(self.dispatch._registry),
            {
                "taskUp", "taskDown", "taskStatus", "channelEnsure", "channelTeardown", "channelDeliver",
                "channelResolvePermission", "channelInterrupt", "cloneRepo", "taskDiff", "attachmentWrite",
                "attachmentRead", "appendTranscript", "taskPush",
            },
        )  # fmt: skip

    def test_the_lane_of_each(self) -> None:
        table = self.dispatch._registry
        ensure = inputs.ChannelEnsure("t1", [], [], "b", "/workspace", "running")
        write = inputs.AttachmentWrite("t1", "f", "")
        self.assertEqual(lane_of(table["taskUp"], (task_up(),)), (Lane.LIFECYCLE, "t1"))
        self.assertEqual(lane_of(table["taskDown"], (task_down(),)), (Lane.LIFECYCLE, "t1"))
        self.assertEqual(lane_of(table["channelEnsure"], (ensure,)), (Lane.LIFECYCLE, "t1"))
        self.assertEqual(lane_of(table["channelTeardown"], ("t1",)), (Lane.LIFECYCLE, "t1"))
        for name in ("channelDeliver", "appendTranscript"):
            self.assertEqual(lane_of(table[name], ("t1", "ada", "x")), (Lane.CHANNEL, "t1"))
        self.assertEqual(lane_of(table["attachmentWrite"], (write,)), (Lane.CHANNEL, "t1"))
        free = {name for name, row in table.items() if row.lane is Lane.FREE}
        self.assertEqual(
            free,
            {
                "taskStatus",
                "taskDiff",
                "taskPush",
                "attachmentRead",
                "channelResolvePermission",
                "channelInterrupt",
                "cloneRepo",
            },
        )


class ThinCommandTests(CommandCase):
    def test_a_word_has_the_same_id_however_often_its_command_runs(self) -> None:
        first = self.done(self.channel.deliver("c1", "t1", "ada", "hello"))
        again = self.done(self.channel.deliver("c1", "t1", "ada", "hello"))
        other = self.done(self.channel.deliver("c2", "t1", "ada", "hello"))
        self.assertEqual(first, again)
        self.assertEqual(first["routedTo"], ["ada"])
        self.assertNotEqual(first["messageId"], other["messageId"])
        self.assertRegex(first["messageId"], r"\A[0-9a-f]{26}\Z")

    def test_channel_commands(self) -> None:
        crew = task_up().task.agents
        ensure = inputs.ChannelEnsure("t1", crew, [], "b", "/workspace", "running")
        value = self.done(self.channel.ensure("c", ensure))
        self.assertEqual(value, {"agents": [{"id": "ada", "state": "starting"}]})
        self.assertEqual(self.done(self.channel.append("c", "t1", "ada", "x")), {"seq": 7})
        self.assertEqual(
            self.done(self.channel.resolve("c", "t1", "ada", "r1", inputs.Decision("decline"))), {}
        )
        self.assertEqual(self.done(self.channel.interrupt("c", "t1", "ada")), {})
        self.assertEqual(self.done(self.channel.teardown("c", "t1")), {})
        self.assertEqual(
            self.channels.calls[2:],
            ["resolve t1 ada r1 decline user once None", "interrupt t1 ada", "teardown t1"],
        )

    def test_agents_have_distinct_ids(self) -> None:
        crew = task_up().task.agents * 2
        ensure = inputs.ChannelEnsure("t1", crew, [], "b", "/workspace", "running")
        self.assertIs(self.refused(self.channel.ensure("c", ensure)).code, ErrorCode.INVALID_ARGS)
        self.assertEqual(self.channels.calls, [])

    def test_repositories(self) -> None:
        value = self.done(self.files.clone("c", inputs.CloneRepo("https://git.example/a.git", "p")))
        self.assertEqual(set(value), {"path", "defaultBranch", "head"})
        wanted = inputs.TaskDiff("t1", [inputs.DiffProject("p1", "a"), inputs.DiffProject("p2", "b")])
        found = self.done(self.files.diff("c", wanted))["projects"]
        self.assertEqual([(one["id"], one["slug"]) for one in found], [("p1", "a"), ("p2", "b")])
        bad = inputs.TaskDiff("t1", [inputs.DiffProject("p1", "../a")])
        self.assertIs(self.refused(self.files.diff("c", bad)).code, ErrorCode.INVALID_ARGS)

    def test_an_attachment_goes_in_and_out(self) -> None:
        text = base64.b64encode(b"\0\xff data").decode()
        value = self.done(self.files.write("c", inputs.AttachmentWrite("t1", "a b.png", text)))
        self.assertEqual(value, {"path": "/attachments/a b.png", "bytes": 7})
        value = self.done(self.files.read("c", inputs.AttachmentRead("t1", "a b.png")))
        self.assertEqual(value, {"filename": "a b.png", "dataBase64": text, "bytes": 7})
        missing = self.files.read("c", inputs.AttachmentRead("t1", "x"))
        self.assertIs(self.refused(missing).code, ErrorCode.NOT_FOUND)

    def test_base64_is_read_strictly(self) -> None:
        for text in ("a", "ab=c", "YQ==\n", "YQ", "Y-_=", "\u00e9aaa"):
            error = self.refused(self.files.write("c", inputs.AttachmentWrite("t1", "f", text)))
            self.assertIs(error.code, ErrorCode.INVALID_ARGS, text)
        self.assertEqual(self.attachments.files, {})

    def test_the_largest_attachment_and_one_byte_more(self) -> None:
        for size, fits in ((MAX_ATTACHMENT, True), (MAX_ATTACHMENT + 1, False), (MAX_ATTACHMENT + 9, False)):
            work = self.files.write(
                "c", inputs.AttachmentWrite("t1", "f", base64.b64encode(bytes(size)).decode())
            )
            if fits:
                self.assertEqual(self.done(work)["bytes"], size)
            else:
                self.assertIs(self.refused(work).code, ErrorCode.TOO_LARGE)

    def test_names_of_files(self) -> None:
        for name in ("a", "Plan 2.pdf", "\u00fcber.txt", "x" * 255):
            self.assertEqual(checked_filename(name), name)
        for name in (
            "",
            ".",
            "..",
            ".env",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u202egnp.exe",
            "x" * 256,
            "\u00fc" * 128,
        ):
            self.assertRaises(HostError, checked_filename, name)
