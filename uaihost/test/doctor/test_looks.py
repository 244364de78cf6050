"""What checks make of what they see: folders, disks, ports, logs, engines, certificates' words, accounts."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import tarfile
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.containers.setup import Machine
from uaihost.credentials.key_sources import FileSource
from uaihost.credentials.sealing import Sealer
from uaihost.doctor import bridge, bundle, data, engine, machine, stored
from uaihost.doctor.model import Finding, Report, Result, Verdict, ok
from uaihost.logs.records import stamp
from uaihost.paths import Folders, data_files
from uaihost.services.managers import State
from uaihost.state import accounts
from uaihost.state.database import Database
from uaihost.test.doctor.patients import TOKEN, patient
from uaihost.test.support import short_folder

Room = namedtuple("Room", "f_frsize f_blocks f_bavail f_files f_favail")
GIB = 1 << 30
NOW = 1_795_000_000.0


class Rig(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def is_(self, found: Finding, verdict: Verdict, *words: str) -> Finding:
        self.assertEqual(found.verdict, verdict, found)
        for word in words:
            self.assertIn(word, f"{found.text}\n" + "\n".join(found.fix))
        return found

    def type_(self, line: str) -> None:
        """What a person types; it must succeed."""
        subprocess.run(["sh", "-c", line], check=True)

    async def database(self) -> Database:
        return await Database.open(Folders(self.folder).database, data_files("migrations"), Inline())


class FolderTests(Rig):
    def look(self, root: Path, mounts: str = "") -> Finding:
        table = self.folder / "mounts"
        table.write_text(mounts)
        return data.look_at_folder(Folders(root), table)

    def test_a_good_one(self) -> None:
        root = self.folder / "data"
        root.mkdir(mode=0o700)
        self.is_(self.look(root, "/dev/sda / ext4 rw 0 0\n"), Verdict.OK, str(root))
        self.assertEqual(list(root.iterdir()), [])

    def test_one_to_be_made(self) -> None:
        self.is_(self.look(self.folder / "data"), Verdict.OK, "first start")
        self.assertFalse((self.folder / "data").exists())

    def test_open_to_others_until_the_fix_is_typed(self) -> None:
        root = self.folder / "data"
        root.mkdir()
        root.chmod(0o755)
        found = self.is_(self.look(root), Verdict.WARN, "other users")
        self.type_(found.fix[0])
        self.is_(self.look(root), Verdict.OK)

    def test_a_file_in_its_place(self) -> None:
        root = self.folder / "data"
        root.write_text("")
        found = self.is_(self.look(root), Verdict.FAIL, "not a folder")
        self.type_(found.fix[0])
        self.is_(self.look(root), Verdict.OK)

    def test_in_memory_and_far_away(self) -> None:
        root = self.folder / "data"
        root.mkdir(mode=0o700)
        mounts = f"/dev/sda / ext4 rw 0 0\ntmpfs {self.folder} tmpfs rw 0 0\n"
        self.is_(self.look(root, mounts), Verdict.FAIL, "in memory", "UAI_DATA_DIR")
        self.is_(self.look(root, mounts.replace("tmpfs", "nfs4")), Verdict.FAIL, "network file system")

    def test_a_path_too_long_for_a_socket(self) -> None:
        self.is_(self.look(self.folder / ("long" * 30)), Verdict.FAIL, "Unix socket", "UAI_DATA_DIR")

    def test_the_mount_that_holds_a_path(self) -> None:
        table = "a / ext4 rw\nb /var ext4 rw\nc /var/lib/my\\040data xfs rw\nd /va btrfs rw\n"
        found = [data.mount_of(Path(path), table) for path in ("/usr", "/var/lib", "/var/lib/my data/x")]
        self.assertEqual([one and one.place for one in found], ["/", "/var", "/var/lib/my data"])
        self.assertIsNone(data.mount_of(Path("/usr"), ""))


class DiskTests(Rig):
    def look(self, free: int, total: int = 100 * GIB, files: int = 10**7, budget: int = 50 * GIB) -> Finding:
        room = Room(4096, total // 4096, free // 4096, 10**7, files)
        with patch("os.statvfs", return_value=room):
            return data.look_at_disk(self.folder, budget)

    def test_rooms(self) -> None:
        self.is_(self.look(60 * GIB), Verdict.OK, "60.0 GiB of 100.0 GiB")
        self.is_(self.look(5 * GIB), Verdict.WARN, "uaihost gc")
        self.is_(self.look(1 * GIB), Verdict.FAIL, "no task starts", "uaihost gc")
        self.is_(self.look(60 * GIB, files=1000), Verdict.WARN, "more files")
        self.is_(self.look(60 * GIB, budget=200 * GIB), Verdict.WARN, "UAI_DISK_BUDGET=25G")

    def test_a_file_system_that_makes_room_for_files_as_it_goes(self) -> None:
        with patch("os.statvfs", return_value=Room(4096, 10**8, 10**8, 0, 0)):
            self.is_(data.look_at_disk(self.folder, GIB), Verdict.OK)


class DatabaseTests(Rig):
    def look(self) -> Finding:
        return data.look_at_database(Folders(self.folder).database)

    def test_none_yet(self) -> None:
        self.is_(self.look(), Verdict.OK, "first start")
        self.assertEqual(list(self.folder.iterdir()), [])

    async def test_a_whole_one_also_while_it_is_used(self) -> None:
        database = await self.database()
        self.is_(self.look(), Verdict.OK, "whole")
        await database.close()
        self.is_(self.look(), Verdict.OK, "whole")

    async def test_another_journal(self) -> None:
        await (await self.database()).close()
        connection = sqlite3.connect(Folders(self.folder).database)
        connection.execute("PRAGMA journal_mode=delete")
        connection.close()
        self.is_(self.look(), Verdict.WARN, "PRAGMA journal_mode=wal")

    async def test_a_damaged_one_until_the_copy_is_put_in_its_place(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        copy = path.with_name("state.db.before-0003")
        copy.write_bytes(path.read_bytes())
        path.write_bytes(b"no database" * 1000)
        found = self.is_(self.look(), Verdict.FAIL, "damaged", "before-0003")
        for line in found.fix:
            self.type_(line)
        self.is_(self.look(), Verdict.OK, "whole")

    async def test_a_page_that_was_overwritten(self) -> None:
        path = Folders(self.folder).database
        await (await self.database()).close()
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(8192))
        found = self.is_(self.look(), Verdict.FAIL, "damaged", "mv ")
        self.assertIn("your backup", found.fix[-1])

    def test_a_database_of_something_else(self) -> None:
        connection = sqlite3.connect(Folders(self.folder).database)
        connection.execute("CREATE TABLE songs (name TEXT)")
        connection.close()
        self.is_(self.look(), Verdict.FAIL, "something else")


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
        self.is_(await self.secrets(), Verdict.FAIL, "not opened", "cp BACKUP/secrets.key")
        key.write_bytes(kept)
        self.is_(await self.secrets(), Verdict.OK)

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


class BridgeWordTests(Rig):
    def test_a_refusal_of_the_name_is_none_of_the_token(self) -> None:
        self.is_(bridge.refusal(4001, "the host id must be 1 to 128 of A-Z"), Verdict.OK)
        self.is_(bridge.refusal(4001, "the token is not known here"), Verdict.FAIL, "UAI_HOST_TOKEN_FILE")
        self.is_(bridge.refusal(1006, "gone"), Verdict.FAIL, "1006")

    async def test_the_running_host_is_asked_for_its_token(self) -> None:
        for state, verdict in (("connected", Verdict.OK), ("fatal", Verdict.FAIL), ("waiting", Verdict.FAIL)):
            status = {"bridge": {"url": "ws://h/host", "state": state, "reason": "so", "retryAt": None}}
            self.is_(await bridge.token(patient(self.folder, status=status)), verdict)

    async def test_no_second_connection_is_opened_beside_a_running_hosts(self) -> None:
        status = {"bridge": {"url": "ws://no-such-name.invalid/host", "state": "connected"}}
        self.is_(await bridge.websocket(patient(self.folder, status=status)), Verdict.OK, "running host")

    async def test_without_a_token(self) -> None:
        self.is_(await bridge.token(patient(self.folder)), Verdict.SKIPPED, "uaihost up")
        far = patient(self.folder, UAI_CLOUD_URL="wss://bridge.example/host")
        self.is_(await bridge.token(far), Verdict.FAIL, "UAI_HOST_TOKEN_FILE")

    async def test_plain_text_to_another_machine(self) -> None:
        who = patient(self.folder, UAI_CLOUD_URL="ws://bridge.example/host")
        self.is_(await bridge.tls(who), Verdict.WARN, "export UAI_CLOUD_URL=wss://bridge.example/host")


class EngineTests(Rig):
    def machine(self, **about: Any) -> Machine:
        plain: dict[str, Any] = {
            "root": False, "apt": True, "dockerd": None, "system_socket": False, "socket_open": False,
            "systemd": True, "user": "sam",
        }  # fmt: skip
        return Machine(**(plain | about))

    def test_none_installed(self) -> None:
        found = engine.no_engine("unix:///var/run/no-such.sock", self.machine(), "")
        self.is_(found, Verdict.FAIL, "unset DOCKER_HOST")
        with patch("uaihost.doctor.engine.SYSTEM_SOCKET", f"unix://{self.folder}/docker.sock"):
            usual = f"unix://{self.folder}/docker.sock"
            self.is_(engine.no_engine(usual, self.machine(), ""), Verdict.FAIL, "apt-get install", "usermod")
            found = engine.no_engine(usual, self.machine(dockerd="/usr/sbin/dockerd"), "")
            self.is_(found, Verdict.FAIL, "sudo systemctl start docker")
            found = engine.no_engine(usual, self.machine(dockerd="/usr/sbin/dockerd", systemd=False), "")
            self.is_(found, Verdict.FAIL, "sudo service docker start")
            self.is_(engine.no_engine(usual, self.machine(apt=False), ""), Verdict.FAIL, "docs.docker.com")

    def test_no_right_to_it(self) -> None:
        path = self.folder / "docker.sock"
        with socket.socket(socket.AF_UNIX) as made, patch("os.access", return_value=False):
            made.bind(str(path))
            found = engine.no_engine(f"unix://{path}", self.machine(), "")
        self.is_(found, Verdict.FAIL, "sudo usermod -aG docker sam", "root on this machine")

    def test_far_away(self) -> None:
        self.is_(
            engine.no_engine("tcp://10.0.0.1:2375", self.machine(), "x"), Verdict.FAIL, "unset DOCKER_HOST"
        )

    VERSION = {"Version": "24.0.7", "ApiVersion": "1.43"}
    INFO: dict[str, Any] = {"Driver": "overlay2", "CgroupVersion": "2", "OSType": "linux"}

    def test_what_it_says_of_itself(self) -> None:
        judged = engine.judged
        self.is_(judged("A", self.VERSION, self.INFO), Verdict.OK, "24.0.7", "cgroups v2")
        self.is_(judged("A", {"Version": "19", "ApiVersion": "1.40"}, self.INFO), Verdict.FAIL, "1.40")
        self.is_(judged("A", self.VERSION, self.INFO | {"PidsLimit": False}), Verdict.FAIL, "processes")
        self.is_(judged("A", self.VERSION, self.INFO | {"Driver": "vfs"}), Verdict.WARN, "copies the image")
        self.is_(judged("A", self.VERSION, self.INFO | {"OSType": "windows"}), Verdict.FAIL, "Windows")
        rootless = {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}
        self.is_(judged("A", self.VERSION, self.INFO | rootless), Verdict.OK, "rootless")


class MachineTests(Rig):
    TABLE = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:2255 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1 0\n"
        "   1: 0100007F:2255 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  0 0 4712 1 0\n"
    )

    def test_who_listens(self) -> None:
        self.assertEqual(machine.listening(self.TABLE, 0x2255), {"4711"})
        self.assertEqual(machine.listening(self.TABLE, 80), set())
        descriptors = self.folder / "77" / "fd"
        descriptors.mkdir(parents=True)
        (self.folder / "net").mkdir()
        (self.folder / "net" / "tcp").write_text(self.TABLE)
        (self.folder / "77" / "comm").write_text("nginx\n")
        self.assertEqual(machine.who_listens(0x2255, self.folder), "another user's program")
        (descriptors / "3").symlink_to("socket:[4711]")
        self.assertEqual(machine.who_listens(0x2255, self.folder), "nginx (process 77)")
        self.assertEqual(machine.who_listens(80, self.folder), "another program")

    def log(self, *records: Mapping[str, Any]) -> Finding:
        path = self.folder / "uaihost.log"
        path.write_text("cut off\n" + "".join(json.dumps(record) + "\n" for record in records))
        return machine.look_at_log(path, NOW)

    def test_errors_of_the_last_hour(self) -> None:
        self.is_(machine.look_at_log(self.folder / "none", NOW), Verdict.SKIPPED)
        fine = {"time": stamp(NOW - 5), "level": "info", "message": "link connected"}
        old = {"time": stamp(NOW - 4000), "level": "error", "message": "long ago"}
        self.is_(self.log(fine, old), Verdict.OK, "1 lines")
        bad = {"time": stamp(NOW - 60), "level": "error", "message": "the disk is full\nmore"}
        found = self.is_(self.log(fine, old, bad, bad), Verdict.WARN, "2 errors", "(2 times)", "uaihost logs")
        self.assertNotIn("long ago", found.text)

    def service(self, found: Any) -> Finding:
        with patch("uaihost.doctor.machine._services", return_value=found):
            return machine.look_at_service(patient(self.folder))

    def test_the_service(self) -> None:
        self.is_(self.service(None), Verdict.SKIPPED)
        self.is_(self.service(()), Verdict.WARN, "uaihost install")
        self.is_(self.service(("systemd", State(True, True, "active (running)"))), Verdict.OK)
        self.is_(self.service(("systemd", State(False, True, "active"))), Verdict.WARN, "after a restart")
        found = self.service(("systemd --user", State(True, False, "failed (failed)")))
        self.is_(found, Verdict.FAIL, "uaihost start", "journalctl --user -u uaihost")


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
