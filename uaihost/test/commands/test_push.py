"""taskPush: each project by itself, as the task's owner; a pull request whose text is made of the task."""

from __future__ import annotations

from functools import partial
from typing import Any

import attrs

from uaihost.errors import ErrorCode
from uaihost.state import channel as channel_rows
from uaihost.state.channel import MessageRow
from uaihost.test.commands.bench import CommandCase, trouble
from uaihost.test.commands.fakes import project, task_up
from uaihost.wire.inputs import DiffProject, PullRequestWanted, TaskPush


def said(kind: Any, text: str) -> MessageRow:
    return MessageRow("t1", 0, text[:20], 1, kind, "ada", "Ada", text, ())


class PushTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.done(self.tasks.up("c1", task_up(project("shop"), project("site", previewPorts=""))))

    def push(self, *slugs: str, pull: PullRequestWanted | None = None) -> list[dict[str, Any]]:
        wanted = TaskPush("t1", [DiffProject(f"p-{slug}", slug) for slug in slugs], pull)
        return self.done(self.pushes.push("c2", wanted))["projects"]  # type: ignore[no-any-return]

    def test_all_projects_as_the_owner(self) -> None:
        shop, site = self.push()
        self.assertEqual(
            self.workspaces.pushed,
            [("t1", slug, f"https://git.example/{slug}.git", "u1") for slug in ("shop", "site")],
        )
        self.assertEqual(
            shop,
            {
                "id": "p-shop",
                "slug": "shop",
                "pushed": True,
                "branch": "fix",
                "head": "1" * 40,
                "base": "main",
                "remote": "forge.example/a",
            },
        )
        self.assertEqual((site["slug"], self.pulls.opened), ("site", {}))

    def test_one_that_fails_hinders_no_other(self) -> None:
        self.workspaces.broken["push shop"] = trouble("refused")
        shop, site = self.push()
        self.assertEqual(shop["error"], {"code": "unavailable", "message": "refused"})
        self.assertEqual((shop["pushed"], site["pushed"]), (False, True))

    def test_a_pull_request_says_what_was_asked_and_done(self) -> None:
        for row in (said("user", "Mend the cart"), said("agent", "Done: the cart adds up.")):
            assert self.db is not None
            self.done(self.db.run(partial(channel_rows.add_message, row=row)))
        (shop,) = self.push("shop", pull=PullRequestWanted())
        self.assertEqual(
            shop["pullRequest"], {"number": 1, "url": "https://forge.example/pull/1", "created": True}
        )
        opened = self.pulls.opened["https://git.example/shop.git", "fix"]
        self.assertEqual((opened["user"], opened["title"], opened["base"]), ("u1", "A task", "main"))
        self.assertEqual(
            opened["body"],
            "## Asked\n\n> Mend the cart\n\n## Answer\n\nDone: the cart adds up.\n\n## Commits\n\n- Mend it",
        )
        (again,) = self.push("shop", pull=PullRequestWanted())
        self.assertFalse(again["pullRequest"]["created"])

    def test_words_of_people_go_before_ours(self) -> None:
        self.push("shop", pull=PullRequestWanted("T", "B", "next", True))
        opened = self.pulls.opened["https://git.example/shop.git", "fix"]
        self.assertEqual(opened, {"user": "u1", "title": "T", "body": "B", "base": "next", "draft": True})

    def test_a_pull_request_that_fails_leaves_the_push_said(self) -> None:
        self.pulls.broken["open"] = trouble("not connected")
        (shop,) = self.push("shop", pull=PullRequestWanted())
        self.assertTrue(shop["pushed"])
        self.assertEqual(shop["error"]["message"], "not connected")

    def test_nothing_committed_opens_nothing(self) -> None:
        self.workspaces.push_result = attrs.evolve(
            self.workspaces.push_result, state="empty", message="nothing is committed yet"
        )
        (shop,) = self.push("shop", pull=PullRequestWanted())
        self.assertEqual((shop["pushed"], shop["message"]), (False, "nothing is committed yet"))
        self.assertEqual(self.pulls.opened, {})

    def test_what_is_not_there(self) -> None:
        error = self.refused(self.pushes.push("c", TaskPush("t9")))
        self.assertEqual(error.code, ErrorCode.NOT_FOUND)
        error = self.refused(self.pushes.push("c", TaskPush("t1", [DiffProject("x", "other")])))
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        self.assertIn("shop, site", error.message)

    def test_the_command_line_is_checked_like_a_bridge(self) -> None:
        answer = self.done(self.pushes.asked({"taskId": "t1", "pullRequest": {"draft": True}}))
        self.assertEqual(len(answer["projects"]), 2)
        for words in ({}, {"taskId": 1}, {"taskId": "t1", "pullRequest": {"title": " "}}):
            self.assertEqual(self.refused(self.pushes.asked(words)).code, ErrorCode.INVALID_ARGS)
