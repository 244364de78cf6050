"""A program in a container with a terminal of this process's: keys go in, what it shows comes out. Blocking.

It must not know what the program is.
"""

from __future__ import annotations

import os
import re
import select
import socket
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from uaihost.containers.client import connect, explained

# Seconds between two looks at the terminal's size, which people change while they read.
LOOK = 0.25
# Bytes of what was shown that are kept.
SHOWN_LIMIT = 1 << 20
_PIECE = 16 << 10
# Ctrl-C as terminals send it; so many in a row give the program up, should it not end by itself.
_INTERRUPT = re.compile(rb"\x03|\x1b\[99;5u")
GIVE_UP = 3
# The status of what was given up.
INTERRUPTED = 130


def converse(
    docker_host: str,
    container: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    terminal: tuple[int, int],
) -> tuple[int, bytes]:
    """Run `argv` in the container, joined to two descriptors of a terminal (input, output).

    Returns its exit status and what it showed, the last SHOWN_LIMIT bytes. A program that was given up, by
    Ctrl-C and again, may still run; its status is INTERRUPTED.

    Raises:
        HostError: the engine failed.
    """
    client = connect(docker_host)
    try:
        made = client.exec_create(
            container, list(argv), stdin=True, tty=True, environment=dict(env), workdir=cwd
        )["Id"]
        stream: Any = client.exec_start(made, tty=True, socket=True)
        # The SDK wraps the connection's socket for reading.
        connection: socket.socket = getattr(stream, "_sock", stream)
        with _raw(terminal[0]):
            shown = _pump(connection, terminal, lambda rows, columns: _resize(client, made, rows, columns))
        stream.close()
        status = client.exec_inspect(made)["ExitCode"]
        return INTERRUPTED if status is None else int(status), shown
    except Exception as error:
        raise explained(error, f"run {argv[0]}") from error
    finally:
        client.close()


def _pump(connection: socket.socket, terminal: tuple[int, int], resize: Any) -> bytes:
    source, target = terminal
    shown, size, pressed = bytearray(), None, 0
    reading: list[Any] = [connection, source]
    while True:
        now = _size(target)
        if now != size:
            size = now
            resize(*size)
        ready, _, _ = select.select(reading, [], [], LOOK)
        if source in ready:
            keys = os.read(source, _PIECE)
            if keys:
                connection.sendall(keys)
                pressed = 0 if _INTERRUPT.sub(b"", keys) else pressed + len(_INTERRUPT.findall(keys))
                if pressed >= GIVE_UP:
                    return bytes(shown)
            else:
                reading.remove(source)
        if connection in ready:
            piece = connection.recv(_PIECE)
            if not piece:
                return bytes(shown)
            shown += piece
            del shown[:-SHOWN_LIMIT]
            while piece:
                piece = piece[os.write(target, piece) :]


def _size(descriptor: int) -> tuple[int, int]:
    """Rows and columns; a usual size where there is no terminal."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return 24, 80
    return (rows, columns) if rows and columns else (24, 80)


def _resize(client: Any, made: str, rows: int, columns: int) -> None:
    # It may have ended a moment ago.
    with suppress(Exception):
        client.exec_resize(made, height=rows, width=columns)


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Every key goes to the program, Ctrl-C too; where there is no terminal nothing changes."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
