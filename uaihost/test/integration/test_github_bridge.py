"""Users as a bridge connects them to GitHub: docs/protocol.md, section 2, against the independent bridge."""

from __future__ import annotations

import json
import signal
from typing import Any

from uaihost.test.integration.forge import Forge
from uaihost.test.integration.github_api import CLIENT_ID, CLIENT_SECRET
from uaihost.test.integration.peer import Report
from uaihost.test.integration.rig import PeerTestCase


class ConnectFrameTests(PeerTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.forge = Forge(self, self.data)
        self.service.env |= {
            "UAI_GITHUB_URL": self.forge.url,
            "UAI_CA_FILE": str(self.forge.ca_file),
            "UAI_GITHUB_CLIENT_ID": CLIENT_ID,
            "UAI_GITHUB_CLIENT_SECRET": CLIENT_SECRET,
        }
        await self.host()

    async def connect(self, refresh: str, user: str = "u1", **more: Any) -> Report:
        frame = {
            "kind": "gh.connect.set",
            "userId": user,
            "installationId": 7,
            "githubLogin": "ada",
            "targetType": "User",
            "refreshToken": refresh,
            **more,
        }
        await self.peer.call("frame", frame=frame)
        return await self.peer.frame("gh.connect.ack", userId=user)

    async def clear(self, user: str = "u1") -> Report:
        await self.peer.call("frame", frame={"kind": "gh.connect.clear", "userId": user})
        return await self.peer.frame("gh.connect.ack", userId=user)

    async def known(self) -> list[tuple[str, str]]:
        """Who is connected, and as whom."""
        shown = json.loads(await self.service.command("github", "status", "--json"))
        return [(row["userId"], row["login"]) for row in shown["connections"]]

    async def test_set_kept_and_cleared(self) -> None:
        refresh = self.forge.model.connect("ada")
        ends = 1_900_000_000_000
        self.assertTrue((await self.connect(refresh, refreshTokenExpiresAt=ends))["ok"])
        self.assertEqual(await self.known(), [("u1", "ada")])
        self.service.signal(signal.SIGKILL)
        await self.service.exit()
        self.service.start()
        await self.peer.ready()
        self.assertEqual(await self.known(), [("u1", "ada")])
        # The bridge says again what it said: the host may have another token by now, and keeps it.
        self.assertIn("Nothing has failed", await self.said_after_a_renewal())
        self.assertTrue((await self.connect(refresh))["ok"])
        self.assertIn("Nothing has failed", await self.service.command("github", "retry", "--user", "u1"))
        self.assertEqual(self.forge.model.exchanges, 1)
        self.assertTrue((await self.clear())["ok"])
        self.assertTrue((await self.clear())["ok"])
        self.assertEqual(await self.known(), [])

    async def said_after_a_renewal(self) -> str:
        """The first try exchanges; the second has nothing to do."""
        self.assertIn("works again", await self.service.command("github", "retry", "--user", "u1"))
        return await self.service.command("github", "retry", "--user", "u1")

    async def test_what_cannot_be_a_connection_is_refused_with_why(self) -> None:
        for refresh in ("", "two words"):
            ack = await self.connect(refresh)
            self.assertFalse(ack["ok"])
            self.assertTrue(ack["error"].startswith("invalid_args: "), ack["error"])
        self.assertEqual(await self.known(), [])

    async def test_a_token_that_github_has_ended_is_said(self) -> None:
        refresh = self.forge.model.connect("ada")
        self.assertTrue((await self.connect(refresh))["ok"])
        self.forge.model.revoke("ada")
        said = await self.service.command("github", "retry", "--user", "u1")
        self.assertIn("gh authentication expired (reason: GitHub does not take the refresh token", said)
        ack = await self.connect(refresh)
        self.assertFalse(ack["ok"])
        self.assertIn("conflict: ", ack["error"])
        self.assertTrue((await self.connect(self.forge.model.connect("ada")))["ok"])
        self.assertIn("works again", await self.service.command("github", "retry", "--user", "u1"))
