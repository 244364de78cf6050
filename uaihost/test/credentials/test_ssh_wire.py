"""SSH's bytes: read as a whole or not at all, and signatures of every kind that servers have."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.credentials import ssh_wire as wire
from uaihost.credentials.ssh_wire import Binding, Reader, SignRequest, string
from uaihost.test.credentials.ssh_model import SESSION, ServerKey, binding, mpint, sign_in, sign_request
from uaihost.test.support import given, strategies

_KINDS = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
_BLOBS = strategies.binary(max_size=80)


def bound(server: ServerKey, **changes: bytes) -> Binding:
    words = {"host_key": server.blob, "session": SESSION, "signature": server.sign(SESSION), **changes}
    return Binding(**words, forwarding=False)


class SignatureTests(TestCase):
    def test_each_kind_of_server(self) -> None:
        for kind in _KINDS:
            server = ServerKey(kind)
            self.assertTrue(wire.proves(bound(server)), kind)
            self.assertFalse(wire.proves(bound(server, session=b"another")), kind)
            self.assertFalse(wire.proves(bound(ServerKey(kind), signature=server.sign(SESSION))), kind)

    def test_another_kind_than_the_key(self) -> None:
        servers = [ServerKey(kind) for kind in _KINDS]
        for key in servers:
            for signer in servers:
                if key is not signer:
                    self.assertFalse(wire.proves(bound(key, signature=signer.sign(SESSION))))

    def test_sha1_proves_nothing(self) -> None:
        self.assertFalse(wire.proves(bound(ServerKey("ssh-rsa", digest="1"))))
        self.assertTrue(wire.proves(bound(ServerKey("ssh-rsa", digest="256"))))

    def test_no_certificates_and_no_small_keys(self) -> None:
        server = ServerKey()
        certificate = string(b"ssh-ed25519-cert-v01@openssh.com") + string(b"x" * 32)
        self.assertFalse(wire.proves(bound(server, host_key=certificate)))
        small = string(b"ssh-rsa") + mpint(65537) + mpint((1 << 1023) + 9)
        self.assertFalse(wire.proves(bound(server, host_key=small)))

    def test_what_follows_a_key_or_signature_counts(self) -> None:
        server = ServerKey()
        self.assertFalse(wire.proves(bound(server, host_key=server.blob + b"x")))
        self.assertFalse(wire.proves(bound(server, signature=server.sign(SESSION) + b"x")))

    def test_leading_zeros_of_an_rsa_signature_may_be_missing(self) -> None:
        server = ServerKey("ssh-rsa")
        for number in range(2000):
            session = str(number).encode()
            reader = Reader(server.sign(session))
            name, proof = reader.string(), reader.string()
            if proof.startswith(b"\0"):
                short = string(name) + string(proof.lstrip(b"\0"))
                self.assertTrue(wire.proves(bound(server, session=session, signature=short)))
                return
        self.fail("no signature began with a zero")

    @given(
        strategies.sampled_from(["ssh-ed25519", "ecdsa-sha2-nistp256"]),
        strategies.integers(0, 999),
        strategies.integers(1, 255),
    )
    def test_no_changed_byte_proves(self, kind: str, at: int, change: int) -> None:
        server = ServerKey(kind)
        signature = bytearray(server.sign(SESSION))
        signature[at % len(signature)] ^= change
        self.assertFalse(wire.proves(bound(server, signature=bytes(signature))))


class ReadingTests(TestCase):
    @given(_BLOBS, _BLOBS, strategies.integers(0, 2**32 - 1))
    def test_requests_come_back(self, key: bytes, data: bytes, flags: int) -> None:
        self.assertEqual(wire.read_sign_request(sign_request(key, data, flags)[1:]), SignRequest(key, data))

    @given(_BLOBS, _BLOBS, _BLOBS, strategies.none() | _BLOBS)
    def test_sign_ins_come_back(
        self, key: bytes, session: bytes, user: bytes, host_key: bytes | None
    ) -> None:
        found = wire.read_sign_in(sign_in(key, session, user, host_key))
        self.assertEqual(found, wire.SignIn(session, user, key, host_key))

    @given(strategies.binary(max_size=200))
    def test_anything_at_all(self, data: bytes) -> None:
        for read in (wire.read_sign_request, wire.read_binding, wire.read_sign_in):
            try:
                read(data)
            except ValueError:
                continue
        self.assertFalse(wire.proves(Binding(data, data, data, False)))

    @given(strategies.integers(0, 200), strategies.booleans())
    def test_cut_or_continued_is_nothing(self, cut: int, host_bound: bool) -> None:
        key = ServerKey().blob
        whole = sign_in(key, host_key=key if host_bound else None)
        for broken in (whole[: min(cut, len(whole) - 1)], whole + b"x"):
            with self.assertRaises(ValueError):
                wire.read_sign_in(broken)

    def test_other_things_that_ssh_signs(self) -> None:
        key = ServerKey().blob
        whole = sign_in(key)
        others = [
            b"SSHSIG" + string(b"git") + string(b"") + string(b"sha512") + string(b"h" * 64),
            whole.replace(b"ssh-connection", b"ssh-userauth\0\0"),
            whole.replace(b"publickey", b"hostbased"),
            whole.replace(b"ssh-ed25519", b"sk-ed255190"),
            string(SESSION) + b"\x31" + whole[37:],
            b"",
        ]
        for other in others:
            with self.assertRaises(ValueError, msg=other):
                wire.read_sign_in(other)

    def test_another_extension_is_none(self) -> None:
        self.assertIsNone(wire.read_binding(string(b"query")))
        server = ServerKey()
        found = wire.read_binding(binding(server, forwarding=True)[1:])
        assert found is not None
        self.assertEqual((found.host_key, found.forwarding), (server.blob, True))

    def test_fingerprints_are_those_that_forges_publish(self) -> None:
        blob = b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes.fromhex(
            "e32aaa7915ceb9b449d1ba50ea2a28bb1a6e01f90bda245a2d1d87697d18a265"
        )
        self.assertEqual(wire.fingerprint(blob), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU")
