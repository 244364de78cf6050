"""Repositories of a given size, the same each time: made in seconds by `git fast-import`."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import IO

# Files that each commit after the first one changes.
_CHANGED = 5
# Bytes of a file, about: source code has many small files and few large ones.
_SIZES = (200, 600, 2_000, 9_000)
_BEGIN = 1_700_000_000


def make(target: Path, files: int, commits: int) -> None:
    """A bare repository with `files` files on branch main and a history of `commits` commits, in one pack."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(target)], check=True)
    command = ["git", "--git-dir", str(target), "fast-import", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        _history(importing.stdin, files, commits)
    if importing.returncode != 0:
        raise RuntimeError(f"git fast-import ended with {importing.returncode}")
    subprocess.run(["git", "--git-dir", str(target), "repack", "-adq"], check=True)
    subprocess.run(["git", "--git-dir", str(target), "pack-refs", "--all"], check=True)


def _history(out: IO[bytes], files: int, commits: int) -> None:
    chance = random.Random(4)
    words = [f"{chance.getrandbits(40):x}".encode() for _ in range(5_000)]
    names = [f"src/p{n // 200:03}/m{n // 20 % 10:02}/file{n}.py".encode() for n in range(files)]
    for number in range(commits):
        when = _BEGIN + 60 * number
        out.write(b"commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata 4\nstep\n" % when)
        for name in names if number == 0 else chance.sample(names, min(_CHANGED, files)):
            lines = chance.choice(_SIZES) // 80 + 1
            text = b"".join(b" ".join(chance.choices(words, k=8)) + b"\n" for _ in range(lines))
            out.write(b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(text), text))
