"""The arguments of commands: what is read, how a bad one is described, the JSON inside strings."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import TestCase

from uaihost.test.support import given, strategies
from uaihost.wire import events, inputs
from uaihost.wire.inputs import BadArgs, parse

AGENT = {"id": "a", "label": "A", "kind": "mock"}
TASK = {
    "id": "t",
    "ownerUserId": "u",
    "hostId": "h",
    "name": "n",
    "slug": "s",
    "branch": "b",
    "status": "pending",
    "agents": [AGENT],
}
PROJECT = {
    "id": "p",
    "ownerUserId": "u",
    "name": "n",
    "slug": "s",
    "repoUrl": "https://example.org/r.git",
    "defaultPrompt": "",
    "previewPorts": "",
    "env": "",
}


class ParseTests(TestCase):
    def test_a_task_is_read_with_its_crew(self) -> None:
        (up,) = parse([{"task": TASK, "projects": [PROJECT], "ownerEmail": "o@x"}], (inputs.TaskUp,))
        self.assertEqual(up.task.agents[0].kind, "mock")
        self.assertEqual((up.ownerEmail, up.ownerName), ("o@x", None))

    def test_ill_typed_optionals_count_as_absent(self) -> None:
        task = {**TASK, "globalContext": 5, "reviewerOrder": "a", "agents": [{**AGENT, "model": 1}]}
        project = {**PROJECT, "position": "2", "toolVersions": 3}
        (up,) = parse([{"task": task, "projects": [project], "ownerName": []}], (inputs.TaskUp,))
        self.assertEqual(
            (up.task.globalContext, up.task.reviewerOrder, up.task.agents[0].model), (None, None, None)
        )
        self.assertEqual((up.projects[0].position, up.projects[0].toolVersions), (0, None))

    def test_each_missing_field_is_named(self) -> None:
        for record, kind in ((TASK, inputs.Task), (PROJECT, inputs.Project), (AGENT, inputs.Agent)):
            for field in record:
                bad = {name: value for name, value in record.items() if name != field}
                error = self.assertRaises(BadArgs, parse, [bad], (kind,))
                self.assertIn(field, str(error))

    def test_too_few_arguments_are_counted(self) -> None:
        error = self.assertRaises(BadArgs, parse, ["t"], (str, str, str))
        self.assertIn("expected 3 argument(s), got 1", str(error))

    def test_a_wrong_type_names_its_place(self) -> None:
        error = self.assertRaises(BadArgs, parse, ["t", 5], (str, str))
        self.assertIn("argument 1", str(error))
        bad = {**TASK, "agents": [{"id": 1, "label": "", "kind": ""}]}
        error = self.assertRaises(BadArgs, parse, [bad], (inputs.Task,))
        self.assertIn("agents[0].id", str(error))

    def test_reviewers_must_be_strings(self) -> None:
        error = self.assertRaises(BadArgs, parse, [{**TASK, "reviewerOrder": [1]}], (inputs.Task,))
        self.assertIn("reviewerOrder", str(error))

    def test_a_decision_is_accept_or_decline(self) -> None:
        self.assertEqual(parse([{"kind": "accept"}], (inputs.Decision,))[0].kind, "accept")
        self.assertRaises(BadArgs, parse, [{"kind": "maybe"}], (inputs.Decision,))

    def test_what_a_decision_says_besides(self) -> None:
        decision = inputs.Decision
        cases: list[tuple[dict[str, Any], inputs.Decision]] = [
            ({}, decision("accept", "once", None)),
            ({"scope": "task"}, decision("accept", "task", None)),
            ({"scope": "world"}, decision("accept", "once", None)),
            ({"scope": 1, "answers": ["a"]}, decision("accept", "once", None)),
            ({"answers": {"Which?": "that one"}}, decision("accept", "once", {"Which?": "that one"})),
            ({"answers": {"Which?": 1}}, decision("accept", "once", None)),
        ]
        for more, expected in cases:
            self.assertEqual(parse([{"kind": "accept", **more}], (decision,))[0], expected)


class JsonStringTests(TestCase):
    def test_ports(self) -> None:
        found = inputs.ports('[{"name": "web", "port": 3000}, {"name": "api-2", "port": 1}]')
        self.assertEqual([(port.name, port.port) for port in found], [("web", 3000), ("api-2", 1)])
        self.assertEqual(inputs.ports(" "), [])

    def test_bad_ports_say_what_is_wrong(self) -> None:
        for text, word in [
            ("{", "JSON"),
            ('{"web": 3000}', "previewPorts"),
            ('[{"name": "web"}]', "port"),
            ('[{"name": "web", "port": "3000"}]', "port"),
            ('[{"name": "web", "port": 0}]', "1 to 65535"),
            ('[{"name": "web", "port": 65536}]', "1 to 65535"),
            ('[{"name": "Web", "port": 1}]', "a-z"),
            ('[{"name": "-web", "port": 1}]', "a-z"),
            ('[{"name": "", "port": 1}]', "a-z"),
            ('[{"name": "a.b", "port": 1}]', "a-z"),
            ('[{"name": "w", "port": 1}, {"name": "w", "port": 2}]', "twice"),
            ("[" * 100_000, "JSON"),
        ]:
            error = self.assertRaises(BadArgs, inputs.ports, text)
            self.assertIn(word, str(error))

    def test_env(self) -> None:
        self.assertEqual(inputs.env_of('{"A": "b=c"}'), {"A": "b=c"})
        for text in ('{"A": 1}', "[]", '{"": "x"}', '{"A=B": "x"}', '{"A": "\\u0000"}', "nope"):
            self.assertRaises(BadArgs, inputs.env_of, text)

    @given(strategies.text(max_size=40))
    def test_a_label_can_stand_in_a_host_name(self, name: str) -> None:
        if inputs.is_label(name):
            self.assertRegex(name, r"\A[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
            self.assertLessEqual(len(name), 30)


class EventTests(TestCase):
    def test_every_event_of_the_protocol_has_its_type_and_fields(self) -> None:
        author = events.Author("user", "u", "U")
        cases: list[tuple[Any, str]] = [
            (events.TaskStatus("t", 1, "running"), "task.status"),
            (events.TaskProgress("t", 1, "image", "done", elapsedMs=5), "task.progress"),
            (events.ChannelMessage("t", 1, "m", author, "hi"), "channel.message"),
            (events.ChannelDelta("t", 1, "m", "a", "h"), "channel.delta"),
            (events.ChannelActivity("t", 1, "a", "idle"), "channel.activity"),
            (events.PermissionRequested("t", 1, "a", "r", "run", "Run x", {"c": 1}), "permission.requested"),
            (
                events.PermissionRequested(
                    "t",
                    1,
                    "a",
                    "r",
                    "ask",
                    "A question",
                    {},
                    [
                        events.Question(
                            "Which?", [events.Option("this"), events.Option("that", "the other")], True
                        )
                    ],
                    5,
                ),
                "permission.requested",
            ),
            (events.ChannelActivity("t", 1, "a", "idle", "usage limit", 5), "channel.activity"),
            (events.PermissionResolved("t", 1, "a", "r", "accept", "u"), "permission.resolved"),
            (events.AgentUsage("t", 1, "a", 1, 2), "agent.usage"),
            (events.TaskResources("t", 1, 5, 0.5), "task.resources"),
            (events.PortsChanged("t", 1, [inputs.PreviewPort("web", 1, 2)]), "ports.changed"),
        ]
        for event, name in cases:
            found = msgspec.json.decode(msgspec.json.encode(event))
            self.assertEqual((found["type"], found["taskId"], found["at"]), (name, "t", 1))
            self.assertEqual(msgspec.convert(found, events.Event), event)
