"""The key of stored secrets: where it lies, that nobody makes another behind it, and its rotation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.credentials.key_sources import (
    CREDENTIALS,
    NAME,
    OLD_NAME,
    FileSource,
    KeyringSource,
    KeySource,
    SystemdSource,
    source,
)
from uaihost.credentials.keys import Keys
from uaihost.credentials.sealing import Sealer, sealed_with
from uaihost.errors import HostError
from uaihost.state import accounts, sealed
from uaihost.test.channel.rig import MemoryStore
from uaihost.test.support import given, short_folder, strategies

KEY, OTHER = b"k" * 32, b"o" * 32
SECRETS = {"accounts/claude": b"sk-one", "github/u1": b"ghr-two", "ssh/u1": b"three"}


def store_all(store: MemoryStore, sealer: Sealer) -> None:
    """A row in each table."""
    sealed_ = {place: sealer.seal(place, secret) for place, secret in SECRETS.items()}
    accounts.put(store.db, accounts.AccountRow("claude", "key", sealed_["accounts/claude"], 1))
    store.db.execute(
        "INSERT INTO github_connections (user_id, form, login, host, secret, generation, at) "
        "VALUES ('u1', 'token', 'me', 'github.com', ?, 1, 1)",
        (sealed_["github/u1"],),
    )
    store.db.execute(
        "INSERT INTO ssh_keys (user_id, public, secret, at) VALUES ('u1', x'00', ?, 1)", (sealed_["ssh/u1"],)
    )


def opened(store: MemoryStore, sealer: Sealer) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def take(place: str, secret: bytes) -> None:
        found[place] = sealer.open(place, secret)

    sealed.seal_again(store.db, take)
    return found


class FileTests(TestCase):
    def setUp(self) -> None:
        self.path = short_folder(self) / "secrets.key"
        self.source = FileSource(self.path)

    def refused(self) -> str:
        return str(self.assertRaises(HostError, self.source.read).message)

    def test_it_is_for_its_owner_alone_and_no_key_lies_bare_in_it(self) -> None:
        self.assertEqual(self.source.read(), (None, None))
        self.source.write(KEY)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.source.read(), (KEY, None))
        self.assertNotIn(KEY, self.path.read_bytes())

    def test_the_one_before_stays_until_it_is_not_needed(self) -> None:
        self.source.write(KEY)
        self.source.write(OTHER)
        self.assertEqual(self.source.read(), (OTHER, KEY))
        self.source.forget_old()
        self.assertEqual(self.source.read(), (OTHER, None))
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["secrets.key"])

    def test_one_that_others_can_read_is_refused(self) -> None:
        self.source.write(KEY)
        self.path.chmod(0o640)
        self.assertIn("chmod 600", self.refused())

    def test_what_is_no_key_is_refused_and_stays(self) -> None:
        for text in ("", "zz", "00" * 31):
            self.path.write_text(text)
            self.path.chmod(0o600)
            self.assertIn("holds no key", self.refused())
            self.assertEqual(self.path.read_text(), text)


class FakeKeyring:
    """The three functions of the library that are used; locked: it asks for a password that nobody gives."""

    class errors:
        class KeyringError(Exception):
            pass

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, account: str) -> str | None:
        if self.locked:
            raise self.errors.KeyringError("locked")
        return self.held.get((service, account))

    def set_password(self, service: str, account: str, password: str) -> None:
        self.held[service, account] = password

    def delete_password(self, service: str, account: str) -> None:
        del self.held[service, account]


class MemoryBackend(keyring.backend.KeyringBackend):
    """A keyring of the library's that lives as long as the test."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self._held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self._held[service, username]


