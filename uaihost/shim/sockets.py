"""What the relay's sockets have in common: waiting for them, letting connections in, making some.

Standard library only, Python 3.9 and later. It must not know what is said on them.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

# Seconds for a first line, and for a server's queue of connections to have room.
PATIENCE = 10.0
# Connections that wait to be let in: one more is refused, and a page opens dozens at once.
BACKLOG = 512
# Seconds before a failed accept is repeated.
PAUSE = 1.0

IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
# A socket's family and its address: (host, port) or a path.
Target = tuple[int, Any]


class Loop:
    """Waits for sockets and for times."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        # By descriptor: what is waited for, and who is told of it.
        self._masks: dict[int, int] = {}
        self._told: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._closing: list[socket.socket] = []

    def want(self, sock: socket.socket, mask: int | None, told: Callable[[int], None]) -> None:
        """Tell `told` the events of `mask` and those of GONE; None: nothing at all."""
        number = sock.fileno()
        known = self._masks.get(number)
        self._told[number] = told
        if mask == known:
            return
        if mask is None:
            del self._masks[number]
            self._poll.unregister(number)
        else:
            self._masks[number] = mask
            (self._poll.register if known is None else self._poll.modify)(number, mask)

    def close(self, sock: socket.socket) -> None:
        """At the end of this turn: the number's next owner must not get the events of this one."""
        number = sock.fileno()
        self._told.pop(number, None)
        if self._masks.pop(number, None) is not None:
            self._poll.unregister(number)
        self._closing.append(sock)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), call))

    def run(self) -> None:
        while True:
            left = self._timers[0][0] - time.monotonic() if self._timers else None
            for number, events in self._poll.poll(None if left is None else max(left, 0)):
                told = self._told.get(number)
                if told is not None:
                    told(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()
            while self._closing:
                self._closing.pop().close()


class Door:
    """A listening socket: connections beyond the limit wait in the kernel's queue until one has left."""

    def __init__(self, loop: Loop, sock: socket.socket, limit: int, enter: Callable[[Guest], None]) -> None:
        self.loop = loop
        self._sock = sock
        self._room = limit
        self._enter = enter
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._open()

    def left(self) -> None:
        self._room += 1
        self._open()

    def _open(self) -> None:
        self.loop.want(self._sock, IN if self._room else None, self._accept)

    def _accept(self, events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return
        except OSError:
            # No descriptors or no memory: it would be said again and again.
            self.loop.want(self._sock, None, self._accept)
            self.loop.later(PAUSE, self._open)
            return
        self._room -= 1
        self._open()
        sock.setblocking(False)
        self._enter(Guest(sock, self))


class Guest:
    """A connection that came in by a door."""

    def __init__(self, sock: socket.socket, door: Door) -> None:
        self.sock = sock
        self.loop = door.loop
        self._door: Door | None = door

    @property
    def inside(self) -> bool:
        return self._door is not None

    def leave(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            self.loop.close(self.sock)
            door.left()

    def refuse(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self.sock.send(f"error {text}\n".encode())
        self.leave()


class Dial:
    """Connects to the first of `targets` that answers.

    joined: is given the socket; failed: why the first target did not answer.
    """

    def __init__(
        self,
        loop: Loop,
        targets: Iterator[Target],
        joined: Callable[[socket.socket], None],
        failed: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._targets = targets
        self._joined = joined
        self._failed = failed
        self._reason = ""
        self._sock: socket.socket | None = None
        self._next()

    def _next(self) -> None:
        for target in self._targets:
            if self._try(target):
                return
        self._failed(self._reason)

    def _try(self, target: Target) -> bool:
        """Whether it answers or may still do so."""
        family, address = target
        try:
            sock = socket.socket(family)
        except OSError as error:
            return self._not(error.errno or errno.EIO)
        sock.setblocking(False)
        problem = sock.connect_ex(address)
        if problem == 0:
            self._joined(sock)
        elif problem == errno.EINPROGRESS:
            self._sock = sock
            self._loop.want(sock, OUT, self._settled)
            self._loop.later(PATIENCE, self._late)
        else:
            sock.close()
            return self._not(problem)
        return True

    def _not(self, problem: int) -> bool:
        self._reason = self._reason or os.strerror(problem)
        return False

    def _settled(self, events: int) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None
        problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem == 0:
            self._joined(sock)
            return
        self._loop.close(sock)
        self._not(problem)
        self._next()

    def _late(self) -> None:
        if self._sock is not None:
            self._loop.close(self._sock)
            self._sock = None
            self._not(errno.ETIMEDOUT)
            self._failed(self._reason)
