"""What crosses the keeper's socket, as bytes: its messages and, inside, the agent's lines. Pure.

The other end runs in a container and is not trusted: every length is bounded.
"""

from __future__ import annotations

import json
from typing import Any, TypeGuard

import attrs

# A message of the keeper without the bytes that follow it; the largest tells the end of stderr.
MESSAGE_LIMIT = 1 << 20
# The most bytes in one `out` message; the keeper sends 64 KiB.
OUT_LIMIT = 16 << 20
# A line of an agent: Codex sends 1 MiB of output, Claude Code a whole file, in one.
LINE_LIMIT = 64 << 20
# Version 1, of keepers that were started by an older host, keeps its whole log: it knows no `ack`.
VERSIONS = (1, 2)


class BadKeeper(ValueError):
    """The other end does not speak the keeper's protocol."""


@attrs.frozen
class Out:
    """Bytes of the agent's output; `offset` is that of the first."""

    offset: int
    data: bytes


class KeeperReader:
    """Bytes from the socket in; messages (objects) and `Out` records out, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._out: tuple[int, int] | None = None

    def feed(self, data: bytes) -> list[dict[str, Any] | Out]:
        """Raises BadKeeper; the reader is of no use afterwards."""
        self._buffer += data
        found: list[dict[str, Any] | Out] = []
        while True:
            item = self._bytes() if self._out is not None else self._message()
            if item is None:
                return found
            if isinstance(item, dict) and "out" in item:
                self._out = self._sizes(item)
            else:
                found.append(item)

    def _bytes(self) -> Out | None:
        assert self._out is not None
        offset, size = self._out
        if len(self._buffer) < size:
            return None
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._out = None
        return Out(offset, data)

    def _message(self) -> dict[str, Any] | None:
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > MESSAGE_LIMIT:
                raise BadKeeper("a message without an end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise BadKeeper("a message that is not JSON") from None
        if not isinstance(message, dict):
            raise BadKeeper("a message that is no object")
        return message

    @staticmethod
    def _sizes(message: dict[str, Any]) -> tuple[int, int]:
        offset, size = message.get("out"), message.get("size")
        if not _is_count(offset) or not _is_count(size) or size > OUT_LIMIT:
            raise BadKeeper("an `out` message with bad numbers")
        return offset, size


class LineSplitter:
    """The agent's output in pieces in; whole lines out, each with the offset just after its end.

    A line longer than `limit` comes out as None, so that the offset moves on.
    """

    def __init__(self, offset: int, limit: int = LINE_LIMIT) -> None:
        self.offset = offset
        self._limit = limit
        self._pieces: list[bytes] = []
        self._held = 0

    def feed(self, data: bytes) -> list[tuple[bytes | None, int]]:
        lines: list[tuple[bytes | None, int]] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._hold(data[start:end])
            line = b"".join(self._pieces) if self._held <= self._limit else None
            self._pieces, self._held = [], 0
            lines.append((line, self.offset + end + 1))
            start = end + 1
        self._hold(data[start:])
        self.offset += len(data)
        return lines

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self._limit:
            self._pieces = []
        elif piece:
            self._pieces.append(piece)


@attrs.frozen
class Hello:
    """Who keeps the agent.

    run: names this process of the agent; start: where its output begins; exited: its status, minus the
    signal if one ended it, None while it runs; stdin_next: the first number not yet applied; out_end: the
    offset after all output; base: that of the first byte it still has.
    """

    run: str
    start: int
    pid: int
    exited: int | None
    stdin_next: int
    out_end: int
    base: int = 0

    @classmethod
    def read(cls, message: dict[str, Any]) -> Hello:
        """Raises BadKeeper."""
        start, pid, stdin_next, out_end = (
            message.get(name) for name in ("start", "pid", "stdin_next", "out_end")
        )
        base = message.get("base", 0)
        run, exited = message.get("run"), message.get("exited")
        if message.get("hello") not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise BadKeeper(f"the keeper speaks version {message.get('hello')!r:.20}, this host {known}")
        if not isinstance(run, str) or len(run) > 64 or not run.isascii():
            raise BadKeeper("a hello with a bad run")
        if not (_is_count(start) and _is_count(pid) and _is_count(stdin_next) and _is_count(out_end)):
            raise BadKeeper("a hello with bad numbers")
        if not _is_count(base) or base > out_end:
            raise BadKeeper("a hello with a bad base")
        if exited is not None and not is_status(exited):
            raise BadKeeper("a hello with a bad status")
        return cls(run, start, pid, exited, stdin_next, out_end, base)


def is_status(value: object) -> TypeGuard[int]:
    """An exit status, or minus a signal; stored as it is."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
