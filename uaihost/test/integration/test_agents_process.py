"""AgentProcess against real keepers over their Unix sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.agents.framing import Hello
from uaihost.agents.process import AgentProcess
from uaihost.test.channel.rig import SHIM
from uaihost.test.support import short_folder

PATIENCE = 10.0
ECHO = "import sys\nfor line in sys.stdin: print('got', line.strip(), flush=True)"


class ProcessTests(TestCase):
    """The test is the listener."""

    timeout = 60

    def setUp(self) -> None:
        self.run_folder = short_folder(self) / "run"
        self.run_folder.mkdir()
        self.program = ECHO
        self.keepers: list[subprocess.Popen[bytes]] = []
        self.hellos: list[Hello] = []
        self.lines: list[tuple[bytes | None, int]] = []
        self.exits: list[tuple[int, str]] = []
        self.lost: list[str] = []
        self.addCleanup(self.end)
        self.process = self.attached()

    def end(self) -> None:
        self.process.detach()
        for keeper in self.keepers:
            if keeper.poll() is None:
                keeper.terminate()
            keeper.wait()

    def attached(self, offset: int | None = None) -> AgentProcess:
        process = AgentProcess(reactor, self.run_folder, "a", self.start, self)
        if offset is not None:
            process.attach(offset)
        return process

    async def start(self) -> None:
        self.spawn(str(self.run_folder / "agents" / "a"))

    def spawn(self, folder: str) -> None:
        argv = [sys.executable, str(SHIM / "agentd.py"), "--dir", folder, "--", sys.executable, "-c"]
        self.keepers.append(subprocess.Popen([*argv, self.program], stdin=subprocess.DEVNULL))

    def greeted(self, hello: Hello) -> None:
        self.hellos.append(hello)

    def line_received(self, line: bytes | None, end: int) -> None:
        self.lines.append((line, end))

    def agent_exited(self, status: int, err: str) -> None:
        self.exits.append((status, err))

    def process_lost(self, reason: str) -> None:
        self.lost.append(reason)

    async def until(self, condition: Callable[[], Any]) -> None:
        waited = 0.0
        while not condition():
            self.assertLess(waited, PATIENCE, (self.hellos, self.lines[-3:], self.exits, self.lost))
            await deferLater(reactor, 0.01)
            waited += 0.01

    async def test_lines_go_in_and_come_out_with_their_offsets(self) -> None:
        self.process.attach(0)
        self.process.write_line(0, b"one")
        self.process.write_line(1, "zwölf".encode())
        await self.until(lambda: len(self.lines) == 2)
        self.assertEqual(self.lines, [(b"got one", 8), ("got zwölf".encode(), 19)])
        self.assertFalse(self.process.holds(0))

    async def test_an_agent_is_found_again_where_it_was_left(self) -> None:
        self.process.attach(0)
        self.process.write_line(0, b"one")
        await self.until(lambda: self.lines)
        self.process.detach()
        self.process = self.attached(8)
        # Acknowledged before: it must not reach the agent again.
        self.process.write_line(0, b"one")
        self.process.write_line(1, b"two")
        await self.until(lambda: len(self.lines) == 2)
        self.assertEqual(self.lines[1], (b"got two", 16))
        self.assertEqual(len(self.keepers), 1)
        self.assertEqual(self.hellos[0].run, self.hellos[1].run)

    async def test_a_lost_connection_is_made_again_and_nothing_is_lost_or_doubled(self) -> None:
        self.process.attach(0)
        for number in range(200):
            self.process.write_line(number, b"%d" % number)
            if number % 20 == 10:
                await self.until(lambda: self.process.connected)
                connection: Any = self.process._connection
                connection.transport.abortConnection()
        await self.until(lambda: len(self.lines) >= 200)
        self.assertEqual([line for line, _ in self.lines], [b"got %d" % n for n in range(200)])

    async def test_a_long_line_passes(self) -> None:
        self.process.attach(0)
        self.process.write_line(0, b"x" * (8 << 20))
        await self.until(lambda: self.lines)
        self.assertEqual(self.lines[0], (b"got " + b"x" * (8 << 20), (8 << 20) + 5))

    async def test_a_paused_process_delivers_nothing_until_resumed(self) -> None:
        self.process.attach(0)
        await self.until(lambda: self.hellos)
        self.process.pause()
        self.process.write_line(0, b"one")
        await self.until(lambda: sum(path.stat().st_size for path in self.run_folder.glob("agents/a/out.*")))
        await deferLater(reactor, 0.1)
        self.assertEqual(self.lines, [])
        self.process.resume()
        await self.until(lambda: self.lines)

    async def test_the_end_of_the_agent_is_told_after_its_last_line(self) -> None:
        self.program = "import sys; print('bye'); sys.stderr.write('why'); sys.exit(4)"
        self.process.attach(0)
        await self.until(lambda: self.exits)
        self.assertEqual((self.lines, self.exits), ([(b"bye", 4)], [(4, "why")]))

    async def test_a_killed_keeper_is_started_again_as_a_new_run(self) -> None:
        self.process.attach(0)
        await self.until(lambda: self.hellos)
        os.kill(self.keepers[0].pid, signal.SIGKILL)
        self.keepers[0].wait()
        await self.until(lambda: len(self.hellos) == 2)
        self.assertNotEqual(self.hellos[0].run, self.hellos[1].run)
        self.assertEqual(len(self.keepers), 2)

    async def test_stop_ends_agent_and_keeper(self) -> None:
        self.process.attach(0)
        await self.until(lambda: self.hellos)
        await self.process.stop(1.0)
        self.assertEqual(self.keepers[0].wait(PATIENCE), 0)
        self.assertFalse(Path(f"/proc/{self.hellos[0].pid}").exists())

    async def test_a_renewed_keeper_is_another_run(self) -> None:
        self.process.attach(0)
        await self.until(lambda: self.hellos)
        self.process.renew()
        await self.until(lambda: len(self.hellos) == 2)
        self.assertNotEqual(self.hellos[0].run, self.hellos[1].run)

    async def test_a_log_that_the_agent_cut_short_is_gone_on_with_at_its_end(self) -> None:
        self.process.attach(0)
        self.process.write_line(0, b"one")
        await self.until(lambda: self.lines)
        self.process.detach()
        self.process = self.attached(10_000)
        self.process.write_line(1, b"two")
        await self.until(lambda: len(self.lines) == 2)
        self.assertEqual(self.lines[1], (b"got two", 16))
