"""Child processes on the host: argument list in, output out, the whole group ended at a deadline.

A child leads a process group of its own, so that what it started ends with it. The order of an end is
TERM, a grace, KILL. Output beyond its limit ends a child, since it may have no end; of what it says of errors
the rest is read and thrown away.
On Linux a child also ends with us, however we end: a git left behind by a killed daemon would work on the
folders of the next one. What it started in turn is reached by `kill_all` only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

# Between TERM and KILL, seconds: git removes its lock files within one.
GRACE = 5.0

# prctl(2): the signal that a process gets when its parent dies; the rights that a program gets although it is
# not root's. Looked up here, since little may be done between fork and exec.
_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

# The process groups that run now: what a process has started is its own, whatever object asked for it.
_groups: set[int] = set()


@attrs.frozen
class Finished:
    """How a child ended.

    status: its exit status, or minus the number of the signal that ended it.
    out, err: what it printed, up to the limit given; `truncated` says whether more was thrown away.
    timed_out: it was ended by us at its deadline. stalled: it was ended by us while it waited for something
    that did not come.
    """

    status: int
    out: bytes
    err: bytes
    truncated: bool
    timed_out: bool
    stalled: bool = False


@attrs.frozen
class Last:
    """What a child does as the last thing before exec, where little may be done.

    keeps: descriptors that are still open then; `call` closes them.
    """

    call: Callable[[], None]
    keeps: tuple[int, ...] = ()


class _GroupLeader(Process):
    """A process in a group of its own; only then can a signal reach all that it started."""

    def __init__(self, *args: Any, last: Last | None, rights: bool) -> None:
        self._last = last
        self._rights = rights
        super().__init__(*args)

    def _trySpawnInsteadOfFork(self, *args: Any, **kwargs: Any) -> bool:
        return False  # Twisted's posix_spawn path has no room for the process group.

    def _setupChild(self, fdmap: dict[int, int]) -> None:
        os.setpgid(0, 0)
        if _prctl is not None:
            _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
            if not self._rights:
                _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        kept = () if self._last is None else self._last.keeps
        super()._setupChild(fdmap | {descriptor: descriptor for descriptor in kept})
        if self._last is not None:
            self._last.call()


class _Child(ProcessProtocol):
    def __init__(
        self, reactor: Any, stdin: bytes, limit: int, on_err: Callable[[bytes], None] | None
    ) -> None:
        self.reactor = reactor
        self.stdin = stdin
        self.limit = limit
        self.on_err = on_err
        self.out = bytearray()
        self.err = bytearray()
        self.truncated = False
        self.timed_out = False
        self.stalled = False
        self.ending = False
        self.used: bytes | None = None
        self.done: Deferred[Finished] = Deferred(self._cancelled)
        self.timers: list[IDelayedCall] = []
        self.group: int | None = None

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.group = self.transport.pid
        _groups.add(self.group)
        if self.stdin:
            self.transport.write(self.stdin)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self.used = None
        self._keep(self.out, data)
        if self.truncated and not self.ending:
            # The rest is thrown away: there may be no end of it.
            self.end()

    def errReceived(self, data: bytes) -> None:
        self.used = None
        room = self.limit - len(self.err)
        self.err += data[: max(room, 0)]
        if self.on_err is not None:
            self.on_err(data)

    def processEnded(self, reason: Failure) -> None:
        if self.group is not None:
            _groups.discard(self.group)
            self.group = None
        for timer in self.timers:
            if timer.active():
                timer.cancel()
        value = reason.value
        if isinstance(value, error.ProcessDone):
            status = 0
        elif isinstance(value, error.ProcessTerminated):
            status = -value.signal if value.signal else int(value.exitCode or 0)
        else:
            self.done.errback(reason)
            return
        if not self.done.called:
            self.done.callback(
                Finished(
                    status, bytes(self.out), bytes(self.err), self.truncated, self.timed_out, self.stalled
                )
            )

    def deadline(self) -> None:
        self.timed_out = True
        self.end()

    def watch(self, stall: float) -> None:
        """Look every `stall` seconds whether it still does anything."""
        self.timers.append(self.reactor.callLater(stall, self._look, stall))

    def _look(self, stall: float) -> None:
        used = _asleep(self.group) if self.group is not None else None
        if used is not None and used == self.used:
            self.stalled = True
            self.end()
            return
        self.used = used
        self.watch(stall)

    def end(self) -> None:
        self.ending = True
        self._signal(signal.SIGTERM)
        self.timers.append(self.reactor.callLater(GRACE, self._signal, signal.SIGKILL))

    def _cancelled(self, _: Deferred[Finished]) -> None:
        self.end()

    def _signal(self, number: int) -> None:
        # The group's number stays taken while one member lives, even when its leader is gone.
        if self.group is not None:
            try:
                os.killpg(self.group, number)
            except ProcessLookupError:
                pass

    def _keep(self, buffer: bytearray, data: bytes) -> None:
        room = self.limit - len(buffer)
        if len(data) > room:
            self.truncated = True
            data = data[: max(room, 0)]
        buffer += data


def _asleep(process: int) -> bytes | None:
    """The processor time that a process has used, when it waits and not for the disk, else None (proc(5))."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return b" ".join(fields[10:12]) if state == b"S" else None


def kill_all() -> None:
    """KILL every child and all that it started: for a process that is about to end and waits for nothing."""
    for group in list(_groups):
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


async def run(
    reactor: Any,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | None = None,
    stdin: bytes = b"",
    timeout: float,
    limit: int = 1 << 20,
    on_err: Callable[[bytes], None] | None = None,
    uid: int | None = None,
    gid: int | None = None,
    last: Last | None = None,
    stall: float | None = None,
    rights: bool = False,
) -> Finished:
    """Run `argv` (no shell) to its end.

    Args:
        reactor: spawns, watches the pipes and keeps the time.
        env: the whole environment of the child; nothing of ours is passed on.
        cwd: its working directory.
        stdin: what it reads before end of file.
        timeout: seconds until it is ended; `Finished.timed_out` then says so.
        limit: bytes of output kept of each stream. One that prints more is ended.
        on_err: is given each piece of standard error as it comes, for progress.
        uid, gid: run as another user; needs root.
        last: what the child does before it becomes the program; when that fails there is no program, and the
            status is 1.
        stall: seconds; one that does nothing at all for twice as long is ended. Only for programs that do all
            their work in one process (on Linux).
        rights: whether it keeps rights that a service manager gave us (capabilities(7), ambient).

    Raises:
        FileNotFoundError: there is no such program.
    """
    program = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    child = _Child(reactor, stdin, limit, on_err)
    _GroupLeader(
        reactor,
        os.fsencode(program),
        [os.fsencode(word) for word in argv],
        {os.fsencode(k): os.fsencode(v) for k, v in env.items()},
        None if cwd is None else os.fsencode(cwd),
        child,
        uid,
        gid,
        last=last,
        rights=rights,
    )
    child.timers.append(reactor.callLater(timeout, child.deadline))
    if stall is not None:
        child.watch(stall)
    return await child.done
