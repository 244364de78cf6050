"""Vite's own development server in a real browser, through a real bridge and host."""

from __future__ import annotations

import shutil
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.test.browser.browser import Browser
from uaihost.test.browser.reals import Program, tunnel
from uaihost.test.integration.node import installed, node
from uaihost.test.integration.processes import free_port
from uaihost.test.support import short_folder

SOURCE = Path(__file__).parent / "preview"

TITLE = "document.querySelector('#title').textContent"
PRICE = "document.querySelector('#price').textContent"
COLOUR = "getComputedStyle(document.querySelector('#title')).color"


class ViteTests(TestCase):
    # Vite is installed by the first run.
    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.app = self.folder / "app"
        shutil.copytree(SOURCE, self.app)
        self.packages = await deferToThread(installed, SOURCE)
        self.port = free_port()
        self.vite = await self.start_vite()
        self.tunnel = await tunnel(self, self.folder, web=self.port)
        self.browser = Browser(reactor, f"vite-{self._testMethodName}")
        self.addCleanup(self.browser.stop)
        await self.browser.start()

    async def start_vite(self) -> Program:
        program = self.packages / "node_modules" / "vite" / "bin" / "vite.js"
        # As `npm run dev` starts it: on loopback alone, whatever name the browser uses.
        words = [node(), str(program), "--host", "127.0.0.1", "--port", str(self.port), "--strictPort"]
        log = self.folder / "vite.log"
        log.write_text("")
        vite = Program(words, self.app, log, {"HOME": str(self.folder), "NO_COLOR": "1"})
        self.addCleanup(deferToThread, vite.stop)
        await deferToThread(vite.wait_printed, "ready in")
        return vite

    async def until(self, expression: str, value: object) -> None:
        await self.browser.do("until", expression, value, 20000)

    async def sockets(self) -> list[tuple[str, bool]]:
        """The page's WebSockets so far: the server each went to, and whether it is open."""
        found = await self.browser.do("sockets")
        return [(socket["url"].partition("/?")[0], socket["open"]) for socket in found]

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.app / "src" / name
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))

    async def test_edits_arrive_without_a_reload(self) -> None:
        browser = self.browser
        self.assertEqual(await browser.do("open", f"{self.tunnel.preview}/"), 200)
        await self.until(TITLE, "Hello from the shop")
        await self.until(COLOUR, "rgb(20, 90, 50)")
        await browser.do("connected", 1)
        await browser.do("run", "window.before = 'the edits'")
        await browser.do("click", "#basket")
        await browser.do("click", "#basket")
        # Each file once: its second change within 50 ms is one to Vite, and the page is quicker than that.
        self.edit("title.js", "Hello from the shop", "Edited")
        await self.until(TITLE, "Edited")
        self.edit("style.css", "rgb(20, 90, 50)", "rgb(90, 20, 50)")
        await self.until(COLOUR, "rgb(90, 20, 50)")
        self.edit("price.js", "2.40", "2.80")
        await self.until(PRICE, "2.80")
        self.assertEqual(await browser.do("run", "window.before"), "the edits")
        self.assertEqual(await browser.do("text", "#basket"), "2")
        # One socket, through the tunnel and not beside it, and it still stands.
        self.assertEqual(await self.sockets(), [(self.tunnel.preview.replace("http", "ws"), True)])
        await browser.shot("edited")
        self.assertEqual(await browser.do("problems"), [])

    async def test_the_page_finds_a_restarted_server(self) -> None:
        browser = self.browser
        await browser.do("open", f"{self.tunnel.preview}/")
        await self.until(TITLE, "Hello from the shop")
        await browser.do("connected", 1)
        await browser.do("run", "window.before = 'the restart'")
        await deferToThread(self.vite.stop)
        await browser.do("disconnected")
        self.edit("title.js", "Hello from the shop", "Back again")
        await self.start_vite()
        # Vite's page asks for its server and loads itself anew when it is there.
        await self.until(TITLE, "Back again")
        self.assertIsNone(await browser.do("run", "window.before"))
        await browser.do("connected", 1)
        self.edit("title.js", "Back again", "And edited")
        await self.until(TITLE, "And edited")
        await browser.shot("restarted")
