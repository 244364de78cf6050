"""What plain TCP finds between two ends: the round trip of a byte, and the rate of a stream.

python -m benchmarks.linkcheck ADDRESS                  serves; prints its port
python -m benchmarks.linkcheck ADDRESS PORT SECONDS     asks; prints what it found
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

_TRIPS = 10
_PIECE = 1 << 16


def serve(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        print(json.dumps({"port": server.getsockname()[1]}), flush=True)
        connection, _ = server.accept()
        for _ in range(_TRIPS):
            connection.sendall(connection.recv(1))
        size = 0
        began = 0.0
        while piece := connection.recv(_PIECE):
            began = began or time.monotonic()
            size += len(piece)
        report = {"bytes": size, "seconds": time.monotonic() - began}
        connection.sendall(json.dumps(report).encode())
        connection.close()


def ask(address: str, port: int, seconds: float) -> None:
    trips = []
    with socket.create_connection((address, port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_TRIPS):
            began = time.monotonic()
            connection.sendall(b"x")
            connection.recv(1)
            trips.append(time.monotonic() - began)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(b"x" * _PIECE)
        connection.shutdown(socket.SHUT_WR)
        found = json.loads(connection.recv(_PIECE))
    rate = found["bytes"] * 8 / 1e6 / found["seconds"]
    print(json.dumps({"Mbit/s": rate, "ms": statistics.median(trips) * 1000}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        ask(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
    else:
        serve(sys.argv[1])
