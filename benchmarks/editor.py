"""A lane with a real editor in a real browser: code-server in Chromium, directly or through the tunnel.

Both ends of the tunnel are uaihost's own. Every load has a new browser with a profile of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.lanes import TUNNEL, Bench, Kind
from benchmarks.processes import Process
from uaihost.test.browser import browser
from uaihost.test.browser.code_server import CodeServer, packages
from uaihost.test.browser.reals import Tunnel
from uaihost.test.integration.node import installed, node

# What has to be seen: the workbench around everything, and the files, whose names came by its socket.
SEEN = {
    "workbench s": ".monaco-workbench .part.sidebar",
    "files s": ".explorer-folders-view .monaco-list-row[aria-label*='notes.txt']",
}

# Seconds until a load is given up, and in which a browser starts and closes.
_PATIENCE = 150
_START = 60
_CLOSE = 15


def missing() -> str | None:
    """Why it cannot be measured here."""
    if _chromium() is None:
        return "chromium is not installed"
    try:
        packages()
    except (OSError, subprocess.SubprocessError) as error:
        return f"code-server cannot be installed: {error}"
    return None


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Workbench:
    """A code-server with a small project, and a tunnel to it when the lane is of one."""

    def __init__(self, kind: Kind, bench: Bench) -> None:
        self.kind = kind
        self._folder = Path(tempfile.mkdtemp(prefix="editor", dir=bench.folder))
        project = self._folder / "project"
        project.mkdir()
        (project / "notes.txt").write_text("Open from 7 to 19.\n")
        with ExitStack() as stack:
            # What a page leaves behind is not to burden the next.
            editor = CodeServer(self._folder, grace=1)
            stack.callback(editor.stop)
            editor.wait_ready()
            self.pid = editor.pid
            direct = f"http://localhost:{editor.port}/?folder={project}"
            self._url = direct
            if kind == TUNNEL:
                tunnel = Tunnel(self._folder, editor=editor.port)
                stack.callback(tunnel.stop)
                self.pid = tunnel.pid("uaihost")
                self._url = f"{tunnel.editor}/?folder={project}"
            # The editor's server reads its own programs only when a first page asks for them.
            self._load(direct)
            self._stack = stack.pop_all()

    def call(self, measure: str, **arguments: Any) -> dict[str, Any]:
        """`load`: seconds until each of SEEN was there."""
        assert measure == "load"
        return self._load(self._url)

    def stop(self) -> None:
        self._stack.close()

    def _load(self, url: str) -> dict[str, Any]:
        chromium = _chromium()
        assert chromium is not None
        profile = Path(tempfile.mkdtemp(prefix="profile", dir=self._folder))
        driver = installed(browser.SOURCE) / "driver.mjs"
        words = [node(), str(driver), chromium, str(profile)]
        log = self._folder / "browser.log"
        process = Process(words, log, cwd=driver.parent, talks=True, env={"HOME": str(profile)})
        try:
            process.line(_START)
            return process.ask({"id": 1, "do": "load", "args": [url, SEEN]}, _PATIENCE)
        finally:
            # The end of its orders ends it and the browser with it; a signal would leave the browser.
            assert process.child.stdin is not None
            process.child.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.child.wait(_CLOSE)
            process.stop()
