"""Bytes of SSH to types and back: what an agent is asked, what is signed, who signed. Pure.

Encodings: RFC 4251, section 5. Agent: draft-ietf-sshm-ssh-agent. What is signed to sign in: RFC 4252, section
7, and OpenSSH's PROTOCOL (publickey-hostbound) and PROTOCOL.agent (session-bind).
Whatever cannot be read as a whole raises ValueError.
"""

from __future__ import annotations

import hashlib
import struct
from base64 import b64encode

import attrs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

ED25519 = b"ssh-ed25519"
# Bytes of one message of the agent's protocol: what is signed to sign in has some hundred, the largest RSA
# key that OpenSSH takes two thousand, and its signature as many.
LONGEST = 16 << 10

# Message numbers (draft-ietf-sshm-ssh-agent, section 6.1).
FAILURE, SUCCESS = 5, 6
REQUEST_IDENTITIES, IDENTITIES_ANSWER = 11, 12
SIGN_REQUEST, SIGN_RESPONSE = 13, 14
EXTENSION = 27
SESSION_BIND = b"session-bind@openssh.com"

_USERAUTH_REQUEST = 50
_CONNECTION = b"ssh-connection"
_METHODS = {b"publickey": False, b"publickey-hostbound-v00@openssh.com": True}
_CURVES: dict[bytes, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    b"nistp256": (ec.SECP256R1(), hashes.SHA256()),
    b"nistp384": (ec.SECP384R1(), hashes.SHA384()),
    b"nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
# RFC 8332. SHA-1 (ssh-rsa) can be forged and is not here.
_RSA_HASHES: dict[bytes, hashes.HashAlgorithm] = {
    b"rsa-sha2-256": hashes.SHA256(),
    b"rsa-sha2-512": hashes.SHA512(),
}
# Bits: OpenSSH's own bounds.
_RSA_LEAST, _RSA_MOST = 2048, 16384


class Reader:
    """Takes values from the front of `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("it ends early")
        found, self._at = self._data[self._at : end], end
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.uint32())

    def mpint(self) -> int:
        """Of those that are not negative."""
        data = self.string()
        if data[:1] >= b"\x80":
            raise ValueError("a number is negative")
        return int.from_bytes(data, "big")

    def boolean(self) -> bool:
        return self.byte() != 0

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("something follows its end")


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def ed25519_blob(public: bytes) -> bytes:
    """The public key's blob (RFC 8709, section 4). public: 32 bytes."""
    return string(ED25519) + string(public)


def fingerprint(blob: bytes) -> str:
    """As `ssh-keygen -l` shows it."""
    return "SHA256:" + b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


@attrs.frozen
class SignRequest:
    key: bytes
    data: bytes


@attrs.frozen
class Binding:
    """What ssh says of the connection that it will sign in on. signature: the server's, over session."""

    host_key: bytes
    session: bytes
    signature: bytes
    forwarding: bool


@attrs.frozen
class SignIn:
    """What a client signs to sign in. host_key: the server's, when the client names it."""

    session: bytes
    user: bytes
    key: bytes
    host_key: bytes | None


def read_sign_request(body: bytes) -> SignRequest:
    """What follows the number of a SIGN_REQUEST. Its flags say how RSA keys sign, and there is none."""
    reader = Reader(body)
    found = SignRequest(reader.string(), reader.string())
    reader.uint32()
    reader.end()
    return found


def read_binding(body: bytes) -> Binding | None:
    """What follows the number of an EXTENSION; None for an extension of another name."""
    reader = Reader(body)
    if reader.string() != SESSION_BIND:
        return None
    found = Binding(reader.string(), reader.string(), reader.string(), reader.boolean())
    reader.end()
    return found


def read_sign_in(data: bytes) -> SignIn:
    """What is to be signed, when it is a request to sign in with an ed25519 key and nothing else."""
    reader = Reader(data)
    session = reader.string()
    if reader.byte() != _USERAUTH_REQUEST:
        raise ValueError("it is no request to sign in")
    user = reader.string()
    if reader.string() != _CONNECTION:
        raise ValueError("it is for another service than ssh-connection")
    host_bound = _METHODS.get(reader.string())
    if host_bound is None:
        raise ValueError("it signs in by another method than a public key")
    if not reader.boolean() or reader.string() != ED25519:
        raise ValueError("it is for a key of another kind")
    key = reader.string()
    host_key = reader.string() if host_bound else None
    reader.end()
    return SignIn(session, user, key, host_key)


def proves(binding: Binding) -> bool:
    """Whether the server whose key it is signed that session."""
    try:
        _verify(binding.host_key, binding.signature, binding.session)
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _verify(blob: bytes, signature: bytes, data: bytes) -> None:
    """InvalidSignature, or ValueError for what is no key or signature of a kind that is known."""
    key, signed = Reader(blob), Reader(signature)
    kind, algorithm = key.string(), signed.string()
    if kind == ED25519:
        public, proof = key.string(), signed.string()
        _ended(key, signed, algorithm == kind)
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(proof, data)
    elif kind.startswith(b"ecdsa-sha2-"):
        name, point, numbers = key.string(), key.string(), Reader(signed.string())
        r, s = numbers.mpint(), numbers.mpint()
        numbers.end()
        _ended(key, signed, algorithm == kind == b"ecdsa-sha2-" + name and name in _CURVES)
        curve, digest = _CURVES[name]
        ec_key = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        ec_key.verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))
    elif kind == b"ssh-rsa":
        exponent, modulus, proof = key.mpint(), key.mpint(), signed.string()
        _ended(key, signed, algorithm in _RSA_HASHES and _RSA_LEAST <= modulus.bit_length() <= _RSA_MOST)
        rsa_key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        # RFC 8332, section 3: leading zeros may be left out.
        padded = proof.rjust((modulus.bit_length() + 7) // 8, b"\0")
        rsa_key.verify(padded, data, padding.PKCS1v15(), _RSA_HASHES[algorithm])
    else:
        raise ValueError("a key of a kind that is not known")


def _ended(key: Reader, signature: Reader, fits: bool) -> None:
    key.end()
    signature.end()
    if not fits:
        raise ValueError("the signature is of another kind than the key")
