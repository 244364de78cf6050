"""What a task waits for, its report and its ports, as the page shows them: real browser, scripted host."""

from __future__ import annotations

import time
from typing import Any

from uaihost.test.browser.browser import Browser
from uaihost.test.browser.test_page import PageCase
from uaihost.test.browser.tour import log_in

REPORT = "\n".join(
    (
        "Isolation: 14 of 14 checks passed",
        "blocked  services of this machine",
        "blocked  the network around it",
        "limits   4.0 GiB of memory, 2 cores, 1024 processes",
    )
)


class WaitingPageTests(PageCase):
    async def begin(self, name: str) -> Browser:
        """A page at a task whose taskUp is not answered yet."""
        self.host.answers["taskUp"] = lambda frame: None
        await self.host.connect()
        browser = await self.browser(name)
        await log_in(browser, self.plan())
        await browser.do("click", "#new")
        await browser.do("fill", "#repo", "/srv/repositories/corner-shop")
        up = self.host.heard(lambda frame: frame.get("command") == "taskUp")
        await browser.do("press", "#repo", "Enter")
        command = await up
        self.task_id = command["args"][0]["task"]["id"]
        return browser

    def status(self, status: str, waiting: dict[str, Any] | None = None, **fields: Any) -> None:
        if waiting is not None:
            fields["waiting"] = {"since": int(time.time() * 1000), "text": "", **waiting}
        self.host.event("task.status", self.task_id, status=status, **fields)

    async def test_each_wait_says_what_for_how_far_and_how_long_still(self) -> None:
        browser = await self.begin("waiting")
        soon = int(time.time() * 1000) + 600_000
        self.status(
            "preparing", {"reason": "cloning", "text": "Receiving objects", "percent": 43, "deadline": soon}
        )
        await browser.see(".notice.waiting:has-text('Fetching the repository')")
        await browser.see(".notice.waiting:has-text('43 %')")
        await browser.see(".notice.waiting:has-text('gives up in 10 min')")
        await browser.shot("cloning")
        self.status("preparing", {"reason": "image-building", "text": "Step 7/31", "percent": 22})
        await browser.see(".notice.waiting:has-text('Building the task image')")
        # How a wait goes on is not another attempt.
        self.assertEqual(await browser.do("count", ".steps"), 1)
        await browser.do("size", 390, 800)
        await browser.see(".notice.waiting:has-text('22 %')")
        await browser.shot("building-phone")
        self.assertEqual(await browser.do("overflow"), 0)
        self.status("starting", {"reason": "memory", "text": "0.8 GiB are free and the task needs 1.0 GiB"})
        await browser.see(".notice.waiting:has-text('Waits for free memory')")
        self.assertEqual(await browser.do("problems"), [])

    async def test_a_card_an_end_and_a_rest(self) -> None:
        browser = await self.begin("card")
        self.status("preparing")
        author = {"kind": "system", "id": "host", "label": "host"}
        self.host.event("channel.message", self.task_id, messageId="report", author=author, text=REPORT)
        await browser.see(".told summary:has-text('14 of 14')")
        await browser.do("click", ".told summary")
        await browser.see(".told pre:has-text('1024 processes')")
        lines = "ended with status 1\nnpm error code ENOENT\nnpm error path /workspace/shop/package.json"
        self.host.event(
            "task.progress",
            self.task_id,
            step="setup: setup shop",
            state="failed",
            message=lines,
            elapsedMs=2100,
        )
        await browser.see(".step-why:has-text('package.json')")
        await browser.shot("card")
        self.status("stopped", {"reason": "parked"}, message="the machine was restarted")
        await browser.see(".notice.waiting:has-text('starts when you use it')")
        await browser.see(".chip:has-text('resting')")
        await browser.shot("resting")
        self.status("running")
        self.host.event("task.resources", self.task_id, True, memoryBytes=734 << 20, cpuPercent=141.6)
        await browser.see(".used:has-text('734 MiB · 142 %')")
        await browser.do("gone", ".notice.waiting", 5000)
        self.assertEqual(await browser.do("problems"), [])
