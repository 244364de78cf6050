"""Which host names lead where."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.names import (
    App,
    Destination,
    Foreign,
    KnownTask,
    Names,
    NoTask,
    editor_host,
    preview_host,
    splits,
)
from uaihost.test.support import given, strategies
from uaihost.wire.inputs import is_label

PORT = 8789


class Known:
    """Tasks by label."""

    def __init__(self, *tasks: KnownTask) -> None:
        self.tasks = {task.id.lower(): task for task in tasks}

    def by_label(self, label: str) -> KnownTask | None:
        return self.tasks.get(label)


def known(id: str, *previews: str) -> KnownTask:
    return KnownTask(id, "host-1", frozenset(previews))


def names(*tasks: KnownTask, own: frozenset[str] = frozenset(), port: int = PORT) -> Names:
    return Names(port, Known(*tasks), own)


class NamesTests(SynchronousTestCase):
    def test_the_app_has_the_loopback_names_with_our_port(self) -> None:
        for host in ("localhost:8789", "LocalHost:8789", "127.0.0.1:8789", "[::1]:8789"):
            self.assertEqual(names().find(host), App(), host)

    def test_everything_else_is_foreign(self) -> None:
        for host in (
            "",
            "localhost",
            "localhost:80",
            "localhost:08789x",
            "localhost:878",
            "evil.example:8789",
            "127.0.0.2:8789",
            "localhost.:8789",
            "localhost:8789:8789",
            "user@localhost:8789",
            "localhost:8789, evil.example",
            "preview.localhost:8789",
            "editor.localhost:8789",
            "a-web.preview.localhost.evil.example:8789",
            "a-web.preview.localhost:9999",
            "a-web.preview.localhost",
            "[::1:8789",
            "local host:8789",
            "localhost:99999999",
        ):
            self.assertEqual(names(known("a", "web")).find(host), Foreign(), host)

    def test_port_80_may_be_left_out(self) -> None:
        self.assertEqual(names(port=80).find("localhost"), App())

    def test_the_bound_address_is_the_apps_too(self) -> None:
        self.assertEqual(names(own=frozenset({"192.0.2.7"})).find("192.0.2.7:8789"), App())

    def test_a_preview(self) -> None:
        found = names(known("task1", "web")).find("task1-web.preview.localhost:8789")
        self.assertEqual(found, Destination("host-1", "task1", "preview", "web"))

    def test_an_editor(self) -> None:
        found = names(known("task-1")).find("TASK-1.editor.localhost:8789")
        self.assertEqual(found, Destination("host-1", "task-1", "editor", None))

    def test_a_task_id_keeps_its_case(self) -> None:
        found = names(known("Task1", "web")).find("task1-web.preview.localhost:8789")
        self.assertEqual(found, Destination("host-1", "Task1", "preview", "web"))

    def test_no_such_task(self) -> None:
        self.assertEqual(names().find("task1-web.preview.localhost:8789"), NoTask("task1-web"))
        self.assertEqual(names().find("task1.editor.localhost:8789"), NoTask("task1"))

    def test_the_task_that_has_the_preview_wins(self) -> None:
        routes = names(known("a", "b-web"), known("a-b", "api"))
        found = routes.find("a-b-web.preview.localhost:8789")
        self.assertEqual(found, Destination("host-1", "a", "preview", "b-web"))

    def test_else_the_longest_task_id_wins(self) -> None:
        found = names(known("a"), known("a-b")).find("a-b-web.preview.localhost:8789")
        self.assertEqual(found, Destination("host-1", "a-b", "preview", "web"))

    def test_a_label_without_a_name_is_no_preview(self) -> None:
        self.assertEqual(names(known("a")).find("a.preview.localhost:8789"), NoTask("a"))

    @given(
        strategies.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True),
        strategies.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True),
    )
    def test_every_task_and_preview_is_found_under_its_own_name(self, task: str, name: str) -> None:
        routes = names(known(task, name), known("other", "web"))
        self.assertEqual(
            routes.find(preview_host(task, name, PORT)), Destination("host-1", task, "preview", name)
        )
        self.assertEqual(routes.find(editor_host(task, PORT)), Destination("host-1", task, "editor", None))

    @given(strategies.text(strategies.sampled_from("ab-"), max_size=12))
    def test_splits_are_readings_of_the_label(self, label: str) -> None:
        for task, name in splits(label):
            self.assertEqual(f"{task}-{name}", label)
            self.assertTrue(task and is_label(name))

    @given(strategies.text(max_size=60))
    def test_any_text_has_a_place_and_none_is_the_app_by_accident(self, host: str) -> None:
        found = names(known("a", "web")).find(host)
        if isinstance(found, App):
            self.assertIn(host.lower().rpartition(":")[0], ("localhost", "127.0.0.1", "[::1]"))
