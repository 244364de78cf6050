"""Users' SSH keys: one each, made here, sealed, given up only as signatures."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from uaihost.credentials.sealing import Sealer
from uaihost.credentials.ssh_keys import UserSshKeys, line, place
from uaihost.credentials.ssh_wire import Reader, fingerprint
from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import SshKeys
from uaihost.state import ssh_keys as table
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.credentials.ssh_model import OneKey, ServerKey
from uaihost.wire import frames


class KeysCase(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.store = MemoryStore()
        self.sealer = Sealer(b"k" * 32)
        self.asked: list[Deferred[None]] = []
        self.slow = False
        self.keys = UserSshKeys(self.clock, self.store, self.opened)

    async def opened(self) -> Sealer:
        if self.slow:
            self.asked.append(Deferred())
            await self.asked[-1]
        return self.sealer

    def done(self, work: Any) -> Any:
        return self.successResultOf(ensureDeferred(work))

    def fails(self, work: Any, code: ErrorCode) -> str:
        error = self.failureResultOf(ensureDeferred(work), HostError).value
        self.assertEqual(error.code, code)
        return str(error.message)

    def row(self) -> table.SshKeyRow:
        found = self.done(self.store.run(table.keys))
        self.assertEqual(len(found), 1)
        row: table.SshKeyRow = found[0]
        return row


class KeysTests(KeysCase):
    def test_made_once_and_shown(self) -> None:
        self.assertIsNone(self.done(self.keys.line("ada")))
        line = self.done(self.keys.ensure("ada"))
        self.assertEqual(self.done(self.keys.ensure("ada")), line)
        self.assertEqual(self.done(self.keys.line("ada")), line)
        kind, blob, comment = line.split(" ")
        self.assertEqual((kind, comment), ("ssh-ed25519", "uaihost"))
        self.assertEqual(self.done(self.keys.public("ada")), b64decode(blob))
        self.assertIsInstance(load_ssh_public_key(line.encode()), Ed25519PublicKey)
        self.assertEqual(self.row().at, 1_000_500)

    def test_each_user_has_another(self) -> None:
        lines = {self.done(self.keys.ensure(user)) for user in ("ada", "bob", "eve")}
        self.assertEqual(len(lines), 3)

    def test_what_it_signs(self) -> None:
        line = self.done(self.keys.ensure("ada"))
        reader = Reader(self.done(self.keys.sign("ada", b"words")))
        self.assertEqual(reader.string(), b"ssh-ed25519")
        key = load_ssh_public_key(line.encode())
        assert isinstance(key, Ed25519PublicKey)
        key.verify(reader.string(), b"words")
        reader.end()

    def test_no_user_no_key(self) -> None:
        self.assertIn("ssh-key ensure", self.fails(self.keys.sign("ada", b"x"), ErrorCode.NOT_FOUND))
        for name in ("", "a" * 201, "a\nb", "\x1b[1m"):
            self.fails(self.keys.ensure(name), ErrorCode.INVALID_ARGS)

    def test_deleted_and_made_anew(self) -> None:
        line = self.done(self.keys.ensure("ada"))
        self.done(self.keys.delete("ada"))
        self.done(self.keys.delete("ada"))
        self.assertIsNone(self.done(self.keys.public("ada")))
        self.assertNotEqual(self.done(self.keys.ensure("ada")), line)

    def test_the_row_alone_gives_nothing(self) -> None:
        self.done(self.keys.ensure("ada"))
        row = self.row()
        seed = self.sealer.open(place("ada"), row.secret)
        self.assertEqual(len(seed), 32)
        self.assertNotIn(seed, self.store.db.serialize())
        self.assertNotIn(repr(row.secret), repr(row))

    def test_another_seal_loses_nothing(self) -> None:
        line = self.done(self.keys.ensure("ada"))
        right, self.sealer = self.sealer, Sealer(b"w" * 32)
        for work in (self.keys.sign("ada", b"x"), self.keys.ensure("ada")):
            self.assertIn("ssh-key delete", self.fails(work, ErrorCode.UNAVAILABLE))
        self.assertEqual(self.done(self.keys.line("ada")), line)
        self.sealer = right
        self.done(self.keys.sign("ada", b"x"))

    def test_rows_cannot_be_exchanged(self) -> None:
        self.done(self.keys.ensure("ada"))
        self.done(self.keys.ensure("bob"))
        self.store.db.execute(
            "UPDATE ssh_keys SET secret = (SELECT secret FROM ssh_keys WHERE user_id = 'bob')"
        )
        self.fails(self.keys.sign("ada", b"x"), ErrorCode.UNAVAILABLE)
        self.done(self.keys.sign("bob", b"x"))

    def test_a_public_half_that_was_changed(self) -> None:
        self.done(self.keys.ensure("ada"))
        self.store.db.execute("UPDATE ssh_keys SET public = x'00'")
        self.assertIn("was changed", self.fails(self.keys.sign("ada", b"x"), ErrorCode.UNAVAILABLE))

    def test_two_who_ensure_at_once_get_one(self) -> None:
        self.slow = True
        both = [ensureDeferred(self.keys.ensure("ada")) for _ in range(2)]
        for each in self.asked:
            each.callback(None)
        lines = {self.successResultOf(each) for each in both}
        self.assertEqual(lines, {self.done(self.keys.line("ada"))})


class ContractTests(KeysCase):
    """What the agent's tests have in the place of keys does what these do."""

    def test_both(self) -> None:
        self.done(self.keys.ensure("ada"))
        both: tuple[SshKeys, ...] = (self.keys, OneKey(ada=ServerKey()))
        for keys in both:
            blob = self.done(keys.public("ada"))
            key = load_ssh_public_key(line(blob).encode())
            assert isinstance(key, Ed25519PublicKey)
            signature = Reader(self.done(keys.sign("ada", b"words")))
            self.assertEqual(signature.string(), b"ssh-ed25519")
            key.verify(signature.string(), b"words")
            signature.end()
            self.assertIsNone(self.done(keys.public("bob")))
            self.fails(keys.sign("bob", b"words"), ErrorCode.NOT_FOUND)


