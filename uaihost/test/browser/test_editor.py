"""code-server in a real browser, through a real bridge and host."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.client import wait_for
from uaihost.test.browser.browser import Browser
from uaihost.test.browser.code_server import CodeServer
from uaihost.test.browser.reals import TASK, tunnel
from uaihost.test.support import short_folder

SIDEBAR = ".monaco-workbench .part.sidebar"
ROW = ".explorer-folders-view .monaco-list-row[aria-label*='{}']"
FILE = ROW.format("notes.txt")
TEXT = ".editor-instance .view-line"
UNSAVED = ".tab.dirty"
TERMINAL = ".terminal-wrapper.active .xterm-screen"
ROWS = "[...document.querySelectorAll('.xterm-rows > div')].map((row) => row.textContent.trim())"
# How a shell asks, root's and anybody's.
PROMPT = f"{ROWS}.some((text) => text === '#' || text === '$')"
ANSWER = f"{ROWS}.includes('42')"
# Says that the page has lost its server.
DIALOG = ".monaco-dialog-box"
# The page asks for this module, which Microsoft's own editor alone holds, and does without.
UNPUBLISHED = ("/vsda/rust/web/vsda.js", "/vsda/rust/web/vsda_bg.wasm")


class EditorTests(TestCase):
    # The editor is installed by the first run.
    timeout = 400

    async def setUp(self) -> None:  # type: ignore[override]
        self.folder = short_folder(self)
        self.project = self.folder / "project"
        self.project.mkdir()
        self.notes = self.project / "notes.txt"
        self.notes.write_text("Open from 7 to 19.\n")
        editor = await deferToThread(CodeServer, self.folder)
        self.addCleanup(deferToThread, editor.stop)
        await deferToThread(editor.wait_ready)
        self.tunnel = await tunnel(self, self.folder, editor=editor.port)
        self.browser = Browser(reactor, f"editor-{self._testMethodName}")
        self.addCleanup(self.browser.stop)
        await self.browser.start()

    async def open_workbench(self) -> None:
        url = f"{self.tunnel.editor}/?folder={self.project}"
        self.assertEqual(await self.browser.do("open", url), 200)
        await self.browser.see(SIDEBAR, 50)
        await self.browser.see(FILE, 50)

    async def test_a_file_is_edited_and_saved(self) -> None:
        browser = self.browser
        await self.open_workbench()
        await browser.do("click", FILE)
        await browser.see(TEXT)
        await browser.do("click", TEXT)
        await browser.do("key", "Control+Home")
        await browser.do("type", "Fresh bread. ")
        await browser.do("key", "Control+s")
        wanted = "Fresh bread. Open from 7 to 19.\n"
        await deferToThread(wait_for, "the text", lambda: self.notes.read_text() == wanted or None, 20)
        await browser.gone(UNSAVED)
        await browser.shot("saved")
        # The window's connection and the extension host's, and both stand.
        address = self.tunnel.editor.replace("http", "ws")
        sockets = await browser.do("sockets")
        self.assertGreaterEqual(len(sockets), 2)
        self.assertTrue(all(s["open"] and s["url"].startswith(f"{address}/") for s in sockets), sockets)
        self.assertEqual([text for text in await browser.do("problems") if lost(text)], [])

    async def test_a_language_server_finds_an_error(self) -> None:
        browser = self.browser
        (self.project / "goods.json").write_text('{"bread": 2.40, "apples" 1.10}\n')
        await self.open_workbench()
        # Said by an extension's own process: extension host, its socket and the window's, all of them.
        await browser.do("click", ROW.format("goods.json"))
        await browser.see(".squiggly-error", 50)
        await browser.shot("error")

    async def test_the_page_goes_on_after_the_host_was_away(self) -> None:
        browser = self.browser
        await self.open_workbench()
        await browser.do("click", FILE)
        await browser.see(TEXT)
        await deferToThread(self.tunnel.stop_host)
        await browser.do("disconnected")
        # Typed while there is no way to the editor's server; the page keeps it.
        await browser.do("click", TEXT)
        await browser.do("key", "Control+Home")
        await browser.do("type", "Closed today. ")
        await browser.do("run", "window.before = 'the stop'")
        await deferToThread(self.tunnel.start_host)
        await browser.do("connected", 2)
        await browser.gone(DIALOG, 40)
        await browser.do("key", "Control+s")
        wanted = "Closed today. Open from 7 to 19.\n"
        await deferToThread(wait_for, "the text", lambda: self.notes.read_text() == wanted or None, 40)
        self.assertEqual(await browser.do("run", "window.before"), "the stop")
        await browser.gone(UNSAVED)
        await browser.shot("again")

    async def test_the_terminal_runs_a_command(self) -> None:
        browser = self.browser
        await self.open_workbench()
        await browser.do("key", "Control+Backquote")
        await browser.see(TERMINAL, 40)
        # The shell is there and asks; before, it might not hear all that is typed.
        await browser.do("until", PROMPT, True, 40000)
        await browser.do("click", TERMINAL)
        made = self.project / "made-by-hand"
        await browser.do("type", f"expr 6 '*' 7 > {made.name}; cat {made.name}")
        await browser.do("key", "Enter")
        await browser.do("until", ANSWER, True, 20000)
        self.assertEqual(made.read_text(), "42\n")
        await browser.shot("terminal")


def lost(problem: str) -> bool:
    """Whether the page misses something of the editor's server that the way there may have lost."""
    missing = "WebSocket" in problem or "Failed to load resource" in problem
    return missing and f"{TASK}.editor.localhost" in problem and not problem.endswith(UNPUBLISHED)
