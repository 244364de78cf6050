"""The one key that seals stored secrets: made when it is needed first, and rotated without losing anything.

Whatever stops a rotation, the next start ends it: a secret is sealed with the key or with the older one, both
are kept until every row has the new one, and rows change in one transaction.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from uaihost.blocking import Blocking
from uaihost.credentials.key_sources import SIZE, KeySource
from uaihost.credentials.sealing import Sealer, sealed_with
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Store
from uaihost.state import sealed

log = Logger()


class Keys:
    """source: finds where the key lies; called outside the reactor. random: bytes of that number. seen: told
    each secret that is sealed or opened."""

    def __init__(
        self,
        blocking: Blocking,
        store: Store,
        source: Callable[[], KeySource],
        random: Callable[[int], bytes] = os.urandom,
        seen: Callable[[bytes], object] = lambda secret: None,
    ) -> None:
        self._blocking = blocking
        self._store = store
        self._find = source
        self._random = random
        self._seen = seen
        self._source: KeySource | None = None
        self._sealer: Sealer | None = None
        self._lock = DeferredLock()

    async def start(self) -> None:
        """End a rotation that was begun, or that a second credential of systemd asks for, before its owner
        takes the older key away; a key that cannot be used is told and hinders nothing else."""
        try:
            if await self._store.run(sealed.secrets):
                await self.sealer()
        except HostError as error:
            log.warn("stored secrets cannot be used: {why}", why=error.message)

    async def sealer(self) -> Sealer:
        """Who seals and opens; the same object for as long as the host runs, whatever is rotated.

        The key is made if there is none and nothing was sealed yet.

        Raises:
            HostError: `unavailable`: it is missing while secrets are sealed with it, or cannot be used.
        """
        if self._sealer is None:
            await self._lock.run(lambda: Deferred.fromCoroutine(self._load()))
        assert self._sealer is not None
        return self._sealer

    async def rotate(self) -> int:
        """Make a new key and seal everything with it; how many secrets. The older key is gone then.

        Raises:
            HostError: `unavailable`: the key or a secret cannot be opened, or its place is not written by us;
                everything is as it was.
        """
        sealer = await self.sealer()
        count: int = await self._lock.run(lambda: Deferred.fromCoroutine(self._rotate(sealer)))
        return count

    async def forget(self) -> int:
        """Give up the secrets that no key opens; how many. Without a key, all of them."""
        source = await self._where()
        kept = [Sealer(key) for key in await self._blocking.call(source.read) if key is not None]

        def lost(place: str, secret: bytes) -> bool:
            return not any(sealer.opens(place, secret) for sealer in kept)

        return await self._store.run(lambda db: sealed.remove(db, lost))

    async def status(self) -> dict[str, Any]:
        """For people: where the key lies, and how many secrets it seals and how many it does not."""
        rows = await self._store.run(sealed.secrets)
        source = await self._where()
        try:
            mine, problem = 0, None
            if rows:
                sealer = await self.sealer()
                # That may have ended a rotation.
                rows = await self._store.run(sealed.secrets)
                mine = sum(sealer.opens(place, secret) for place, secret in rows)
        except HostError as error:
            mine, problem = 0, error.message
        return {"where": source.where, "sealed": mine, "others": len(rows) - mine, "problem": problem}

    async def _where(self) -> KeySource:
        if self._source is None:
            self._source = await self._blocking.call(self._find)
        return self._source

    async def _load(self) -> None:
        if self._sealer is not None:
            return
        source = await self._where()
        key, old = await self._blocking.call(source.read)
        if key is None:
            rows = await self._store.run(sealed.secrets)
            if rows:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"{source.where}, the key of {len(rows)} stored secrets, is missing; put it back from "
                    "your backup and start the host again, or give them up with `uaihost secrets forget` and "
                    "sign in anew",
                )
            key = self._random(SIZE)
            await self._blocking.call(source.write, key)
        sealer = Sealer(key, self._seen)
        if old is not None:
            await self._replace(sealer, Sealer(old), source)
        self._sealer = sealer

    async def _rotate(self, sealer: Sealer) -> int:
        source = await self._where()
        # Nothing is begun that cannot be ended.
        for place, secret in await self._store.run(sealed.secrets):
            if not sealer.opens(place, secret):
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"the key in {source.where} does not open the secret {place}: put the key back that "
                    "sealed it, or give up all that do not open with `uaihost secrets forget`; nothing was "
                    "changed",
                )
        key = self._random(SIZE)
        before = Sealer(sealer.key)
        await self._blocking.call(source.write, key)
        sealer.rekey(key)
        return await self._replace(sealer, before, source)

    async def _replace(self, sealer: Sealer, before: Sealer, source: KeySource) -> int:
        def again(place: str, secret: bytes) -> bytes | None:
            if sealed_with(secret) != before.key_id or not before.opens(place, secret):
                return None
            return sealer.seal(place, before.open(place, secret))

        count = await self._store.run(lambda db: sealed.seal_again(db, again))
        # Whoever sealed with the older key while that ran has stored it by now.
        count += await self._store.run(lambda db: sealed.seal_again(db, again))
        await self._blocking.call(source.forget_old)
        if count:
            log.info("{count} stored secrets are sealed with a new key", count=count)
        return count


def key_verbs(keys: Keys) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
    """What the owner's command line may ask for; JSON objects in and out."""

    async def status(words: dict[str, Any]) -> dict[str, Any]:
        return await keys.status()

    async def rotate(words: dict[str, Any]) -> dict[str, Any]:
        count = await keys.rotate()
        return {"sealed": count, "where": (await keys.status())["where"]}

    async def forget(words: dict[str, Any]) -> dict[str, Any]:
        return {"forgotten": await keys.forget()}

    return {"secrets.status": status, "secrets.rotate": rotate, "secrets.forget": forget}
