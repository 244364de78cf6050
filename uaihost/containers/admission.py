"""Whether this machine can carry one more task now: free memory, pressure on memory, free disk.

A task that does not fit waits and says for what, instead of pushing the daemon, the owner's own programs and
the other tasks into swap. It looks at the machine that the daemon runs on, and knows nothing of tasks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from uaihost.blocking import Blocking
from uaihost.interfaces import Doing, Limits, Say
from uaihost.wire.reasons import Reason

# What a task is taken to need at once: an editor, a language server and an agent use 0.6 to 1 GiB. Its
# limit is more, and few tasks ever reach theirs at the same time.
NEED = 1 << 30
# Of a small machine one task may need at most this part, or none would ever fit.
NEED_SHARE = 4
# What stays free for the daemon, the engine and the owner: the larger of both.
RESERVE = 512 << 20
RESERVE_SHARE = 20
# Seconds in which a task that was let in grows into its need: till then it counts as promised.
GROWTH = 60.0
# Pressure stall information (Linux, Documentation/accounting/psi.rst): percent of the last 10 s in which some
# process, or every one, waited for memory. An idle machine shows 0; one that swaps for its life 30 and more.
SOME_LIMIT = 20.0
FULL_LIMIT = 5.0
# Bytes of disk that stay free: a full disk stops the database, and with it everything.
DISK_RESERVE = 2 << 30
# Seconds between two looks.
LOOK = 1.0


@attrs.frozen
class Room:
    """What the machine has. memory, total, disk: bytes; some, full: percent; None where it does not tell."""

    memory: int | None
    total: int | None
    disk: int
    some: float | None = None
    full: float | None = None


def parse_meminfo(text: str) -> tuple[int | None, int | None]:
    """Bytes available without swapping, and in all, of /proc/meminfo (proc(5))."""
    found = {name: int(number) << 10 for name, number in re.findall(r"(?m)^(\w+): +(\d+) kB$", text)}
    return found.get("MemAvailable"), found.get("MemTotal")


def parse_pressure(text: str) -> tuple[float | None, float | None]:
    """`avg10` of the lines `some` and `full` of /proc/pressure/memory."""
    found = {name: float(value) for name, value in re.findall(r"(?m)^(some|full) avg10=(\d+\.\d+) ", text)}
    return found.get("some"), found.get("full")


def look(folder: Path, proc: Path = Path("/proc")) -> Room:
    """The machine's room now; `folder` lies on the disk that counts. Blocks for a moment."""
    memory, total = parse_meminfo(_text(proc / "meminfo"))
    some, full = parse_pressure(_text(proc / "pressure" / "memory"))
    disk = os.statvfs(folder)
    return Room(memory, total, disk.f_bavail * disk.f_frsize, some, full)


def obstacle(room: Room, limits: Limits, promised: int) -> Doing | None:
    """Why a task of these limits does not fit; None when it does.

    promised: bytes that tasks let in a moment ago have not used yet.
    """
    if room.disk < DISK_RESERVE:
        return Doing(
            Reason.DISK,
            f"{_size(room.disk)} of disk are free and {_size(DISK_RESERVE)} must stay so: free some, or "
            "`uaihost gc`",
        )
    if (room.some or 0) >= SOME_LIMIT or (room.full or 0) >= FULL_LIMIT:
        return Doing(
            Reason.MEMORY,
            f"programs of this machine wait for memory {room.some or 0:.0f} % of the time: end some, or take "
            "a task down",
        )
    if room.memory is None or room.total is None:
        return None
    need = min(limits.memory, NEED, room.total // NEED_SHARE)
    reserve = max(RESERVE, room.total // RESERVE_SHARE)
    if room.memory - promised < need + reserve:
        free = max(0, room.memory - promised)
        return Doing(
            Reason.MEMORY,
            f"{_size(free)} of memory are free and the task needs {_size(need)}, with {_size(reserve)} kept "
            "for the machine: end programs, or take a task down",
        )
    return None


class Admission:
    """Lets tasks in one after another. folder: on the disk that tasks fill.

    measure: what the machine has, blocking; another one in tests.
    """

    def __init__(
        self,
        clock: IReactorTime,
        blocking: Blocking,
        folder: Path,
        measure: Callable[[Path], Room] = look,
    ) -> None:
        self._clock = clock
        self._blocking = blocking
        self._folder = folder
        self._measure = measure
        # When each promise is over, and how much it was.
        self._promises: list[tuple[float, int]] = []

    async def admit(self, limits: Limits, say: Say) -> None:
        """Return once a task of these limits fits; whoever calls bounds the time and cancels.

        say: is told what is waited for, again when that changes.
        """
        told: Doing | None = None
        while True:
            room = await self._blocking.call(self._measure, self._folder)
            # From here to the promise nothing is awaited, so two tasks never see the same free memory.
            now = self._clock.seconds()
            self._promises = [one for one in self._promises if one[0] > now]
            found = obstacle(room, limits, sum(size for _, size in self._promises))
            if found is None:
                need = min(limits.memory, NEED, (room.total or NEED * NEED_SHARE) // NEED_SHARE)
                self._promises.append((now + GROWTH, need))
                return
            if told is None or found.reason is not told.reason:
                say(found)
                told = found
            await deferLater(self._clock, LOOK)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        # Another system, or a kernel without it: that part is then not looked at.
        return ""


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
