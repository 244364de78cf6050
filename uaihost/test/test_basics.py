"""Identities, the thread boundary and child processes."""

from __future__ import annotations

import signal
import sys
from threading import Event
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline, Threads
from uaihost.children import Finished, run
from uaihost.ids import host_id, new_id
from uaihost.test.support import short_folder

reactor: Any = _reactor


class IdTests(TestCase):
    def test_ids_can_stand_in_a_host_name_and_differ(self) -> None:
        made = {new_id() for _ in range(100)}
        self.assertEqual(len(made), 100)
        for one in made:
            self.assertRegex(one, r"\A[0-9a-z]{26}\Z")

    def test_the_host_id_is_made_once_and_is_private(self) -> None:
        folder = short_folder(self) / "data"
        first = host_id(folder)
        self.assertEqual(host_id(folder), first)
        self.assertEqual((folder / "host-id").read_text(), f"{first}\n")
        self.assertEqual((folder / "host-id").stat().st_mode & 0o777, 0o600)
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)

    def test_an_empty_host_id_file_is_filled(self) -> None:
        folder = short_folder(self)
        (folder / "host-id").write_text("\n")
        self.assertRegex(host_id(folder), r"\A[0-9A-Z]{26}\Z")

    def test_a_strange_host_id_is_refused_not_replaced(self) -> None:
        folder = short_folder(self)
        (folder / "host-id").write_text("../../etc\n")
        error = self.assertRaises(ValueError, host_id, folder)
        self.assertIn("host-id", str(error))
        self.assertEqual((folder / "host-id").read_text(), "../../etc\n")


class BlockingTests(TestCase):
    async def test_calls_leave_the_reactor_thread_and_come_back(self) -> None:
        import threading

        threads = Threads(reactor, "test", 1)
        self.addCleanup(threads.stop)
        names = [await threads.call(lambda: threading.current_thread().name) for _ in range(2)]
        self.assertNotIn(threading.current_thread().name, names)

    async def test_an_exception_comes_back(self) -> None:
        for boundary in (Inline(), Threads(reactor, "test", 1)):
            self.addCleanup(boundary.stop)
            with self.assertRaises(ZeroDivisionError):
                await boundary.call(lambda: 1 // 0)

    async def test_stopping_does_not_wait_for_what_runs(self) -> None:
        threads = Threads(reactor, "test", 1)
        begun, end = Event(), Event()

        def work() -> str:
            begun.set()
            end.wait()
            return "done"

        running = ensureDeferred(threads.call(work))
        await deferToThread(begun.wait)
        threads.stop()
        self.assertFalse(running.called)
        end.set()
        self.assertEqual(await running, "done")

    async def test_one_thread_keeps_the_order(self) -> None:
        threads = Threads(reactor, "test", 1)
        self.addCleanup(threads.stop)
        seen: list[int] = []
        waiting = [ensureDeferred(threads.call(seen.append, number)) for number in range(50)]
        for one in waiting:
            await one
        self.assertEqual(seen, list(range(50)))


class ChildTests(TestCase):
    async def run_python(self, code: str, **options: Any) -> Finished:
        return await run(reactor, [sys.executable, "-c", code], env={}, **{"timeout": 30.0, **options})

    async def test_input_output_and_status(self) -> None:
        code = "import sys; sys.stdout.write(sys.stdin.read()[::-1]); sys.stderr.write('e'); sys.exit(3)"
        done = await self.run_python(code, stdin=b"abc")
        self.assertEqual(done, Finished(3, b"cba", b"e", truncated=False, timed_out=False))

    async def test_nothing_of_our_environment_is_passed_on(self) -> None:
        code = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
        self.assertEqual((await self.run_python(code)).out, b"[]\n")

    async def test_output_beyond_the_limit_ends_the_child(self) -> None:
        done = await self.run_python("import sys\nwhile True: sys.stdout.write('x' * 300000)", limit=1000)
        self.assertEqual((done.status, len(done.out), done.truncated), (-signal.SIGTERM, 1000, True))

    async def test_errors_beyond_the_limit_are_dropped_and_the_child_goes_on(self) -> None:
        done = await self.run_python("import sys; sys.stderr.write('x' * 300000)", limit=1000)
        self.assertEqual((done.status, len(done.err), done.truncated), (0, 1000, False))

    async def test_the_whole_group_ends_at_the_deadline(self) -> None:
        code = (
            "import os, sys, time\n"
            "child = os.fork()\n"
            "if child: print(child, file=sys.stderr, flush=True)\n"
            "time.sleep(1000)\n"
        )
        clock = _ClockedReactor()
        argv = [sys.executable, "-c", code]
        done = await run(clock, argv, env={}, timeout=60, on_err=lambda _: clock.advance(60))
        self.assertEqual((done.status, done.timed_out), (-signal.SIGTERM, True))
        grandchild = int(done.err)
        for _ in range(500):
            if not _runs(grandchild):
                break
            await deferLater(reactor, 0.01)
        self.assertFalse(_runs(grandchild))

    async def test_a_program_that_is_not_there_is_named(self) -> None:
        with self.assertRaises(FileNotFoundError) as caught:
            await run(reactor, ["no-such-program"], env={"PATH": "/bin"}, timeout=1)
        self.assertIn("no-such-program", str(caught.exception))

    async def test_progress_is_heard_as_it_comes(self) -> None:
        heard: list[bytes] = []
        await self.run_python("import sys; sys.stderr.write('12 %')", on_err=heard.append)
        self.assertEqual(b"".join(heard), b"12 %")


class _ClockedReactor(Clock):
    """The real reactor with a clock that the test moves."""

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


def _runs(pid: int) -> bool:
    """Alive, and not only waiting to be reaped by a first process that does not care."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
