"""Tries the packet filter's rules with real packets, in a network namespace apart: `unshare -n` starts it.

    python -m uaihost.test.integration.own_tables iptables|iptables-legacy

This namespace is the host. Behind `uai-t0` is a task, behind `own0` a container of the owner's, behind `lan0`
the network around: a neighbour, the name server, a metadata service and something public. Prints JSON: by
moment, what the task reaches.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.internet.threads import deferToThread

from uaihost.blocking import Inline
from uaihost.containers.firewall import CHAIN_IN, Firewall

PORT = 8000
# What is reached from a task: name to address, port and kind of socket.
DESTINATIONS = {
    "host": ("10.213.0.1", PORT, "tcp"),
    "host by another address": ("10.99.0.1", PORT, "tcp"),
    "host by udp": ("10.213.0.1", PORT, "udp"),
    "host by IPv6": ("fd13::1", PORT, "tcp"),
    "neighbour": ("10.99.0.4", PORT, "tcp"),
    "neighbour by IPv6": ("fd99::2", PORT, "tcp"),
    "allowed": ("10.99.0.3", PORT, "tcp"),
    "allowed, another port": ("10.99.0.3", PORT + 1, "tcp"),
    "attached": ("203.0.113.2", PORT, "tcp"),
    "metadata": ("169.254.169.254", PORT, "tcp"),
    "names": ("10.99.0.2", 53, "tcp"),
    "names by udp": ("10.99.0.2", 53, "udp"),
    "name server's other ports": ("10.99.0.2", PORT, "tcp"),
    "public": ("198.51.100.9", PORT, "tcp"),
    "public by IPv6": ("2001:db8::9", PORT, "tcp"),
    "another task": ("10.213.0.18", PORT, "tcp"),
}
# Runs in a namespace: answers on the addresses it is given, until its input ends.
SERVER = """
import socket, sys, threading
def tcp(made):
    while True:
        made.accept()[0].sendall(b"hi")
def udp(made):
    while True:
        made.sendto(b"hi", made.recvfrom(99)[1])