class SourceTests(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def test_which_one_counts(self) -> None:
        file = self.folder / "data" / "secrets.key"
        environ = {CREDENTIALS: str(self.folder)}
        self.assertEqual(source("auto", file, {}), FileSource(file))
        self.assertEqual(source("auto", file, environ), FileSource(file))
        (self.folder / NAME).write_text(KEY.hex())
        self.assertEqual(source("auto", file, environ), SystemdSource(self.folder))
        self.assertEqual(source("file", file, environ), FileSource(file))
        self.assertIn("LoadCredential", self.assertRaises(HostError, source, "systemd", file, {}).message)

    def test_a_credential_of_systemd_is_read_and_never_written(self) -> None:
        one = SystemdSource(self.folder)
        self.assertEqual(one.read(), (None, None))
        (self.folder / NAME).write_text(KEY.hex() + "\n")
        (self.folder / OLD_NAME).write_text(OTHER.hex())
        self.assertEqual(one.read(), (KEY, OTHER))
        self.assertIn(OLD_NAME, self.assertRaises(HostError, one.write, OTHER).message)

    def test_the_keyring_keeps_the_one_before_as_well(self) -> None:
        ring = FakeKeyring()
        self.keeps_the_one_before(KeyringSource(ring, "/data"), KeyringSource(ring, "/other"))
        ring.locked = True
        locked = KeyringSource(ring, "/data")
        self.assertIn("UAI_SECRETS_KEY=file", self.assertRaises(HostError, locked.read).message)

    def test_the_library_does_as_the_fake(self) -> None:
        before = keyring.get_keyring()
        keyring.set_keyring(MemoryBackend())
        self.addCleanup(keyring.set_keyring, before)
        one = source("keyring", self.folder / "secrets.key", {})
        self.keeps_the_one_before(one, source("keyring", self.folder / "other" / "secrets.key", {}))
        keyring.set_keyring(keyring.backends.fail.Keyring())
        self.assertIn("UAI_SECRETS_KEY=file", self.assertRaises(HostError, one.read).message)

    def keeps_the_one_before(self, one: KeySource, other: KeySource) -> None:
        self.assertEqual(one.read(), (None, None))
        one.write(KEY)
        one.write(OTHER)
        self.assertEqual(one.read(), (OTHER, KEY))
        self.assertEqual(other.read(), (None, None))
        one.forget_old()
        one.forget_old()
        self.assertEqual(one.read(), (OTHER, None))


class KilledError(Exception):
    """The process ended here."""


class StoppingSource:
    """A file whose user is killed at the nth step."""

    def __init__(self, path: Path, steps: int) -> None:
        self._file = FileSource(path)
        self._left = steps

    where = "a file"

    def _step(self) -> None:
        if self._left == 0:
            raise KilledError
        self._left -= 1

    def read(self) -> tuple[bytes | None, bytes | None]:
        return self._file.read()

    def write(self, key: bytes) -> None:
        self._step()
        self._file.write(key)
        self._step()

    def forget_old(self) -> None:
        self._step()
        self._file.forget_old()
        self._step()


class KeysTests(TestCase):
    def setUp(self) -> None:
        self.store = MemoryStore()
        self.path = short_folder(self) / "secrets.key"
        self.made = 0

    def keys(self, found: Callable[[], KeySource] | None = None) -> Keys:
        return Keys(Inline(), self.store, found or (lambda: FileSource(self.path)), self.random)

    def random(self, size: int) -> bytes:
        self.made += 1
        return bytes([self.made]) * size

    async def test_it_is_made_once_and_only_while_nothing_is_sealed(self) -> None:
        keys = self.keys()
        self.assertIs(await keys.sealer(), await keys.sealer())
        self.assertEqual(self.made, 1)
        store_all(self.store, await keys.sealer())
        self.path.unlink()
        for work in (self.keys().sealer, self.keys().rotate):
            try:
                await work()
            except HostError as error:
                self.assertIn("3 stored secrets, is missing", error.message)
            else:
                self.fail("another key was made behind stored secrets")
        self.assertEqual(self.made, 1)

    async def test_rotation_seals_everything_anew(self) -> None:
        keys = self.keys()
        sealer = await keys.sealer()
        store_all(self.store, sealer)
        before = self.path.read_bytes()
        self.assertEqual(await keys.rotate(), 3)
        self.assertEqual(opened(self.store, sealer), SECRETS, "whoever holds the sealer goes on")
        self.assertNotEqual(self.path.read_bytes(), before)
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["secrets.key"])
        self.assertEqual(opened(self.store, await self.keys().sealer()), SECRETS)
        first = Sealer(bytes.fromhex(before.decode()))
        self.assertRaises(HostError, opened, self.store, first)

    async def test_killed_at_any_step_the_next_start_opens_everything(self) -> None:
        store_all(self.store, await self.keys().sealer())
        for steps in range(4):
            keys = self.keys(lambda steps=steps: StoppingSource(self.path, steps))  # type: ignore[misc]
            try:
                await keys.rotate()
            except KilledError:
                pass
            else:
                self.fail(f"step {steps} was not reached")
            keys = self.keys()
            status = await keys.status()
            self.assertEqual((status["sealed"], status["others"]), (3, 0), "after it has ended the rotation")
            sealer = await keys.sealer()
            self.assertEqual(opened(self.store, sealer), SECRETS, steps)
            self.assertEqual({sealed_with(one) for _, one in sealed.secrets(self.store.db)}, {sealer.key_id})
            self.assertEqual([path.name for path in self.path.parent.iterdir()], ["secrets.key"])

    async def test_one_secret_that_does_not_open_stops_it_before_anything_changes(self) -> None:
        keys = self.keys()
        store_all(self.store, await keys.sealer())
        row = accounts.AccountRow("codex", "key", Sealer(OTHER).seal("accounts/codex", b"x"), 1)
        accounts.put(self.store.db, row)
        before = self.path.read_bytes(), sealed.secrets(self.store.db)
        try:
            await keys.rotate()
        except HostError as error:
            self.assertIn("nothing was changed", error.message)
        else:
            self.fail("it was rotated")
        self.assertEqual((self.path.read_bytes(), sealed.secrets(self.store.db)), before)
        status = await keys.status()
        self.assertEqual((status["sealed"], status["others"], status["problem"]), (3, 1, None))
        self.assertEqual(await keys.forget(), 1)
        self.assertEqual(await keys.rotate(), 3)

    async def test_a_row_that_was_changed_hinders_no_start_and_stays(self) -> None:
        keys = self.keys()
        store_all(self.store, await keys.sealer())
        (_, damaged), *_ = sealed.secrets(self.store.db)
        damaged = damaged[:-1] + bytes([damaged[-1] ^ 1])
        self.store.db.execute("UPDATE accounts SET secret = ?", (damaged,))
        try:
            await keys.rotate()
        except HostError as error:
            self.assertIn("does not open the secret accounts/claude", error.message)
        else:
            self.fail("it was rotated")
        # A rotation that a stop interrupted, before somebody changed the row.
        FileSource(self.path).write(OTHER)
        keys = self.keys()
        sealer = await keys.sealer()
        self.assertEqual(sealer.key, OTHER)
        status = await keys.status()
        self.assertEqual((status["sealed"], status["others"], status["problem"]), (2, 1, None))
        self.assertIn(("accounts/claude", damaged), sealed.secrets(self.store.db))
        self.assertEqual(await keys.forget(), 1)
        self.assertEqual(await keys.rotate(), 2)

    async def test_who_read_a_row_before_a_rotation_opens_it_after(self) -> None:
        keys = self.keys()
        sealer = await keys.sealer()
        store_all(self.store, sealer)
        read = sealed.secrets(self.store.db)
        await keys.rotate()
        self.assertEqual({place: sealer.open(place, secret) for place, secret in read}, SECRETS)

    async def test_a_start_makes_no_key_and_goes_on_without_one(self) -> None:
        await self.keys().start()
        self.assertFalse(self.path.exists())
        store_all(self.store, Sealer(KEY))
        before = sealed.secrets(self.store.db)
        await self.keys().start()
        self.assertFalse(self.path.exists())
        self.assertEqual(sealed.secrets(self.store.db), before)

    async def test_a_key_that_is_lost_is_said_and_can_be_given_up(self) -> None:
        store_all(self.store, await self.keys().sealer())
        self.path.unlink()
        keys = self.keys()
        status = await keys.status()
        self.assertEqual((status["sealed"], status["others"]), (0, 3))
        self.assertIn("missing", status["problem"])
        self.assertEqual(await keys.forget(), 3)
        await keys.sealer()
        self.assertEqual(self.made, 2)

    async def test_an_older_key_of_systemd_is_replaced_at_the_start(self) -> None:
        folder = self.path.parent
        (folder / OLD_NAME).write_text(OTHER.hex())
        (folder / NAME).write_text(KEY.hex())
        store_all(self.store, Sealer(OTHER))
        before = sealed.secrets(self.store.db)
        keys = self.keys(lambda: SystemdSource(folder))
        await keys.start()
        self.assertFalse({one for _, one in before} & {one for _, one in sealed.secrets(self.store.db)})
        # The older one is taken away.
        (folder / OLD_NAME).unlink()
        sealer = await self.keys(lambda: SystemdSource(folder)).sealer()
        self.assertEqual(opened(self.store, sealer), SECRETS)
        self.assertEqual(sealer.key_id, Sealer(KEY).key_id)

    @given(strategies.binary(min_size=1, max_size=60))
    def test_no_secret_is_seen_in_what_is_stored(self, secret: bytes) -> None:
        stored = Sealer(KEY).seal("accounts/claude", b"<" * 8 + secret)
        self.assertNotIn(b"<" * 4 + secret, stored)

    def test_every_column_that_is_sealed_is_in_the_table(self) -> None:
        named = {each.name for each in sealed.TABLES}
        query = "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' "
        # A flag of that name is no secret.
        holding = self.store.db.execute(query + "AND c.name = 'secret' AND c.type = 'BLOB'")
        self.assertEqual({name for (name,) in holding}, named)
