"""Where the key lies that seals stored secrets: a file, a systemd credential, the machine's keyring.

All of it blocks. A source holds one key, and beside it an older one while rows that it sealed are left.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.paths import flush

SIZE = 32
# systemd's name for the folder with a unit's credentials (systemd.exec(5), "Credentials").
CREDENTIALS = "CREDENTIALS_DIRECTORY"
NAME, OLD_NAME = "uaihost.key", "uaihost.key.old"
SERVICE = "uaihost"


class KeySource(Protocol):
    """One place. A key that is there but cannot be used is an error, never a reason to make another."""

    @property
    def where(self) -> str:
        """For people."""

    def read(self) -> tuple[bytes | None, bytes | None]:
        """The key and the older one; None for one that is not there.

        Raises:
            HostError: `unavailable`: one is there and cannot be read, or is none; with what to do.
        """

    def write(self, key: bytes) -> None:
        """`key` is the key from now on, whenever the machine stops; what was, is the older one.

        Raises:
            HostError: `unavailable`, this place is not written by us, with what to do instead; or as `read`.
        """

    def forget_old(self) -> None:
        """The older key is not needed any more."""


@attrs.frozen
class FileSource:
    """A file that its owner alone can read: 64 hexadecimal digits."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def _old(self) -> Path:
        return self.path.with_name(self.path.name + ".old")

    def read(self) -> tuple[bytes | None, bytes | None]:
        return _key_in(self.path, closed=True), _key_in(self._old, closed=True)

    def write(self, key: bytes) -> None:
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if self.path.exists():
            self._old.unlink(missing_ok=True)
            os.link(self.path, self._old)
        new.replace(self.path)
        flush(self.path.parent)

    def forget_old(self) -> None:
        self._old.unlink(missing_ok=True)
        flush(self.path.parent)


@attrs.frozen
class SystemdSource:
    """A credential that systemd hands to the service; only systemd and who set it up can change it."""

    folder: Path

    @property
    def where(self) -> str:
        return f"systemd's credential {NAME}"

    def read(self) -> tuple[bytes | None, bytes | None]:
        return _key_in(self.folder / NAME, closed=False), _key_in(self.folder / OLD_NAME, closed=False)

    def write(self, key: bytes) -> None:
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"the key is {self.where}, which only you can change: rename that credential to {OLD_NAME}, "
            f"make a new one with `openssl rand -hex {SIZE} | systemd-creds encrypt --name={NAME} - FILE`, "
            "load both in the unit and restart it; the older one can go after that start",
        )

    def forget_old(self) -> None:
        """It is the owner's to take away."""


@attrs.frozen
class KeyringSource:
    """The keyring of the machine's user (the library `keyring`). keyring: that module. account: which of this
    user's hosts it is of, its data folder."""

    keyring: Any
    account: str

    @property
    def where(self) -> str:
        return f"the keyring's entry {SERVICE}, {self.account}"

    def read(self) -> tuple[bytes | None, bytes | None]:
        return self._get(self.account), self._get(self.account + ".old")

    def write(self, key: bytes) -> None:
        current = self._get(self.account)
        if current is not None:
            self._set(self.account + ".old", current)
        self._set(self.account, key)

    def forget_old(self) -> None:
        if self._get(self.account + ".old") is not None:
            self._call(self.keyring.delete_password, SERVICE, self.account + ".old")

    def _get(self, account: str) -> bytes | None:
        text = self._call(self.keyring.get_password, SERVICE, account)
        return None if text is None else _key(str(text).encode(), self.where)

    def _set(self, account: str, key: bytes) -> None:
        self._call(self.keyring.set_password, SERVICE, account, key.hex())

    def _call(self, function: Any, *words: str) -> Any:
        try:
            return function(*words)
        except self.keyring.errors.KeyringError as error:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the keyring cannot be used: {error}; unlock it, or set UAI_SECRETS_KEY=file",
            ) from None


def source(name: str, file: Path, environ: Mapping[str, str]) -> KeySource:
    """The source of this name: `auto`, `file`, `keyring` or `systemd`.

    Raises:
        HostError: `unavailable`, it is not there; the sentence says what to do.
    """
    folder = environ.get(CREDENTIALS)
    if name == "systemd" or (name == "auto" and folder and (Path(folder) / NAME).exists()):
        if not folder:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "UAI_SECRETS_KEY is systemd and systemd gave no credentials; add "
                f"LoadCredentialEncrypted={NAME} to the unit, or set UAI_SECRETS_KEY=file",
            )
        return SystemdSource(Path(folder))
    if name == "keyring":
        try:
            import keyring
            import keyring.errors
        except ImportError:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "UAI_SECRETS_KEY is keyring and the library is missing; type: pip install 'uaihost[keyring]'",
            ) from None
        return KeyringSource(keyring, str(file.parent))
    return FileSource(file)


def _key_in(path: Path, *, closed: bool) -> bytes | None:
    """closed: nobody else may be able to read it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(1024)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(ErrorCode.UNAVAILABLE, f"the key {path} cannot be read: {error.strerror}") from None
    if closed and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HostError(ErrorCode.UNAVAILABLE, f"{path} can be read by others; type: chmod 600 {path}")
    return _key(text, str(path))


def _key(text: bytes, where: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip().decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != SIZE:
        raise HostError(
            ErrorCode.UNAVAILABLE,
            f"{where} holds no key of {SIZE} bytes; put it back from your backup, or move it away and sign "
            "in again",
        )
    return key
