"""The agent with OpenSSH's own programs: ssh, ssh-add, ssh-keygen and git, at a real sshd."""

from __future__ import annotations

import os
import shlex
from base64 import b64decode
from pathlib import Path
from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.sealing import Sealer
from uaihost.credentials.server_files import Files, ServerFiles
from uaihost.credentials.ssh_agent import agent_factory
from uaihost.credentials.ssh_keys import UserSshKeys
from uaihost.credentials.ssh_wire import read_sign_in
from uaihost.proofs import Grant
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.credentials import ssh_model
from uaihost.test.integration.sshd_server import Forge
from uaihost.test.support import short_folder
from uaihost.unix import listener

reactor: Any = default_reactor

UNKNOWN = "refused: not the known key of a server of the task's repositories"


class AgentTests(TestCase):
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]
        self.root = short_folder(self)
        self.forge = self.serve("forge")
        self.bare = self.forge.repository("shop.git")
        sealer = Sealer(os.urandom(32))

        async def seal() -> Sealer:
            return sealer

        self.keys = UserSshKeys(reactor, MemoryStore(), seal)
        self.line = await self.keys.ensure("ada")
        self.forge.let_in(self.line)
        self.known = self.root / "known_hosts"
        self.known.write_text(self.forge.known)
        self.noted: list[dict[str, str]] = []
        self.agent = agent_factory(
            reactor,
            self.keys,
            Grant("ada", "t1", (self.forge.url("shop.git"),)),
            ServerFiles(reactor, Inline(), Files((self.known,), self.root / "met")).having,
            lambda **line: self.noted.append(line),
        )
        self.socket = self.root / "ssh.sock"
        port = listener(reactor)(self.socket, self.agent, 0o600)
        self.addCleanup(port.stopListening)
        self.addCleanup(self.agent.close)

    def serve(self, name: str) -> Forge:
        forge = Forge(self.root / name)
        self.addCleanup(forge.stop)
        return forge

    async def run_program(self, *words: str, known: Path | None = None) -> tuple[str, int]:
        """What it prints, and its status."""
        ssh = ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={known or self.known}"]
        ssh += ["-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"]
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "SSH_AUTH_SOCK": str(self.socket),
            # Nobody is there to be asked for a password.
            "SSH_ASKPASS": "true",
            "SSH_ASKPASS_REQUIRE": "force",
            "GIT_SSH_COMMAND": shlex.join(ssh),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        words = (*ssh, *words[1:]) if words[0] == "ssh" else words
        out, err, code = await getProcessOutputAndValue(
            words[0], words[1:], env, str(self.root), reactor=reactor
        )
        return (out + err).decode("utf-8", "replace"), code

    async def works(self, *words: str) -> str:
        said, code = await self.run_program(*words)
        self.assertEqual(code, 0, said)
        return said

    async def test_clone_and_push(self) -> None:
        await self.works("git", "clone", "-q", self.forge.url("shop.git"), "work")
        (self.root / "work" / "new").write_text("x")
        await self.works("git", "-C", "work", "add", "new")
        who = ("-c", "user.name=x", "-c", "user.email=x@x")
        await self.works("git", "-C", "work", *who, "commit", "-qm", "two")
        await self.works("git", "-C", "work", "push", "-q", "origin", "HEAD:topic")
        self.assertIn("two", await self.works("git", "--git-dir", str(self.bare), "log", "-1", "topic"))
        self.assertEqual([line["outcome"] for line in self.noted], ["ok", "ok"])
        self.assertEqual({line["host"] for line in self.noted}, {f"[127.0.0.1]:{self.forge.port}"})

    async def test_what_is_signed_is_what_the_model_of_a_client_says(self) -> None:
        signed: list[bytes] = []
        sign = self.keys.sign

        async def heard(user_id: str, data: bytes) -> bytes:
            signed.append(data)
            return await sign(user_id, data)

        self.patch(self.keys, "sign", heard)
        await self.works("git", "ls-remote", self.forge.url("shop.git"))
        (data,) = signed
        key = await self.keys.public("ada")
        assert key is not None
        session, server = read_sign_in(data).session, b64decode(self.forge.known.split()[2])
        self.assertEqual(data, ssh_model.sign_in(key, session, self.forge.user.encode(), server))

    async def test_ssh_add_shows_the_key_and_changes_nothing(self) -> None:
        self.assertEqual(await self.works("ssh-add", "-L"), self.line + "\n")
        await self.works("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "mine")
        for words in (["-D"], ["-d", "mine"], ["-x"], ["mine"], ["-c", "mine"], ["-s", "/lib/x.so"]):
            _, code = await self.run_program("ssh-add", *words)
            self.assertNotEqual(code, 0, words)
        self.assertEqual(await self.works("ssh-add", "-L"), self.line + "\n")

    async def test_nothing_else_is_signed(self) -> None:
        (self.root / "words").write_text("anything")
        (self.root / "key.pub").write_text(self.line)
        said, code = await self.run_program("ssh-keygen", "-Y", "sign", "-n", "git", "-f", "key.pub", "words")
        self.assertNotEqual(code, 0, said)
        self.assertFalse((self.root / "words.sig").exists())
        said, code = await self.run_program("ssh-add", "-T", "key.pub")
        self.assertNotEqual(code, 0, said)
        self.assertEqual({line["outcome"][:7] for line in self.noted}, {"refused"})

    async def test_another_server_gets_nothing(self) -> None:
        other = self.serve("other")
        other.let_in(self.line)
        other.repository("shop.git")
        trusting = self.root / "trusting"
        trusting.write_text(self.forge.known + other.known)
        for owner_knows_it in (False, True):
            self.known.write_text(self.forge.known + (other.known if owner_knows_it else ""))
            said, code = await self.run_program(
                "ssh", "-p", str(other.port), f"{other.user}@127.0.0.1", "true", known=trusting
            )
            self.assertEqual(code, 255)
            self.assertIn("Permission denied (publickey)", said)
        self.assertNotIn("Postponed publickey", other.log)
        self.assertEqual({line["outcome"] for line in self.noted}, {UNKNOWN})

    async def test_a_server_with_another_key_gets_nothing(self) -> None:
        # As when somebody stands in between, and the client was made to believe him.
        _, key = self.serve("other").known.split(" ", 1)
        self.known.write_text(f"[127.0.0.1]:{self.forge.port} {key}")
        stranger = self.root / "stranger"
        stranger.write_text(self.forge.known)
        said, code = await self.run_program(
            "ssh", "-p", str(self.forge.port), f"{self.forge.user}@127.0.0.1", "true", known=stranger
        )
        self.assertEqual(code, 255)
        self.assertIn("Permission denied (publickey)", said)
        self.assertEqual([line["outcome"] for line in self.noted], [UNKNOWN])

    async def test_another_user_there_gets_nothing(self) -> None:
        self.agent.grant = Grant("ada", "t1", (f"ssh://someone@127.0.0.1:{self.forge.port}/shop.git",))
        said, _ = await self.run_program("git", "ls-remote", self.forge.url("shop.git"))
        self.assertIn("Permission denied (publickey)", said)
        refused = f"refused: it signs in as '{self.forge.user}'"
        self.assertEqual([line["outcome"] for line in self.noted], [refused])

    async def test_an_agent_that_is_passed_on_signs_nothing(self) -> None:
        # Who is on that server cannot sign in from there, not even to the server itself.
        self.forge.let_in(self.line, options="restrict,agent-forwarding")
        there = ["-p", str(self.forge.port), f"{self.forge.user}@127.0.0.1"]
        again = ["ssh", "-F", "none", "-o", f"UserKnownHostsFile={self.known}", "-o", "BatchMode=yes", *there]
        said, code = await self.run_program("ssh", "-A", *there, f"ssh-add -L; {shlex.join(again)} true")
        self.assertEqual((code, "Permission denied (publickey)" in said), (255, True), said)
        passed_on = "refused: the connection was passed on from another one"
        self.assertNotIn(self.line, said)
        first, *others = [line["outcome"] for line in self.noted]
        self.assertEqual((first, set(others)), ("ok", {passed_on}))

    async def test_a_key_that_was_deleted(self) -> None:
        await self.keys.delete("ada")
        said, code = await self.run_program("ssh-add", "-L")
        self.assertEqual((said, code), ("The agent has no identities.\n", 1))
        said, _ = await self.run_program("git", "ls-remote", self.forge.url("shop.git"))
        self.assertIn("Permission denied (publickey)", said)

    async def test_many_at_once(self) -> None:
        url = self.forge.url("shop.git")
        asked = [Deferred.fromCoroutine(self.works("git", "ls-remote", url, "main")) for _ in range(8)]
        found = await gatherResults(asked)
        self.assertEqual({said.split()[1] for said in found}, {"refs/heads/main"})
        self.assertEqual(self.agent.connections, set())
