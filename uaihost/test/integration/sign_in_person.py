"""A person who signs in: `sign_in` of the command line in a process with a terminal of its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from uaihost.test.integration.engine import CHECKOUT

# Seconds for a sign-in: the image is there, a container and the program start.
PATIENCE = 120.0
# As wide as terminals are; a long-lived token is wider.
ROWS, COLUMNS = 24, 80

_CODE = """
import json, os, sys
from uaihost.cli import interactive
from uaihost.test.integration.bridged_engine import BridgedEngine
interactive.DockerEngine = BridgedEngine
more, true = json.loads(os.environ["MORE"]), interactive.converse
# The certificate of a server of the test's, for the program alone.
PUT = 'printf %s "$AUTHORITY" > "$HOME/authority.pem"; exec "$@"'
def converse(address, container, argv, env, cwd, ends):
    return true(address, container, ["sh", "-c", PUT, "sh", *argv], {**env, **more}, cwd, ends)
interactive.converse = converse
form, secrets = interactive.sign_in(sys.argv[2], sys.argv[3:])
with open(sys.argv[1], "w") as file:
    json.dump([form, secrets], file)
"""


class Person:
    """Reads a terminal and types. shown: all that it showed, without colours."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._read = b""

    @property
    def shown(self) -> str:
        # Programs that draw their screen go to a column where others print a space.
        spaced = re.sub(rb"\x1b\[[0-9]*[CG]", b" ", self._read)
        return re.sub(rb"\x1b\[[0-9;?<>=]*[A-Za-z]", b"", spaced).decode("utf-8", "replace")

    def look(self) -> bool:
        """Read what there is, waiting a moment for it; False when nobody writes there any more."""
        if select.select([self._master], [], [], 0.2)[0]:
            try:
                self._read += os.read(self._master, 4096)
            except OSError:
                return False
        return True

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())


def signs_in(
    folder: Path,
    engine: str,
    provider: str,
    *words: str,
    more: Mapping[str, str],
    does: Callable[[Person], None],
) -> tuple[str, dict[str, Any]]:
    """The form and the secrets that the sign-in ended with. Blocks.

    folder: what is left of it. more: variables of the program; AUTHORITY is put in a file that
    /dev/shm/authority.pem names. does: is called after each look.

    Raises:
        AssertionError: it failed; with what was shown.
    """
    master, terminal = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    result = folder / "result"
    env = {
        **os.environ,
        "DOCKER_HOST": engine,
        "UAI_DATA_DIR": str(folder / "data"),
        "TERM": "xterm-256color",
        "MORE": json.dumps({"AUTHORITY": "", **more}),
    }
    argv = [sys.executable, "-c", _CODE, str(result), provider, *words]
    process = subprocess.Popen(
        argv, stdin=terminal, stdout=terminal, stderr=terminal, env=env, cwd=CHECKOUT, start_new_session=True
    )
    os.close(terminal)
    person, end = Person(master), time.monotonic() + PATIENCE
    try:
        while process.poll() is None and time.monotonic() < end and person.look():
            does(person)
        assert process.wait(timeout=30) == 0, person.shown
    finally:
        if process.poll() is None:
            # It removes its container.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        process.kill()
        process.wait()
        os.close(master)
    form, secrets = json.loads(result.read_text())
    return form, secrets
