"""Servers for the tests of the relay, run inside a container. Standard library only.

    python3 relay_servers.py ADDRESS PORT [CROWD]

HTTP/1.1 on ADDRESS:PORT, one request a connection unless it is kept:

    GET /hello       `hello from PORT`
    GET /bulk/N      N bytes of `pattern`
    POST /digest     the size and the SHA-256 of the body, once all of it was read, slowly at first
    POST /sink       the size alone, read as fast as it comes
    GET /crowd       answered when CROWD of them wait
"""

from __future__ import annotations

import asyncio
import hashlib
import sys


def pattern(size: int) -> bytes:
    """Bytes of which no two blocks are the same."""
    block = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(32768))
    whole = bytearray()
    while len(whole) < size:
        whole += b"%016d" % len(whole) + block
    return bytes(whole[:size])


class Server:
    def __init__(self, port: int, crowd: int) -> None:
        self._port = port
        self._crowd = crowd
        self._waiting = 0
        self._full = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path = head.split(b" ", 2)[:2]
        if path.startswith(b"/bulk/"):
            body = pattern(int(path[6:]))
        elif method == b"POST":
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            size = int(lengths[0].split(b":")[1])
            body = await (self._sink if path == b"/sink" else self._digest)(reader, size)
        elif path == b"/crowd":
            self._waiting += 1
            if self._waiting >= self._crowd:
                self._full.set()
            await self._full.wait()
            body = b"all"
        else:
            body = b"hello from %d" % self._port
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for at in range(0, len(body), 1 << 20):
            writer.write(body[at : at + (1 << 20)])
            await writer.drain()
        return True

    async def _sink(self, reader: asyncio.StreamReader, size: int) -> bytes:
        got = 0
        while got < size and (data := await reader.read(1 << 20)):
            got += len(data)
        return b"%d" % got

    async def _digest(self, reader: asyncio.StreamReader, size: int) -> bytes:
        digest, got = hashlib.sha256(), 0
        while got < size:
            data = await reader.read(65536)
            if not data:
                break
            digest.update(data)
            got += len(data)
            if got < 10 << 20:
                await asyncio.sleep(0.005)
        return b"%d %s" % (got, digest.hexdigest().encode())


async def main(address: str, port: int, crowd: int) -> None:
    server = Server(port, crowd)
    listener = await asyncio.start_server(server.talk, address, port, backlog=512, limit=1 << 20)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
