"""A container without a network, the proxy its only way out: what passes, what does not, what it says."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.containers.images import owner
from uaihost.egress.egress import Egress
from uaihost.egress.names import Destination
from uaihost.egress.policy import Policy
from uaihost.interfaces import Engine, Launch, Mount, Ran
from uaihost.paths import Folders
from uaihost.test.egress.wires import Names
from uaihost.test.integration.engine import real_engine, task_image
from uaihost.test.integration.node import node_folder
from uaihost.test.integration.outside import Outside
from uaihost.test.support import short_folder

reactor: Any = default_reactor

TASK = "t1"
NODE = "/opt/node"
NPM = [f"{NODE}/bin/node", f"{NODE}/lib/node_modules/npm/bin/npm-cli.js", "--no-audit", "--no-fund"]
CONNECT = ["python3", "/opt/uai/connect.py"]

FETCH = """
import sys, urllib.request
body = sys.argv[2].encode() if len(sys.argv) > 2 else None
print(urllib.request.urlopen(sys.argv[1], body, timeout=20).read().decode())
"""

# Everything by which a program could get out without the proxy. Prints what it reached.
AROUND = """
import json, socket
reached = []
for host in ("8.8.8.8", "169.254.169.254", "172.17.0.1", "10.213.0.1", "2001:4860:4860::8888"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        probe.settimeout(3)
        try:
            probe.connect((host, 53))
            reached.append(host)
        except OSError:
            pass
for name in ("git.corp.test", "example.org"):
    try:
        socket.getaddrinfo(name, 443)
        reached.append(name)
    except OSError:
        pass
print(json.dumps({"reached": reached, "interfaces": [name for _, name in socket.if_nameindex()]}))
"""


class EgressTests(TestCase):
    timeout = 180

    # trial waits for coroutines here too; its types do not say so.
    async def setUp(self) -> None:  # type: ignore[override]
        self.folders = Folders(short_folder(self))
        files, keys = self.folders.root / "files", self.folders.root / "keys"
        files.mkdir()
        keys.mkdir()
        self.files = files
        self.outside = Outside(self, files, keys, "git.corp.test", "packages.corp.test")
        self.names = Names(
            git_corp_test=["127.0.0.1"],
            packages_corp_test=["127.0.0.1"],
            metadata_corp_test=["169.254.169.254"],
            inside_corp_test=["10.0.0.7", "::ffff:172.17.0.1"],
        )
        self.blocked: list[tuple[str, Destination, str]] = []
        self.engine: Engine = await real_engine(self)
        self.egress = await self.open()
        (files / "hello").write_text("hello from outside", encoding="ascii")
        await self.start()

    async def open(self, mode: str = "deny") -> Egress:
        """A daemon's way out for the task."""
        outside = self.outside
        allow = ["*.corp.test", *(f"127.0.0.1:{port}" for port in (outside.https_port, outside.http_port))]
        egress = Egress(
            reactor,
            self.folders,
            Policy(mode, [*allow, f"127.0.0.1:{outside.echo_port}"]),
            lambda *what: self.blocked.append(what),
            resolver=self.names,
        )
        self.addCleanup(egress.stop)
        await egress.open(TASK)
        return egress

    async def start(self) -> None:
        """The task's container, as the daemon starts it."""
        uid, gid = owner()
        control = self.folders.control(TASK)
        (control / "go").touch()
        shutil.copy(self.outside.ca, control / "ca.pem")
        folders = (self.folders.home(TASK), self.folders.scratch(TASK), self.folders.run(TASK))
        for folder in folders:
            folder.mkdir()
            os.chown(folder, uid, gid)
        node = node_folder()
        assert node is not None, "the tests' packages hold Node"
        mounts = [
            Mount(str(folder), target)
            for folder, target in zip(folders, ("/home/dev", "/tmp", "/run/uai"), strict=True)
        ]
        mounts += [Mount(str(control), "/run/host", read_only=True), Mount(str(node), NODE, read_only=True)]
        environment = self.egress.environment() | {
            "GIT_SSL_CAINFO": "/run/host/ca.pem",
            "SSL_CERT_FILE": "/run/host/ca.pem",
            "NODE_EXTRA_CA_CERTS": "/run/host/ca.pem",
        }
        launch = Launch(
            TASK,
            await task_image(self),
            uid,
            gid,
            tuple(mounts),
            (),
            environment,
            network=self.egress.network,
            read_only=True,
        )
        await self.engine.launch(launch)
        for _ in range(100):
            ran = await self.run_in(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/3128"])
            if ran.status == 0:
                return
            await deferLater(reactor, 0.1)
        self.fail(await self.engine.log_tail(TASK, 50))

    async def run_in(self, argv: list[str]) -> Ran:
        return await self.engine.execute(TASK, argv, cwd="/tmp")

    async def good(self, *argv: str) -> str:
        ran = await self.run_in(list(argv))
        self.assertEqual(ran.status, 0, ran.err.decode(errors="replace"))
        return ran.out.decode()

    async def bad(self, *argv: str) -> str:
        ran = await self.run_in(list(argv))
        self.assertNotEqual(ran.status, 0, ran.out.decode(errors="replace"))
        return (ran.out + ran.err).decode(errors="replace")

    def url(self, name: str, path: str, scheme: str = "https") -> str:
        port = self.outside.https_port if scheme == "https" else self.outside.http_port
        return f"{scheme}://{name}.corp.test:{port}/{path}"

    async def test_python(self) -> None:
        for scheme in ("http", "https"):
            url = self.url("git", "hello", scheme)
            self.assertEqual((await self.good("python3", "-c", FETCH, url)).strip(), "hello from outside")
            self.assertEqual((await self.good("python3", "-c", FETCH, url, "abc")).strip(), "cba")
        self.assertEqual(self.blocked, [])
        self.assertEqual(self.egress.traffic.allowed, 4)

    async def test_git(self) -> None:
        make_repository(self.files / "web.git")
        for scheme in ("http", "https"):
            await self.good("git", "clone", "-q", self.url("git", "web.git", scheme), f"/tmp/{scheme}")
            self.assertEqual(await self.good("cat", f"/tmp/{scheme}/README"), "of the repository\n")
        said = await self.bad("git", "clone", "https://elsewhere.test/web.git", "/tmp/no")
        self.assertIn("403", said)
        self.assertEqual([to for _, to, _ in self.blocked], [Destination("elsewhere.test", 443)])

    async def test_npm(self) -> None:
        make_package(self.files, self.url("packages", "greet-1.0.0.tgz"))
        registry = f"--registry={self.url('packages', '')}"
        await self.good(*NPM, "install", "--prefix", "/tmp/app", registry, "greet")
        self.assertEqual(
            await self.good(f"{NODE}/bin/node", "-p", "require('/tmp/app/node_modules/greet')"), "hi\n"
        )
        fetch = f"fetch({json.dumps(self.url('packages', 'hello'))}).then(r => r.text()).then(console.log)"
        self.assertEqual(await self.good(f"{NODE}/bin/node", "-e", fetch), "hello from outside\n")
        said = await self.bad(
            *NPM, "install", "--fetch-retries=0", "--registry=http://elsewhere.test/", "other"
        )
        self.assertIn("403", said)
        self.assertEqual(self.blocked[0][1], Destination("elsewhere.test", 80))

    async def test_ssh(self) -> None:
        port = str(self.outside.echo_port)
        words = " ".join([*CONNECT, "git.corp.test", port])
        self.assertEqual(await self.good("sh", "-c", f"printf hello | {words}"), "ready\nHELLO")
        said = await self.bad(*CONNECT, "elsewhere.test", "22")
        self.assertIn("elsewhere.test:22 is blocked: the egress policy `deny` does not list it", said)
        self.assertIn("UAI_EGRESS_ALLOW", said)

    async def test_what_leads_inside_is_refused_and_reported(self) -> None:
        for name, port in (("metadata", 80), ("inside", 80), ("git", 1)):
            said = await self.bad("python3", "-c", FETCH, f"http://{name}.corp.test:{port}/")
            self.assertIn("403: Blocked by the egress policy", said)
        for address in ("169.254.169.254", "2852039166", "::ffff:a9fe:a9fe", "127.0.0.1"):
            said = await self.bad(*CONNECT, address, "22")
            self.assertIn("is not" if address != "127.0.0.1" else "blocked", said)
        # Three of them are one destination in as many spellings.
        self.assertEqual(
            [to for _, to, _ in self.blocked],
            [
                Destination("metadata.corp.test", 80),
                Destination("inside.corp.test", 80),
                Destination("git.corp.test", 1),
                Destination("169.254.169.254", 22),
                Destination("127.0.0.1", 22),
            ],
        )
        self.assertEqual({task for task, _, _ in self.blocked}, {TASK})
        self.assertIn("its address 169.254.169.254, which is not public", self.blocked[0][2])
        self.assertEqual(self.egress.traffic.blocked, 7)
        self.assertEqual(self.outside.asked, [])

    async def test_nothing_goes_around_the_proxy(self) -> None:
        found = json.loads(await self.good("python3", "-c", AROUND))
        self.assertEqual(found, {"reached": [], "interfaces": ["lo"]})
        for words in ("rm -f /run/host/egress.sock", "touch /run/host/x", "mv /run/host/go /tmp"):
            await self.bad("sh", "-c", words)

    async def test_the_daemon_starts_again(self) -> None:
        url = self.url("git", "hello")
        await self.good("python3", "-c", FETCH, url)
        self.egress.stop()
        await self.bad("python3", "-c", FETCH, url)
        # As after a kill: a name that nobody listens at.
        self.egress = await self.open()
        self.assertEqual((await self.good("python3", "-c", FETCH, url)).strip(), "hello from outside")

    async def test_a_task_is_cut_off(self) -> None:
        self.egress.close(TASK)
        await self.bad("python3", "-c", FETCH, self.url("git", "hello"))
        self.assertEqual((self.outside.asked, self.egress.connections), ([], 0))


def make_repository(folder: Path) -> None:
    """A bare repository that a server of plain files can offer."""
    work = folder.with_suffix(".work")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    (work / "README").write_text("of the repository\n", encoding="ascii")
    subprocess.run(["git", "-C", str(work), "add", "."], check=True)
    subprocess.run(["git", "-C", str(work), *identity, "commit", "-q", "-m", "First"], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "update-server-info"], check=True)


def make_package(folder: Path, tarball: str) -> None:
    """A registry of one package, `greet`, in plain files."""
    manifest = {"name": "greet", "version": "1.0.0", "main": "index.js"}
    with tarfile.open(folder / "greet-1.0.0.tgz", "w:gz") as archive:
        for name, content in (("package.json", json.dumps(manifest)), ("index.js", "module.exports = 'hi'")):
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    version = manifest | {"dist": {"tarball": tarball}}
    packument = {"name": "greet", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (folder / "greet").write_text(json.dumps(packument), encoding="ascii")
