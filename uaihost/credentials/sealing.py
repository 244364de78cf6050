"""Secrets at rest: sealed with AES-256-GCM (NIST SP 800-38D) under a key that lies elsewhere.

A sealed secret says which key sealed it and belongs to one place: moved to another row, or changed, it does
not open. It knows nothing of what the secrets are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uaihost.errors import ErrorCode, HostError

_VERSION = b"\x01"
_NONCE, _NAME = 12, 8


def _nobody(secret: bytes) -> None:
    """Who is told of secrets where nobody wants to know."""


class Sealer:
    """Seals and opens with one key, 32 bytes. seen: told each secret, so that it is never logged."""

    def __init__(self, key: bytes, seen: Callable[[bytes], object] = _nobody) -> None:
        self._before: Sealer | None = None
        self._seen = seen
        self._use(key)

    def rekey(self, key: bytes) -> None:
        """Use this key from now on; what the one before sealed opens too, for who has read it already."""
        self._before = Sealer(self.key, self._seen)
        self._use(key)

    def opens(self, place: str, sealed: bytes) -> bool:
        """Whether `open` gives what was sealed."""
        try:
            self.open(place, sealed)
        except HostError:
            return False
        return True

    def _use(self, key: bytes) -> None:
        self.key = key
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"uaihost key " + key).digest()[:_NAME]

    def seal(self, place: str, secret: bytes) -> bytes:
        """`secret` for the row `place`, say `accounts/claude`."""
        self._seen(secret)
        nonce = os.urandom(_NONCE)
        head = _VERSION + self.key_id + nonce
        return head + self._cipher.encrypt(nonce, secret, self._bound(place))

    def open(self, place: str, sealed: bytes) -> bytes:
        """What was sealed for that row.

        Raises:
            HostError: `unavailable`: another key, another row, or changed; nothing was touched.
        """
        start = len(_VERSION) + _NAME
        if sealed[: len(_VERSION)] != _VERSION or len(sealed) < start + _NONCE:
            raise HostError(ErrorCode.UNAVAILABLE, f"the secret {place} is damaged; sign in again")
        if sealed[len(_VERSION) : start] != self.key_id:
            if self._before is not None and sealed_with(sealed) == self._before.key_id:
                return self._before.open(place, sealed)
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the secret {place} was sealed with another key than this host has now; put the key back "
                "from your backup (`uaihost secrets status` says where it lies), or sign in again",
            )
        try:
            nonce = sealed[start : start + _NONCE]
            secret = self._cipher.decrypt(nonce, sealed[start + _NONCE :], self._bound(place))
        except InvalidTag:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the secret {place} was changed or belongs to another row; sign in again",
            ) from None
        self._seen(secret)
        return secret

    def _bound(self, place: str) -> bytes:
        return _VERSION + self.key_id + place.encode()


def sealed_with(secret: bytes) -> bytes | None:
    """The `key_id` of the key that sealed it; None for what was never sealed."""
    start = len(_VERSION)
    return secret[start : start + _NAME] if secret[:start] == _VERSION else None
