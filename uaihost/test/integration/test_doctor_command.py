"""`uaihost doctor` as people type it: beside a running host, and where everything is broken."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from uaihost.test.integration.rig import PeerTestCase
from uaihost.test.integration.service import BIN, TOKEN
from uaihost.test.support import short_folder

reactor: Any = global_reactor


class Command:
    """The program with an environment; `json` and `text` run it."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.environ = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(folder),
            "UAI_DATA_DIR": str(folder / "data"),
            "UAI_TASK_IMAGE": "small",
            "DOCKER_HOST": f"unix://{folder}/no-engine.sock",
            **environ,
        }

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output, errors."""
        out, err, status = await getProcessOutputAndValue(
            str(BIN / "uaihost"), ["doctor", *words], env=self.environ, reactor=reactor
        )
        return status, out.decode(), err.decode()

    async def json(self, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit status and results by name."""
        status, out, err = await self.run("--json", *words)
        try:
            report = json.loads(out)
        except ValueError:
            raise AssertionError(out + err) from None
        assert report["schema"] == 1 and report["seconds"] < 60
        return status, {one["name"]: one for one in report["checks"]}


class BesideAHostTests(PeerTestCase):
    async def test_a_running_host_is_asked_and_not_disturbed(self) -> None:
        await self.host()
        command = Command(self.data)
        command.environ |= {name: text for name, text in self.service.env.items() if name.startswith("UAI_")}
        status, found = await command.json("--quick")
        self.assertEqual(found["daemon"]["verdict"], "ok", found["daemon"])
        self.assertEqual(found["bridge-token"]["text"], "the running host is connected")
        for name in ("settings", "database", "secrets", "bridge-tcp", "bridge-websocket", "ports", "log"):
            self.assertIn(found[name]["verdict"], ("ok", "warn"), found[name])
        # Without an engine nothing works.
        self.assertEqual((status, found["engine"]["verdict"]), (1, "fail"))
        self.assertNotIn("container", found)
        _, again = await command.json("--only", "bridge-token")
        self.assertEqual(again["bridge-token"]["verdict"], "ok")
        # The same connection still carries commands.
        self.assertEqual((await self.peer.command("after", "taskStatus", "nobody"))["ok"], False)

    async def test_a_bug_report_shows_what_is_in_it_and_holds_no_token(self) -> None:
        await self.host()
        command = Command(self.data)
        command.environ |= {name: text for name, text in self.service.env.items() if name.startswith("UAI_")}
        target = self.data / "report.tar.gz"
        _, out, err = await command.run("--quick", "--report", str(target))
        self.assertIn("log.jsonl", out + err)
        with tarfile.open(target) as archive:
            files = [archive.extractfile(one) for one in archive.getmembers()]
            whole = b"".join(file.read() for file in files if file is not None)
        self.assertIn(b"reactorLag", whole)
        self.assertNotIn(TOKEN.encode(), whole)


class BrokenTests(TestCase):
    """Nothing of a machine works; the doctor does."""

    timeout = 120

    def setUp(self) -> None:
        self.folder = short_folder(self)

    async def test_everything_is_broken_at_once(self) -> None:
        (self.folder / "data").write_text("not a folder")
        (self.folder / "uaihost.toml").write_text("token = [")
        command = Command(
            self.folder,
            UAI_CONFIG=str(self.folder / "uaihost.toml"),
            UAI_CLOUD_URL="wss://no-such-name.invalid/host",
            UAI_TASK_CPUS="many",
        )
        status, found = await command.json()
        self.assertEqual(status, 1)
        for name in ("settings", "data-folder", "bridge-name", "engine"):
            self.assertEqual(found[name]["verdict"], "fail", found[name])
            self.assertNotEqual(found[name]["fix"], [])
        self.assertIn("is not TOML", found["settings"]["text"])
        self.assertIn("UAI_TASK_CPUS", found["settings"]["text"])
        self.assertEqual(found["container"]["verdict"], "skipped")
        self.assertEqual(found["versions"]["verdict"], "ok")

    async def test_people_read_what_to_type(self) -> None:
        status, out, err = await Command(self.folder).run("--only", "engine")
        self.assertEqual((status, err), (1, ""))
        self.assertRegex(out, r"(?m)^FAIL  container engine +there is no engine at unix://")
        self.assertIn("  type:\n    unset DOCKER_HOST", out)
        self.assertRegex(out, r"1 failed, in [0-9.]+ s\n\Z")

    async def test_the_names_and_a_wrong_one(self) -> None:
        command = Command(self.folder)
        status, out, _ = await command.run("--list")
        self.assertEqual(status, 0)
        self.assertIn("bridge-token", out)
        status, _, err = await command.run("--only", "nonsense")
        self.assertEqual(status, 2)
        self.assertIn("--list", err)

    async def test_a_look_leaves_no_data_folder(self) -> None:
        await Command(self.folder).json()
        self.assertFalse((self.folder / "data").exists())

    async def test_a_port_that_is_taken_and_the_command_that_takes_another(self) -> None:
        with closing(socket.socket()) as made:
            made.bind(("127.0.0.1", 0))
            made.listen()
            port = made.getsockname()[1]
            command = Command(self.folder, UAI_HOST_BRIDGE_PORT=str(port))
            _, found = await command.json("--only", "ports")
        ports = found["ports"]
        self.assertEqual(ports["verdict"], "fail", ports)
        self.assertIn(f"(process {os.getpid()}) has port {port}", ports["text"])
        other = re.fullmatch(r"uaihost up --port (\d+)", ports["fix"][0])
        assert other is not None, ports
        command.environ["UAI_HOST_BRIDGE_PORT"] = other[1]
        _, found = await command.json("--only", "ports")
        self.assertEqual(found["ports"]["verdict"], "ok")

    async def test_a_small_disk_of_memory_that_is_full(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        await self.sh(f"mount -t tmpfs -o size=256k,mode=700 uai-doctor {data}")
        self.addCleanup(self.sh, f"umount {data}")
        (data / "much").write_bytes(bytes(200 << 10))
        with (data / "more").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass  # It is full now.
        status, found = await Command(self.folder).json("--only", "database", "--only", "disk")
        self.assertEqual(status, 1)
        folder = found["data-folder"]
        self.assertEqual(folder["verdict"], "fail")
        self.assertIn("No space left", folder["text"])
        self.assertIn("lies in memory (tmpfs", folder["text"])
        self.assertIn(f"df -h -i {data}", folder["fix"])
        self.assertEqual(found["disk"]["verdict"], "fail")
        self.assertEqual(found["database"]["verdict"], "skipped")

    async def test_a_data_folder_of_another_user(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        command = Command(self.folder)
        os.chown(data, 65534, 65534)
        # Root without its rights over other users' files.
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        words += [str(BIN / "uaihost"), "doctor", "--json", "--quick"]
        out, err, status = await getProcessOutputAndValue(words[0], words[1:], env=command.environ)
        found = {one["name"]: one for one in json.loads(out)["checks"]}
        self.assertEqual((status, found["data-folder"]["verdict"]), (1, "fail"), err)
        self.assertIn("may not write there", found["data-folder"]["text"])
        self.assertRegex(found["data-folder"]["fix"][0], "^(sudo|runuser) -u nobody (-- )?uaihost doctor")

    def sh(self, line: str) -> Deferred[Any]:
        return deferToThread(subprocess.run, ["sh", "-c", line], check=True)
