"""`uaihost push`: what it asks the daemon for, and what people read."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import TestCase

from uaihost.cli import push as verbs
from uaihost.cli.main import cli

DONE = {"id": "p", "slug": "shop", "pushed": True, "branch": "fix", "remote": "github.com/o/r"}


class PushTests(TestCase):
    def run_verb(self, project: dict[str, Any], *words: str) -> Result:
        def verb(name: str, asked: dict[str, Any], patience: float) -> dict[str, Any]:
            self.asked = (name, asked)
            return {"projects": [project]}

        self.patch(verbs, "verb", verb)
        return CliRunner().invoke(cli, ["push", "t1", *words])

    def test_a_branch_alone(self) -> None:
        done = self.run_verb({**DONE, "url": "https://github.com/o/r/pull/new/fix"})
        self.assertEqual((done.exit_code, self.asked), (0, ("task.push", {"taskId": "t1"})))
        self.assertEqual(
            done.output,
            "shop: fix is at github.com/o/r\nshop: open a pull request at https://github.com/o/r/pull/new/fix\n",
        )

    def test_a_pull_request(self) -> None:
        pull = {"number": 7, "url": "https://github.com/o/r/pull/7", "created": True}
        done = self.run_verb({**DONE, "pullRequest": pull}, "--pr", "--title", "T", "--draft")
        self.assertEqual(self.asked[1], {"taskId": "t1", "pullRequest": {"title": "T", "draft": True}})
        self.assertIn("pull request opened: https://github.com/o/r/pull/7", done.output)
        done = self.run_verb({**DONE, "pullRequest": {**pull, "created": False}}, "--pr")
        self.assertEqual(self.asked[1], {"taskId": "t1", "pullRequest": {}})
        self.assertIn("pull request is open", done.output)

    def test_what_fails_is_the_exit_status(self) -> None:
        error = {"code": "conflict", "message": "has commits that the task's has not"}
        done = self.run_verb({"id": "p", "slug": "shop", "pushed": False, "error": error})
        self.assertEqual((done.exit_code, done.output), (1, "shop: has commits that the task's has not\n"))
        done = self.run_verb({**DONE, "message": "uncommitted changes stay"}, "--json")
        self.assertEqual(done.exit_code, 0)
        self.assertIn('"uncommitted changes stay"', done.output)
