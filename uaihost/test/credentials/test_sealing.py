"""Secrets at rest: what opens, what does not, and what is said then."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.credentials.sealing import Sealer, sealed_with
from uaihost.errors import HostError
from uaihost.test.support import given, strategies

PLACE = "accounts/claude"


class SealingTests(TestCase):
    def refused(self, sealer: Sealer, place: str, sealed: bytes) -> str:
        with self.assertRaises(HostError) as caught:
            sealer.open(place, sealed)
        return str(caught.exception.message)

    @given(strategies.binary(max_size=200), strategies.binary(min_size=32, max_size=32))
    def test_what_was_sealed_opens_and_is_not_seen(self, secret: bytes, key: bytes) -> None:
        sealer = Sealer(key)
        sealed = sealer.seal(PLACE, secret)
        self.assertEqual(sealer.open(PLACE, sealed), secret)
        if len(secret) > 3:
            self.assertNotIn(secret, sealed)
        self.assertNotEqual(sealed, sealer.seal(PLACE, secret), "two of the same must not look alike")

    @given(strategies.integers(0, 200), strategies.integers(1, 255))
    def test_one_changed_byte_and_it_does_not_open(self, at: int, change: int) -> None:
        sealer = Sealer(b"k" * 32)
        sealed = bytearray(sealer.seal(PLACE, b"secret"))
        sealed[at % len(sealed)] ^= change
        self.refused(sealer, PLACE, bytes(sealed))

    def test_another_row_or_key_or_half_of_it_does_not_open(self) -> None:
        sealer = Sealer(b"k" * 32)
        sealed = sealer.seal(PLACE, b"secret")
        self.assertIn("another row", self.refused(sealer, "accounts/codex", sealed))
        self.assertIn("another key", self.refused(Sealer(b"l" * 32), PLACE, sealed))
        self.assertEqual(sealed_with(sealed), sealer.key_id)
        self.assertIsNone(sealed_with(b"plain text"))
        for length in range(len(sealed)):
            self.refused(sealer, PLACE, sealed[:length])
