"""The Debian packages of this checkout for integration tests: one as it is, one newer and built elsewhere.

Building takes half a minute, so what was built of the same files is used again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from uaihost.test.integration.engine import CHECKOUT

# Of a release that follows the one in debian/changelog.
NEWER = "0.1.1-1"
# Seconds for both builds together, with fetching the wheels.
LIMIT = 600


@attrs.frozen
class Packages:
    """first: the package of this checkout; newer: of the same files under the version
    NEWER, built in another folder, with another umask, home, time zone, language and host name."""

    first: Path
    newer: Path


def built() -> Packages:
    """Both packages. Blocks."""
    folder = CHECKOUT / ".cache" / "packages" / _digest()
    with alone("packages"):
        _build(folder)
    (newer,) = folder.glob(f"uaihost_{NEWER}_*.deb")
    (first,) = set(folder.glob("uaihost_*.deb")) - {newer}
    return Packages(first, newer)


@contextmanager
def alone(name: str) -> Iterator[None]:
    """One of several workers at a time makes what all of them use."""
    cache = CHECKOUT / ".cache"
    cache.mkdir(exist_ok=True)
    with (cache / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path) -> None:
    if not (folder / "complete").exists():
        # One alone fetches what both need.
        script = str(CHECKOUT / "scripts" / "deb")
        # A test's worker gives its children the modules of another Python.
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run(["/usr/bin/python3", script, "--fetch"], check=True, timeout=LIMIT, env=env)
        runs = [[], ["--version", NEWER, "--elsewhere"]]
        started = [
            subprocess.Popen(
                ["/usr/bin/python3", script, "--into", str(folder), *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=env,
            )
            for words in runs
        ]
        for process in started:
            said, _ = process.communicate(timeout=LIMIT)
            if process.returncode:
                raise RuntimeError(f"{process.args!r}: {said}")
        (folder / "complete").touch()


def _digest() -> str:
    """Of every file that a package is made of."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    whole = hashlib.sha256()
    for name in sorted(listed.stdout.split(b"\0")):
        path = CHECKOUT / name.decode()
        if name and path.is_file():
            whole.update(name + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]
