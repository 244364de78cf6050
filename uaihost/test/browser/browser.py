"""Debian's Chromium, driven from Python: a process of driver.mjs, one request and one answer a line."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from uaihost.test.integration.node import CHECKOUT, installed, node

SOURCE = Path(__file__).parent

# Where pictures of what was seen are kept, by the name of the run.
ARTIFACTS = CHECKOUT / "artifacts" / "browser"

# Seconds for one request; the driver's own limit is below.
TIMEOUT = 60.0


class BrowserError(Exception):
    """The page did not do what was asked; the text is the driver's."""


class Browser(ProcessProtocol):
    """One browser with one page, a fresh profile, and a folder for its pictures.

    name: of the run, and of the folder below ARTIFACTS.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self.shots = ARTIFACTS / name
        self._profile = Path(tempfile.mkdtemp(prefix="uai-browser-"))
        self._waiting: dict[int, Deferred[Any]] = {}
        self._requests = 0
        self._line = b""
        self._printed = b""
        self._ended: Deferred[None] | None = None

    async def start(self) -> None:
        """
        Raises:
            FileNotFoundError: Chromium or node is not installed.
        """
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        if chromium is None:
            raise FileNotFoundError("chromium is not installed: apt-get install chromium")
        folder = await deferToThread(installed, SOURCE)
        shutil.rmtree(self.shots, ignore_errors=True)
        self.shots.mkdir(parents=True)
        ready: Deferred[Any] = Deferred()
        self._waiting[0] = ready
        words = [node(), str(folder / "driver.mjs"), chromium, str(self._profile)]
        env = {**os.environ, "HOME": str(self._profile)}
        self._reactor.spawnProcess(self, words[0], words, env=env, path=str(folder))
        await ready.addTimeout(TIMEOUT, self._reactor)

    async def stop(self) -> None:
        """Close the browser and forget its profile."""
        if self.transport is not None and self.transport.pid is not None:
            self._ended = Deferred()
            self.transport.closeStdin()
            timer = self._reactor.callLater(15, self.transport.signalProcess, "KILL")
            await self._ended
            if timer.active():
                timer.cancel()
        shutil.rmtree(self._profile, ignore_errors=True)

    def do(self, verb: str, *args: Any) -> Deferred[Any]:
        """A verb of driver.mjs; its value."""
        self._requests += 1
        done: Deferred[Any] = Deferred()
        self._waiting[self._requests] = done
        assert self.transport is not None
        request = {"id": self._requests, "do": verb, "args": list(args)}
        self.transport.write(json.dumps(request).encode() + b"\n")
        return done.addTimeout(TIMEOUT, self._reactor)

    async def shot(self, name: str) -> Path:
        """A picture of the page."""
        path = self.shots / f"{name}.png"
        await self.do("shot", str(path))
        return path

    async def see(self, selector: str, seconds: float = 20) -> None:
        """Wait until the element is visible.

        Raises:
            BrowserError: it did not come; with what the page complained of, and a picture `unseen.png`.
        """
        try:
            await self.do("see", selector, seconds * 1000)
        except BrowserError as error:
            await self.shot("unseen")
            body = await self.do("text", "body")
            problems = await self.do("problems")
            raise BrowserError(f"{error}; the page says {body[:500]!r} and complains of {problems}") from None

    async def gone(self, selector: str, seconds: float = 20) -> None:
        """Wait until the element is not visible."""
        await self.do("gone", selector, seconds * 1000)

    # ---- ProcessProtocol

    def outReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            done = self._waiting.pop(answer["id"])
            if done.called:
                continue
            if answer["ok"]:
                done.callback(answer["value"])
            else:
                done.errback(BrowserError(answer["error"]))

    def errReceived(self, data: bytes) -> None:
        self._printed += data

    def processEnded(self, reason: Failure) -> None:
        self.transport = None
        for done in self._waiting.values():
            if not done.called:
                done.errback(
                    BrowserError(f"the driver ended: {self._printed.decode(errors='replace')[-2000:]}")
                )
        self._waiting.clear()
        if self._ended is not None:
            self._ended.callback(None)
