"""Looks for a private key wherever a task's user can read: run inside its container.

    python3 ssh_seeker.py XEH

XEH: the key's 32 bytes in hexadecimal, backwards, so that no command line holds it. Prints a JSON object:
`read`, how many files, and `held`, those that hold the key or a private key of any kind as OpenSSH writes it.
"""

from __future__ import annotations

import json
import os
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

PLACES = ("/workspace", "/home", "/tmp", "/run", "/var", "/etc", "/dev/shm", "/attachments", "/opt/uai")
# Bytes of one file that are looked at.
LIMIT = 32 << 20


def files() -> Iterator[Path]:
    for place in PLACES:
        for folder, _, names in os.walk(place):
            yield from (path for name in names if (path := Path(folder, name)).is_file())
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            yield from (process / "environ", process / "cmdline")


def main(key: bytes) -> None:
    # Base64 of what stands before and after it differs, by where the three-byte groups begin.
    within = [b64encode(b"\0" * shift + key)[4:-4] for shift in range(3)]
    wanted = (key, key.hex().encode(), *within, b"-----BEGIN OPENSSH PRIVATE KEY", b"-----BEGIN PRIVATE KEY")
    read, held = 0, []
    for name in files():
        try:
            with name.open("rb") as file:
                data = file.read(LIMIT)
        except OSError:
            continue
        read += 1
        if name != Path(__file__) and any(each in data for each in wanted):
            held.append(str(name))
    print(json.dumps({"read": read, "held": sorted(held)}))


if __name__ == "__main__":
    main(bytes.fromhex(sys.argv[1][::-1]))
