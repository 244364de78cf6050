"""Which sockets a task and a run of git have, what they answer for, and when they are gone."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.api_forward import ApiForward
from uaihost.credentials.api_rules import Api
from uaihost.credentials.broker import TaskBroker
from uaihost.credentials.counter import Counter
from uaihost.credentials.sealing import Sealer
from uaihost.credentials.server_files import LOOK, ServerFiles, owners_files
from uaihost.credentials.ssh_agent import AgentFactory
from uaihost.credentials.ssh_keys import UserSshKeys
from uaihost.errors import HostError
from uaihost.paths import Folders
from uaihost.proofs import Grant, Reach
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.credentials.github_stub import Client, StubGitHub, StubTokens
from uaihost.test.credentials.ssh_model import ServerKey
from uaihost.test.support import short_folder

SHOP = "https://github.com/o/shop.git"


class Port:
    """A socket's file as the kernel makes it; nobody is accepted."""

    def __init__(self, path: Path, factory: Any, mode: int) -> None:
        self.path, self.factory, self.mode = path, factory, mode
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))

    def stopListening(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


class BrokerCase(TestCase):
    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.clock = Clock()
        self.tokens = StubTokens()
        self.ports: dict[Path, Port] = {}
        self.fail_at: str | None = None
        self.noted: list[dict[str, str]] = []
        self.home = self.folders.root / "home"
        sealer = Sealer(os.urandom(32))

        async def seal() -> Sealer:
            return sealer

        self.keys = UserSshKeys(self.clock, MemoryStore(), seal)
        self.broker = self.make()

    def make(self, **changed: Any) -> TaskBroker:
        forward = ApiForward(
            self.clock,
            Inline(),
            StubGitHub(),  # type: ignore[arg-type]
            self.tokens,
            Api("https://github.com", "https://api.github.com"),
        )
        servers = ServerFiles(self.clock, Inline(), owners_files(self.home, self.folders.mirrors))
        settings = ("http.sslCAInfo=/ca",)
        return TaskBroker(
            self.clock,
            Inline(),
            self.folders,
            self.tokens,
            self.keys,
            forward,
            servers,
            lambda **line: self.noted.append(line),
            **{
                "helper": Path("/opt/it's/credential.py"),
                "settings": settings,
                "listen": self.listen,
                **changed,
            },
        )

    def listen(self, path: Path, factory: Any, mode: int) -> Any:
        if path.name == self.fail_at:
            raise OSError(28, "No space left on device")
        self.ports[path] = Port(path, factory, mode)
        self.addCleanup(self.ports[path].stopListening)
        return self.ports[path]

    def done(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def open(self, *urls: str, user: str = "ada") -> Path:
        self.done(self.broker.open(Grant(user, "t1", urls or (SHOP,))))
        return self.folders.control("t1") / "broker"

    def answered(self, path: Path, repository: str = "o/shop") -> bytes:
        """What git is told on this socket."""
        counter = self.ports[path].factory
        assert isinstance(counter, Counter)
        client = Client(counter)
        asked = f"protocol=https\nhost=github.com\npath={repository}\n\n"
        client.ask("POST", "/credential/get", asked.encode())
        return client.said()[2]


class TaskTests(BrokerCase):
    def test_two_sockets_and_the_servers(self) -> None:
        folder = self.open()
        self.assertEqual({path.name for path in folder.iterdir()}, {"git.sock", "ssh.sock", "known_hosts"})
        self.assertEqual({port.mode for port in self.ports.values()}, {0o666})
        self.assertEqual(folder.stat().st_mode & 0o777, 0o755)
        self.assertEqual(self.folders.task("t1").stat().st_mode & 0o777, 0o700)
        self.assertIn("github.com ssh-ed25519 ", (folder / "known_hosts").read_text())
        self.assertIsInstance(self.ports[folder / "ssh.sock"].factory, AgentFactory)
        self.assertIn(b"password=ada-1", self.answered(folder / "git.sock"))
        self.assertEqual(self.noted[0]["task"], "t1")

    def test_again_is_a_new_grant_on_the_same_sockets(self) -> None:
        folder = self.open()
        before = dict(self.ports)
        self.open("https://github.com/o/new")
        self.assertEqual(self.ports, before)
        self.assertIn(b"not a repository", self.answered(folder / "git.sock"))
        self.assertIn(b"password=ada-1", self.answered(folder / "git.sock", "o/new"))

    def test_a_socket_that_somebody_removed_is_made_anew(self) -> None:
        folder = self.open()
        before = self.ports[folder / "git.sock"]
        (folder / "git.sock").unlink()
        self.open()
        self.assertIsNot(self.ports[folder / "git.sock"], before)
        self.assertTrue((folder / "git.sock").is_socket())

    def test_closed(self) -> None:
        folder = self.open()
        client = Client(self.ports[folder / "git.sock"].factory)
        self.assertEqual((self.broker.tasks_of("ada"), self.broker.user_of("t1")), (["t1"], "ada"))
        self.broker.close("t1")
        self.broker.close("t1")
        self.assertEqual([path.name for path in folder.iterdir()], ["known_hosts"])
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual((self.broker.tasks_of("ada"), self.broker.user_of("t1")), ([], None))

    def test_a_second_socket_that_cannot_be_made_takes_the_first_with_it(self) -> None:
        self.fail_at = "ssh.sock"
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.broker.open(Grant("ada", "t1", ()))), HostError
        )
        self.assertIn("No space left", failure.value.message)
        self.assertFalse((self.folders.control("t1") / "broker" / "git.sock").exists())

    def test_a_name_that_no_socket_can_have(self) -> None:
        self.folders = Folders(self.folders.root / ("x" * 100))
        self.broker = self.make()
        failure = self.failureResultOf(
            Deferred.fromCoroutine(self.broker.open(Grant("ada", "t1", ()))), HostError
        )
        self.assertIn("UAI_DATA_DIR", failure.value.message)

    def test_servers_that_the_owner_meets_later_are_told(self) -> None:
        folder = self.open("ssh://git@ghe.example/o/r")
        self.broker.start()
        self.addCleanup(self.broker.stop)
        line = f"ghe.example {ServerKey().line}"
        self.assertNotIn("ghe.example", (folder / "known_hosts").read_text())
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "known_hosts").write_text(line + "\n")
        self.clock.advance(LOOK)
        self.assertIn(line, (folder / "known_hosts").read_text())

    def test_variables_hold_no_secret_and_yield_to_the_tasks(self) -> None:
        found = self.broker.environment(("A",))
        self.assertEqual(found, {"GH_CONFIG_DIR": "/etc/gh", "GH_TOKEN": "of-the-host"})
        self.assertEqual(self.broker.environment(("GITHUB_TOKEN",)), {})
        enterprise = self.make(github="ghe.example:8443").environment(())
        self.assertEqual(enterprise["GH_HOST"], "ghe.example")
        self.assertEqual(set(enterprise.values()) & {"ada-1"}, set())


