"""The data folder: is it ours, on a real disk with room, and is what it holds whole."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from uaihost.containers.admission import DISK_RESERVE
from uaihost.doctor.model import Finding, fail, ok, together, warn
from uaihost.doctor.patient import Patient, readable
from uaihost.errors import HostError
from uaihost.paths import Folders, data_files
from uaihost.state import migration

# File systems of memory: what lies there is gone with the machine's next start.
VOLATILE = frozenset(("tmpfs", "ramfs"))
# Of other machines: SQLite's locks and shared memory do not hold on them (sqlite.org/wal.html, section 1).
FAR = frozenset(("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"))
# Bytes of disk that a few tasks fill in days: the image, a mirror, work copies.
LITTLE = 10 << 30
# Files that can still be made: one work copy of a big project has 100,000.
FEW_FILES = 200_000
# Milliseconds that somebody else may hold the database.
BUSY = 2_000


@attrs.frozen
class Mount:
    """A file system and where it is mounted."""

    place: str
    kind: str


async def folder(patient: Patient) -> Finding:
    """The folder itself: there, closed to others, writable, on a disk that stays."""
    return await patient.blocking.call(look_at_folder, patient.folders)


def look_at_folder(folders: Folders, mounts: Path = Path("/proc/mounts")) -> Finding:
    """Blocks."""
    root = folders.root
    findings = []
    try:
        folders.control_socket  # noqa: B018 - it raises when its path is too long
        _ = folders.run_socket("t" * 26, "relay.sock")
    except HostError as error:
        findings.append(fail(error.message, "export UAI_DATA_DIR=/var/lib/uaihost"))
    try:
        kind = os.lstat(root)
    except FileNotFoundError:
        findings += _to_be_made(root)
        kind = None
    except OSError as error:
        return fail(
            f"{root} cannot be looked at: {error.strerror}",
            f"ls -ld {readable(root.parent)} {readable(root)}",
            "sudo -u THE-HOSTS-USER uaihost doctor   # or as the user that runs the host",
        )
    if kind is not None:
        findings += _existing(root, root.stat() if stat.S_ISLNK(kind.st_mode) else kind)
    found = mount_of(root, _text(mounts))
    if found is not None and found.kind in VOLATILE:
        findings.append(
            fail(
                f"{root} lies in memory ({found.kind} on {found.place}): everything in it is gone when the "
                "machine stops",
                "export UAI_DATA_DIR=$HOME/.local/share/uaihost",
            )
        )
    elif found is not None and found.kind in FAR:
        findings.append(
            fail(
                f"{root} lies on a network file system ({found.kind} on {found.place}), where the database "
                "is not safe",
                "export UAI_DATA_DIR=/var/lib/uaihost   # a folder on a disk of this machine",
            )
        )
    facts = {"folder": str(root), "filesystem": found.kind if found else None}
    return together([*findings, ok(str(root) if kind is not None else "", **facts)])


def _to_be_made(root: Path) -> list[Finding]:
    above = root.parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if os.access(above, os.W_OK | os.X_OK):
        return [ok(f"{root} is made at the first start")]
    return [
        fail(
            f"{root} is not there and {above} does not let this user make it",
            f"sudo install -d -m 700 -o $USER {readable(root)}",
        )
    ]


def _existing(root: Path, seen: os.stat_result) -> list[Finding]:
    name = readable(root)
    if not stat.S_ISDIR(seen.st_mode):
        return [fail(f"{root} is not a folder", f"mv {name} {name}.moved")]
    findings = []
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        user = _user(seen.st_uid)
        return [
            fail(
                f"{root} belongs to {user} and this user may not write there",
                f"sudo -u {user} uaihost doctor   # or, if it should be yours: sudo chown -R $USER {name}",
            )
        ]
    try:
        probe = root / f".doctor-{os.getpid()}"
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            probe.unlink()
    except OSError as error:
        findings.append(fail(f"nothing can be written in {root}: {error.strerror}", f"df -h -i {name}"))
    if seen.st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IXOTH & ~stat.S_IXGRP:
        findings.append(warn(f"{root} can be read by other users of this machine", f"chmod 700 {name}"))
    if seen.st_uid != os.geteuid():
        user = _user(seen.st_uid)
        findings.append(
            warn(
                f"{root} belongs to {user}; files that this user makes there may hinder the host",
                f"sudo -u {user} uaihost doctor",
            )
        )
    return findings


def mount_of(path: Path, table: str) -> Mount | None:
    """The file system that holds `path`, in a table of mounts (fstab(5)); None when it says nothing."""
    best: Mount | None = None
    real = os.path.realpath(path)
    for line in table.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and (best is None or len(place) >= len(best.place)):
            best = Mount(place, fields[2])
    return best


async def disk(patient: Patient) -> Finding:
    """Room for bytes and for files where the data lie, and whether the budget is one."""
    return await patient.blocking.call(
        look_at_disk, patient.folders.root, patient.settings.disk_budget, patient.lives
    )


def look_at_disk(root: Path, budget: int, lives: bool = True) -> Finding:
    """Blocks. lives: a daemon runs, which can free some."""
    while not root.exists() and root != root.parent:
        root = root.parent
    room = os.statvfs(root)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    facts = {"free": free, "total": total, "freeFiles": room.f_favail, "budget": budget}
    clear = "uaihost gc" if lives else f"du -xh -d2 {readable(root)} | sort -h | tail"
    findings = [ok(f"{_gib(free)} of {_gib(total)} are free", **facts)]
    if free < DISK_RESERVE:
        findings.append(
            fail(
                f"only {_gib(free)} are free on the disk of {root}: no task starts below "
                f"{_gib(DISK_RESERVE)}",
                clear,
                f"df -h {readable(root)}",
            )
        )
    elif free < LITTLE:
        findings.append(warn(f"{_gib(free)} are free on the disk of {root}: a few tasks fill that", clear))
    # Some file systems make room for files as they are made, and say 0.
    if room.f_files and room.f_favail < FEW_FILES:
        findings.append(
            warn(f"only {room.f_favail} more files can be made on the disk of {root}", clear, f"df -i {root}")
        )
    if budget > total:
        findings.append(
            warn(
                f"the budget for what can be made again ({_gib(budget)}) is more than the disk has "
                f"({_gib(total)}), so nothing is ever cleaned up in time",
                f"export UAI_DISK_BUDGET={max(1, total >> 32)}G",
            )
        )
    return together(findings)


async def database(patient: Patient) -> Finding:
    """Whole, of a schema that this version opens, and with its log."""
    return await patient.blocking.call(look_at_database, patient.folders.database)


def look_at_database(path: Path) -> Finding:
    """Blocks; nothing is written."""
    try:
        known = migration.read(data_files("migrations"))
    except (OSError, ValueError) as error:
        return fail(
            f"the installation is not complete: {error}",
            "pip install --force-reinstall uaihost   # or: sudo apt-get install --reinstall uaihost",
        )
    try:
        connection = opened(path)
    except FileNotFoundError:
        return ok("it is made at the first start")
    except (sqlite3.Error, OSError) as error:
        return fail(f"{path} cannot be opened: {error}", f"ls -l {readable(path)}*")
    try:
        applied = migration.inspect(connection, path, known)
        mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
        rows = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
    except migration.Newer as error:
        return fail(error.message, *_forward(path))
    except HostError as error:
        return fail(error.message, *_back(path))
    except sqlite3.OperationalError as error:
        return warn(f"{path} could not be read now: {error}", "uaihost doctor --only database")
    except sqlite3.DatabaseError as error:
        return fail(f"{path} is damaged ({error})", *_back(path))
    finally:
        connection.close()
    facts = {"schema": len(applied), "known": len(known), "journal": mode, "tables": rows}
    if mode != "wal":
        return warn(
            f"its journal is {mode} and not wal: another program opened it; the next start puts that right",
            f"sqlite3 {readable(path)} 'PRAGMA journal_mode=wal'",
            **facts,
        )
    more = "" if len(applied) == len(known) else f"; the next start brings it to {len(known)}"
    return ok(f"whole, schema {len(applied)}{more}, {path.stat().st_size / (1 << 20):.1f} MiB", **facts)


def opened(path: Path) -> sqlite3.Connection:
    """A connection that cannot write.

    Raises:
        FileNotFoundError: there is no database.
        sqlite3.Error: it cannot be opened.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    connection = sqlite3.connect(f"file:{quoted}?mode=ro", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {BUSY}")
    return connection


def _back(path: Path) -> Sequence[str]:
    """How to go on without it."""
    name = readable(path)
    copies = _copies(path)
    # With its journal, in which the last changes may be.
    aside = f"for end in '' -wal -shm; do [ ! -e {name}$end ] || mv {name}$end {name}.damaged$end; done"
    if copies:
        return (aside, f"cp -p {readable(copies[-1])} {name}   # the newest copy that was made by itself")
    return (aside, f"# then put your backup at {path}; without one the next start makes a new database")


def _forward(path: Path) -> Sequence[str]:
    """How to go on with it: nothing is wrong but the version that is installed here."""
    packaged = Path(sys.prefix).is_relative_to("/opt/uaihost")
    again = "sudo apt-get install ./uaihost_NEWER.deb" if packaged else "pip install --upgrade uaihost"
    copies = _copies(path)
    if not copies:
        return (again,)
    return (
        again,
        f"# or back to {copies[-1].name}, which forgets what happened since: end the host, move {path.name}, "
        f"{path.name}-wal and {path.name}-shm away, and put it in their place",
    )


def _copies(path: Path) -> list[Path]:
    """Copies that were made before migrations, the newest last."""
    return sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda copy: copy.stat().st_mtime)


def _user(uid: int) -> str:
    try:
        import pwd

        return pwd.getpwuid(uid).pw_name
    except (ImportError, KeyError):
        return str(uid)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
