"""A process that is killed while it rotates the key, at whatever it does to files: nothing is lost.

And what a host does whose key is another one, or gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.cli.local import run_now
from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.keys import Keys
from uaihost.credentials.sealing import Sealer
from uaihost.offline import with_database
from uaihost.paths import Folders
from uaihost.state import sealed
from uaihost.state.database import Database
from uaihost.test.support import short_folder

# Rows of each table: rotation takes pages of the database, not one.
ROWS = 40
# The nth argument is the step at which it is killed; none, it prints how many there are.
CHILD = """
import os, signal, sys
from uaihost.cli.main import cli
kill, steps, beginning = int(sys.argv[1]), 0, sys.argv[2]
def step(event, words):
    global steps
    if event in ("open", "os.link", "os.rename", "os.remove", "sqlite3.connect"):
        if isinstance(words[0], (str, bytes)) and os.fsdecode(words[0]).startswith(beginning):
            steps += 1
            if steps == kill:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(step)
try:
    cli(["secrets", "rotate"])
except SystemExit as ended:
    print(steps)
    sys.exit(ended.code)
"""


class KilledTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.secrets: dict[str, bytes] = {}
        self.key = os.urandom(32)
        FileSource(self.folders.secrets_key).write(self.key)
        self.on_database(self.fill)

    def on_database(self, work: Any) -> Any:
        async def run(database: Database) -> Any:
            return await database.run(work)

        return run_now(with_database(self.folders, run))

    def fill(self, db: Any) -> None:
        sealer = Sealer(self.key)
        for number in range(ROWS):
            user, mark = f"u{number}", f"secret-{number}-".encode() * 40
            self.secrets |= {f"github/{user}": b"g" + mark, f"ssh/{user}": b"s" + mark}
            db.execute(
                "INSERT INTO github_connections (user_id, form, login, host, secret, generation, at) "
                "VALUES (?, 'token', 'me', 'github.com', ?, 1, 1)",
                (user, sealer.seal(f"github/{user}", b"g" + mark)),
            )
            db.execute(
                "INSERT INTO ssh_keys (user_id, public, secret, at) VALUES (?, x'00', ?, 1)",
                (user, sealer.seal(f"ssh/{user}", b"s" + mark)),
            )

    def rotate(self, kill: int) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "UAI_DATA_DIR": str(self.folders.root), "UAI_SECRETS_KEY": "file"}
        argv = [sys.executable, "-c", CHILD, str(kill), str(self.folders.root)]
        return subprocess.run(
            argv,
            env=env,
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """As a start of the host has it: it ends a rotation that was begun."""

        async def look(database: Database) -> dict[str, Any]:
            return await Keys(Inline(), database, lambda: FileSource(self.folders.secrets_key)).status()

        return run_now(with_database(self.folders, look))

    def opened(self) -> dict[str, bytes]:
        key, old = FileSource(self.folders.secrets_key).read()
        assert key is not None
        self.assertIsNone(old)
        sealer = Sealer(key)
        rows: list[tuple[str, bytes]] = self.on_database(sealed.secrets)
        return {place: sealer.open(place, secret) for place, secret in rows}

    def test_at_every_step_the_next_start_opens_everything(self) -> None:
        whole = self.rotate(0)
        self.assertEqual(whole.returncode, 0, whole.stderr)
        steps = int(whole.stdout.split()[-1])
        self.assertGreater(steps, 10)
        keys = {FileSource(self.folders.secrets_key).read()[0]}
        for kill in range(1, steps + 1):
            done = self.rotate(kill)
            self.assertEqual(done.returncode, -signal.SIGKILL, f"step {kill}: {done.stderr}")
            status = self.status()
            self.assertEqual((status["sealed"], status["others"]), (2 * ROWS, 0), f"step {kill}: {status}")
            self.assertEqual(self.opened(), self.secrets, f"step {kill}")
            keys.add(FileSource(self.folders.secrets_key).read()[0])
        self.assertGreater(len(keys), 2, "some were killed after the new key was in force")

    def test_a_copied_database_gives_nothing(self) -> None:
        self.assertEqual(self.rotate(0).returncode, 0)
        key, _ = FileSource(self.folders.secrets_key).read()
        assert key is not None
        kept = (self.key, key, self.key.hex().encode(), key.hex().encode(), b"secret-")
        for path in self.folders.root.rglob("*"):
            if path.is_file() and path != self.folders.secrets_key:
                data = path.read_bytes()
                for secret in kept:
                    self.assertNotIn(secret, data, path)
        self.folders.secrets_key.unlink()
        status = self.status()
        self.assertEqual((status["sealed"], status["others"]), (0, 2 * ROWS))
        self.assertFalse(self.folders.secrets_key.exists(), "nobody makes another key behind them")
        # Put back from a backup, all is as it was.
        FileSource(self.folders.secrets_key).write(key)
        self.assertEqual(self.status()["sealed"], 2 * ROWS)
        self.assertEqual(self.opened(), self.secrets)
