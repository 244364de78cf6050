"""The local page in a real browser: what it shows and does, and that a hostile page gets nothing."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from uaihost.test.browser.browser import Browser
from uaihost.test.browser.hostile import HOSTILE, asked
from uaihost.test.support import short_folder
from uaihost.test.web import sample
from uaihost.test.web.fakes import FakeDaemon, FakeDownload
from uaihost.web.listeners import LocalListeners

reactor: Any = _reactor


class SampleDaemon(FakeDaemon):
    """It says what the sample says, and counts who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.said = sample.good()
        self.looks = 0
        self.done: list[tuple[str, Any]] = []
        self.verbs = {"task.stop": self.stop, "task.export": self.export}

    async def status(self) -> dict[str, Any]:
        self.looks += 1
        return self.said

    async def stop(self, words: dict[str, Any]) -> dict[str, Any]:
        self.done.append(("stop", words["taskId"]))
        one = {"slug": "shop", "branch": "fix/checkout-total", "wip": "uai/fix-checkout/wip"}
        return {"status": "stopped", "saved": [one], "restore": "uaihost restore fix-checkout"}

    async def export(self, words: dict[str, Any]) -> dict[str, Any]:
        self.done.append(("export", words["taskId"]))
        self.downloads["ticket"] = FakeDownload(b"an archive")
        return {
            "download": "/api/downloads/ticket",
            "file": "fix-checkout.tar.gz",
            "bytes": 10,
            "live": True,
            "notes": {"shop": []},
        }


