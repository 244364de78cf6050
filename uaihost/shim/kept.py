"""An agent's process with its three pipes: output into the log, numbered lines in, its end and its family's.

Standard library only, Python 3.9 and later. It must not know what the bytes mean, nor who asks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import family, outlog

# One read from a pipe, bytes.
CHUNK = 65536
# Of what is left in a pipe at the agent's end, bytes: no pipe holds more, and a writer may go on for ever.
REST = 1 << 20
# err.log is cut to half of this when it grows beyond it, bytes.
ERR_LIMIT = 128 << 10


class Refused(Exception):
    """A request that cannot be followed; the text goes back to who asked."""


class Agent:
    """run: names this process; start: the offset where its output begins; exited: its status once it ended.

    A variable that is empty in the keeper's environment is missing in the agent's.
    """

    def __init__(self, folder: Path, cwd: str | None, argv: list[str]) -> None:
        self.run = os.urandom(8).hex()
        self.mark = str(folder.resolve())
        # What an earlier keeper's agent left when both were killed must not work beside this one.
        family.end_family(self.mark)
        self.log = outlog.OutLog(folder)
        self.start = self.log.end
        self.err_path = folder / "err.log"
        self.err = bytearray()
        self.number = os.open(folder / "stdin", os.O_RDWR | os.O_CREAT, 0o600)
        stored = os.read(self.number, 32).strip()
        self.stdin_next = int(stored) if stored.isdigit() else 0
        self.unwritten = bytearray()
        self.exited: int | None = None
        self.child: subprocess.Popen[bytes] | None = None
        environment = {name: value for name, value in os.environ.items() if value}
        try:
            self.child = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**environment, family.MARK: self.mark},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                # The keeper has one thread: nothing can hold a lock that the child waits for.
                preexec_fn=family.die_with_parent,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.exited = 127
            self.keep_err(f"cannot start {argv[0]}: {error}\n".encode())
            return
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)

    @property
    def pid(self) -> int:
        return self.child.pid if self.child else 0

    def fileno(self, name: str) -> int:
        """The pipe's descriptor, or -1 when there is none any more."""
        pipe = getattr(self.child, name, None)
        return -1 if pipe is None or pipe.closed else int(pipe.fileno())

    def close(self, name: str) -> None:
        if self.fileno(name) >= 0:
            # What stdin's own buffer holds nobody will read.
            with contextlib.suppress(OSError):
                getattr(self.child, name).close()

    def read_out(self) -> int:
        """Move what stdout holds into the log; how much it was."""
        return self._move("stdout", self.log.append)

    def read_err(self) -> int:
        return self._move("stderr", self.keep_err)

    def apply(self, number: int, line: str) -> None:
        """Store the number, then hand the line over: whatever happens it is never given twice."""
        if number < self.stdin_next:
            return
        if self.exited is not None:
            raise Refused("the agent has ended")
        self.stdin_next = number + 1
        os.pwrite(self.number, b"%020d\n" % self.stdin_next, 0)
        os.fdatasync(self.number)
        self.unwritten += line.encode("utf-8", "replace") + b"\n"

    def write_in(self) -> None:
        try:
            written = os.write(self.fileno("stdin"), self.unwritten[:CHUNK])
        except BlockingIOError:
            return
        except OSError:  # Its stdin is closed: nobody will read the rest.
            self.unwritten.clear()
            self.close("stdin")
            return
        del self.unwritten[:written]

    def kill(self, number: int) -> None:
        """Signal the group, also after the agent itself has ended; KILL finds all that it has started."""
        if self.child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, number)
        if number == signal.SIGKILL:
            family.end_family(self.mark, self.child.pid, self.child.pid)

    def reap(self) -> bool:
        """Whether it has ended just now; then nothing that it started is left."""
        if self.child is None or self.exited is not None:
            return False
        family.reap_orphans(self.child.pid)
        if self.child.poll() is None:
            return False
        family.end_family(self.mark, os.getpid())
        for name, read in (("stdout", self.read_out), ("stderr", self.read_err)):
            rest = REST
            while rest > 0 and self.fileno(name) >= 0 and (size := read()):
                rest -= size
        for name in ("stdin", "stdout", "stderr"):
            self.close(name)
        self.unwritten.clear()
        self.exited = self.child.returncode
        return True

    def keep_err(self, data: bytes) -> None:
        self.err += data
        if len(self.err) <= ERR_LIMIT:
            with self.err_path.open("ab") as file:
                file.write(data)
            return
        del self.err[: -ERR_LIMIT // 2]
        with self.err_path.open("wb") as file:
            file.write(self.err)

    def _move(self, name: str, keep: Callable[[bytes], None]) -> int:
        try:
            data = os.read(self.fileno(name), CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if data:
            keep(data)
        else:
            self.close(name)
        return len(data)
