"""What a task's owner may prove is there for as long as its container, and for that task's repositories."""

from __future__ import annotations

from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Grant
from uaihost.test.commands.bench import CommandCase
from uaihost.test.commands.fakes import project, task_down, task_up


class TaskProofTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker.variables = {"GH_TOKEN": "none"}

    def test_before_the_container_starts(self) -> None:
        self.done(self.tasks.up("c", task_up(project("a", env='{"A": "1"}'), project("b", position=1))))
        wanted = task_up(project("a"), project("b", position=1))
        urls = tuple(one.repoUrl for one in wanted.projects)
        self.assertEqual(self.broker.opened, {"t1": Grant(wanted.task.ownerUserId, "t1", urls)})
        self.assertEqual(dict(self.engine.launches["t1"].env), {"A": "1", "GH_TOKEN": "none"})

    def test_sockets_that_cannot_be_opened(self) -> None:
        self.broker.broken["open"] = HostError(ErrorCode.UNAVAILABLE, "no room for sockets")
        error = self.refused(self.tasks.up("c", task_up()))
        self.assertEqual(error.message, "container: no room for sockets")
        self.assertEqual(self.engine.launches, {})

    def test_a_token_of_the_tasks_own(self) -> None:
        self.done(self.tasks.up("c", task_up(project("a", env='{"GH_TOKEN": "mine"}'))))
        self.assertEqual(dict(self.engine.launches["t1"].env), {"GH_TOKEN": "mine"})

    def test_a_restart_of_the_daemon(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        before = dict(self.broker.opened)
        self.restart()
        self.assertEqual(self.broker.opened, {})
        self.done(self.adoption.adopt())
        self.assertEqual(self.broker.opened, before)

    def test_a_task_that_is_down(self) -> None:
        self.done(self.tasks.up("c", task_up()))
        self.done(self.tasks.down("d", task_down()))
        self.assertEqual(self.broker.opened, {})
