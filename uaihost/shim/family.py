"""All that one program has started, however it has been detached, and its end.

What a program leaves behind keeps the mark that is in the environment of everything it starts; while its
keeper lives, it is the keeper's descendant as well, since orphans come to the keeper. Linux only; standard
library only, Python 3.9 and later.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

PROC = Path("/proc")
# The variable that marks what belongs to one keeper: its folder.
MARK = "UAI_KEEPER"
# Looks at all processes until one finds nobody: what was starting while it was killed is found by the next.
LOOKS = 50
PAUSE = 0.01
# prctl(2)
_PR_SET_DUMPABLE, _PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 4, 1, 36

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Whoever loses its parent below this process becomes its child."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def hide_environment() -> None:
    """Others of the same user can read neither this process's memory nor the environment it began with."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent() -> None:
    """To be called in the child, before its program begins: KILL when the parent ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def end_family(mark: str, ancestor: int = 0, child: int = 0) -> None:
    """KILL every process that carries the mark or descends from `ancestor`, this one excepted.

    child: whose end is left to who waits for it.
    """
    for _ in range(LOOKS):
        members = _members(mark, ancestor)
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap_orphans(child)
        time.sleep(PAUSE)


def reap_orphans(child: int) -> None:
    """Take the ends of adopted children; that of `child` is left to who waits for it."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == child:
            return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.si_pid, os.WNOHANG)


def _members(mark: str, ancestor: int) -> set[int]:
    parents = _parents()
    members = {pid for pid in parents if _marked(pid, f"{MARK}={mark}".encode())}
    family = {ancestor} if ancestor else set()
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            break
        family |= more
    return (members | family) - {ancestor, os.getpid()}


def _parents() -> dict[int, int]:
    """Each living process's parent; zombies are no longer anybody's trouble."""
    parents = {}
    for path in PROC.iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents[int(path.name)] = int(parent)
    return parents


def _marked(pid: int, mark: bytes) -> bool:
    try:
        return mark in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
