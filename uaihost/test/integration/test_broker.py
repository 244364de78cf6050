"""Real git and real gh in real containers, at a forge that tells who may do what by the token."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import attrs
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.images import owner
from uaihost.credentials import audit, github
from uaihost.credentials.proving import Proofs
from uaihost.credentials.sealing import Sealer
from uaihost.interfaces import Launch, Mount, Ran
from uaihost.paths import Folders
from uaihost.proofs import Grant
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.integration.engine import CHECKOUT, real_engine, standard_image
from uaihost.test.integration.forge import Forge
from uaihost.test.integration.github_api import CLIENT_ID, CLIENT_SECRET
from uaihost.test.support import short_folder

reactor: Any = default_reactor

CA = "/run/uai/ca.pem"


@attrs.frozen
class _Settings:
    ca_file: Path | None
    github_url: str
    github_api_url: str
    github_client_id: str | None = CLIENT_ID
    github_client_secret: str | None = CLIENT_SECRET


class BrokerCase(TestCase):
    """Two users, ada and eve, each with a task: ada's has o/shop, eve's o/eve. o/other is ada's as well."""

    timeout = 120
    # The GitHub of the settings, when it is not the forge's own address.
    github = ""

    async def setUp(self) -> None:  # type: ignore[override]
        self.root = short_folder(self)
        self.root.chmod(0o755)
        self.forge = Forge(self, self.root)
        self.shop = self.forge.repository("o/shop", "ada")
        self.other = self.forge.repository("o/other", "ada")
        self.eve = self.forge.repository("o/eve", "eve")
        self.folders = Folders(self.root / "data")
        self.threads = Threads(reactor, "test-files", 4)
        self.addCleanup(self.threads.stop)
        self.sealer = Sealer(os.urandom(32))
        self.store = MemoryStore()
        self.notes: list[tuple[str, str]] = []
        self.proofs = await self.host()
        self.image = await standard_image(self)
        self.engine = await real_engine(self)

    async def host(self) -> Proofs:
        """As a daemon makes it, over the same rows."""

        async def sealer() -> Sealer:
            return self.sealer

        settings = _Settings(self.forge.ca_file, self.github or self.forge.url, self.forge.api_url)
        proofs = Proofs(
            reactor,
            Random(1).random,
            self.threads,
            self.threads,
            self.store,
            sealer,
            self.folders,
            settings,
            CHECKOUT / "uaihost" / "shim",
            lambda task, line: self.notes.append((task, line)),
        )
        await proofs.start()
        self.addCleanup(proofs.stop)
        return proofs

    async def connect(self, user: str) -> None:
        await self.proofs.tokens.connect(user, user, self.forge.model.connect(user), None)

    async def task(self, task_id: str, user: str, *urls: str) -> None:
        uid, gid = owner()
        places = {"run": "/run/uai", "work": "/workspace", "home": "/home/dev", "scratch": "/tmp"}
        for name in (*places, "control"):
            folder = self.folders.task(task_id) / name
            folder.mkdir(parents=True)
            os.chown(folder, uid, gid)
        (self.folders.run(task_id) / "ca.pem").write_bytes(self.forge.ca_file.read_bytes())
        await self.proofs.broker.open(Grant(user, task_id, urls))
        mounts = [Mount(str(self.folders.task(task_id) / name), to) for name, to in places.items()]
        mounts.append(Mount(str(self.folders.control(task_id)), "/run/host", read_only=True))
        env = {**self.proofs.broker.environment(()), "GIT_SSL_CAINFO": CA, "GIT_TERMINAL_PROMPT": "0"}
        env |= _NAMES
        launch = Launch(task_id, self.image, uid, gid, tuple(mounts), (), env, network="none", read_only=True)
        await self.engine.launch(launch)
        await self.reach_forge(task_id)

    async def reach_forge(self, task_id: str) -> None:
        """By its own address, in a container without a network: what filters there are plays no part."""
        port = urlsplit(self.forge.url).port or 443
        path = self.folders.run(task_id) / "forge.sock"
        listening = reactor.listenUNIX(str(path), ProxyFactory("127.0.0.1", port), mode=0o666)
        self.addCleanup(listening.stopListening)
        (self.folders.run(task_id) / "relay.py").write_text(RELAY)
        await self.prints(
            f"setsid python3 /run/uai/relay.py {port} >/dev/null 2>&1 & "
            f"until curl -s --cacert {CA} {self.forge.url}/ >/dev/null; do sleep 0.05; done",
            task_id,
        )

    async def sh(self, text: str, task: str = "t1") -> Ran:
        return await self.engine.execute(task, ["bash", "-c", text], cwd="/workspace")

    async def prints(self, text: str, task: str = "t1") -> str:
        ran = await self.sh(text, task)
        self.assertEqual(ran.status, 0, f"{text}: {ran.err.decode()}{ran.out.decode()}")
        return ran.out.decode()

    async def refused(self, text: str, task: str = "t1") -> str:
        """What it says when it fails."""
        ran = await self.sh(text, task)
        self.assertNotEqual(ran.status, 0, f"{text}: {ran.out.decode()}")
        return ran.err.decode() + ran.out.decode()

    async def audit(self, task: str = "t1") -> list[dict[str, Any]]:
        await self.proofs.audit.written()
        return list(audit.read(self.folders.audit, task))