for port in map(int, sys.argv[1:]):
    both = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    flat = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    flat.bind(("0.0.0.0", port))
    for serve, made in ((tcp, both), (udp, flat)):
        threading.Thread(target=serve, args=(made,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
# Runs in a namespace: for each destination on its input a word on its output.
CLIENT = """
import json, socket, sys
for line in sys.stdin:
    address, port, kind = json.loads(line)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(2.5)
    try:
        made.connect((address, port))
        if kind == "udp":
            made.send(b"?")
        print("reached" if made.recv(9) == b"hi" else "ended", flush=True)
    except OSError as error:
        print(type(error).__name__ if type(error) is not OSError else "no way", flush=True)
    made.close()
"""


def run(text: str) -> None:
    subprocess.run(text.split(), check=True)


def started(argv: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Space:
    """Another network namespace, held by a process in it that serves `ports` and one that connects."""

    def __init__(self, *ports: int) -> None:
        self.client = self._start(CLIENT)
        self.pid = str(self.client.pid)
        self._ports = ports
        self.server: subprocess.Popen[str] | None = None

    def _start(self, program: str, *words: str, into: str | None = None) -> subprocess.Popen[str]:
        enter = ["unshare", "-n"] if into is None else ["nsenter", f"--net=/proc/{into}/ns/net"]
        return started([*enter, sys.executable, "-c", program, *words])

    def run(self, text: str) -> None:
        run(f"nsenter --net=/proc/{self.pid}/ns/net {text}")

    def attach(self, name: str, *, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
        """A link: `name` with addresses `ours` here, eth0 with `theirs` there and a default route to here."""
        # unshare has become the program, in its own namespace, once it answers.
        self.reaches(("127.0.0.1", 1, "udp"))
        run(f"ip link add {name} type veth peer name eth0 netns {self.pid}")
        for address in ours:
            run(f"ip addr add {address} dev {name}{' nodad' if ':' in address else ''}")
        run(f"ip link set {name} up")
        self.run("ip link set lo up")
        for address in theirs:
            self.run(f"ip addr add {address} dev eth0{' nodad' if ':' in address else ''}")
        self.run("ip link set eth0 up")
        for address in ours[:1] + tuple(address for address in ours if ":" in address)[:1]:
            self.run(f"ip {'-6 ' if ':' in address else ''}route add default via {address.partition('/')[0]}")
        self.server = self._start(SERVER, *map(str, self._ports), into=self.pid)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"

    def reaches(self, destination: tuple[str, int, str]) -> str:
        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write(json.dumps(destination) + "\n")
        self.client.stdin.flush()
        return self.client.stdout.readline().strip()

    def end(self) -> None:
        for child in (self.client, self.server):
            if child is not None:
                child.kill()
                child.wait()


async def play(reactor: Any, tables: str) -> None:
    # Another namespace's settings are its own: nothing of the machine is changed.
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", name).write_text("1")
    run("ip link set lo up")
    task, other, own, lan = spaces = Space(PORT), Space(PORT), Space(PORT), Space(PORT, PORT + 1, 53)
    here = started([sys.executable, "-c", SERVER, str(PORT)])
    try:
        task.attach("uai-t0", ours=("10.213.0.1/28", "fd13::1/64"), theirs=("10.213.0.2/28", "fd13::2/64"))
        other.attach("uai-t1", ours=("10.213.0.17/28",), theirs=("10.213.0.18/28",))
        own.attach("own0", ours=("172.17.0.1/16",), theirs=("172.17.0.2/16",))
        around = ("10.99.0.2/24", "10.99.0.3/24", "10.99.0.4/24", "203.0.113.2/24", "fd99::2/64")
        lan.attach("lan0", ours=("10.99.0.1/24", "203.0.113.1/24", "fd99::1/64"), theirs=around)
        for address in ("169.254.169.254/32", "198.51.100.9/32", "2001:db8::9/128"):
            lan.run(f"ip addr add {address} dev lo{' nodad' if ':' in address else ''}")
        run("ip route add default via 10.99.0.2")
        run("ip -6 route add default via fd99::2")
        assert here.stdout is not None
        assert here.stdout.readline() == "ready\n"
        print(json.dumps(await tried(reactor, tables, task, own)))
    finally:
        here.kill()
        here.wait()
        for space in spaces:
            space.end()


async def tried(reactor: Any, tables: str, task: Space, own: Space) -> dict[str, Any]:
    def all_of_it() -> dict[str, str]:
        return {name: task.reaches(where) for name, where in DESTINATIONS.items()}

    filtered = Firewall(
        reactor,
        Inline(),
        "unix:///x",
        allow=("10.99.0.3:8000", "10.213.0.0/16"),
        resolvers=lambda: ("10.99.0.2",),
        tables=(tables, tables.replace("ip", "ip6", 1)),
    )
    seen: dict[str, Any] = {"before": await deferToThread(all_of_it)}
    seen["states"] = [str((await filtered.apply()).why)]
    seen["after"] = await deferToThread(all_of_it)
    seen["host to task"] = await deferToThread(answered, ("10.213.0.2", PORT))
    seen["the owner's container"] = {
        name: await deferToThread(own.reaches, DESTINATIONS[name])
        for name in ("host", "neighbour", "metadata")
    }
    # Somebody flushes one chain and removes the way to the other.
    run(f"{tables} -F {CHAIN_IN}")
    run(f"{tables} -F FORWARD")
    seen["flushed"] = {
        name: await deferToThread(task.reaches, DESTINATIONS[name]) for name in ("host", "neighbour")
    }
    seen["states"].append(str((await filtered.apply()).why))
    seen["again"] = {
        name: await deferToThread(task.reaches, DESTINATIONS[name]) for name in ("host", "neighbour")
    }
    await filtered.remove()
    saved = started([f"{tables}-save"]).communicate()[0]
    seen["left"] = [line for line in saved.splitlines() if "uai" in line.lower()]
    seen["removed"] = {
        name: await deferToThread(task.reaches, DESTINATIONS[name]) for name in ("host", "neighbour")
    }
    return seen


def answered(address: tuple[str, int]) -> str:
    with socket.create_connection(address, timeout=5) as made:
        return made.recv(9).decode()


if __name__ == "__main__":
    # A thread that hangs must not outlive the test that waits for this process.
    over = threading.Timer(50, os._exit, (3,))
    over.daemon = True
    over.start()
    react(lambda reactor: Deferred.fromCoroutine(play(reactor, sys.argv[1])))