class FrameTests(KeysCase):
    def answer(self, frame: Any) -> Any:
        return self.done(self.keys.answer(frame))

    def test_each_frame(self) -> None:
        self.assertEqual(self.answer(frames.SshKeyGet("ada")), frames.SshKeyOk("ada", None))
        made = self.answer(frames.SshKeyEnsure("ada"))
        self.assertEqual(made, frames.SshKeyOk("ada", self.done(self.keys.line("ada"))))
        self.assertEqual(self.answer(frames.SshKeyGet("ada")), made)
        self.assertEqual(self.answer(frames.SshKeyDelete("ada")), frames.SshKeyOk("ada", None))
        self.assertEqual(self.answer(frames.SshKeyGet("ada")), frames.SshKeyOk("ada", None))

    def test_what_fails_is_said(self) -> None:
        self.answer(frames.SshKeyEnsure("ada"))
        self.sealer = Sealer(b"w" * 32)
        failed = self.answer(frames.SshKeyEnsure("ada"))
        self.assertIsInstance(failed, frames.SshKeyFailed)
        self.assertTrue(failed.error.startswith("unavailable: the SSH key of ada"))
        self.assertTrue(self.answer(frames.SshKeyGet("ada")).ok)

    def test_a_defect_is_said_without_its_words(self) -> None:
        self.store.fail_after = 0
        failed = self.answer(frames.SshKeyEnsure("ada"))
        self.assertEqual(failed.error, "internal: the host could not do it; see its log")
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_in_their_order(self) -> None:
        self.slow = True
        asked: list[Any] = [frames.SshKeyEnsure("ada"), frames.SshKeyGet("ada"), frames.SshKeyDelete("ada")]
        waiting: list[Any] = [ensureDeferred(self.keys.answer(frame)) for frame in asked]
        self.assertNoResult(waiting[2])
        self.asked[0].callback(None)
        found = [self.successResultOf(each).publicKey for each in waiting]
        self.assertEqual(found[0], found[1])
        self.assertIsNone(found[2])

    def test_verbs_of_the_owners_programs(self) -> None:
        verbs = self.keys.verbs()
        none = {"publicKey": None, "fingerprint": None}
        self.assertEqual(self.done(verbs["ssh.show"]({"user": "ada"})), none)
        made = self.done(verbs["ssh.ensure"]({"user": "ada"}))
        blob = self.done(self.keys.public("ada"))
        self.assertEqual(made, {"publicKey": line(blob), "fingerprint": fingerprint(blob)})
        self.assertEqual(self.done(verbs["ssh.show"]({"user": "ada"})), made)
        self.assertEqual(self.done(verbs["ssh.delete"]({"user": "ada"})), none)
        self.fails(verbs["ssh.show"]({"user": 3}), ErrorCode.INVALID_ARGS)
