"""From what a person asks for to the argument of taskUp."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.bridge.new_task import NewAgent, NewTask, slug, task_up
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, strategies
from uaihost.wire.inputs import Port, TaskUp

ID = "01m82t2r95rpggvfarv585v500"


def up(kinds: tuple[str, ...] = ("mock", "claude"), **fields: Any) -> TaskUp:
    return task_up(
        NewTask(**{"repoUrl": "https://example.org/you/Shop.git", **fields}), ID, "host-1", list(kinds)
    )


class NewTaskTests(SynchronousTestCase):
    def refused(self, **fields: Any) -> str:
        error: HostError = self.assertRaises(HostError, up, **fields)
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        return error.message

    def test_a_repository_is_enough(self) -> None:
        found = up()
        self.assertEqual((found.task.id, found.task.hostId, found.task.name), (ID, "host-1", "shop"))
        self.assertEqual(found.task.branch, "uai/shop-85v500")
        (project,) = found.projects
        self.assertEqual((project.slug, project.repoUrl), ("shop", "https://example.org/you/Shop.git"))
        self.assertEqual(json.loads(project.previewPorts), [{"name": "web", "port": 3000}])
        (agent,) = found.task.agents
        self.assertEqual((agent.id, agent.kind), ("mock", "mock"))

    def test_the_project_is_named_after_the_repository(self) -> None:
        for url, name in (
            ("/srv/Corner Shop/", "corner-shop"),
            ("git@example.org:shop.git", "shop"),
            ("ssh://git@example.org/a/b", "b"),
            ("/", "project"),
            ("ext::sh -c id", "sh-c-id"),
        ):
            self.assertEqual(up(repoUrl=url).projects[0].slug, name, url)

    def test_a_repository_that_cannot_be_one(self) -> None:
        for url in ("", "   ", "a\nb", "x" * 2049):
            self.assertIn("repoUrl", self.refused(repoUrl=url))

    def test_the_wished_branch_and_name(self) -> None:
        found = up(name="  Opening   hours ", branch=" fix/hours ")
        self.assertEqual((found.task.name, found.task.slug), ("Opening hours", "opening-hours"))
        self.assertEqual(found.task.branch, "fix/hours")
        self.assertIn("name", self.refused(name="x" * 81))

    def test_previews_are_checked_before_anything_runs(self) -> None:
        ports = [Port("web", 80), Port("api-2", 65535)]
        self.assertEqual(len(json.loads(up(previewPorts=ports).projects[0].previewPorts)), 2)
        self.assertEqual(json.loads(up(previewPorts=[]).projects[0].previewPorts), [])
        for bad in ([Port("Web", 80)], [Port("web", 0)], [Port("web", 1), Port("web", 2)], [Port("", 1)]):
            self.assertIn("previewPorts", self.refused(previewPorts=bad))

    def test_two_agents_of_one_kind_get_two_ids(self) -> None:
        found = up(agents=["mock", "mock", NewAgent("claude", id="reviewer", model="best")])
        self.assertEqual([agent.id for agent in found.task.agents], ["mock", "mock-2", "reviewer"])
        self.assertEqual(found.task.agents[2].model, "best")

    def test_agents_that_cannot_be(self) -> None:
        self.assertIn("mock, claude", self.refused(agents=["gemini"]))
        self.assertIn("agents", self.refused(agents=[NewAgent("mock", id="a b")]))
        self.assertIn("agents", self.refused(agents=[NewAgent("mock", id="a"), NewAgent("mock", id="a")]))
        self.assertIn("agents", self.refused(agents=["mock"] * 17))

    def test_what_agents_are_told(self) -> None:
        writer = NewAgent("mock", "writer", "  The   writer ", defaultPrompt="Be brief.", initialPrompt=" ")
        found = up(agents=[writer], globalContext="All is well.").task
        (agent,) = found.agents
        self.assertEqual((agent.label, agent.defaultPrompt), ("The writer", "Be brief."))
        self.assertIsNone(agent.initialPrompt)
        self.assertEqual(found.globalContext, "All is well.")
        long = "x" * 50_001
        self.assertIn("prompt", self.refused(prompt=long))
        self.assertIn("globalContext", self.refused(globalContext=long))
        self.assertIn("writer", self.refused(agents=[NewAgent("mock", "writer", defaultPrompt=long)]))
        self.assertIn("writer", self.refused(agents=[NewAgent("mock", "writer", initialPrompt=long)]))
        for label in ("x" * 41, "a\u202eb"):
            self.assertIn("label", self.refused(agents=[NewAgent("mock", label=label)]))

    def test_who_reviews(self) -> None:
        crew = [NewAgent("mock", name) for name in ("writer", "critic", "tester")]
        found = up(agents=crew, reviewerOrder=["tester", "critic"])
        self.assertEqual(found.task.reviewerOrder, ["tester", "critic"])
        self.assertIsNone(up(agents=crew, reviewerOrder=[]).task.reviewerOrder)
        for order, why in (
            (["critic", "critic"], "twice"),
            (["writer"], "first agent"),
            (["nobody"], "writer, critic, tester"),
        ):
            self.assertIn(why, self.refused(agents=crew, reviewerOrder=order))
        self.assertIn("empty", self.refused(agents=[], reviewerOrder=["critic"]))

    def test_a_host_that_offers_no_kinds_gets_no_agent_unasked(self) -> None:
        self.assertEqual(up(kinds=()).task.agents, [])

    @given(strategies.text(max_size=80))
    def test_a_slug_can_name_a_folder_and_a_branch(self, text: str) -> None:
        self.assertRegex(slug(text), r"\A([a-z0-9]+(-[a-z0-9]+)*)?\Z")
