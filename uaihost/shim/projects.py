"""Sets one project up: its tool versions, its hooks, its dev server.

In this order, each a step of its own; one that fails is told with its last lines and does not stop the rest:

1. `tools <slug>`: what it names in `.tool-versions` and mise.toml, as far as the host has it;
2. once for the task, tried again at the next start when it failed: an executable `.uai/setup`, else
   devcontainer.json's onCreateCommand, updateContentCommand, postCreateCommand;
3. at every start: devcontainer.json's postStartCommand;
4. from then on: `.uai/start`, started again 2 s after it ends, its output in /run/uai/start-<slug>.log.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import devcontainer, places, processes, progress, toolchain

# Seconds for a project's hooks together; the host waits 600 for all of it, and a reason is better than that.
HOOK_LIMIT = 540.0


class Project:
    """ports: what its devcontainer.json forwards, once it is set up."""

    def __init__(
        self,
        folder: Path,
        where: places.Places,
        tools: toolchain.Toolchain,
        told: progress.Progress,
        children: processes.Children,
    ) -> None:
        self.folder = folder
        self.slug = folder.name
        self.ports: list[dict[str, Any]] = []
        self._where = where
        self._tools = tools
        self._told = told
        self._children = children
        self._limit = 0.0
        self._environ: dict[str, str] = {}

    def set_up(self) -> None:
        """All of it. Never raises."""
        if self._tools.knows(self.slug):
            with self._told.step(f"tools {self.slug}") as lines:
                lines += self._tools.set_up(self.slug)
        self._limit = time.monotonic() + HOOK_LIMIT
        settings = self._devcontainer()
        self._environ = environment(self._where, settings.variables)
        self.ports = settings.ports
        script = self.folder / ".uai" / "setup"
        if script.is_file() and os.access(script, os.X_OK):
            self._hook("setup", lambda: [[str(script)]], once=True)
        else:
            self._hooks(settings, devcontainer.CREATION, once=True)
        self._hooks(settings, devcontainer.START, once=False)
        self._start()

    def _devcontainer(self) -> devcontainer.Devcontainer:
        environ = environment(self._where, {})
        try:
            settings = devcontainer.Devcontainer(devcontainer.read(self.folder), self.folder, environ)
        except ValueError as error:
            self._told.report(f"devcontainer {self.slug}", "failed", str(error))
            return devcontainer.Devcontainer({}, self.folder, environ)
        if settings.told:
            self._told.report(f"devcontainer {self.slug}", "done", "\n".join(settings.told))
        return settings

    def _hooks(self, settings: devcontainer.Devcontainer, keys: dict[str, str], once: bool) -> None:
        for name, key in keys.items():
            if settings.has(key):
                self._hook(name, lambda key=key: settings.commands(key), once)  # type: ignore[misc]

    def _hook(self, name: str, words: Callable[[], list[list[str]]], once: bool) -> None:
        mark = self._where.marks / f"{name}-{self.slug}"
        if once and mark.exists():
            return
        with self._told.step(f"{name} {self.slug}"):
            try:
                every = words()
            except ValueError as error:
                raise progress.Failed(str(error)) from None
            left = max(1.0, self._limit - time.monotonic())
            problem = processes.run_all(every, str(self.folder), self._children, self._environ, left)
            if problem:
                raise progress.Failed(problem)
            if once:
                mark.parent.mkdir(parents=True, exist_ok=True)
                mark.touch()

    def _start(self) -> None:
        """Keep its dev server running, when it has one."""
        script = self.folder / ".uai" / "start"
        if not script.is_file():
            return
        words = [str(script)] if os.access(script, os.X_OK) else ["sh", str(script)]
        name = f"start {self.slug}"
        log = self._where.run / f"start-{self.slug}.log"
        processes.keep_running(name, words, str(self.folder), log, self._children, self._environ)
        self._told.report(name, "done")


def environment(where: places.Places, variables: dict[str, str | None]) -> dict[str, str]:
    """For a project's programs: the container's variables and its own; the tools that it names come first."""
    merged: dict[str, str | None] = {**os.environ, **variables, "HOME": str(where.home)}
    found = {name: value for name, value in merged.items() if value is not None}
    rest = [part for part in found.get("PATH", os.defpath).split(":") if part != str(where.shims)]
    return {**found, "PATH": ":".join([str(where.shims), *rest])}
