"""From names to addresses."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.interfaces import Address, Targets
from uaihost.tunnels.targets import MISSING_LIMIT, MISSING_PAUSE, PortTable

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


class MissingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.ports = PortTable(self.told.append, lambda: self.now)

    def test_a_task_with_nothing_there_is_told_of_once_in_a_while(self) -> None:
        for _ in range(5):
            self.assertIsNone(self.ports.resolve("t", "editor", None))
        self.assertIsNone(self.ports.resolve("u", "preview", "web"))
        self.assertEqual(self.told, ["t", "u"])
        self.now += MISSING_PAUSE
        self.ports.resolve("t", "editor", None)
        self.assertEqual(self.told, ["t", "u", "t"])

    def test_a_task_that_is_there_is_not_told_of_and_is_at_once_when_it_is_gone(self) -> None:
        self.ports.resolve("t", "editor", None)
        self.ports.set_task("t", None, {"web": WEB})
        self.assertIsNone(self.ports.resolve("t", "editor", None))
        self.assertEqual(self.told, ["t"])
        self.ports.drop_task("t")
        self.ports.resolve("t", "preview", "web")
        self.assertEqual(self.told, ["t", "t"])

    def test_names_from_outside_are_not_remembered_without_end(self) -> None:
        for number in range(2 * MISSING_LIMIT):
            self.ports.resolve(f"t{number}", "editor", None)
        self.assertEqual(len(self.told), 2 * MISSING_LIMIT)
        self.ports.resolve("t0", "editor", None)
        self.ports.resolve(f"t{2 * MISSING_LIMIT - 1}", "editor", None)
        self.assertEqual(self.told[2 * MISSING_LIMIT :], ["t0"])