class GitTests(BrokerCase):
    async def test_a_day_with_git(self) -> None:
        await self.connect("ada")
        await self.task("t1", "ada", self.shop)
        await self.prints(f"git clone -q {self.shop} shop && cat shop/README")
        await self.prints("cd shop && git checkout -qb topic && git commit -qm two --allow-empty")
        await self.prints("cd shop && git push -q origin topic && git fetch -q")
        self.assertEqual(sorted(self.forge.branches("o/shop")), ["main", "topic"])
        tokens = {token for token, _, _ in self.forge.seen}
        self.assertEqual(tokens, {await self.proofs.tokens.access("ada")})
        lines = await self.audit()
        self.assertEqual({line["outcome"] for line in lines}, {"ok"})
        self.assertEqual(
            {(line["user"], line["what"], line["path"]) for line in lines}, {("ada", "git", "o/shop.git")}
        )
        await self.searched(next(iter(tokens)))
        said = await self.refused(f"git clone -q {self.other}")
        self.assertIn("o/other.git is not a repository of this task", said)
        await self.refused(f"git clone -q {self.eve}")
        self.assertEqual({path.split("/")[2] for _, _, path in self.forge.seen}, {"shop.git"})

    async def searched(self, token: str) -> None:
        """The token lies nowhere in the container; one that is planted in each kind of place is found."""
        planted = "ghu_" + "planted".ljust(36, "0")
        await self.prints(
            f"echo {planted} > ~/file; git -C shop config x.y {planted}; "
            f"(export IT={planted}; setsid sleep 90 >/dev/null 2>&1 &); "
            f"setsid bash -c 'sleep 90; :' {planted} >/dev/null 2>&1 &"
        )
        places = {"/home/dev/file", "/workspace/shop/.git/config", "environ of sleep", "cmdline of bash"}
        self.assertEqual(await self.found(planted), places)
        self.assertEqual(await self.found(token), set())

    async def found(self, needle: str) -> set[str]:
        ran = await self.engine.execute("t1", ["python3", "-c", _SEARCH, needle[::-1]], cwd="/")
        self.assertEqual(ran.status, 0, ran.err.decode())
        return set(json.loads(ran.out))

    async def test_a_token_that_ends_in_the_midst(self) -> None:
        await self.connect("ada")
        await self.task("t1", "ada", self.shop)
        await self.prints(f"git clone -q {self.shop} shop")
        # As if the exchange was not a moment ago.
        self.patch(github, "FRESH", 0.0)
        before = await self.proofs.tokens.access("ada")
        del self.forge.model.accesses[before]
        said = await self.refused("cd shop && git fetch")
        self.assertIn("Authentication failed", said)
        await self.prints("cd shop && git fetch -q")
        after = self.forge.seen[-1][0]
        self.assertNotEqual(before, after)
        self.assertEqual(self.forge.model.exchanges, 2)

    async def test_who_is_not_connected_gets_a_reason(self) -> None:
        await self.task("t1", "ada", self.shop)
        self.assertIn("not connected to GitHub", await self.refused(f"git clone {self.shop}"))
        self.assertEqual(self.forge.seen, [])
        await self.connect("ada")
        await self.prints(f"git clone -q {self.shop}")

    async def test_tasks_of_two_users_at_once(self) -> None:
        await gatherResults([ensureDeferred(self.connect(user)) for user in ("ada", "eve")])
        await self.task("t1", "ada", self.shop)
        await self.task("t2", "eve", self.eve)
        await self.prints(f"git clone -q {self.shop}")
        await self.prints(f"git clone -q {self.eve}", "t2")
        self.assertIn("is not a repository of this task", await self.refused(f"git clone {self.shop}", "t2"))
        whose = {(self.forge.model.accesses[token], path.split("/")[2]) for token, _, path in self.forge.seen}
        self.assertEqual(whose, {("ada", "shop.git"), ("eve", "eve.git")})

    async def test_a_daemon_that_starts_again(self) -> None:
        await self.connect("ada")
        await self.task("t1", "ada", self.shop)
        await self.proofs.stop()
        self.assertIn("could not read Username", await self.refused(f"git clone -q {self.shop} gone"))
        self.proofs = await self.host()
        await self.proofs.broker.open(Grant("ada", "t1", (self.shop,)))
        await self.prints(f"git clone -q {self.shop}")
        self.proofs.broker.close("t1")
        await self.refused(f"git clone -q {self.shop} again")

    async def test_names_that_mean_others(self) -> None:
        await self.connect("ada")
        await self.task("t1", "ada", self.shop)
        host = self.forge.url.removeprefix("https://")
        for protocol, at, path in (
            ("http", host, "o/shop.git"),
            ("https", "github.com", "o/shop.git"),
            ("https", f"{host}.evil.example", "o/shop.git"),
            ("https", f"x@{host}", "o/shop.git"),
            ("https", host, "o/other.git"),
            ("https", host, "o/shop.git/../other.git"),
            ("https", host, "o/shop%2f..%2fother"),
            ("https", host, "o%2Fshop"),
            ("https", host, ""),
        ):
            asked = f"protocol={protocol}\\nhost={at}\\npath={path}\\n\\n"
            answer = await self.prints(f"printf '{asked}' | python3 -I /opt/uai/credential.py get")
            self.assertEqual(answer, "", asked)
        for path in ("o/shop", "O/Shop.git", "o/shop.git/info/lfs"):
            asked = f"protocol=https\\nhost={host}\\npath={path}\\n\\n"
            answer = await self.prints(f"printf '{asked}' | python3 -I /opt/uai/credential.py get")
            self.assertIn("username=x-access-token\npassword=ghu_", answer)


