"""Tasks without a container: ports of this machine under a task's name."""

from __future__ import annotations

from uaihost.errors import ErrorCode
from uaihost.interfaces import Address
from uaihost.test.commands.bench import CommandCase
from uaihost.test.commands.fakes import task_down, task_up
from uaihost.test.commands.test_tasks import plain


class ExposedTests(CommandCase):
    def test_ports_are_reached_by_name_and_told(self) -> None:
        self.done(self.exposed.expose("demo", {"web": 3000, "editor": 8100}))
        self.assertEqual(
            self.ports.tasks["demo"], (Address("127.0.0.1", 8100), {"web": Address("127.0.0.1", 3000)})
        )
        self.assertEqual(self.statuses(), ["running"])
        ports = [{"name": "web", "containerPort": 3000, "hostPort": 3000}]
        self.assertEqual(self.events("ports.changed")[0]["previewPorts"], ports)

    def test_its_status(self) -> None:
        self.done(self.exposed.expose("demo", {"web": 3000, "editor": 8100}))
        value = plain(self.done(self.tasks.status("c", "demo")))
        self.assertEqual(
            (value["status"], value["codeServerPort"], value["startedAt"]), ("running", 8100, 1_000_000)
        )
        self.assertEqual(value["previewPorts"], [{"name": "web", "containerPort": 3000, "hostPort": 3000}])

    def test_the_next_one_replaces_it(self) -> None:
        self.done(self.exposed.expose("demo", {"web": 3000}))
        self.done(self.exposed.expose("demo", {"api": 4000}))
        self.assertEqual(self.ports.tasks["demo"], (None, {"api": Address("127.0.0.1", 4000)}))

    def test_it_is_there_after_a_restart(self) -> None:
        self.done(self.exposed.expose("demo", {"web": 3000}))
        self.restart()
        self.assertEqual(self.ports.tasks, {})
        self.done(self.exposed.restore())
        self.assertEqual(self.ports.tasks["demo"], (None, {"web": Address("127.0.0.1", 3000)}))

    def test_it_ends_by_its_own_verb_or_by_task_down(self) -> None:
        self.done(self.exposed.expose("demo", {"web": 3000}))
        self.done(self.exposed.unexpose("demo"))
        self.assertEqual((self.ports.tasks, self.statuses()), ({}, ["running", "stopped"]))
        self.assertIs(self.refused(self.exposed.unexpose("demo")).code, ErrorCode.NOT_FOUND)
        self.done(self.exposed.expose("t1", {"web": 3000}))
        value = self.done(self.tasks.down("c", task_down()))
        self.assertEqual(plain(value), {"status": "stopped", "saved": []})
        self.assertEqual((self.ports.tasks, self.workspaces.calls), ({}, []))

    def test_a_container_and_an_exposure_never_share_a_name(self) -> None:
        self.done(self.exposed.expose("t1", {"web": 3000}))
        self.assertIs(self.refused(self.tasks.up("c", task_up())).code, ErrorCode.CONFLICT)
        self.done(self.exposed.unexpose("t1"))
        self.done(self.tasks.up("c", task_up()))
        self.assertIs(self.refused(self.exposed.expose("t1", {"web": 3000})).code, ErrorCode.CONFLICT)
        self.assertIn(3000, self.engine.containers["t1"].ports)
        self.done(self.tasks.down("d", task_down()))
        self.done(self.exposed.expose("t1", {"web": 3000}))

    def test_bad_names_and_ports_are_refused(self) -> None:
        bad: list[tuple[str, dict[str, int]]] = [
            ("../x", {"web": 1}),
            ("a.b", {"web": 1}),
            ("t", {}),
            ("t", {"Web": 1}),
            ("t", {"": 1}),
            ("t", {"web": 0}),
            ("t", {"web": 65536}),
        ]
        for task_id, ports in bad:
            self.assertIs(self.refused(self.exposed.expose(task_id, ports)).code, ErrorCode.INVALID_ARGS)
        self.assertEqual((self.statuses(), self.ports.tasks), ([], {}))
