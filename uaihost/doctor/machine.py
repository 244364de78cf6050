"""What else of this machine a host needs: git and its walls, free ports, and a quiet log."""

from __future__ import annotations

import json
import re
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from uaihost.doctor.model import Finding, fail, ok, skipped, together, warn
from uaihost.doctor.patient import Patient, page, readable
from uaihost.workspaces.confinement import Confinement
from uaihost.workspaces.safe_git import Git

# The oldest whose ways the work copies are made by (Debian 11's is 2.30).
GIT = (2, 30)
# How far back the log is looked at, seconds, and bytes of its end that are read.
PAST = 3600.0
TAIL = 4 << 20
# Ports that `uaihost up` could take instead of one that is taken.
OTHERS = 20


async def git(patient: Patient) -> Finding:
    """The host's own git: new enough, works, and cannot read what it is not given."""
    if shutil.which("git") is None:
        return fail("git is not installed", "sudo apt-get install git")
    folder = Path(await patient.blocking.call(tempfile.mkdtemp, "", "uaihost-doctor-"))
    try:
        return await _git_at(patient, folder)
    finally:
        await patient.blocking.call(shutil.rmtree, folder, True)


async def _git_at(patient: Patient, folder: Path) -> Finding:
    walls = Confinement.of_this_machine()
    program = Git(patient.reactor, folder / "home" / "git", patient.environ, walls)
    said = (await program.run("version", timeout=10)).out.decode("ascii", "replace").strip()
    numbers = re.search(r"(\d+)\.(\d+)", said)
    facts: dict[str, Any] = {"git": said, "landlock": walls.landlock, "filtered": walls.filtered}
    if numbers is None or (int(numbers[1]), int(numbers[2])) < GIT:
        wanted = ".".join(map(str, GIT))
        return fail(
            f"{said} is too old: {wanted} is needed", "sudo apt-get install --only-upgrade git", **facts
        )
    repository, secret = folder / "repository.git", folder / "secret"
    await patient.blocking.call(secret.write_text, "a file that git was not given\n")
    await program.run("init", "--quiet", "--bare", operands=[str(repository)], timeout=10)
    made = await program.run("hash-object", "-w", "--stdin", git_dir=repository, stdin=b"x", timeout=10,
                             writes=[repository])  # fmt: skip
    if len(made.out.strip()) != 40:
        return fail(f"{said} could not write an object", "uaihost doctor --only git", **facts)
    leaked = await program.run(
        "hash-object", git_dir=repository, paths=[str(secret).encode()], fine=(0, 1, 128), timeout=10
    )
    facts["confined"] = leaked.status != 0
    missing = ", ".join(walls.missing)
    if walls.landlock and leaked.status == 0:
        return fail(
            f"{said} read a file that its walls should have hidden (Landlock {walls.landlock})",
            "cat /sys/kernel/security/lsm   # landlock must be among them",
            **facts,
        )
    if missing:
        return warn(
            f"{said} runs without {missing}: a fault in git could reach what the host can read",
            "cat /sys/kernel/security/lsm   # landlock must be there: Linux 5.19 and later, lsm=...,landlock",
            **facts,
        )
    return ok(f"{said.removeprefix('git version ')}, behind its walls (Landlock {walls.landlock})", **facts)


async def ports(patient: Patient) -> Finding:
    """The ports of the bridge and of the local page are free, or the running host's."""
    return await patient.blocking.call(look_at_ports, patient)


def look_at_ports(patient: Patient) -> Finding:
    """Blocks."""
    settings = patient.settings
    if patient.lives:
        used = page(patient.folders)
        if used != settings.ui_port:
            holder = who_listens(settings.ui_port)
            return ok(f"the local page is at {used}, since {holder} has {settings.ui_port}", page=used)
        return ok(f"the local page is at http://127.0.0.1:{used}/", page=used)
    findings = [ok(f"{settings.ui_port} is free for the local page", page=settings.ui_port)]
    if _taken(settings.ui_port):
        findings = [
            ok(
                f"{who_listens(settings.ui_port)} has port {settings.ui_port}; the local page takes one of "
                f"the next {OTHERS}"
            )
        ]
    if patient.alone and _taken(settings.bridge_port):
        other = next(
            (
                port
                for port in range(settings.bridge_port + 1, settings.bridge_port + OTHERS)
                if not _taken(port)
            ),
            settings.bridge_port + 1,
        )
        findings.append(
            fail(
                f"{who_listens(settings.bridge_port)} has port {settings.bridge_port}, where `uaihost up` "
                "would serve its page",
                f"uaihost up --port {other}",
                f"# or for good: export UAI_HOST_BRIDGE_PORT={other}",
                port=settings.bridge_port,
            )
        )
    return together(findings)


def _taken(port: int) -> bool:
    """Whether something listens there on this machine's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def who_listens(port: int, proc: Path = Path("/proc")) -> str:
    """The program that listens on a TCP port, as far as this user may see (proc(5)). Blocks for a walk."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        inodes |= listening(_text(proc / "net" / name), port)
    if not inodes:
        return "another program"
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in proc.iterdir() if proc.is_dir() else ():
        if not folder.name.isdigit():
            continue
        try:
            held = any(str(link.readlink()) in wanted for link in (folder / "fd").iterdir())
        except OSError:
            continue  # It has ended, or is another user's.
        if held:
            return f"{_text(folder / 'comm').strip() or 'a program'} (process {folder.name})"
    return "another user's program"


def listening(table: str, port: int) -> set[str]:
    """The inodes of sockets that listen on a port, in a table of /proc/net. Pure."""
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        # 0A: TCP_LISTEN (include/net/tcp_states.h).
        if len(fields) > 9 and fields[3] == "0A" and fields[1].rpartition(":")[2] == f"{port:04X}":
            found.add(fields[9])
    return found


async def log(patient: Patient) -> Finding:
    """What the host's log holds of errors of the last hour."""
    return await patient.blocking.call(look_at_log, patient.folders.log, time.time())


def look_at_log(path: Path, now: float) -> Finding:
    """Blocks. now: seconds since the epoch."""
    if not path.exists():
        return skipped("no host has written one here yet")
    try:
        records = list(newest(path, now - PAST))
    except OSError as error:
        return warn(f"{path} cannot be read: {error.strerror}", f"ls -l {readable(path)}")
    bad = [one for one in records if one.get("level") in ("error", "critical")]
    if not bad:
        return ok(f"no error in the last hour, {len(records)} lines", lines=len(records))
    most = Counter(str(one.get("message", "")).splitlines()[0][:160] for one in bad if one.get("message"))
    told = "; ".join(
        f"{text}{f' ({count} times)' if count > 1 else ''}" for text, count in most.most_common(3)
    )
    return warn(
        f"{len(bad)} errors in the last hour: {told}",
        "uaihost logs --level error --since 1h",
        errors=len(bad),
        lines=len(records),
    )


def newest(path: Path, since: float) -> Iterable[dict[str, Any]]:
    """The records of the end of a log from this time on."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        lines = file.read().splitlines()
    for line in lines:
        try:
            record = json.loads(line)
            if datetime.fromisoformat(record["time"].replace("Z", "+00:00")).timestamp() >= since:
                yield record
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # Cut off where the reading began, or not of ours.


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
