"""Codex' logins: what the host keeps of one, and the exchange for a new one, by Codex itself in a container.

So the host speaks no vendor's protocol, and the container that holds a refresh token holds nothing else: the
task image without any mount, the login in memory alone, removed as soon as what it brought is stored.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from twisted.logger import Logger

from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Engine, Launch, Limits, Ran, Say

log = Logger()

# No task can have such an id (paths.checked_task), so that the engine's names never meet.
NAME = "_login-codex"
RENEW = ("python3", "-E", "-s", "/opt/uai/renew.py")
# In memory: /dev/shm is a tmpfs of the container's own.
MEMORY = "/dev/shm"
HOME = f"{MEMORY}/codex"
# Codex uses some 200 MB; beside it only a few KB are written.
LIMITS = Limits(memory=1 << 30, cpus=1.0, pids=256, shm=16 << 20)
# Seconds that a token counts for whose end is not told.
UNTOLD = 3600.0
# The year 3000, seconds since the epoch: a later end is a mistake.
LATEST = 32_503_680_000.0


def login(auth: str) -> dict[str, str]:
    """The secrets of a login from what Codex keeps of it (auth.json).

    Raises:
        HostError: `invalid_args`, when it is no ChatGPT login.
    """
    try:
        kept = json.loads(auth)
        tokens = kept["tokens"]
        access, account, refresh = tokens["access_token"], tokens["account_id"], tokens["refresh_token"]
        if not all(isinstance(each, str) and each for each in (access, account, refresh)):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            "what Codex keeps after this sign-in is no ChatGPT login; nothing was changed",
        ) from None
    return {
        "access": access,
        "account_id": account,
        "expires_at": str(int(_expires(access, kept.get("last_refresh")))),
        "auth": json.dumps(kept, separators=(",", ":")),
    }  # fmt: skip


class CodexExchange:
    """credentials.accounts.Exchange. image: gives the task image's reference; env: for Codex, in tests."""

    def __init__(
        self,
        engine: Engine,
        image: Callable[[Say], Awaitable[str]],
        uid: int,
        gid: int,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._image = image
        self._uid = uid
        self._gid = gid
        self._env = dict(env or {})

    def read(self, auth: str) -> Mapping[str, str]:
        return login(auth)

    async def renew(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        found = await self.unstored(secrets)
        if found is not None:
            return found
        image = await self._image(lambda what: None)
        await self.settle()
        await self._engine.launch(
            Launch(
                task_id=NAME,
                image=image,
                uid=self._uid,
                gid=self._gid,
                mounts=(),
                ports=(),
                env={"UAI_EDITOR": "0"},
                limits=LIMITS,
                read_only=True,
            )
        )
        report = await self._run(secrets["auth"])
        if report["outcome"] == "renewed":
            return login(report["login"])
        await self.settle()
        if report["outcome"] == "ended":
            raise HostError(ErrorCode.CONFLICT, f"the login has ended: {report['said']}")
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"Codex could not renew its login: {report['said']}; it is tried again by itself",
        )

    async def unstored(self, secrets: Mapping[str, str]) -> Mapping[str, str] | None:
        left = await self._engine.find(NAME)
        if left is None or left.state != "running":
            return None
        report = await self._run(secrets["auth"], "look")
        return login(report["login"]) if report["outcome"] == "renewed" else None

    async def settle(self) -> None:
        await self._engine.remove(NAME)

    async def _run(self, auth: str, *words: str) -> dict[str, str]:
        # Nothing else can be written there, and Codex' databases need a place for what does not last.
        env = {**self._env, "CODEX_HOME": HOME, "TMPDIR": MEMORY, "UAI_LOGIN": auth}
        ran = await self._engine.execute(NAME, [*RENEW, *words], env=env, cwd="/tmp")
        return _report(ran)


def _report(ran: Ran) -> dict[str, str]:
    try:
        found = json.loads(ran.out)
        return {name: str(found[name]) for name in ("outcome", "login", "said")}
    except (ValueError, KeyError, TypeError):
        log.warn("the exchange ended with {status}: {said}", status=ran.status, said=ran.err[-400:])
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"Codex could not renew its login: the exchange ended with status {ran.status}",
        ) from None


def _expires(access: str, renewed: Any) -> float:
    """When a token ends, seconds since the epoch (RFC 7519, `exp`); it is read here, never trusted."""
    try:
        payload = access.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ends = float(claims["exp"])
        if 0 <= ends < LATEST:
            return ends
    except (ValueError, IndexError, KeyError, TypeError, OverflowError):
        pass
    try:
        return datetime.fromisoformat(str(renewed).replace("Z", "+00:00")).timestamp() + UNTOLD
    except ValueError:
        return 0.0
