"""A server's key, a client's words to an agent, users' keys (RFC 4251, 4252, 8332, 8709)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from twisted.internet.defer import Deferred

from uaihost.credentials.ssh_wire import ED25519, SESSION_BIND, Reader, ed25519_blob, string
from uaihost.errors import ErrorCode, HostError

SESSION = b"s" * 32


def mpint(number: int) -> bytes:
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big") if number else b"")


class ServerKey:
    """A server's key. kind: as in its line of a known_hosts file."""

    def __init__(self, kind: str = "ssh-ed25519", digest: str = "512") -> None:
        self.kind = kind
        self._digest = digest
        self._key: Any
        if kind == "ssh-ed25519":
            self._key = ed25519.Ed25519PrivateKey.generate()
            self.blob = ed25519_blob(self._key.public_key().public_bytes_raw())
        elif kind == "ssh-rsa":
            self._key = rsa.generate_private_key(65537, 2048)
            numbers = self._key.public_key().public_numbers()
            self.blob = string(b"ssh-rsa") + mpint(numbers.e) + mpint(numbers.n)
        else:
            curve: Any = {"256": ec.SECP256R1, "384": ec.SECP384R1, "521": ec.SECP521R1}[kind[-3:]]
            self._key = ec.generate_private_key(curve())
            numbers = self._key.public_key().public_numbers()
            size = (self._key.key_size + 7) // 8
            point = b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")
            self.blob = string(kind.encode()) + string(kind[-8:].encode()) + string(point)

    @property
    def line(self) -> str:
        return f"{self.kind} {b64encode(self.blob).decode()}"

    def sign(self, data: bytes) -> bytes:
        if self.kind == "ssh-ed25519":
            return string(ED25519) + string(self._key.sign(data))
        if self.kind == "ssh-rsa":
            kind: Any = {"1": hashes.SHA1(), "256": hashes.SHA256(), "512": hashes.SHA512()}[self._digest]
            name = b"ssh-rsa" if self._digest == "1" else b"rsa-sha2-" + self._digest.encode()
            return string(name) + string(self._key.sign(data, padding.PKCS1v15(), kind))
        digest: Any = {"256": hashes.SHA256(), "384": hashes.SHA384(), "521": hashes.SHA512()}[self.kind[-3:]]
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(digest)))
        return string(self.kind.encode()) + string(mpint(r) + mpint(s))


def binding(server: ServerKey, session: bytes = SESSION, forwarding: bool = False) -> bytes:
    """An EXTENSION message: this connection signs in to that server in that session."""
    return (
        b"\x1b"
        + string(SESSION_BIND)
        + string(server.blob)
        + string(session)
        + string(server.sign(session))
        + bytes([forwarding])
    )


def sign_in(
    key: bytes, session: bytes = SESSION, user: bytes = b"git", host_key: bytes | None = None
) -> bytes:
    """What a client has signed to sign in; with `host_key` by OpenSSH's own method."""
    method = b"publickey" if host_key is None else b"publickey-hostbound-v00@openssh.com"
    words = (
        string(user) + string(b"ssh-connection") + string(method) + b"\x01" + string(ED25519) + string(key)
    )
    return string(session) + b"\x32" + words + (b"" if host_key is None else string(host_key))


def sign_request(key: bytes, data: bytes, flags: int = 0) -> bytes:
    return b"\x0d" + string(key) + string(data) + flags.to_bytes(4, "big")


def identities(answer: bytes) -> list[tuple[bytes, bytes]]:
    """The keys of an IDENTITIES_ANSWER and what stands behind each."""
    reader = Reader(answer)
    assert reader.byte() == 12, answer
    found = [(reader.string(), reader.string()) for _ in range(reader.uint32())]
    reader.end()
    return found


class OneKey:
    """proofs.SshKeys with the keys of a dictionary."""

    def __init__(self, **keys: ServerKey) -> None:
        self.keys = keys
        self.signed: list[bytes] = []
        self.wait: Deferred[None] | None = None

    async def public(self, user_id: str) -> bytes | None:
        if self.wait is not None:
            await self.wait
        return self.keys[user_id].blob if user_id in self.keys else None

    async def sign(self, user_id: str, data: bytes) -> bytes:
        if user_id not in self.keys:
            raise HostError(ErrorCode.NOT_FOUND, "no key")
        self.signed.append(data)
        return self.keys[user_id].sign(data)
