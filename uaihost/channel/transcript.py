"""Every message of a task, once and in order: rows first, then a JSON line each in `<task>.jsonl`.

The rows are the truth. The file follows them, is mended when it is found short or damaged, and stays when the
task is gone. It knows neither agents nor routing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any

import attrs
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.ids import new_id
from uaihost.interfaces import Journal, Store
from uaihost.state import channel as table
from uaihost.state.channel import MessageRow
from uaihost.wire.events import Author, ChannelMessage

log = Logger()

SYSTEM = Author("system", "system", "uaihost")
# Messages that are read and appended at once: at 256 KiB each, 16 MiB.
CHUNK = 64


class Repeated(Exception):
    """The message is stored already, as `row`."""

    def __init__(self, row: MessageRow) -> None:
        super().__init__(row.message_id)
        self.row = row


class Transcripts:
    """The transcripts of all tasks, in `folder`."""

    def __init__(self, clock: Any, store: Store, journal: Journal, blocking: Blocking, folder: Path) -> None:
        self._clock = clock
        self._store = store
        self._journal = journal
        self._blocking = blocking
        self._folder = folder
        # The number of the last message in each file that was looked at.
        self._written: dict[str, int] = {}
        self._locks: dict[str, DeferredLock] = {}

    def path(self, task_id: str) -> Path:
        return self._folder / f"{task_id}.jsonl"

    def message(
        self,
        task_id: str,
        author: Author,
        text: str,
        message_id: str,
        routed_to: Sequence[str] = (),
    ) -> MessageRow:
        """A message of this moment, not yet stored."""
        at = int(self._clock.seconds() * 1000)
        return MessageRow(
            task_id, 0, message_id, at, author.kind, author.id, author.label, text, tuple(routed_to)
        )

    def notice(self, task_id: str, text: str) -> MessageRow:
        """A message of the system, not yet stored."""
        return self.message(task_id, SYSTEM, text, new_id())

    async def note(self, task_id: str, text: str) -> None:
        event, write = entry(self.notice(task_id, text))
        await self._journal.record(event, write=write)
        await self.follow(task_id)

    async def append(self, task_id: str, author: str, text: str, message_id: str) -> int:
        """A person's line that nobody is asked to answer; its number, also when it is there already."""
        event, store = entry(self.message(task_id, Author("user", author, author), text, message_id))

        def write(db: Connection) -> int:
            refuse_repeat(db, task_id, message_id)
            return store(db)

        try:
            seq = await self._journal.record(event, write=write)
        except Repeated as repeated:
            return repeated.row.seq
        await self.follow(task_id)
        return seq

    async def follow(self, task_id: str) -> None:
        """Bring the task's file up to its rows; what fails is done with the next message."""
        try:
            await self._follow(task_id)
        except OSError as error:
            log.error("the transcript of task {task} cannot be written: {error}", task=task_id, error=error)

    async def _follow(self, task_id: str) -> None:
        lock = self._locks.setdefault(task_id, DeferredLock())
        await lock.acquire()
        try:
            if task_id not in self._written:
                self._written[task_id] = await self._blocking.call(mend, self.path(task_id))
            while rows := await self._rows_after(task_id, self._written[task_id]):
                await self._blocking.call(append, self.path(task_id), rows)
                self._written[task_id] = rows[-1].seq
        except BaseException:
            # Whatever was written of it: look again next time.
            self._written.pop(task_id, None)
            raise
        finally:
            lock.release()

    async def _rows_after(self, task_id: str, seq: int) -> list[MessageRow]:
        return await self._store.run(lambda db: table.messages_after(db, task_id, seq, CHUNK))


def refuse_repeat(db: Connection, task_id: str, message_id: str) -> None:
    """Raises Repeated if the task has that message."""
    known = table.message(db, task_id, message_id)
    if known is not None:
        raise Repeated(known)


def entry(row: MessageRow) -> tuple[ChannelMessage, Callable[[Connection], int]]:
    """The event of a message, and what stores its row and returns its number."""
    author = Author(row.author_kind, row.author_id, row.author_label)
    event = ChannelMessage(row.task_id, row.at, row.message_id, author, row.text)
    return event, lambda db: table.add_message(db, row)


def line(row: MessageRow) -> bytes:
    fields = attrs.asdict(row) | {"routed_to": list(row.routed_to)}
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


def append(path: Path, rows: Sequence[MessageRow]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"".join(line(row) for row in rows))


def mend(path: Path) -> int:
    """Cut the file behind the last message up to which it holds 1, 2, 3 ...; the number of that message."""
    good, seq = 0, 0
    try:
        with path.open("rb") as file:
            for text in file:
                if not text.endswith(b"\n") or _seq(text) != seq + 1:
                    break
                good, seq = good + len(text), seq + 1
    except FileNotFoundError:
        return 0
    os.truncate(path, good)
    return seq


def _seq(text: bytes) -> int | None:
    try:
        found = json.loads(text)["seq"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None
