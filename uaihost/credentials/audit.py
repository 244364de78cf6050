"""The record of what credentials were used for: a line of JSON for each use, and never a secret.

`<data>/audit.jsonl`, mode 0600; when it has grown it becomes `audit.jsonl.1`, and so on.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.errors import ErrorCode, HostError

log = Logger()

# Bytes of one file, and how many older ones are kept: some hundred thousand uses.
LIMIT = 8 << 20
KEPT = 4
# Uses that are shown at once.
MOST = 10_000
# What credentials are used for, and how a use counts: it was let through and worked, or not.
KINDS, OUTCOMES = ("api", "git", "sign"), ("ok", "refused")
# Characters of what a task wrote itself: a path, a query's name.
LONGEST = 300


class AuditLog:
    """Writes uses in the order in which they are told. clock: IReactorTime, for the time of day."""

    def __init__(self, clock: Any, blocking: Blocking, path: Path, limit: int = LIMIT) -> None:
        self._clock = clock
        self._blocking = blocking
        self._path = path
        self._limit = limit
        # How often since the start, by kind and outcome.
        self.uses = {(kind, outcome): 0 for kind in KINDS for outcome in OUTCOMES}
        self._waiting: list[str] = []
        self._writing = False
        self._stopping: list[Deferred[None]] = []

    def __call__(self, *, user: str, task: str, what: str, host: str, path: str, outcome: str) -> None:
        """Note a use. user, task: whose and where, task empty for the host itself; what: `git`, `api` or
        `sign`; host, path: of the repository or the request; outcome: `ok`, or why not."""
        fields = {"user": user, "task": task, "what": what, "host": host, "path": path, "outcome": outcome}
        line = {"at": round(self._clock.seconds() * 1000), **{k: v[:LONGEST] for k, v in fields.items()}}
        self._waiting.append(json.dumps(line))
        self.uses[(what, "ok" if outcome == "ok" else "refused")] += 1
        if not self._writing:
            self._writing = True
            Deferred.fromCoroutine(self._write())

    def verbs(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """What the owner's programs may ask for by name: `task` (null: of all) and `last`, a number, in;
        `uses` out, oldest first."""
        return {"audit.read": self._asked}

    async def _asked(self, words: dict[str, Any]) -> dict[str, Any]:
        task, last = words.get("task"), words.get("last")
        if not (task is None or isinstance(task, str)) or not isinstance(last, int) or not 1 <= last <= MOST:
            raise HostError(ErrorCode.INVALID_ARGS, f"`last` must be 1 to {MOST}, and `task` a task's id")
        await self.written()
        return {"uses": await self._blocking.call(lambda: list(deque(read(self._path, task), last)))}

    async def written(self) -> None:
        """Return when what was told until now is in the file."""
        if self._writing:
            waiting: Deferred[None] = Deferred()
            self._stopping.append(waiting)
            await waiting

    async def _write(self) -> None:
        try:
            while self._waiting:
                lines, self._waiting = self._waiting, []
                try:
                    await self._blocking.call(append, self._path, lines, self._limit)
                except OSError as error:
                    log.error("uses of credentials were not noted: {error}", error=error)
        finally:
            self._writing = False
            stopping, self._stopping = self._stopping, []
            for waiting in stopping:
                waiting.callback(None)


def append(path: Path, lines: Iterable[str], limit: int = LIMIT) -> None:
    """Add lines; a file that is full makes room first. Blocking."""
    if path.exists() and path.stat().st_size >= limit:
        for number in range(KEPT - 1, 0, -1):
            older = _numbered(path, number)
            if older.exists():
                older.replace(_numbered(path, number + 1))
        path.replace(_numbered(path, 1))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def read(path: Path, task: str | None = None) -> Iterator[dict[str, Any]]:
    """The uses, oldest first; of one task alone. A line that was cut off is passed over. Blocking."""
    for file in (*(_numbered(path, number) for number in range(KEPT, 0, -1)), path):
        try:
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and task in (None, found.get("task")):
                yield found


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
