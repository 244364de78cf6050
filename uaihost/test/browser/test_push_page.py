"""Pushing from the page: done, with its links; failed, with why; wide and on a phone."""

from __future__ import annotations

from typing import Any

from uaihost.test.browser.test_page import PageCase
from uaihost.test.browser.tour import log_in

FILE = {
    "path": "menu.txt",
    "status": "modified",
    "additions": 1,
    "deletions": 0,
    "binary": False,
    "truncated": False,
    "hunks": "@@ -1 +1,2 @@\n Bread\n+Cake\n",
}
DIFF = {"id": "p1", "slug": "shop", "base": "a", "head": "b", "files": [FILE], "truncated": False}
DONE = {
    "id": "p1",
    "slug": "shop",
    "pushed": True,
    "branch": "fix/menu",
    "remote": "github.com/o/shop",
    "message": "uncommitted changes stay in the work copy",
}
PULL = {"number": 7, "url": "https://github.com/o/shop/pull/7", "created": True}


class PushPageTests(PageCase):
    async def opened(self, name: str) -> Any:
        self.host.answers["taskDiff"] = lambda frame: {"ok": True, "value": {"projects": [DIFF]}}
        await self.host.connect()
        browser = await self.browser(name)
        await log_in(browser, self.plan())
        await browser.do("click", "#new")
        await browser.do("fill", "#repo", "https://github.com/o/shop")
        await browser.do("press", "#repo", "Enter")
        await browser.see("#say")
        await browser.do("click", ".tabs a:has-text('Changes')")
        await browser.see(".push button:has-text('Push')")
        return browser

    def pushes(self, project: dict[str, Any]) -> list[Any]:
        """What the host will answer; what it was asked is added to the list."""
        asked: list[Any] = []

        def answer(frame: dict[str, Any]) -> dict[str, Any]:
            asked.append(frame["args"][0])
            return {"ok": True, "value": {"projects": [project]}}

        self.host.answers["taskPush"] = answer
        return asked

    async def test_a_branch_and_its_pull_request(self) -> None:
        browser = await self.opened("push")
        asked = self.pushes({**DONE, "pullRequest": PULL})
        await browser.do("click", ".push button")
        await browser.see(".pushed li:has-text('fix/menu is at github.com/o/shop.')")
        await browser.see(".pushed li:has-text('Uncommitted changes stay in the work copy.')")
        await browser.see(".pushed a[href='https://github.com/o/shop/pull/7']:has-text('Pull request 7')")
        self.assertEqual(asked[0]["pullRequest"], {})
        await browser.shot("push")
        asked = self.pushes({**DONE, "url": "https://github.com/o/shop/pull/new/fix"})
        await browser.do("click", ".push label")
        await browser.do("click", ".push button")
        await browser.see(".pushed a:has-text('Open a pull request')")
        self.assertNotIn("pullRequest", asked[0])
        await browser.do("size", 390, 800)
        await browser.shot("push-phone")
        self.assertEqual(await browser.do("overflow"), 0)
        self.assertEqual(await browser.do("problems"), [])

    async def test_what_fails_says_why_and_can_be_tried_again(self) -> None:
        browser = await self.opened("push-failed")
        error = {"code": "conflict", "message": "fix/menu has commits that the task's has not"}
        self.pushes({"id": "p1", "slug": "shop", "pushed": False, "error": error})
        await browser.do("click", ".push button")
        await browser.see(".pushed .failed:has-text('has commits that the task')")
        refusal = {"ok": False, "code": "unavailable", "message": "the server cannot be reached"}
        self.host.answers["taskPush"] = lambda frame: refusal
        await browser.do("click", ".push button")
        await browser.see(".push [role=alert]:has-text('The server cannot be reached.')")
        await browser.shot("push-failed")
        self.pushes({**DONE, "url": "javascript:alert(1)"})
        await browser.do("click", ".push button")
        await browser.see(".pushed li:has-text('javascript:alert(1)')")
        self.assertEqual(await browser.do("count", ".pushed a"), 0)
