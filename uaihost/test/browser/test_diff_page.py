"""What a task changed, as the page shows it: a real browser and a real work copy behind a scripted host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from uaihost.blocking import Threads
from uaihost.test.browser.test_page import PageCase
from uaihost.test.browser.tour import log_in
from uaihost.test.integration.git_rig import ANN, Folders, commit, git
from uaihost.workspaces.workspaces import Workspaces


class DiffPageTests(PageCase):
    async def copy(self) -> tuple[Workspaces, Path]:
        """A work copy, and the room that it is in."""
        remote = self.folder / "code" / "shop"
        remote.mkdir(parents=True)
        git(remote, "init", "-q", "-b", "main")
        commit(remote, "first", menu_txt="Bread\nCake\n", prices_txt="1\n2\n3\n" * 5, run_sh="#!/bin/sh\n")
        (remote / "photo.png").write_bytes(b"\0" * 900)
        commit(remote, "photo")
        library = self.folder / "code" / "library"
        library.mkdir()
        git(library, "init", "-q", "-b", "main")
        commit(library, "library", own_txt="library\n")
        threads = Threads(reactor, "workspaces", 4)  # type: ignore[arg-type]
        self.addCleanup(threads.stop)
        data = self.folder / "data"
        folders = Folders(data / "mirrors", data / "tasks", data / "saved")
        rooms = Workspaces(reactor, folders, threads, os.getuid(), os.getgid(), (self.folder / "code",), {})
        made = await rooms.prepare("t1", "shop", str(remote), "fix/menu", ANN, lambda _: None)
        copy = Path(made.path)
        git(copy, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "sub")
        git(copy, "commit", "-q", "-m", "sub")
        return rooms, copy

    async def shown(self, rooms: Workspaces) -> dict[str, Any]:
        return {"projects": [await rooms.diff("t1", "p1", "shop")]}

    async def test_where_changes_are_and_what_they_are(self) -> None:
        rooms, copy = await self.copy()
        git(copy, "checkout", "-q", "-b", "theirs")
        commit(copy, "theirs", menu_txt="Bread\nTheir cake\n")
        git(copy, "checkout", "-q", "fix/menu")
        commit(copy, "ours", menu_txt="Bread\nOur cake\n")
        git(copy, "merge", "-q", "theirs", check=False)
        (copy / "prices.txt").rename(copy / "costs.txt")
        git(copy, "add", "-A", "prices.txt", "costs.txt")
        (copy / "run.sh").chmod(0o755)
        (copy / "photo.png").write_bytes(b"\0" * 700)
        (copy / "new.txt").write_text("new\n")
        (copy / "long.txt").write_bytes(b"a line of text\n" * 30_000)
        (copy / "sub" / "own.txt").write_text("changed\n")
        value = await self.shown(rooms)
        self.host.answers["taskDiff"] = lambda frame: {"ok": True, "value": value}
        await self.host.connect()
        browser = await self.browser("changes")
        await log_in(browser, self.plan())
        await self.new_task(browser)
        await browser.do("click", ".tabs a:has-text('Changes')")
        await browser.see(".diff-head:has-text('8 files changed')")
        await browser.see(".diff > .notice:has-text('1 file in conflict')")
        await browser.see("[data-path='menu.txt'] .status.conflict")
        await browser.see("[data-path='menu.txt'] .side:has-text('Ours') tr.added:has-text('Our cake')")
        await browser.see("[data-path='menu.txt'] .side:has-text('Theirs') tr.added:has-text('Their cake')")
        await browser.see("[data-path='costs.txt'] .path:has-text('prices.txt → costs.txt')")
        await browser.see("[data-path='costs.txt'] .where.staged")
        await browser.see("[data-path='run.sh'] .notice:has-text('Mode 100644 → 100755')")
        await browser.see("[data-path='photo.png'] .notice:has-text('A binary file, 900 bytes → 700 bytes.')")
        await browser.see("[data-path='new.txt'] .where.untracked")
        await browser.see("[data-path='long.txt'] .notice:has-text('too long to show')")
        await browser.see("[data-path='sub'] .notice:has-text('changes inside that are not committed')")
        await browser.see(".diff > .notice:has-text('Not everything is shown')")
        await browser.shot("changes")
        await browser.do("size", 390, 800)
        await browser.shot("changes-phone")
        self.assertEqual(await browser.do("overflow"), 0)
        self.assertEqual(await browser.do("problems"), [])

    async def new_task(self, browser: Any) -> None:
        await browser.do("click", "#new")
        await browser.do("fill", "#repo", "/srv/repositories/corner-shop")
        await browser.do("press", "#repo", "Enter")
        await browser.see("#say")
