"""Checks of bridge, engine and machine: what they make of what they see."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any
from unittest.mock import Mock, patch

import attrs

from uaihost.containers.client import SYSTEM_SOCKET
from uaihost.containers.firewall import FirewallState
from uaihost.containers.setup import Machine
from uaihost.doctor import bridge, engine, machine
from uaihost.doctor.model import Finding, Verdict
from uaihost.logs.records import stamp
from uaihost.test.doctor.patients import patient
from uaihost.test.doctor.rig import Rig

NOW = 1_795_000_000.0


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

    def test_one_that_hangs(self) -> None:
        path = self.folder / "docker.sock"
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
            found = engine.no_engine(f"unix://{path}", self.machine(), "")
            self.is_(found, Verdict.FAIL, "does not run any more")
            made.listen()
            found = engine.no_engine(f"unix://{path}", self.machine(), "")
            self.is_(found, Verdict.FAIL, "it hangs", "sudo systemctl restart docker")

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

    async def test_two_engines_in_one_network(self) -> None:
        who = patient(self.folder, DOCKER_HOST="unix:///mine.sock")
        mine, usual = ("unix:///mine.sock", False), (SYSTEM_SOCKET, False)
        for found, verdict in (
            ({"A": mine}, Verdict.OK),
            ({"A": mine, "B": usual}, Verdict.WARN),
            ({"A": mine, "B": ("unix:///run/user/1000/docker.sock", True)}, Verdict.OK),
            ({}, Verdict.OK),
        ):
            with patch("uaihost.doctor.engine._who_answers", return_value=found):
                self.is_(await engine.engines(who), verdict)
        with patch("uaihost.doctor.engine._who_answers", return_value={"A": mine, "B": usual}):
            self.is_(await engine.engines(who), Verdict.WARN, "sudo systemctl disable --now docker")

    async def test_the_packet_filter(self) -> None:
        who = patient(self.folder, DOCKER_HOST="unix:///mine.sock")
        alive = patient(self.folder, DOCKER_HOST="unix:///mine.sock", status={"version": "1"})
        for seen, one, verdict, word in (
            (FirewallState(True), who, Verdict.OK, "in force"),
            (FirewallState(False), who, Verdict.OK, "when it starts"),
            (FirewallState(False), alive, Verdict.WARN, "uaihost restart"),
            (FirewallState(False, "Permission denied"), who, Verdict.WARN, "sudo iptables-save"),
            (FirewallState(False, "Permission denied"), alive, Verdict.SKIPPED, "tries what they close"),
        ):
            with (
                patch("uaihost.containers.firewall.Firewall.seen", return_value=seen),
                patch("shutil.which", return_value="/usr/sbin/iptables"),
            ):
                self.is_(await engine.packet_filter(one), verdict, word)
        with (
            patch("uaihost.containers.firewall.Firewall.seen", return_value=FirewallState(False, "none")),
            patch("shutil.which", return_value=None),
        ):
            self.is_(await engine.packet_filter(who), Verdict.WARN, "sudo apt-get install iptables")

    async def test_root_builds_no_image_for_another_users_host(self) -> None:
        mine = patient(self.folder)
        theirs = Mock(**{"stat.return_value.st_uid": 65534})
        who = attrs.evolve(mine, root=True, settings=attrs.evolve(mine.settings, data_dir=theirs))
        self.assertEqual(who.stranger, "nobody")
        self.is_(await engine.image(who), Verdict.SKIPPED, "sudo -u nobody uaihost doctor")
        self.assertEqual(attrs.evolve(who, root=False).stranger, "")


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
