"""Checks of what is stored, and the file for a bug report: what they say, and that no secret is in it."""

from __future__ import annotations

import json
import socket
import tarfile
from collections.abc import Mapping
from typing import Any

from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.sealing import Sealer
from uaihost.doctor import bundle, stored
from uaihost.doctor.model import Finding, Report, Result, Verdict, ok
from uaihost.logs.records import stamp
from uaihost.paths import Folders
from uaihost.state import accounts
from uaihost.test.doctor.patients import TOKEN, patient
from uaihost.test.doctor.rig import Rig

NOW = 1_795_000_000.0


class StoredTests(Rig):
    async def signed_in(self, secret: dict[str, str], form: str = "key") -> None:
        sealer = Sealer(b"k" * 32)
        FileSource(Folders(self.folder).secrets_key).write(b"k" * 32)
        sealed = sealer.seal("accounts/claude", json.dumps(secret).encode())
        database = await self.database()
        await database.run(lambda db: accounts.put(db, accounts.AccountRow("claude", form, sealed, 1)))
        await database.close()

    async def secrets(self) -> Finding:
        return await stored.secrets(patient(self.folder))

    async def test_nothing_sealed(self) -> None:
        self.is_(await self.secrets(), Verdict.OK, "nothing")

    async def test_the_key_opens_all(self) -> None:
        await self.signed_in({"key": "sk-a-secret"})
        self.is_(await self.secrets(), Verdict.OK, "1 secrets")

    async def test_a_key_that_others_can_read_until_it_is_closed(self) -> None:
        await self.signed_in({"key": "sk-a-secret"})
        key = Folders(self.folder).secrets_key
        key.chmod(0o644)
        found = self.is_(await self.secrets(), Verdict.FAIL, "chmod 600")
        self.type_(found.fix[0])
        self.is_(await self.secrets(), Verdict.OK)

    async def test_a_key_that_is_gone_or_another(self) -> None:
        await self.signed_in({"key": "sk-a-secret"})
        key = Folders(self.folder).secrets_key
        kept = key.read_bytes()
        key.unlink()
        self.is_(await self.secrets(), Verdict.FAIL, "is missing", "uaihost secrets forget")
        FileSource(key).write(b"x" * 32)
        another = key.read_bytes()
        found = self.is_(await self.secrets(), Verdict.FAIL, "not opened", "cp BACKUP/secrets.key")
        backup = self.folder / "backup"
        backup.mkdir()
        (backup / "secrets.key").write_bytes(kept)
        self.type_(found.fix[0].replace("BACKUP", str(backup)))
        self.is_(await self.secrets(), Verdict.OK)
        # What the other one sealed is not lost with it.
        self.assertEqual(key.with_name("secrets.key.other").read_bytes(), another)

    async def test_the_running_host_is_asked_instead(self) -> None:
        asked: list[tuple[str, str]] = []

        def ask(method: str, path: str, body: Any) -> Mapping[str, Any]:
            asked.append((method, path))
            return {"where": "K", "sealed": 3, "others": 0, "problem": None}

        who = patient(self.folder, status={"version": "1"}, ask=ask)
        self.is_(await stored.secrets(who), Verdict.OK, "3 secrets")
        self.assertEqual(asked, [("POST", "/api/verbs/secrets.status")])

    async def test_agents(self) -> None:
        self.is_(await stored.agents(patient(self.folder)), Verdict.WARN, "uaihost login claude")
        await self.signed_in({"key": "sk-a-secret"})
        found = self.is_(await stored.agents(patient(self.folder)), Verdict.OK, "claude", "opencode")
        self.assertNotIn("sk-a-secret", str(found))
        Folders(self.folder).secrets_key.unlink()
        self.is_(await stored.agents(patient(self.folder)), Verdict.FAIL, "uaihost login claude")

    def test_a_login_that_has_ended(self) -> None:
        rows = [{"provider": "codex", "form": "login", "expires": int((NOW - 7200) * 1000)}]
        found = stored.judged_accounts(rows, patient(self.folder), NOW)
        self.is_(found, Verdict.WARN, "2 h ago", "uaihost login codex")

    def test_the_small_image_has_no_agents(self) -> None:
        rows = [{"provider": "claude", "form": "key"}]
        found = stored.judged_accounts(rows, patient(self.folder, UAI_TASK_IMAGE="small"), NOW)
        self.is_(found, Verdict.WARN, "unset UAI_TASK_IMAGE")

    async def test_what_is_stored_is_in_no_report(self) -> None:
        await self.signed_in({"key": "an-account-key-without-a-look"})
        line = {"time": stamp(NOW), "level": "info", "message": "said an-account-key-without-a-look"}
        (self.folder / "uaihost.log").write_text(json.dumps(line) + "\n")
        shown = bundle.tail(self.folder / "uaihost.log", bundle.redactor(patient(self.folder)))
        self.assertIn("said [secret]", shown)
        self.assertNotIn("without-a-look", shown)

    def test_whether_github_is_reached(self) -> None:
        with socket.socket() as made:
            made.bind(("127.0.0.1", 0))
            made.listen()
            url = f"https://127.0.0.1:{made.getsockname()[1]}/api/v3"
            self.is_(stored.reached(url), Verdict.OK)
        self.is_(stored.reached(url), Verdict.WARN, "is not reached", "curl -sI https://127.0.0.1:")

    async def test_users(self) -> None:
        self.is_(stored.look_at_users(patient(self.folder)), Verdict.SKIPPED)
        database = await self.database()
        columns = "user_id, form, login, host, secret, generation, begun, problem, at"
        row = ("u", "app", "octocat", "github.com", b"s", 1, None, "the grant was revoked", 1)
        await database.run(
            lambda db: db.execute(
                f"INSERT INTO github_connections ({columns}) VALUES (?,?,?,?,?,?,?,?,?)", row
            )
        )
        await database.close()
        self.is_(stored.look_at_users(patient(self.folder)), Verdict.WARN, "octocat", "revoked", "/retry-gh")


