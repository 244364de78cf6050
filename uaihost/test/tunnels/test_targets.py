"""From names to addresses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import Address, Targets
from uaihost.tunnels.targets import PortTable

EDITOR = Address("127.0.0.1", 8100)
WEB = Address("127.0.0.1", 3000)


class PortTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ports = PortTable()
        self.targets: Targets = self.ports
        self.ports.set_task("t", EDITOR, {"web": WEB})

    def test_names_that_are_there(self) -> None:
        self.assertEqual(self.targets.resolve("t", "editor", None), EDITOR)
        self.assertEqual(self.targets.resolve("t", "editor", "whatever"), EDITOR)
        self.assertEqual(self.targets.resolve("t", "preview", "web"), WEB)

    def test_names_that_are_not(self) -> None:
        for task, target, name in (
            ("u", "editor", None),
            ("t", "preview", None),
            ("t", "preview", "api"),
            ("t", "shell", "web"),
        ):
            self.assertIsNone(self.targets.resolve(task, target, name), (task, target, name))

    def test_a_task_is_replaced_whole(self) -> None:
        previews = {"api": WEB}
        self.ports.set_task("t", None, previews)
        previews["late"] = WEB
        self.assertIsNone(self.targets.resolve("t", "editor", None))
        self.assertIsNone(self.targets.resolve("t", "preview", "web"))
        self.assertIsNone(self.targets.resolve("t", "preview", "late"))
        self.assertEqual(self.targets.resolve("t", "preview", "api"), WEB)

    def test_a_task_that_is_gone(self) -> None:
        self.ports.drop_task("t")
        self.ports.drop_task("t")
        self.assertIsNone(self.targets.resolve("t", "preview", "web"))
