"""The slow link: two network namespaces, the host and its servers in one, the bridge in the other.

The namespaces have no names and the devices belong to a process, so that nothing stays behind, however the
benchmark ends. What lies between them is benchmarks.emulator; both ends are the kernel's own TCP.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.emulator import ADDRESSES
from benchmarks.lanes import Place
from benchmarks.processes import Process, until

ROOT = Path(__file__).resolve().parent.parent

# Bits per second each way; seconds each way; packets that may wait.
RATE = 2e6
DELAY = 0.05
LIMIT = 100

# Decides which packets are lost: the same in every run.
SEED = 3


def missing() -> str | None:
    """Why there can be no slow link here; None when there can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    for program in ("ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install iproute2 util-linux"
    # A container's root may not.
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else None


# What a program in a namespace writes to choose how TCP controls congestion there.
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")

# What may be chosen there.
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


def congestion() -> list[str]:
    """The ways of TCP's congestion control that a namespace may use, the machine's own first."""
    own = _CONGESTION.read_text().strip()
    return [own, *(name for name in _ALLOWED.read_text().split() if name != own)]


class SlowLink:
    """place: where a lane over the link runs.

    Args:
        loss: the part of the packets that is lost.
        control: TCP's congestion control at both ends.
    """

    def __init__(self, folder: Path, loss: float, control: str) -> None:
        self._processes: list[Process] = []
        self._log = folder / "link.log"
        try:
            holders = [self._namespace() for _ in ADDRESSES]
            inside = [("nsenter", f"--net=/proc/{holder.pid}/ns/net") for holder in holders]
            for prefix in inside:
                setting = [*prefix, "tee", str(_CONGESTION)]
                subprocess.run(setting, input=control.encode(), stdout=subprocess.DEVNULL, check=True)
            self.place = Place(host=inside[0], bridge=inside[1], address=ADDRESSES[1])
            module = [sys.executable, "-m", "benchmarks.emulator", *(str(holder.pid) for holder in holders)]
            how = {"rate": RATE, "delay": DELAY, "limit": LIMIT, "loss": loss, "seed": SEED}
            words = [word for name, value in how.items() for word in (f"--{name}", str(value))]
            self._emulator = Process([*module, *words], self._log, talks=True, cwd=ROOT)
            self._processes.append(self._emulator)
            self._emulator.line(20)
        except BaseException:
            self.stop()
            raise

    def _namespace(self) -> Process:
        own = Path("/proc/self/ns/net").readlink()
        # It waits for its standard input, which ends with us.
        holder = Process(["unshare", "--net", "cat"], self._log)
        self._processes.append(holder)
        until("a network namespace", 10, lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != own)
        return holder

    def check(self, seconds: float) -> dict[str, float]:
        """What plain TCP finds between the two ends: `Mbit/s` and the idle round trip in `ms`."""
        module = [sys.executable, "-m", "benchmarks.linkcheck", ADDRESSES[1]]
        serving = Process([*self.place.bridge, *module], self._log, talks=True, cwd=ROOT)
        try:
            port = serving.line(20)["port"]
            words = [*self.place.host, *module, str(port), str(seconds)]
            asking = Process(words, self._log, talks=True, cwd=ROOT)
            try:
                return {name: float(value) for name, value in asking.line(30 + seconds).items()}
            finally:
                asking.stop()
        finally:
            serving.stop()

    def counts(self) -> dict[str, float]:
        """Packets `dropped` at full queues and `lost` on the way; the link is down afterwards."""
        assert self._emulator.child.stdin is not None
        self._emulator.child.stdin.close()
        value: dict[str, float] = self._emulator.line(10)["value"]
        return value

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()
