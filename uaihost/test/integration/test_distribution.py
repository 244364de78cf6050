"""What pip installs: the wheel of the source distribution, in an environment apart from the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost import __version__
from uaihost.cli.client import BridgeClient, wait_for
from uaihost.test.integration.engine import CHECKOUT
from uaihost.test.integration.processes import free_port

LIMIT = 300
# Says where the data files are found, and that what is made of them is there.
PLACES = """
from pathlib import Path
import uaihost.bridge, uaihost.shim, uaihost.web
from uaihost.paths import data_files, public_forges
print(data_files("migrations"), data_files("images"), public_forges().stat().st_size > 0)
for room in (uaihost.bridge, uaihost.web):
    print(len(list((Path(room.__file__).parent / "static").glob("*.js"))))
print((Path(uaihost.shim.__file__).parent / "init.py").is_file(), uaihost.bridge.__file__)
"""
WHEEL = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


class DistributionTests(TestCase):
    timeout = 600

    async def test_the_wheel_works_where_pip_puts_it(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="uai-wheel-"))
        self.addCleanup(deferToThread, shutil.rmtree, self.folder)
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        for name in ("SSL_CERT_FILE", "PIP_CERT", "PIP_FIND_LINKS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        await deferToThread(self.live)

    def live(self) -> None:
        wheel = self.made()
        self.bin = self.folder / "venv" / "bin"
        self.run_words(sys.executable, "-m", "venv", str(self.folder / "venv"))
        pip = [str(self.bin / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        wheels = ["--find-links", str(CHECKOUT / ".cache" / "wheels")]
        self.run_words(
            *pip, *wheels, "--require-hashes", "-r", str(CHECKOUT / "requirements" / "runtime.txt")
        )
        self.run_words(*pip, "--no-deps", "--no-index", str(wheel))
        self.assertIn("--cloud-url", self.run_words(str(self.bin / "twistd"), "uaihost", "--help"))
        self.assertIn(__version__, self.run_words(str(self.bin / "uaihost"), "--version"))
        places = self.run_words(str(self.bin / "python"), "-c", PLACES).split()
        share = self.folder / "venv" / "share" / "uaihost"
        self.assertEqual(places[:3], [str(share / "migrations"), str(share / "images"), "True"])
        for room, count in zip(("bridge", "web"), places[3:5], strict=True):
            self.assertEqual(int(count), len(list((CHECKOUT / "uaihost" / room / "static").glob("*.js"))))
        self.assertEqual(places[5], "True")
        self.assertTrue(places[6].startswith(str(self.folder)))
        self.serves()

    def made(self) -> Path:
        """The wheel; the checkout itself gives the same bytes as the source distribution."""
        env = {**os.environ, "PYTHON": sys.executable}
        said = subprocess.run(
            [str(CHECKOUT / "scripts" / "dist"), str(self.folder / "dist")],
            env=env,
            check=True,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        ).stdout.split()
        wheel, archive = (Path(line) for line in sorted(said, key=lambda line: line.endswith(".gz")))
        self.assertTrue(archive.is_file())
        again = self.folder / "again"
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            (again / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, again / name)
        signed = (CHECKOUT / "debian" / "changelog").read_text().partition(">  ")[2].splitlines()[0]
        env["SOURCE_DATE_EPOCH"] = str(int(parsedate_to_datetime(signed).timestamp()))
        words = [sys.executable, "-c", WHEEL, "out"]
        subprocess.run(words, cwd=again, env=env, check=True, capture_output=True, timeout=LIMIT)
        self.assertEqual((again / "out" / wheel.name).read_bytes(), wheel.read_bytes())
        return wheel

    def serves(self) -> None:
        """A host of this environment reaches a bridge of it."""
        port = free_port()
        env = {
            **self.env,
            "UAI_HOST_TOKEN": "token-of-the-wheel",
            "UAI_HOST_BRIDGE_PORT": str(port),
            "UAI_HOST_UI_PORT": str(free_port()),
            "DOCKER_HOST": f"unix://{self.folder}/no-engine.sock",
        }
        for name in ("uaibridge", "uaihost"):
            data = self.folder / name
            words = [str(self.bin / "twistd"), "--nodaemon", "--pidfile=", name, "--data-dir", str(data)]
            log = (self.folder / f"{name}.log").open("wb")
            process = subprocess.Popen(words, cwd=self.folder, env=env, stdout=log, stderr=log)
            log.close()
            self.addCleanup(process.wait, 30)
            self.addCleanup(process.terminate)
        key = self.folder / "uaibridge" / "bridge.key"
        wait_for("the bridge's key", lambda: key.exists() or None, 30)
        client = BridgeClient(port, key.read_text().strip())
        wait_for("the bridge", lambda: client.alive() or None, 30)
        hosts = wait_for("the host", lambda: client.call("GET", "/api/state")["hosts"] or None, 30)
        self.assertTrue(hosts[0]["connected"], (self.folder / "uaihost.log").read_text())

    def run_words(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=LIMIT
        )
        self.assertEqual(done.returncode, 0, f"{words}: {done.stdout}{done.stderr}")
        return done.stdout
