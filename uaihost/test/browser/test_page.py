"""The page in a real browser, on a real bridge with a scripted host."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.trial.unittest import TestCase

from uaihost.bridge.service import Bridge, BridgeSettings, make_bridge
from uaihost.test.browser.browser import Browser
from uaihost.test.browser.tour import Plan, log_in, tour
from uaihost.test.integration.bridge_host import TOKEN, ScriptedHost, failed
from uaihost.test.support import short_folder

reactor: Any = _reactor

KEY = "key-of-the-browser-test"


class PageCase(TestCase):
    """A bridge, a scripted host that is not connected yet, and browsers."""

    # A cold browser on a busy machine takes some 10 s alone.
    timeout = 180

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.bridge = await self.start_bridge(0)
        self.host = ScriptedHost(reactor, self.bridge.port)
        self.host.pace = 0.08
        self.addCleanup(self.host.leave)

    async def start_bridge(self, port: int) -> Bridge:
        bridge = make_bridge(reactor, BridgeSettings(port, "127.0.0.1", self.folder, (TOKEN,), KEY))
        bridge.startService()
        self.addCleanup(bridge.stopService)
        await bridge.started()
        return bridge

    async def browser(self, name: str) -> Browser:
        browser = Browser(reactor, name)
        self.addCleanup(browser.stop)
        await browser.start()
        return browser

    def plan(self) -> Plan:
        return Plan(
            base=f"http://localhost:{self.bridge.port}",
            key=KEY,
            repository="/srv/repositories/corner-shop",
            question="What is in this repository?",
            answer="All done",
            edit="edit index.html: a warmer heading",
            edited="I changed the heading",
            preview="Hello from the shop",
            diff="Fresh bread every morning",
            up=20,
        )


class PageTests(PageCase):
    async def test_the_tour_in_a_wide_window(self) -> None:
        await self.host.connect()
        browser = await self.browser("wide")
        await tour(browser, self.plan())
        self.assertEqual(await browser.do("problems"), [])

    async def test_the_tour_on_a_phone_in_the_dark(self) -> None:
        await self.host.connect()
        browser = await self.browser("phone")
        await browser.do("size", 390, 800)
        await browser.do("theme", "dark")
        await tour(browser, self.plan())
        self.assertEqual(await browser.do("overflow"), 0)
        self.assertEqual(await browser.do("problems"), [])

    async def test_without_the_key_the_page_says_how_to_get_in(self) -> None:
        browser = await self.browser("locked")
        self.assertEqual(await browser.do("open", self.plan().base), 401)
        self.assertIn("key", await browser.do("text", "h1"))
        await browser.shot("locked")
        self.assertEqual(await browser.do("open", f"{self.plan().base}/?key=wrong"), 401)

    async def test_without_a_host_the_page_says_how_to_start_one_and_goes_on_by_itself(self) -> None:
        browser = await self.browser("no-host")
        await log_in(browser, self.plan())
        await browser.see(".guide")
        await browser.shot("empty")
        await browser.do("size", 390, 800)
        await browser.see(".guide")
        await browser.shot("empty-phone")
        await browser.do("size", 1280, 800)
        await browser.do("click", "#new")
        await browser.see("main .guide")
        await self.host.connect()
        await browser.see("#repo")
        await browser.see(".host.on")
        self.assertEqual(await browser.do("problems"), [])

    async def test_bad_input_is_said_beside_its_field(self) -> None:
        await self.host.connect()
        browser = await self.browser("form")
        await log_in(browser, self.plan())
        await browser.do("click", "#new")
        await browser.do("press", "#repo", "Enter")
        await browser.see("#repo-problem")
        self.assertEqual(await browser.do("focused"), "repo")
        await browser.do("fill", "#repo", "/srv/shop")
        await browser.do("click", ".more summary")
        await browser.do("fill", "#ports", "Web:99999")
        await browser.do("press", "#ports", "Enter")
        await browser.see("#ports-problem:has-text('Web:99999')")
        await browser.shot("faults")

    async def test_a_task_that_fails_says_why_and_can_be_tried_again(self) -> None:
        await self.host.connect()
        browser = await self.browser("failed-task")
        await log_in(browser, self.plan())
        await browser.do("click", "#new")
        await browser.do("fill", "#repo", "https://example.org/missing.git")
        await browser.do("press", "#repo", "Enter")
        await browser.see(".notice.bad:has-text('does not exist')")
        await browser.see(".step.failed")
        await browser.shot("failed")
        await browser.do("size", 390, 800)
        await browser.shot("failed-phone")
        before = len(self.host.frames)
        await browser.do("click", ".notice.bad button")
        await self.host_hears("taskUp", before)

    async def test_a_host_that_leaves_is_shown_and_words_wait_for_it(self) -> None:
        await self.host.connect()
        browser = await self.browser("host-gone")
        await log_in(browser, self.plan())
        await self.new_task(browser)
        await self.host.leave()
        await browser.see(".notice.warn:has-text('not connected')")
        await browser.do("fill", "#say", "Are you there?")
        await browser.do("press", "#say", "Enter")
        await browser.see(".message.waiting:has-text('waits for the host')")
        await browser.shot("host-gone")
        await self.host.connect()
        await browser.see(".message.mine:not(.waiting):has-text('Are you there?')")
        await browser.see(".message.theirs:not(.live):has-text('All done')")
        self.assertEqual(await browser.do("count", ".message.mine"), 1)
        self.assertEqual(await browser.do("count", ".notice.warn"), 0)

    async def test_a_refused_word_comes_back_into_the_box(self) -> None:
        await self.host.connect()
        self.host.answers["channelDeliver"] = lambda frame: failed(
            "unavailable", "the agent is not signed in"
        )
        self.host.answers["taskDiff"] = lambda frame: failed("conflict", "the work copy cannot be read")
        browser = await self.browser("refused")
        await log_in(browser, self.plan())
        await self.new_task(browser)
        await browser.do("fill", "#say", "Hello?")
        await browser.do("press", "#say", "Enter")
        await browser.see(".foot .problem:has-text('The agent is not signed in.')")
        await browser.shot("refused")
        await browser.do("click", ".tabs a:has-text('Changes')")
        await browser.see(".diff [role=alert]:has-text('The work copy cannot be read.')")
        await browser.shot("no-diff")

    async def test_a_bridge_that_restarts_is_shown_and_the_chat_goes_on(self) -> None:
        await self.host.connect()
        browser = await self.browser("bridge-gone")
        await log_in(browser, self.plan())
        await self.new_task(browser)
        port = self.bridge.port
        await self.bridge.stopService()
        await browser.see("#banner")
        await browser.shot("bridge-gone")
        await self.start_bridge(port)
        await self.host.gone
        await self.host.connect()
        await browser.see("#link.open")
        await browser.do("gone", "#banner", 5000)
        await browser.do("fill", "#say", "Still there?")
        await browser.do("press", "#say", "Enter")
        await browser.see(".message.theirs:not(.live):has-text('All done')")

    async def test_a_reload_shows_the_same_chat(self) -> None:
        await self.host.connect()
        browser = await self.browser("reload")
        await log_in(browser, self.plan())
        await self.new_task(browser)
        await browser.do("fill", "#say", "Remember **this** `word`")
        await browser.do("press", "#say", "Enter")
        await browser.see(".message.theirs:not(.live):has-text('All done')")
        before = await browser.do("text", ".log")
        await browser.do("open", await browser.do("url"))
        await browser.see(".message.theirs:not(.live):has-text('All done')")
        self.assertEqual(await browser.do("text", ".log"), before)
        (cookie,) = await browser.do("cookies")
        self.assertEqual((cookie["httpOnly"], cookie["sameSite"]), (True, "Strict"))
        self.assertNotIn(KEY, cookie["value"])

    async def new_task(self, browser: Browser) -> None:
        await browser.do("click", "#new")
        await browser.do("fill", "#repo", "/srv/repositories/corner-shop")
        await browser.do("press", "#repo", "Enter")
        await browser.see("#say")

    async def host_hears(self, command: str, since: int) -> None:
        if not any(frame.get("command") == command for frame in self.host.frames[since:]):
            await self.host.heard(lambda frame: frame.get("command") == command)
