"""The dispatch on a database in a thread of its own, and in a process that is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.commands.dispatch import Dispatch
from uaihost.commands.registry import Lane, Row
from uaihost.events import EventJournal
from uaihost.interfaces import Entry
from uaihost.paths import data_files
from uaihost.state import outbox
from uaihost.state.database import Database
from uaihost.test.support import short_folder
from uaihost.wire.events import TaskStatus
from uaihost.wire.frames import Command

reactor: Any = _reactor

# A daemon that answers commands as fast as it can and prints each result that its listeners hear.
DAEMON = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from uaihost.test.integration.test_commands_store import serve
Deferred.fromCoroutine(serve(Path(sys.argv[1]))).addErrback(lambda failure: failure.printTraceback())
reactor.run()
"""


async def echo(command_id: str, text: str) -> dict[str, str]:
    return {"of": command_id, "text": text}


REGISTRY = {"echo": Row((str,), Lane.CHANNEL, echo)}


async def serve(path: Path) -> None:
    database = await Database.open(path, data_files("migrations"), Threads(reactor, "database", 1))
    journal = EventJournal(database, reactor)

    def print_result(entry: Entry) -> None:
        print(json.loads(entry.payload)["commandId"], flush=True)

    journal.subscribe(print_result)
    dispatch = Dispatch(REGISTRY, database, journal, reactor)
    await dispatch.recover()
    number = int.from_bytes(os.urandom(4))
    while True:
        for _ in range(8):
            number += 1
            dispatch.received(Command(f"c{number}", "echo", ["x" * 2000]))
        waiting: Deferred[None] = Deferred()
        reactor.callLater(0.001, waiting.callback, None)
        await waiting


class Printed(ProcessProtocol):
    """Kills the process once it has printed some lines."""

    def __init__(self, enough: int) -> None:
        self.out = b""
        self.enough = enough
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data
        assert self.transport is not None
        if self.out.count(b"\n") >= self.enough and self.transport.pid is not None:
            os.kill(self.transport.pid, signal.SIGKILL)

    def errReceived(self, data: bytes) -> None:
        sys.stderr.buffer.write(data)

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class ThreadedStoreTests(TestCase):
    def setUp(self) -> None:
        self.path = short_folder(self) / "state.db"

    async def open(self) -> Database:
        threads = Threads(reactor, "database", 1)
        database = await Database.open(self.path, data_files("migrations"), threads)

        async def close() -> None:
            await database.close()
            threads.stop()

        self.addCleanup(lambda: ensureDeferred(close()))
        return database

    async def test_listeners_hear_the_order_of_the_rows(self) -> None:
        database = await self.open()
        journal = EventJournal(database, reactor)
        heard: list[Entry] = []
        journal.subscribe(heard.append)
        dispatch = Dispatch(REGISTRY, database, journal, reactor)
        emitted = []
        for number in range(60):
            emitted.append(ensureDeferred(journal.emit(TaskStatus("t", number, "running"))))
            dispatch.received(Command(f"c{number}", "echo", ["x"]))
            dispatch.received(Command(f"c{number}", "echo", ["x"]))
        await DeferredList(emitted, fireOnOneErrback=True)
        await dispatch.drain()
        self.assertEqual(heard, await database.run(lambda db: outbox.pending(db, 0, 1000)))
        frames = [json.loads(entry.payload) for entry in heard]
        self.assertEqual([one["at"] for one in frames if "at" in one], list(range(60)))
        answers = [one["commandId"] for one in frames if one.get("kind") == "result"]
        self.assertEqual(answers, [f"c{number}" for number in range(60)])

    async def test_what_was_told_outlives_a_kill_and_the_rest_is_answered_at_the_next_start(self) -> None:
        told: list[str] = []
        for _ in range(3):
            child = Printed(enough=len(told) + 40)
            command: list[Any] = [sys.executable, "-c", DAEMON, str(self.path)]
            reactor.spawnProcess(child, sys.executable, command, env={**os.environ})
            await child.ended
            told += child.out.decode().split("\n")[:-1]
        database = await self.open()
        dispatch = Dispatch(REGISTRY, database, EventJournal(database, reactor), reactor)
        await dispatch.recover()
        await dispatch.drain()
        entries = await database.run(lambda db: outbox.pending(db, 0, 100_000))
        stored = [json.loads(entry.payload)["commandId"] for entry in entries]
        self.assertGreaterEqual(len(told), 120)
        self.assertEqual(set(told) - set(stored), set())
        known = await database.run(lambda db: [id_ for (id_,) in db.execute("SELECT id FROM commands")])
        self.assertEqual(sorted(stored), sorted(known))
