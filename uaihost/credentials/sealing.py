"""Secrets at rest: sealed with AES-256-GCM under a key that lies in a file of its own (NIST SP 800-38D).

A sealed secret says which key sealed it and belongs to one place: moved to another row, or changed, it does
not open. It knows nothing of what the secrets are.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uaihost.errors import ErrorCode, HostError

_VERSION = b"\x01"
_NONCE, _KEY, _NAME = 12, 32, 8


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"uaihost key " + key).digest()[:_NAME]

    def seal(self, place: str, secret: bytes) -> bytes:
        """`secret` for the row `place`, say `accounts/claude`."""
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
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the secret {place} was sealed with another key than the one in the data folder's "
                "secrets.key; put that file back from your backup, or sign in again",
            )
        try:
            nonce = sealed[start : start + _NONCE]
            return self._cipher.decrypt(nonce, sealed[start + _NONCE :], self._bound(place))
        except InvalidTag:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the secret {place} was changed or belongs to another row; sign in again",
            ) from None

    def _bound(self, place: str) -> bytes:
        return _VERSION + self.key_id + place.encode()


def key_file(path: Path, make: bool) -> bytes:
    """The key in `path`; with `make` it is made if there is none. Blocking.

    Raises:
        HostError: it is missing, can be read by others, or holds no key.
    """
    if not make and not path.exists():
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"{path}, the key of the stored sign-ins, is missing; put it back from your backup and start the "
            "host again, or give the sign-ins up with `uaihost logout` and sign in anew",
        )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    key = os.urandom(_KEY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.hex().encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        text = file.read(1024).strip()
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HostError(ErrorCode.UNAVAILABLE, f"{path} can be read by others; type: chmod 600 {path}")
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY:
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"{path} holds no key of {_KEY} bytes; put it back from your backup, or move it away and sign in "
            "again",
        )
    return key
