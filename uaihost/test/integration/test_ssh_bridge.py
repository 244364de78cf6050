"""A user's SSH key as a bridge asks for it: section 2 of docs/protocol.md, against the independent bridge."""

from __future__ import annotations

import signal

from uaihost.test.integration.peer import Report
from uaihost.test.integration.rig import PeerTestCase


class KeyFrameTests(PeerTestCase):
    async def ask(self, word: str, user: str = "ada") -> Report:
        await self.peer.call("frame", frame={"kind": f"ssh.key.{word}", "userId": user})
        return await self.peer.frame("ssh.key.ack", userId=user)

    async def test_made_kept_and_forgotten(self) -> None:
        await self.host()
        self.assertEqual((await self.ask("get"))["publicKey"], None)
        made = await self.ask("ensure")
        self.assertEqual((made["ok"], made["publicKey"].split()[0]), (True, "ssh-ed25519"))
        other = await self.ask("ensure", "bob")
        self.assertNotEqual(other["publicKey"], made["publicKey"])
        self.service.signal(signal.SIGKILL)
        await self.service.exit()
        self.service.start()
        await self.peer.ready()
        self.assertEqual((await self.ask("get"))["publicKey"], made["publicKey"])
        self.assertEqual((await self.ask("delete"))["publicKey"], None)
        self.assertEqual((await self.ask("get"))["publicKey"], None)
        self.assertEqual((await self.ask("get", "bob"))["publicKey"], other["publicKey"])

    async def test_nothing_opens_without_the_key_of_secrets(self) -> None:
        await self.host()
        made = await self.ask("ensure")
        await self.service.stop()
        key = self.data / "secrets.key"
        aside = key.with_name("aside")
        key.rename(aside)
        self.service.start()
        await self.peer.ready()
        refused = await self.ask("ensure")
        self.assertEqual((refused["ok"], refused["error"].split(":")[0]), (False, "unavailable"))
        self.assertIn("secrets.key", refused["error"])
        self.assertFalse(key.exists())
        await self.service.stop()
        aside.rename(key)
        self.service.start()
        await self.peer.ready()
        self.assertEqual((await self.ask("ensure"))["publicKey"], made["publicKey"])