class BundleTests(Rig):
    def test_no_secret_is_in_it(self) -> None:
        words = {"token": TOKEN, "host-token": "T" * 43, "bridge.key": "B" * 43, "secrets.key": "c0ffee" * 10}
        for name in ("host-token", "bridge.key", "secrets.key"):
            (self.folder / name).write_text(words[name] + "\n")
        said = " and ".join(words.values())
        line = {
            "time": stamp(NOW),
            "level": "error",
            "message": f"oh {said}",
            "fields": {"token": "hunter22"},
        }
        (self.folder / "uaihost.log").write_text(json.dumps(line) + "\n" + f"plain {TOKEN}\n")
        who = patient(
            self.folder,
            status={"bridge": {"url": f"wss://me:{words['bridge.key']}@b.example/?token=abcdefghi"}},
            UAI_HOST_TOKEN=TOKEN,
            UAI_GITHUB_CLIENT_SECRET="the-client-secret",
        )
        report = Report("1", 5000, 1.0, (Result("a", "A", ok(f"see {said}", where=said), 0.1),))
        target = self.folder / "report.tar.gz"
        held = bundle.write(target, who, report)
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)
        with tarfile.open(target) as archive:
            members = {one.name: archive.extractfile(one) for one in archive.getmembers()}
            texts = {name: file.read().decode() for name, file in members.items() if file is not None}
        self.assertEqual(
            sorted(texts),
            [f"uaihost-report/{name}" for name in sorted(
                ("README.txt", "checks.json", "versions.json", "settings.json", "status.json", "log.jsonl")
            )],
        )  # fmt: skip
        self.assertEqual(len(held), len(texts))
        whole = "\n".join(texts.values())
        for secret in (*words.values(), "hunter22", "the-client-secret", "abcdefghi"):
            self.assertNotIn(secret, whole)
        self.assertIn("[secret]", texts["uaihost-report/checks.json"])
        settings = json.loads(texts["uaihost-report/settings.json"])["settings"]
        self.assertEqual((settings["token"], settings["task_memory"]), (True, 4 << 30))
        self.assertIn("oh [secret]", texts["uaihost-report/log.jsonl"])

    def test_with_nothing_there(self) -> None:
        held = bundle.write(self.folder / "r.tar.gz", patient(self.folder), Report("1", 0, 0.0, ()))
        self.assertEqual(len(held), 6)
