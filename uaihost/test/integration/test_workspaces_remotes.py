"""Repositories on real servers: OpenSSH and HTTPS, what they refuse, and what is done when none answers."""

from __future__ import annotations

from pathlib import Path

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.test.integration.git_rig import ANN, GitServer, WorkspacesCase, commit, git
from uaihost.test.integration.git_servers import SshAgent, SshServer, secured
from uaihost.wire.reasons import Reason


class RemoteCase(WorkspacesCase):
    async def clone(self, url: str) -> str:
        found: dict[str, str] = await self.workspaces.clone(url, "p1", self.lines.append)
        return found["head"]

    async def refused(self, url: str) -> str:
        with self.assertRaises(HostError) as caught:
            await self.clone(url)
        self.assertEqual(caught.exception.code, ErrorCode.CLONE_FAILED)
        return str(caught.exception.message)

    def warnings(self) -> list[str]:
        return [line for line in self.lines if isinstance(line, str) and line.startswith("Warning")]


class SshTests(RemoteCase):
    def setUp(self) -> None:
        super().setUp()
        keys = self.root / "keys"
        keys.mkdir()
        self.server = SshServer(self, keys)
        self.agent = SshAgent(self, keys, "user_key")
        self.stranger = SshAgent(self, keys, "other_key")
        self.environment = {"SSH_AUTH_SOCK": self.agent.socket}
        self.workspaces = self.host()
        self.url = self.server.url(self.remote)

    async def test_a_repository_is_cloned_fetched_and_copied_with_the_owners_key(self) -> None:
        self.assertEqual(await self.clone(self.url), self.first)
        second = commit(self.remote, "second", a_txt="2")
        copy = await self.workspaces.prepare("t1", "app", self.url, "fix/x", ANN, self.lines.append)
        self.assertEqual(git(Path(copy.path), "rev-parse", "HEAD"), second)
        self.assertEqual(git(Path(copy.path), "config", "remote.origin.url"), self.url)
        known = (self.mirrors / ".git-home" / "known_hosts").read_text()
        self.assertIn((self.root / "keys" / "host_key.pub").read_text().split()[1], known)

    async def test_a_key_that_the_server_does_not_know(self) -> None:
        self.environment = {"SSH_AUTH_SOCK": self.stranger.socket}
        self.workspaces = self.host()
        self.assertIn("refused this host's SSH keys", await self.refused(self.url))
        self.environment = {"SSH_AUTH_SOCK": self.agent.socket}
        self.workspaces = self.host()
        await self.clone(self.url)
        self.environment = {"SSH_AUTH_SOCK": self.stranger.socket}
        self.workspaces = self.host()
        self.assertIn("SSH agent", await self.refused(self.url))
        self.assertEqual(self.warnings(), [])

    async def test_a_server_with_another_host_key_is_refused(self) -> None:
        await self.clone(self.url)
        self.server.new_key("host_key")
        self.server.restart()
        self.assertIn("another one than before", await self.refused(self.url))

    async def test_what_is_not_there(self) -> None:
        self.assertIn("no git repository", await self.refused(self.server.url(self.root / "missing")))

    async def test_a_server_that_is_down_leaves_what_was_fetched(self) -> None:
        await self.clone(self.url)
        self.server.stop()
        copy = await self.workspaces.prepare("t1", "app", self.url, "fix/x", ANN, self.lines.append)
        self.assertEqual(git(Path(copy.path), "rev-parse", "HEAD"), self.first)
        (warning,) = self.warnings()
        self.assertIn("cannot be reached", warning)
        self.assertIn("less than a minute ago", warning)
        self.assertIn("cannot be reached", await self.refused(self.server.url(self.root / "other")))


class HttpsTests(RemoteCase):
    def setUp(self) -> None:
        super().setUp()
        served = self.root / "served"
        (served / "private").mkdir(parents=True)
        (served / "config").write_text("[safe]\n directory = *\n")
        self.bare = served / "app.git"
        git(self.root, "clone", "-q", "--bare", str(self.remote), str(self.bare))
        self.server = GitServer(served)
        self.addCleanup(self.server.stop)
        authority = secured(self.server, self.root)
        self.environment = {"SSL_CERT_FILE": str(authority)}
        self.workspaces = self.host()
        self.url = f"{self.server.url}/app.git"

    async def test_a_repository_is_cloned_fetched_and_copied(self) -> None:
        self.assertTrue(self.url.startswith("https://"))
        self.assertEqual(await self.clone(self.url), self.first)
        second = commit(self.remote, "second", a_txt="2")
        git(self.remote, "push", "-q", str(self.bare), "main")
        copy = await self.workspaces.prepare("t1", "app", self.url, "fix/x", ANN, self.lines.append)
        self.assertEqual(git(Path(copy.path), "rev-parse", "HEAD"), second)

    async def test_an_authority_that_nobody_named_is_refused(self) -> None:
        self.environment = {}
        self.workspaces = self.host()
        self.assertIn("SSL_CERT_FILE", await self.refused(self.url))

    async def test_nothing_new_is_found_out_with_one_question(self) -> None:
        await self.clone(self.url)
        self.server.asked.clear()
        await self.workspaces.prepare("t1", "app", self.url, "fix/x", ANN, self.lines.append)
        # One connection's worth of protocol version 2: what the server can do, and its refs.
        self.assertEqual(
            self.server.asked, ["GET /app.git/info/refs", "POST /app.git/git-upload-pack"], self.server.asked
        )

    async def test_a_server_in_trouble_leaves_what_was_fetched_and_says_how_old_that_is(self) -> None:
        await self.clone(self.url)
        for status in (503, 429):
            self.server.status = status
            self.assertEqual(await self.clone(self.url), self.first)
        self.assertEqual(len(self.warnings()), 2)
        self.assertIn("going on with what was fetched", self.warnings()[0])

    async def test_a_server_that_says_no_is_believed(self) -> None:
        await self.clone(self.url)
        for status, why in ((404, "no such repository"), (401, "sign-in"), (403, "sign-in")):
            self.server.status = status
            self.assertIn(why, await self.refused(self.url))
        self.assertEqual(self.warnings(), [])

    async def test_progress_is_told_as_what_the_task_does(self) -> None:
        await self.clone(self.url)
        await self.workspaces.prepare("t1", "app", self.url, "fix/x", ANN, self.lines.append)
        done = [line for line in self.lines if isinstance(line, Doing)]
        self.assertIn(Doing(Reason.CLONING, "Receiving objects", 100), done)
        self.assertEqual(done[-1].reason, Reason.COPYING)
