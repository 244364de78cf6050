"""git's credential helper: asks the host for a token, over a Unix socket that leads to nobody else.

    credential.py get|store|erase

git writes what it needs a credential for to standard input and reads the answer (git-credential(1)). The
token goes through git's memory only: it is in no file, no argument and no environment. Without the socket,
and where the host refuses, nothing is answered, and git asks elsewhere; why is on standard error.

Standard library only, Python 3.9 and later. In a container the socket has its place; on the host
UAI_GIT_SOCKET names it.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
from pathlib import Path

SOCKET = "/run/host/broker/git.sock"
# Bytes of git's question, and of the answer.
LONGEST = 16 << 10
# Seconds: a token may have to be renewed first.
PATIENCE = 90.0


class _Connection(http.client.HTTPConnection):
    """HTTP over the socket at `path`."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, action: str, question: bytes) -> tuple[int, bytes]:
    """The answer's status and text.

    Raises:
        OSError, http.client.HTTPException: there is none.
    """
    connection = _Connection(path)
    try:
        connection.request("POST", "/credential/" + action, body=question)
        response = connection.getresponse()
        return response.status, response.read(LONGEST)
    finally:
        connection.close()


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: credential.py get|store|erase", file=sys.stderr)
        return 2
    path = os.environ.get("UAI_GIT_SOCKET", SOCKET)
    question = sys.stdin.buffer.read(LONGEST + 1)
    if not Path(path).exists():
        return 0
    try:
        status, answer = ask(path, sys.argv[1], question)
    except (OSError, http.client.HTTPException) as error:
        print(f"uaihost: the host cannot be asked for a credential: {error!r}", file=sys.stderr)
        return 0
    if status == 200:
        sys.stdout.buffer.write(answer)
        return 0
    try:
        why = json.loads(answer)["message"]
    except (ValueError, KeyError, TypeError):
        why = f"it answered {status}"
    print(f"uaihost: no credential: {why}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
