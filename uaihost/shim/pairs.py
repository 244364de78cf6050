"""Two sockets joined: what comes from one goes to the other, both ways, each way ended by itself.

No more than a chunk is held for a direction that has to wait. Standard library only, Python 3.9 and later. It
must not know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from . import sockets

# One read, bytes: what may wait for a slow receiver, twice for each pair.
CHUNK = 65536
# Seconds in which a receiver has to take something once its sender is gone.
LINGER = 60.0


class Side:
    """A socket of a pair. gone: whoever is behind it takes nothing any more."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.gone = False


class Flow:
    """One direction. waiting: bytes that its sink has no room for; ended: no more come; over: none go out."""

    def __init__(self, source: Side, sink: Side, waiting: bytes = b"") -> None:
        self.source = source
        self.sink = sink
        self.waiting = waiting
        self.ended = False
        self.over = False

    @property
    def hungry(self) -> bool:
        return not (self.waiting or self.ended or self.over)

    def read(self, room: memoryview) -> None:
        try:
            size = self.source.sock.recv_into(room)
        except BlockingIOError:
            return
        except OSError:
            self.source.gone = True
            size = 0
        if size:
            self.waiting = bytes(room[self._send(room[:size]) : size])
        else:
            self.ended = True
            self.flush()

    def flush(self) -> None:
        """Send what waits, and the end after it."""
        if self.waiting:
            self.waiting = self.waiting[self._send(memoryview(self.waiting)) :]
        if self.ended and not self.waiting and not self.over:
            self.over = True
            with contextlib.suppress(OSError):
                self.sink.sock.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        self.over = True
        self.waiting = b""

    def _send(self, data: memoryview) -> int:
        """How many bytes are done with."""
        try:
            return self.sink.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self.over = True
            return len(data)


class Pair:
    """A guest joined to a server. room: what is read into; early: what the guest has sent already."""

    def __init__(
        self, guest: sockets.Guest, server: socket.socket, room: memoryview, early: bytes = b""
    ) -> None:
        self._guest = guest
        self._room = room
        self._here, self._there = Side(guest.sock), Side(server)
        self._up = Flow(self._here, self._there, early)
        self._down = Flow(self._there, self._here)
        self._moved = time.monotonic()
        self._lingers = False
        for sock in (guest.sock, server):
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._up.flush()
        self._go_on()

    def _here_ready(self, events: int) -> None:
        self._ready(self._here, self._up, self._down, events)

    def _there_ready(self, events: int) -> None:
        self._ready(self._there, self._down, self._up, events)

    def _ready(self, side: Side, out_of: Flow, into: Flow, events: int) -> None:
        if events & sockets.GONE:
            side.gone = True
        elif events & sockets.OUT:
            into.flush()
        if out_of.hungry and events & (sockets.IN | sockets.GONE):
            out_of.read(self._room)
        self._go_on()

    def _go_on(self) -> None:
        for flow in (self._up, self._down):
            if flow.sink.gone:
                flow.stop()
        if self._up.over and self._down.over:
            self._close()
            return
        self._want(self._here, self._up, self._down, self._here_ready)
        self._want(self._there, self._down, self._up, self._there_ready)
        self._moved = time.monotonic()
        if not self._lingers and (self._here.gone or self._there.gone):
            self._lingers = True
            self._linger()

    def _want(self, side: Side, out_of: Flow, into: Flow, told: Callable[[int], None]) -> None:
        mask = (sockets.IN if out_of.hungry else 0) | (sockets.OUT if into.waiting else 0)
        # What is gone would say so again and again.
        self._guest.loop.want(side.sock, None if side.gone and not mask else mask, told)

    def _linger(self) -> None:
        left = self._moved + LINGER - time.monotonic()
        if left <= 0:
            self._close()
        elif self._guest.inside:
            self._guest.loop.later(left, self._linger)

    def _close(self) -> None:
        if self._guest.inside:
            self._guest.leave()
            self._guest.loop.close(self._there.sock)