class LocalPageTests(TestCase):
    # A cold browser on a busy machine takes some 10 s alone.
    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        folder = short_folder(self)
        self.daemon = SampleDaemon()
        self.listeners = LocalListeners(
            reactor,
            self.daemon,
            socket=folder / "control.sock",
            port=25876,
            port_file=folder / "ui-port",
            token_file=folder / "ui-token",
        )
        self.listeners.startService()
        self.addCleanup(self.listeners.stopService)
        assert self.listeners.link is not None
        self.base = f"http://127.0.0.1:{self.listeners.port}"

    async def browser(self, name: str) -> Browser:
        browser = Browser(reactor, name)
        self.addCleanup(browser.stop)
        await browser.start()
        return browser

    async def test_the_owner_sees_how_it_is_and_acts(self) -> None:
        for number in range(1, 4):
            record = {"time": "2026-11-23T18:00:00.000Z", "level": "info", "logger": "uaihost.link.link"}
            self.daemon.recent.add({**record, "message": f"link connected {number}"})
        browser = await self.browser("local-page")
        await browser.do("open", f"{self.base}/")
        await browser.see("#locked h1")
        self.assertEqual(self.daemon.looks, 0)
        await browser.do("problems")
        await browser.do("open", self.listeners.link)
        await browser.see("#verdict:has-text('All is well')")
        self.assertEqual(await browser.do("url"), f"{self.base}/")
        await self.all_is_shown(browser)
        await self.log_is_live(browser)
        await self.tasks_are_exported_and_stopped(browser)
        await self.trouble_is_shown(browser)
        await self.silence_is_shown(browser)
        self.assertEqual(await browser.do("problems"), [])

    async def all_is_shown(self, browser: Browser) -> None:
        for selector in (
            "#card-bridge:has-text('wss://bridge.example/host')",
            "#card-image:has-text('Ready')",
            "#card-disk:has-text('10.0 GiB of 50.0 GiB')",
            "#card-agents:has-text('uaihost login codex')",
            "#card-github:has-text('octavia')",
            "#card-github:has-text('Renewed when it is next used')",
            "[data-task=fix-checkout]:has-text('1.5 GiB of 4.0 GiB')",
            "[data-task=fix-checkout] a[href='http://localhost:49154/']",
            "[data-task=fix-checkout]:has-text('port-9229 9229 through the bridge')",
            "[data-task=spring-menu]:has-text('the editor is starting')",
        ):
            await browser.see(selector)
        for theme in ("light", "dark"):
            await browser.do("theme", theme)
            await browser.do("size", 1200, 1450)
            await browser.shot(f"local-page-{theme}")
        await browser.do("size", 360, 1000)
        self.assertEqual(await browser.do("overflow"), 0)
        await browser.shot("local-page-phone")
        await browser.do("size", 1200, 900)
        await browser.do("theme", "light")

    async def log_is_live(self, browser: Browser) -> None:
        await browser.see("#records li:has-text('link connected 3')")
        record = {"time": "2026-11-23T18:00:01.000Z", "level": "warn", "logger": "x", "task": "fix-checkout"}
        self.daemon.recent.add({**record, "message": "<b>late</b>"})
        await browser.see("#records li.warn:has-text('<b>late</b>')")
        await browser.do("select", "#log-level", "warn")
        await browser.do("until", "document.querySelectorAll('#records li').length", 1, 10_000)
        await browser.do("click", "#log-pause")
        self.daemon.recent.add({**record, "message": "while paused"})
        await browser.see("#log-pause:has-text('1 new')")
        self.assertEqual(await browser.do("count", "#records li:has-text('while paused')"), 0)
        await browser.do("click", "#log-pause")
        await browser.see("#records li:has-text('while paused')")

    async def tasks_are_exported_and_stopped(self, browser: Browser) -> None:
        await browser.do("click", "[data-task=fix-checkout] button:has-text('Export')")
        await browser.see("[data-task=fix-checkout] .said:has-text('fix-checkout.tar.gz')")
        await browser.do("click", "[data-task=fix-checkout] button:has-text('Stop')")
        await browser.see("dialog[open] h2:has-text('Stop fix-checkout?')")
        self.assertEqual(await browser.do("focused"), "ask-no")
        await browser.do("key", "Escape")
        await browser.gone("dialog[open]")
        self.assertEqual(self.daemon.done, [("export", "fix-checkout")])
        await browser.do("click", "[data-task=fix-checkout] button:has-text('Stop')")
        await browser.do("click", "#ask-yes")
        await browser.see(".said code:has-text('uaihost restore fix-checkout')")
        self.assertEqual(self.daemon.done[1:], [("stop", "fix-checkout")])
        self.assertEqual(self.daemon.downloads, {}, "the archive was fetched")

    async def trouble_is_shown(self, browser: Browser) -> None:
        away = {**sample.GOOD["bridge"], "state": "connecting", "since": sample.NOW - 2}
        self.daemon.said = sample.seen({**sample.GOOD, "bridge": away})
        await browser.see("#health.note #verdict:has-text('Reaching the bridge')")
        self.daemon.said = sample.bad()
        await browser.see("#verdict:has-text('Something needs you')")
        await browser.see("#warnings:has-text('connection refused by bridge.example:443')")
        await browser.see("#card-bridge .retry:has-text('Next try in')")
        await browser.see("#card-image pre:has-text('Unpacking libnss3')")
        await browser.do("size", 1200, 1450)
        await browser.shot("local-page-trouble")

    async def silence_is_shown(self, browser: Browser) -> None:
        self.daemon.said = sample.good()
        await browser.see("#verdict:has-text('All is well')")
        self.assertEqual(await browser.do("problems"), [])
        await self.listeners.stopService()
        await browser.see("#health.bad #verdict:has-text('The host does not answer')")
        await browser.see("#warnings code:has-text('uaihost start')")
        await browser.see("#tasks[inert] button")
        await browser.shot("local-page-silent")
        self.listeners.startService()
        await browser.see("#health.good #verdict:has-text('All is well')")
        await browser.gone("#warnings li")
        await browser.see("#tasks:not([inert]) button")
        # The browser itself says of each look that it met nobody; the page's own scripts have no error.
        problems = await browser.do("problems")
        self.assertEqual([one for one in problems if one.startswith("error:")], [])

    async def test_a_hostile_page_gets_nothing(self) -> None:
        hostile = HostileSite(self.base)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Site(hostile))
        self.addCleanup(port.stopListening)
        browser = await self.browser("local-page-hostile")
        await browser.do("open", self.listeners.link)
        await browser.see("#verdict")
        # The page is not looked at any more, but the browser has its cookie.
        await browser.do("open", "about:blank")
        cookies = await browser.do("cookies")
        self.assertEqual([(one["httpOnly"], one["sameSite"]) for one in cookies], [(True, "Strict")])
        looks = self.daemon.looks
        for name in ("127.0.0.1", "localhost", "evil.localhost"):
            await browser.do("open", f"http://{name}:{port.getHost().port}/")
            found = json.loads(await browser.do("run", "attack()"))
            self.assertEqual(
                {what for what, came in found.items() if came != "refused"}, set(), (name, found)
            )
            self.assertGreaterEqual(len(found), 10)
        status = await browser.do("open", f"{self.base.replace('127.0.0.1', 'evil.localhost')}/api/status")
        self.assertEqual(status, 421, "a foreign name that leads here")
        self.assertEqual((self.daemon.looks, self.daemon.done), (looks, []), "nothing came through")
        # A server at another port of the same name is sent the cookie; alone it opens nothing.
        self.assertTrue(any("uaihost-" in cookie for cookie in hostile.cookies), hostile.cookies)
        stolen = next(cookie for cookie in hostile.cookies if "uaihost-" in cookie)
        for path in ("/api/status", "/api/log", "/metrics", "/api/tasks/fix-checkout"):
            answer = await deferToThread(asked, f"{self.base}{path}", {"Cookie": stolen})
            self.assertEqual(answer, 401, path)
        self.assertEqual(await deferToThread(asked, f"{self.base}/", {"Cookie": stolen}), 200)
        self.assertEqual(self.daemon.looks, looks)
        # Opened by a hostile page it is the owner's own page, of which that one sees nothing.
        await browser.do("open", f"http://127.0.0.1:{port.getHost().port}/")
        self.assertEqual(await browser.do("run", "opened()"), "refused")


class HostileSite(Resource):
    """A page of somebody else's on this machine, an agent's preview for example. It keeps what it is sent."""

    isLeaf = True

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target
        self.cookies: set[str] = set()

    def render_GET(self, request: Request) -> bytes:
        self.cookies.add(request.getHeader("cookie") or "")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        return HOSTILE.replace("TARGET", json.dumps(self._target)).encode()
