"""Users' SSH keys: one ed25519 key each, made here, sealed at rest; what it signs leaves, the key never.

It knows nothing of what is signed: what may be is decided by the agent (credentials.ssh_agent).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from uaihost.credentials.sealing import Sealer
from uaihost.credentials.ssh_wire import ED25519, ed25519_blob, fingerprint, string
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Store
from uaihost.state import ssh_keys as table
from uaihost.wire import frames

log = Logger()

# What stands behind the key in its line, for people at the forge.
COMMENT = "uaihost"
# Characters of a user's id.
_LONGEST_USER = 200

Frame = frames.SshKeyGet | frames.SshKeyEnsure | frames.SshKeyDelete


class UserSshKeys:
    """proofs.SshKeys over the table of keys. sealer: who seals and opens; asked for when it is needed."""

    def __init__(self, clock: Any, store: Store, sealer: Callable[[], Awaitable[Sealer]]) -> None:
        self._clock = clock
        self._store = store
        self._sealer = sealer
        # What one user's frames ask for happens in their order.
        self._turn = DeferredLock()

    async def public(self, user_id: str) -> bytes | None:
        row = await self._store.run(lambda db: table.find(db, user_id))
        return None if row is None else row.public

    async def sign(self, user_id: str, data: bytes) -> bytes:
        row = await self._store.run(lambda db: table.find(db, user_id))
        if row is None:
            raise HostError(
                ErrorCode.NOT_FOUND,
                f"the user {user_id} has no SSH key; make one with `uaihost ssh-key ensure`",
            )
        key = await self._open(row)
        return string(ED25519) + string(key.sign(data))

    async def line(self, user_id: str) -> str | None:
        """The public key as forges take it, without a line's end; None when the user has none."""
        blob = await self.public(user_id)
        return None if blob is None else line(blob)

    async def ensure(self, user_id: str) -> str:
        """As `line`; made when there is none.

        Raises:
            HostError: `invalid_args` for what is no user; `unavailable`: the one that is there does not open.
        """
        if not user_id or len(user_id) > _LONGEST_USER or not user_id.isprintable():
            raise HostError(ErrorCode.INVALID_ARGS, f"{user_id[:40]!r} cannot be a user's id")
        row = await self._store.run(lambda db: table.find(db, user_id))
        if row is not None:
            # A key that signs nothing is not to be given to a forge.
            await self._open(row)
            return line(row.public)
        key = Ed25519PrivateKey.generate()
        sealer = await self._sealer()
        made = table.SshKeyRow(
            user_id,
            ed25519_blob(key.public_key().public_bytes_raw()),
            sealer.seal(place(user_id), key.private_bytes_raw()),
            int(self._clock.seconds() * 1000),
        )
        kept = await self._store.run(lambda db: table.add(db, made))
        log.info("made the SSH key {key} of {user}", key=fingerprint(kept.public), user=user_id)
        return line(kept.public)

    async def delete(self, user_id: str) -> None:
        """None is no error."""
        if await self._store.run(lambda db: table.remove(db, user_id)):
            log.info("removed the SSH key of {user}", user=user_id)

    async def answer(self, frame: Frame) -> frames.SshKeyOk | frames.SshKeyFailed:
        """The acknowledgement of a frame of the bridge (docs/protocol.md, section 2)."""
        user = frame.userId
        try:
            return frames.SshKeyOk(user, await self._in_turn(frame))
        except HostError as error:
            return frames.SshKeyFailed(user, f"{error.code.value}: {error.message}")
        except Exception:
            log.failure("the SSH key of {user} could not be seen to", user=user)
            return frames.SshKeyFailed(user, "internal: the host could not do it; see its log")

    def verbs(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]]:
        """What the owner's programs may ask for by name: `user` in, `publicKey` and `fingerprint` out."""
        return {
            "ssh.show": lambda words: self._asked(frames.SshKeyGet, words),
            "ssh.ensure": lambda words: self._asked(frames.SshKeyEnsure, words),
            "ssh.delete": lambda words: self._asked(frames.SshKeyDelete, words),
        }

    async def _asked(self, kind: Callable[[str], Frame], words: dict[str, Any]) -> dict[str, Any]:
        user = words.get("user")
        if not isinstance(user, str):
            raise HostError(ErrorCode.INVALID_ARGS, "`user` must be a user's id")
        found = await self._in_turn(kind(user))
        blob = None if found is None else b64decode(found.split()[1])
        return {"publicKey": found, "fingerprint": blob and fingerprint(blob)}

    async def _in_turn(self, frame: Frame) -> str | None:
        """Do it after what was asked for before; the public key's line there is then."""
        await self._turn.acquire()
        try:
            if isinstance(frame, frames.SshKeyEnsure):
                return await self.ensure(frame.userId)
            if isinstance(frame, frames.SshKeyDelete):
                await self.delete(frame.userId)
            return await self.line(frame.userId)
        finally:
            self._turn.release()

    async def _open(self, row: table.SshKeyRow) -> Ed25519PrivateKey:
        try:
            sealer = await self._sealer()
            key = Ed25519PrivateKey.from_private_bytes(sealer.open(place(row.user_id), row.secret))
        except (HostError, ValueError) as error:
            why = error.message if isinstance(error, HostError) else "it is damaged"
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the SSH key of {row.user_id} cannot be used: {why}. If that is lost, `uaihost ssh-key "
                "delete` and `uaihost ssh-key ensure` make another one for the forge",
            ) from None
        if ed25519_blob(key.public_key().public_bytes_raw()) != row.public:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the SSH key of {row.user_id} is not the one that its public half says: its row was changed",
            )
        return key


def line(blob: bytes) -> str:
    """A public key's one line, as in an authorized_keys file."""
    return f"{ED25519.decode()} {b64encode(blob).decode()} {COMMENT}"


def place(user_id: str) -> str:
    """What a key is sealed for (credentials.sealing)."""
    return f"ssh/{user_id}"
