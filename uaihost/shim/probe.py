"""What a task's container is and what it reaches, seen from inside: one JSON object on standard output.

    probe.py '{"targets": [["10.0.0.1", 8000], ["gateway", 8000]], "timeout": 0.2}'

Runs as the container's user, before anything of a repository does. It judges nothing: the host compares what
is said here with what must be. `gateway` stands for the container's own default gateway. The answer's
`reached` has one word for each target: `open` (a connection was made), `refused` (a closed port answered, or
the host refuses), `blocked` (the way there is refused or there is none), `silent` (no answer in time).

Standard library only, Python 3.9 and later. Whatever cannot be read is null, never left out.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import stat
import struct
import sys
import time
from pathlib import Path

# Entries of /run that are looked at: far more than a fresh container has.
FILES = 2000
# Parts of the names of sockets that would give the engine, or the machine, away.
ENGINES = ("docker", "containerd", "podman", "crio", "libpod")
NAMESPACES = ("pid", "net", "mnt", "ipc", "uts")


def read(path: str) -> str | None:
    """A small file as text; None when it cannot be read."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return None


def status() -> dict[str, object]:
    """The fields of /proc/self/status (proc(5)) that say what this process may do."""
    found = {}
    for line in (read("/proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        found[name] = value.strip()
    return {
        "capabilities": {
            name: found.get(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        },
        "no_new_privileges": found.get("NoNewPrivs"),
        "seccomp": found.get("Seccomp"),
    }


def namespaces() -> dict[str, str | None]:
    """The namespaces of this process (namespaces(7)), as the kernel names them."""
    found: dict[str, str | None] = dict.fromkeys(NAMESPACES)
    for name in NAMESPACES:
        with contextlib.suppress(OSError):
            found[name] = str(Path("/proc/self/ns", name).readlink())
    return found


def unescaped(text: str) -> str:
    """A path of the mount table, where space, tab, newline and backslash are octal (proc(5))."""
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text


def mounts() -> list[tuple[str, str, bool]]:
    """(target, kind of file system, whether it can be written) of each mount."""
    found = []
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        words = line.split(" ")
        kind = words[words.index("-") + 1] if "-" in words else ""
        found.append((unescaped(words[4]), kind, "rw" in words[5].split(",")))
    return found


def is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def sockets(table: list[tuple[str, str, bool]]) -> list[str]:
    """Paths of Unix sockets that were not made inside: under /run, mounted anywhere, or abstract ones."""
    found = {target for target, _, _ in table if is_socket(target)}
    seen = 0
    for folder, names, files in os.walk("/run"):
        for name in files:
            seen += 1
            if is_socket(f"{folder}/{name}"):
                found.add(f"{folder}/{name}")
        if seen > FILES:
            found.add("/run (too much to look at)")
            break
        if folder == "/run":
            # Shared with the host on purpose: their sockets are the task's own.
            names[:] = [name for name in names if name not in ("uai", "host")]
    found |= {path for path in ("/var/run/docker.sock", "/docker.sock") if is_socket(path)}
    for line in (read("/proc/net/unix") or "").splitlines():
        name = line.split(" ")[-1]
        if name.startswith("@") and any(part in name for part in ENGINES):
            found.add(name)
    return sorted(found)


def devices() -> list[str]:
    """Device nodes under /dev, without those of pseudo terminals."""
    found = []
    for folder, names, files in os.walk("/dev"):
        names[:] = [name for name in names if f"{folder}/{name}" not in ("/dev/pts", "/dev/shm")]
        for name in files:
            with contextlib.suppress(OSError):
                mode = Path(folder, name).lstat().st_mode
                if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
                    found.append(f"{folder}/{name}")
    return sorted(found)


def number(text: str | None) -> int | None:
    """The first number of `text`; None for `max`, what is missing and what means "no limit"."""
    word = (text or "").split()[:1]
    value = int(word[0]) if word and word[0].lstrip("-").isdigit() else -1
    # cgroup v1 writes "no limit" as the largest multiple of a page.
    return value if 0 <= value < 1 << 60 else None


def limits() -> dict[str, object]:
    """What its control groups grant, version 2 or 1: bytes, bytes with swap, processes, cores."""
    root = "/sys/fs/cgroup/"
    if Path(root, "cgroup.controllers").exists():
        memory, swap = number(read(root + "memory.max")), number(read(root + "memory.swap.max"))
        words = (read(root + "cpu.max") or "max").split()
        both = None if memory is None or swap is None else memory + swap
        pids = number(read(root + "pids.max"))
    else:
        memory = number(read(root + "memory/memory.limit_in_bytes"))
        both = number(read(root + "memory/memory.memsw.limit_in_bytes"))
        cpu = [read(f"{root}cpu/cpu.cfs_{name}_us") for name in ("quota", "period")]
        words = [(text or "").strip() for text in cpu]
        pids = number(read(root + "pids/pids.max"))
    quota, period = (number(word) for word in [*words, ""][:2])
    cpus = quota / period if quota and period else None
    return {"memory": memory, "memory_and_swap": both, "pids": pids, "cpus": cpus}


def interfaces() -> list[str] | None:
    """Network interfaces that are up."""
    found = []
    try:
        names = sorted(path.name for path in Path("/sys/class/net").iterdir())
    except OSError:
        return None
    for name in names:
        flags = read(f"/sys/class/net/{name}/flags")
        if flags and int(flags, 16) & 1:  # IFF_UP
            found.append(name)
    return found


def gateway() -> str | None:
    """The default gateway's address (IPv4); None when there is none."""
    for line in (read("/proc/net/route") or "").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000" and int(words[3], 16) & 2:
            return socket.inet_ntoa(struct.pack("=I", int(words[2], 16)))
    return None


def word_of(problem: int | None) -> str:
    """How a connection ended, from its error number."""
    if problem == 0:
        return "open"
    if problem in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    return "silent" if problem in (errno.ETIMEDOUT, errno.EAGAIN) else "blocked"


def reached(targets: list[tuple[str, int]], timeout: float, own_gateway: str | None) -> list[str]:
    """Connect to all targets (TCP) side by side; a word for each, in order."""
    words = ["blocked"] * len(targets)
    waiting: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    for index, (name, port) in enumerate(targets):
        address = own_gateway if name == "gateway" else name
        if address is None:
            continue
        try:
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            made.setblocking(False)
            problem = made.connect_ex((address, port))
        except OSError as error:
            words[index] = word_of(error.errno)
            continue
        if problem == errno.EINPROGRESS:
            waiting[made.fileno()] = (index, made)
            poll.register(made, select.POLLOUT)
        else:
            words[index] = word_of(problem)
            made.close()
    limit = time.monotonic() + timeout
    while waiting:
        left = max(limit - time.monotonic(), 0)
        ready = poll.poll(left * 1000)
        for descriptor, _ in ready:
            index, made = waiting.pop(descriptor)
            poll.unregister(made)
            words[index] = word_of(made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            made.close()
        if not ready and left == 0:
            break
    for index, made in waiting.values():
        words[index] = "silent"
        made.close()
    return words


def main() -> None:
    asked = json.loads(sys.argv[1])
    own_gateway = gateway()
    # First, so that nothing else delays the answers.
    words = reached(asked["targets"], asked["timeout"], own_gateway)
    table = mounts()
    seen = {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "namespaces": namespaces(),
        "mounts": table,
        "sockets": sockets(table),
        "devices": devices(),
        "limits": limits(),
        "interfaces": interfaces(),
        "gateway": own_gateway,
        "reached": words,
    }
    seen.update(status())
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
