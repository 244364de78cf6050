"""Twenty tasks of one user at once, each over its own socket and with git's own helper: one exchange."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.utils import getProcessOutputAndValue

from uaihost.credentials import audit
from uaihost.proofs import Grant
from uaihost.test.integration.test_push import SHIM, PushCase, reactor

TASKS = 20


class TwentyTasksTests(PushCase):
    async def ask(self, task_id: str) -> dict[str, str]:
        socket = self.folders.control(task_id) / "broker" / "git.sock"
        host, _, path = self.url.removeprefix("https://").partition("/")
        env = {
            "PATH": os.environ["PATH"],
            "UAI_GIT_SOCKET": str(socket),
            "HELPER": str(SHIM / "credential.py"),
        }
        script = (
            f'printf "protocol=https\\nhost={host}\\npath={path}\\n\\n" | "{sys.executable}" "$HELPER" get'
        )
        out, err, status = await getProcessOutputAndValue("/bin/sh", ["-c", script], env, reactor=reactor)
        self.assertEqual((status, err), (0, b""))
        return dict(line.split("=", 1) for line in out.decode().splitlines())

    async def ask_all(self) -> list[dict[str, str]]:
        asking: Any = [ensureDeferred(self.ask(f"t{number}")) for number in range(TASKS)]
        found: list[dict[str, str]] = await gatherResults(asking, consumeErrors=True)
        return found

    async def test_one_exchange_for_all(self) -> None:
        for number in range(TASKS):
            task_id = f"t{number}"
            self.folders.control(task_id).mkdir(parents=True)
            await self.proofs.broker.open(Grant("ada", task_id, (self.url,)))
            self.addCleanup(self.proofs.broker.close, task_id)
        answers = await self.ask_all()
        self.assertEqual(len({answer["password"] for answer in answers}), 1)
        self.assertEqual({answer["username"] for answer in answers}, {"x-access-token"})
        self.assertEqual(self.forge.model.exchanges, 1)
        # It lasts: nobody exchanges again.
        self.assertEqual(await self.ask_all(), answers)
        self.assertEqual(self.forge.model.exchanges, 1)
        await self.proofs.audit.written()
        used = list(audit.read(self.folders.audit))
        self.assertEqual(len(used), 2 * TASKS)
        self.assertEqual({(row["user"], row["what"], row["outcome"]) for row in used}, {("ada", "git", "ok")})
        self.assertNotIn(answers[0]["password"], self.folders.audit.read_text())
