"""The processes that uai-init starts: run to their end, or kept running; all ended with the container."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from . import leftovers

# Seconds between two starts of what is kept running.
BACK_OFF = 2.0
# Seconds between TERM and KILL at the end; the engine itself waits 10.
GRACE = 1.0
# A kept program's log is moved aside at this size, in bytes: at most twice as much lies on the host's disk.
LOG_LIMIT = 5 << 20
# Of a failed command's output: lines, and characters of one line.
LAST_LINES = 15
LINE_LIMIT = 400


class Children:
    """Every process that was started here, each the leader of a group, so that all of it can be ended."""

    def __init__(self) -> None:
        self._living: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.ending = False

    def start(
        self, argv: Sequence[str], cwd: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes] | None:
        """None when everything is being ended. OSError when there is no such program.

        env: the whole environment; None for our own.
        """
        with self._lock:
            if self.ending:
                return None
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._living.add(child)
            return child

    def ended(self, child: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._living.discard(child)

    def signal(self, child: subprocess.Popen[bytes], number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)

    def end(self) -> None:
        """TERM for all, KILL for what is left after the grace."""
        with self._lock:
            self.ending = True
            living = list(self._living)
        for child in living:
            self.signal(child, signal.SIGTERM)
        limit = time.monotonic() + GRACE
        while time.monotonic() < limit and any(child.poll() is None for child in living):
            time.sleep(0.02)
        for child in living:
            self.signal(child, signal.SIGKILL)


def run_all(
    every: Sequence[Sequence[str]],
    cwd: str,
    children: Children,
    env: Mapping[str, str] | None,
    limit: float,
) -> str:
    """Run the commands side by side to their ends, `limit` seconds at most; what is wrong, or nothing."""
    problems: list[str | None] = []

    def one(argv: Sequence[str]) -> None:
        problems.append(run(argv, cwd, children, env, limit))

    threads = [threading.Thread(target=one, args=(argv,)) for argv in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "\n".join(problem for problem in problems if problem)


def run(
    argv: Sequence[str],
    cwd: str,
    children: Children,
    env: Mapping[str, str] | None = None,
    limit: float = 60.0,
) -> str | None:
    """Run one command to its end, its output into ours; None, or what is wrong with its last lines.

    limit: seconds; it is killed then.
    """
    try:
        child = children.start(argv, cwd, env)
    except (OSError, ValueError) as error:
        return f"cannot run {argv[0]}: {getattr(error, 'strerror', None) or error}"
    if child is None:
        return "ended with the container"
    last: deque[str] = deque(maxlen=LAST_LINES)
    reader = threading.Thread(target=_read, args=(child, last), daemon=True)
    reader.start()
    try:
        status = child.wait(limit)
        how = f"ended with status {status}"
    except subprocess.TimeoutExpired:
        children.signal(child, signal.SIGKILL)
        status, how = child.wait(), f"did not end in {limit:.0f} s"
    # What the command left running in the background may hold its output open for ever.
    reader.join(GRACE)
    children.ended(child)
    return None if status == 0 else "\n".join([how, *last])


def _read(child: subprocess.Popen[bytes], last: deque[str]) -> None:
    """Pass a command's output on, and keep its last lines."""
    assert child.stdout is not None
    with child.stdout as output:
        # Bounded, so that output without line ends is not collected.
        for data in iter(lambda: output.readline(LINE_LIMIT), b""):
            last.append(data.decode("utf-8", "replace").rstrip())
            print(last[-1], flush=True)


def keep_running(
    name: str,
    argv: Sequence[str],
    cwd: str,
    log: Path,
    children: Children,
    env: Mapping[str, str] | None = None,
    back_off: float = BACK_OFF,
    alone: bool = False,
) -> None:
    """Start `argv` in a thread, and again `back_off` seconds after it ends, until everything ends.

    log: the file for its output. alone: it has ended when its first process has, and what that left is
    killed; else it goes on for as long as anything of it holds its output, a server in the background.
    """
    words = (name, argv, cwd, log, children, env, back_off, alone)
    threading.Thread(target=_keep, args=words, daemon=True).start()


def _keep(
    name: str,
    argv: Sequence[str],
    cwd: str,
    path: Path,
    children: Children,
    env: Mapping[str, str] | None,
    back_off: float,
    alone: bool,
) -> None:
    log = Log(path)
    while not children.ending:
        try:
            child = children.start(argv, cwd, env)
        except (OSError, ValueError) as error:
            log.write(f"cannot run {argv[0]}: {getattr(error, 'strerror', None) or error}\n".encode())
            child = None
        if child is not None:
            reader = threading.Thread(target=_write, args=(child, log), daemon=True)
            reader.start()
            if not alone:
                reader.join()
            status = child.wait()
            if alone:
                children.signal(child, signal.SIGKILL)
                reader.join(GRACE)
            children.ended(child)
            log.write(f"[{name} ended with status {status}; it is started again]\n".encode())
        time.sleep(back_off)


def _write(child: subprocess.Popen[bytes], log: Log) -> None:
    """Put a program's output into its log until it is closed."""
    assert child.stdout is not None
    with child.stdout as output:
        for data in iter(partial(os.read, output.fileno(), 65536), b""):
            log.write(data)


class Log:
    """A file that never grows beyond LOG_LIMIT: it is then moved aside, over the one before."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        try:
            self._file = self._fresh()
        except OSError:
            # What writes runs all the same: a full disk, for example.
            self._file = os.fdopen(os.open(os.devnull, os.O_WRONLY), "wb", buffering=0)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._size + len(data) > LOG_LIMIT:
                self._path.replace(self._path.with_suffix(".log.1"))
                full, self._file = self._file, self._fresh()
                full.close()
                self._size = 0
            self._file.write(data)
            self._size += len(data)

    def _fresh(self) -> BinaryIO:
        """A new file: opening what a task has put there could wait for ever, as a pipe does."""
        leftovers.put_aside(self._path)
        return self._path.open("xb", buffering=0)
