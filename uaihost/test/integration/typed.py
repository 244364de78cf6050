"""Types what documents show, as their readers would, and says where they are wrong.

Knows a shell and what it prints; not what runs there. Blocks: call it from a thread.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from uaihost.test.documents import Command, agrees

# Seconds for one command; for what goes on to show what it shows; and to end after it was interrupted.
LIMIT, SHOWS, ENDS = 120, 120.0, 60


class Reader:
    """Somebody at a terminal. words: what the documents write in capitals -> what stands for it here."""

    def __init__(self, folder: Path, env: Mapping[str, str], words: Mapping[str, str]) -> None:
        self._folder = folder
        self._env = dict(env)
        self._words = dict(words)
        self._goes_on: list[subprocess.Popen[bytes]] = []

    def types(self, commands: Sequence[Command]) -> list[str]:
        """What went otherwise than it is written."""
        return [wrong for command in commands for wrong in self._one(command)]

    def leaves(self) -> None:
        """Interrupt what goes on, the newest first."""
        while self._goes_on:
            process = self._goes_on.pop()
            # One that ended by itself was told of already.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                try:
                    process.wait(ENDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise

    def here(self, text: str) -> str:
        """A line with the words of this place."""
        return re.sub(r"\b[A-Z]{3,}\b", lambda word: self._words.get(word[0], word[0]), text)

    def _one(self, command: Command) -> list[str]:
        shown = tuple(self.here(line) for line in command.shown)
        if command.stays:
            return self._stays(command, shown)
        done = subprocess.run(
            ["bash", "-c", self.here(command.text)],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        if done.returncode != command.status:
            return [f"{command}: status {done.returncode}, not {command.status}:\n{done.stdout}"]
        if shown and not agrees(shown, done.stdout):
            return [f"{command}: it prints\n{done.stdout}"]
        return []

    def _stays(self, command: Command, shown: tuple[str, ...]) -> list[str]:
        path = self._folder / f"stays-{len(self._goes_on)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                # A shell ignores interrupts for what it starts in the background, and this test may be such.
                ["env", "--default-signal=INT", "bash", "-c", self.here(command.text)],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._goes_on.append(process)
        end = time.monotonic() + SHOWS
        while True:
            printed = path.read_text(errors="replace")
            if agrees((*shown, "..."), printed):
                return []
            if process.poll() is not None or time.monotonic() > end:
                return [f"{command}: it does not show what is written, it prints\n{printed}"]
            time.sleep(0.1)
