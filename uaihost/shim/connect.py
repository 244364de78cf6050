"""Joins stdin and stdout to a destination outside, through the task's proxy: ssh's ProxyCommand.

    python3 connect.py HOST PORT

Speaks CONNECT (RFC 9110, section 9.3.6) to the relay in the container. Ends with status 0 when the
destination closes, with 1 and the proxy's own sentence on stderr when there is no connection.

Standard library only, Python 3.9 and later. It must not know what the bytes mean.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading

# Where the relay takes connections for the proxy.
PROXY = ("127.0.0.1", 3128)
CHUNK = 65536
# Bytes of the proxy's answer before the destination's own begin.
HEAD_LIMIT = 65536
# Seconds for the proxy to connect; it gives up itself before.
TIMEOUT = 60.0


class Refused(Exception):
    """There is no connection; the text says why."""


def tunnel(proxy: socket.socket, host: str, port: int) -> bytes:
    """Ask for host:port. The result: bytes of the destination that came with the answer already.

    Raises:
        Refused: the answer is no 2xx, or there is none.
        OSError: the connection broke.
    """
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    proxy.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = proxy.recv(CHUNK)
        answer += data
        if not data or len(answer) > HEAD_LIMIT:
            raise Refused("the proxy closed the connection without an answer")
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0].decode("latin-1")
    if re.match(r"HTTP/1\.[01] 2[0-9][0-9]( |$)", status):
        return rest
    while len(rest) < HEAD_LIMIT:
        data = proxy.recv(CHUNK)
        if not data:
            break
        rest += data
    raise Refused(rest.decode("utf-8", "replace").strip() or status)


def join(connection: socket.socket, early: bytes, source: int, sink: int) -> None:
    """Copy from `source` to the connection and from there to `sink` until the other side closes.

    source, sink: descriptors. The end of `source` ends that direction alone.
    """
    # A daemon: what is read here may never end, and nobody wants it once the other side has closed.
    threading.Thread(target=_send, args=(connection, source), daemon=True).start()
    data = early or connection.recv(CHUNK)
    while data:
        view = memoryview(data)
        while view:
            view = view[os.write(sink, view) :]
        data = connection.recv(CHUNK)


def _send(connection: socket.socket, source: int) -> None:
    # The other side may be gone: then whoever reads from it notices.
    with contextlib.suppress(OSError):
        while True:
            data = os.read(source, CHUNK)
            if not data:
                break
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or not arguments[1].isdigit():
        print("usage: connect.py HOST PORT", file=sys.stderr)
        return 2
    host, port = arguments[0], int(arguments[1])
    try:
        proxy = socket.create_connection(PROXY, TIMEOUT)
        early = tunnel(proxy, host, port)
        proxy.settimeout(None)
        join(proxy, early, sys.stdin.fileno(), sys.stdout.fileno())
    except (OSError, Refused) as error:
        print(f"connect: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
