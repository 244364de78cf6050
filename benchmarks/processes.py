"""Child processes of a benchmark, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Seconds that a child may take to end before it is killed.
PATIENCE = 10.0


class Broken(Exception):
    """A child ended or did not answer; the text says which and shows the end of its log."""


class Process:
    """A child that ends with us, or when told.

    Args:
        log: gets its standard error; its standard output too unless `talks`.
        talks: it answers in lines of JSON on its standard output.
        env: what its environment has beside ours.
    """

    def __init__(
        self,
        words: list[str],
        log: Path,
        *,
        cwd: Path | None = None,
        talks: bool = False,
        env: dict[str, str] | None = None,
    ) -> None:
        self.log = log
        self.name = " ".join(words)
        self._received = b""
        with log.open("ab") as errors:
            self.child = subprocess.Popen(
                words,
                cwd=cwd,
                env=os.environ | (env or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if talks else errors,
                stderr=errors,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def line(self, seconds: float) -> dict[str, Any]:
        """The next line that it prints, which is JSON.

        Raises:
            Broken: it ended, or said nothing for `seconds`.
        """
        assert self.child.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._received:
            ready, _, _ = select.select([self.child.stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self.child.stdout.fileno(), 1 << 20) if ready else b""
            if not more:
                what = "ended" if ready else f"did not answer for {seconds:.0f} s"
                raise self.broken(what)
            self._received += more
        text, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(text)
        return found

    def ask(self, order: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer's value to one order.

        Raises:
            Broken: as `line`, or it says that it could not.
        """
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(order).encode() + b"\n")
        self.child.stdin.flush()
        answer = self.line(seconds)
        if "error" in answer:
            raise self.broken(f"{order['do']}: {answer['error']}")
        value: dict[str, Any] = answer["value"]
        return value

    def broken(self, what: str) -> Broken:
        return Broken(f"{self.name}: {what}\n{self.log.read_text(errors='replace')[-2000:]}")

    def stop(self, patience: float = PATIENCE) -> None:
        """End it; kill it when it is still there after `patience` seconds."""
        self.child.terminate()
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                stream.close()


def cpu(pid: int) -> float:
    """Seconds of processor time that a process has used, its kernel time too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int, field: str, file: str = "status") -> float:
    """Bytes of a field of a file in /proc/PID: VmRSS, VmHWM of status, Pss of smaps_rollup."""
    text = Path(f"/proc/{pid}/{file}").read_text()
    line = next(line for line in text.splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024.0


def forget_peak(pid: int) -> None:
    """Let VmHWM start again from what is resident now (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, seconds: float, true: Callable[[], object]) -> None:
    """Wait until `true()`.

    Raises:
        Broken: it was not within `seconds`.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Broken(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)
