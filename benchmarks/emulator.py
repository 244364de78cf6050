"""A slow link between two network namespaces: forwards IP packets from one TUN device to the other.

    python -m benchmarks.emulator PID PID --rate 2e6 --delay 0.05 --limit 100 --loss 0.01 --seed 1

Each PID is a process in one of the namespaces. Prints a line of JSON once the link is up, another with what
was dropped and lost when its standard input is closed; the devices are gone with it. Needs root.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time

from benchmarks.pipe import Pipe

# ioctl and flags of linux/if_tun.h.
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000

# Bytes of the largest packet, as on an Ethernet.
MTU = 1500

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def device(name: str, pid: int, address: str) -> int:
    """A TUN device with this address in the namespace of `pid`: its file descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
    for words in (
        ["ip", "link", "set", name, "netns", str(pid)],
        [*inside, "ip", "address", "add", f"{address}/30", "dev", name],
        [*inside, "ip", "link", "set", name, "mtu", str(MTU), "up"],
        [*inside, "ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(words, check=True)
    return descriptor


def read(descriptor: int) -> list[bytes]:
    """All packets of IPv4 that wait; an address of IPv6 makes packets of its own, which do not count."""
    packets = []
    try:
        while True:
            packet = os.read(descriptor, 1 << 16)
            if packet[0] >> 4 == 4:
                packets.append(packet)
    except BlockingIOError:
        return packets


def forward(ends: tuple[int, int], pipes: tuple[Pipe, Pipe], stop: int) -> None:
    """Carry packets until `stop` can be read."""
    selector = selectors.DefaultSelector()
    for number, descriptor in enumerate(ends):
        selector.register(descriptor, selectors.EVENT_READ, number)
    selector.register(stop, selectors.EVENT_READ, None)
    while True:
        moments = [moment for pipe in pipes if (moment := pipe.next()) is not None]
        wait = max(0.0, min(moments) - time.monotonic()) if moments else None
        ready = [key.data for key, _ in selector.select(wait)]
        if None in ready:
            return
        now = time.monotonic()
        for number in ready:
            for packet in read(ends[number]):
                pipes[number].put(now, packet)
        for number, pipe in enumerate(pipes):
            for packet in pipe.due(now):
                os.write(ends[1 - number], packet)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pid", type=int, nargs=2)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--delay", type=float, required=True)
    parser.add_argument("--limit", type=int, required=True)
    parser.add_argument("--loss", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    names = (f"slow{os.getpid()}a", f"slow{os.getpid()}b")
    first, second = (
        device(name, pid, address) for name, pid, address in zip(names, given.pid, ADDRESSES, strict=True)
    )
    there, back = (Pipe(given.rate, given.delay, given.limit, given.loss, chance) for _ in names)
    print(json.dumps({"value": {}}), flush=True)
    forward((first, second), (there, back), sys.stdin.fileno())
    counts = {"dropped": there.dropped + back.dropped, "lost": there.lost + back.lost}
    print(json.dumps({"value": counts}), flush=True)


if __name__ == "__main__":
    main()