class HostTests(BrokerCase):
    """The host's own git."""

    async def git(self, url: str, into: str, user: str = "ada") -> Ran:
        async with self.proofs.broker.reach(user, url) as reach:
            words = [word for setting in reach.settings for word in ("-c", setting)]
            env = {"PATH": os.environ["PATH"], "GIT_TERMINAL_PROMPT": "0", **reach.env}
            self.assertNotIn("ghu_", json.dumps([words, env]))
            out, err, status = await getProcessOutputAndValue(
                "git", [*words, "clone", "-q", url, str(self.root / into)], env, reactor=reactor
            )
            return Ran(status, out, err)

    async def test_a_clone_for_its_owner(self) -> None:
        await self.connect("ada")
        self.assertEqual((await self.git(self.shop, "one")).status, 0)
        self.assertNotIn("ghu_", (self.root / "one" / ".git" / "config").read_text())
        self.assertNotEqual((await self.git(self.shop, "two", "eve")).status, 0)
        self.assertNotEqual((await self.git(self.eve, "three")).status, 0)
        self.assertEqual([path.name for path in self.folders.run_of_git.iterdir()], ["authorities.pem"])


class FloodTests(BrokerCase):
    async def test_one_task_does_not_keep_others_waiting(self) -> None:
        await self.connect("ada")
        for task_id in ("t1", "t2"):
            await self.proofs.broker.open(Grant("ada", task_id, (self.shop,)))
        over = threading.Event()
        heavy = json.dumps({"query": "{ viewer { " + "id " * 2000 + "nothing } }"}).encode()
        flood = [deferToThread(self.flood, heavy, over) for _ in range(8)]
        helper = CHECKOUT / "uaihost" / "shim" / "credential.py"
        socket_path = self.folders.control("t2") / "broker" / "git.sock"
        asked = f"protocol=https\nhost={urlsplit(self.forge.url).netloc}\npath=o/shop.git\n\n"
        took = []
        for _ in range(10):
            begun = time.monotonic()
            answered = await deferToThread(
                subprocess.run,
                [sys.executable, "-I", str(helper), "get"],
                input=asked.encode(),
                env={"UAI_GIT_SOCKET": str(socket_path)},
                capture_output=True,
                check=True,
            )
            took.append(time.monotonic() - begun)
            self.assertIn(b"password=ghu_", answered.stdout)
        over.set()
        refused = sum(await gatherResults(flood))
        self.assertGreater(refused, 30)
        # Starting the helper is most of it.
        self.assertLess(sorted(took)[5], 1.5, took)
        self.assertEqual({line["outcome"] for line in await self.audit("t2")}, {"ok"})

    def flood(self, body: bytes, over: threading.Event) -> int:
        """How many of t1's requests, which are long to read, were read and refused."""
        refused = 0
        path = str(self.folders.control("t1") / "broker" / "git.sock")
        head = (
            f"POST /api/graphql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )
        while not over.is_set():
            with socket.socket(socket.AF_UNIX) as near:
                near.connect(path)
                near.sendall(head + body)
                refused += b" 403 " in near.recv(65536)
        return refused


_NAMES = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
RELAY = """
import socket, sys, threading
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    near, _ = listening.accept()
    far = socket.socket(socket.AF_UNIX)
    far.connect("/run/uai/forge.sock")
    for pair in ((near, far), (far, near)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""
# Where a text lies; it comes backwards, so that the search does not find itself.
_SEARCH = """
import json, os, sys
needle = sys.argv[1][::-1].encode()
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try:
            comm = open(f"/proc/{pid}/comm").read().strip()
            if needle in open(f"/proc/{pid}/{name}", "rb").read():
                found.append(f"{name} of {comm}")
        except OSError:
            pass
for top in ("/workspace", "/home", "/tmp", "/run", "/etc", "/var", "/opt/uai", "/dev/shm"):
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                if os.path.isfile(path) and needle in open(path, "rb").read():
                    found.append(path)
            except OSError:
                pass
print(json.dumps(found))
"""