class ReachTests(BrokerCase):
    async def reached(self, url: str, user: str = "ada") -> Reach:
        async with self.broker.reach(user, url) as reach:
            self.inside = dict(self.ports)
            self.told = {path: self.answered(path) for path in self.inside if path.name == "git.sock"}
        return reach

    def left(self) -> list[Path]:
        folder = self.folders.run_of_git
        return list(folder.iterdir()) if folder.exists() else []

    def test_over_https(self) -> None:
        reach = self.done(self.reached(SHOP))
        (path,) = self.inside
        self.assertEqual(
            (path.name, self.inside[path].mode, reach.env), ("git.sock", 0o600, {"UAI_GIT_SOCKET": str(path)})
        )
        self.assertIn("credential.useHttpPath=true", reach.settings)
        self.assertIn("http.sslCAInfo=/ca", reach.settings)
        (helper,) = [one for one in reach.settings if one.startswith("credential.helper=!")]
        self.assertIn("""'/opt/it'"'"'s/credential.py'""", helper)
        self.assertIn(b"password=ada-1", self.told[path])
        self.assertEqual(self.noted[0]["task"], "")
        self.assertEqual(self.left(), [])

    def test_for_the_one_repository(self) -> None:
        self.done(self.reached("https://github.com/o/other"))
        self.assertIn(b"not a repository", *self.told.values())

    def test_over_ssh_with_a_key(self) -> None:
        for url in ("ssh://git@github.com/o/shop", "git@github.com:o/shop.git"):
            self.ports.clear()
            self.assertEqual(self.done(self.reached(url)), Reach())
            self.done(self.keys.ensure("ada"))
            reach = self.done(self.reached(url))
            (path,) = self.inside
            self.assertEqual((path.name, reach), ("ssh.sock", Reach((), {"SSH_AUTH_SOCK": str(path)})))
            self.done(self.keys.delete("ada"))
        self.assertEqual(self.left(), [])

    def test_what_helps_nobody(self) -> None:
        for url in (
            "/srv/repositories/shop",
            "file:///srv/shop",
            "http://github.com/o/shop",
            "ext::sh -c true",
        ):
            self.assertEqual(self.done(self.reached(url)), Reach(), url)
        self.assertEqual(self.done(self.reached(SHOP, "eve")), Reach(("http.sslCAInfo=/ca",)))
        self.assertEqual(self.ports, {})

    def test_a_run_that_fails(self) -> None:
        async def run() -> None:
            async with self.broker.reach("ada", SHOP):
                raise ValueError("git failed")

        self.failureResultOf(Deferred.fromCoroutine(run()), ValueError)
        self.assertEqual(self.left(), [])
