"""What a hostile program in a task asks the agent: run inside its container with the standard library alone.

Prints a JSON object: what was tried to the answer's first byte, `null` when the connection was closed.
"""

from __future__ import annotations

import json
import os
import socket
import struct


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ask(*messages: bytes) -> int | None:
    """The first byte of the last answer, each message on the same connection."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect(os.environ["SSH_AUTH_SOCK"])
        answer = b""
        for message in messages:
            try:
                agent.sendall(string(message))
                head = agent.recv(4, socket.MSG_WAITALL)
            except ConnectionError:
                return None
            answer = agent.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        return answer[0] if answer else None


def own_key() -> bytes:
    """The blob of the key that the agent shows."""
    with socket.socket(socket.AF_UNIX) as agent:
        agent.connect(os.environ["SSH_AUTH_SOCK"])
        agent.sendall(string(b"\x0b"))
        answer = agent.recv(65536)[4:]
        length = int.from_bytes(answer[5:9], "big")
        return answer[9 : 9 + length]


def main() -> None:
    key = own_key()
    session = b"s" * 32
    words = string(b"git") + string(b"ssh-connection") + string(b"publickey")
    sign_in = string(session) + b"\x32" + words + b"\x01" + string(b"ssh-ed25519") + string(key)
    signature = b"SSHSIG" + string(b"git") + string(b"") + string(b"sha512") + string(b"h" * 64)
    bind = b"\x1b" + string(b"session-bind@openssh.com") + string(key) + string(session)

    def sign(data: bytes) -> bytes:
        return b"\x0d" + string(key) + string(data) + b"\0\0\0\0"

    found = {
        "anything": ask(sign(b"anything")),
        "a file's signature": ask(sign(signature)),
        "a sign-in on no connection": ask(sign(sign_in)),
        "a server of its own": ask(bind + string(string(b"ssh-ed25519") + string(b"x" * 64)) + b"\0"),
        "a sign-in after that": ask(
            bind + string(string(b"ssh-ed25519") + string(b"x" * 64)) + b"\0", sign(sign_in)
        ),
        "a key of its own": ask(b"\x11" + string(b"ssh-ed25519") + string(b"x" * 32) + string(b"y" * 64)),
        "no keys": ask(b"\x13"),
        "a lock": ask(b"\x16" + string(b"word")),
        "more than there may be": ask(b"\x0d" + b"x" * 200_000),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
