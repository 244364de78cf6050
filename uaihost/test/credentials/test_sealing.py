"""Secrets at rest: what opens, what does not, and what is said then."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.credentials.sealing import Sealer, key_file
from uaihost.errors import HostError
from uaihost.test.support import given, short_folder, strategies

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
        for length in range(len(sealed)):
            self.refused(sealer, PLACE, sealed[:length])


class KeyTests(TestCase):
    def setUp(self) -> None:
        self.path: Path = short_folder(self) / "secrets.key"

    def refused(self, make: bool = True) -> str:
        with self.assertRaises(HostError) as caught:
            key_file(self.path, make)
        return str(caught.exception.message)

    def test_it_is_made_once_for_its_owner_alone(self) -> None:
        key = key_file(self.path, True)
        self.assertEqual(len(key), 32)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(key_file(self.path, False), key)
        self.assertNotIn(key, self.path.read_bytes())

    def test_one_that_is_missing_is_not_made_anew_behind_what_it_has_sealed(self) -> None:
        self.assertIn("missing", self.refused(make=False))
        self.assertFalse(self.path.exists())

    def test_one_that_others_can_read_is_refused(self) -> None:
        key_file(self.path, True)
        self.path.chmod(0o640)
        self.assertIn("chmod 600", self.refused())

    def test_what_is_no_key_is_refused_and_stays(self) -> None:
        for text in ("", "zz", "00" * 31):
            self.path.write_text(text)
            self.path.chmod(0o600)
            self.assertIn("holds no key", self.refused())
            self.assertEqual(self.path.read_text(), text)
