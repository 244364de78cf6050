"""The lines on their way to one process of an agent, in the order of their numbers.

A line with secrets is filled in as it leaves and is kept filled nowhere but in memory; the lines after it
wait for it, since the keeper takes a number that was overtaken for one that it has applied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.agents.process import Process
from uaihost.errors import HostError
from uaihost.state.channel import LineRow

log = Logger()

# A line and whether fresh secrets are needed, to the line filled in.
Fill = Callable[[bytes, bool], Awaitable[bytes]]
RENEWED = 2


class Outgoing:
    """refused: called with what people have to do when a line cannot be filled in; nothing leaves then."""

    def __init__(self, process: Process, fill: Fill, refused: Callable[[str], None]) -> None:
        self._process = process
        self._fill = fill
        self._refused = refused
        self._waiting: deque[LineRow] = deque()

    def add(self, line: LineRow) -> None:
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._send()

    def holds(self, number: int) -> bool:
        """Whether that line was given and the keeper has not acknowledged it."""
        return any(line.number == number for line in self._waiting) or self._process.holds(number)

    def first(self, default: int) -> int:
        """The lowest number that the keeper has not acknowledged, or `default`."""
        waiting = self._waiting[0].number if self._waiting else default
        return min(waiting, self._process.first_unacknowledged(default))

    def forget(self) -> None:
        """None of them is sent, or sent again."""
        self._waiting.clear()
        self._process.forget_lines()

    def _send(self) -> None:
        while self._waiting:
            line = self._waiting[0]
            if line.secret:
                ensureDeferred(self._filled(line)).addErrback(self._broken)
                return
            self._waiting.popleft()
            self._process.write_line(line.number, line.line)

    async def _filled(self, line: LineRow) -> None:
        try:
            filled = await self._fill(line.line, line.secret == RENEWED)
        except HostError as error:
            if self._waiting and self._waiting[0] is line:
                self._refused(error.message)
            return
        if self._waiting and self._waiting[0] is line:
            self._waiting.popleft()
            self._process.write_line(line.number, filled)
            self._send()

    def _broken(self, failure: Failure) -> None:
        log.failure("a line for an agent cannot be filled in", failure)
        self._refused("an internal error; the daemon's log says more")
