"""The Debian package and what its owner did: a killed installation, services switched off, a full disk.

And what the doctor then says to type, typed: afterwards it is well. No engine is needed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.test.integration.packages import NEWER, built
from uaihost.test.integration.systemd_machine import SystemdMachine, machine
from uaihost.test.integration.test_package import EXCHANGE, QUICKLY
from uaihost.test.support import short_folder

FIRST, NEXT = f"{EXCHANGE}/first.deb", f"{EXCHANGE}/newer.deb"
# What postinst asks for random bytes; this one kills it (dpkg's search path begins with /usr/local).
KILLER = "#!/bin/sh\nkill -9 $(ps -o ppid= $PPID) $PPID\n"
# An installation by pip once wrote it, and is gone.
OLDER = "[Service]\nExecStart=/opt/gone/bin/twistd\n[Install]\nWantedBy=multi-user.target\n"
# A disk with room for what is installed, and not for an upgrade beside it.
FULL = """
size=$(du -sm /opt/uaihost | cut -f1)
cp -a /opt/uaihost /var/tmp/
mount -t tmpfs -o size=$((size + 25))m none /opt
cp -a /var/tmp/uaihost /opt/
"""


class OwnerTests(TestCase):
    timeout = 900
    machine: SystemdMachine

    async def test_what_an_owner_did_stays_done_and_what_broke_is_mended(self) -> None:
        packages = await deferToThread(built)
        exchange = short_folder(self)
        shutil.copy(packages.first, exchange / Path(FIRST).name)
        shutil.copy(packages.newer, exchange / Path(NEXT).name)
        self.machine = await machine(self, binds=[f"{exchange}:{EXCHANGE}:ro"])
        await deferToThread(self.live)

    def live(self) -> None:
        self.machine.shell(f"systemctl stop docker docker.socket; {QUICKLY}")
        self.killed_while_it_is_configured()
        self.typed()
        self.no_room_for_an_upgrade()
        self.a_bridge_elsewhere()
        self.purged_beside_a_disk_of_the_owners()

    def killed_while_it_is_configured(self) -> None:
        machine = self.machine
        machine.put("/usr/local/bin/od", KILLER.encode(), 0o755)
        machine.run("dpkg", "--install", FIRST, status=1)
        self.assertIn("half-configured", machine.run("dpkg", "--status", "uaihost"))
        self.assertEqual(machine.status("test", "-e", "/etc/uaihost/host-token"), 1)
        machine.run("rm", "/usr/local/bin/od")
        machine.run("dpkg", "--configure", "--pending")
        self.assertEqual(
            machine.shell("stat -c '%s %U:%G %a' /etc/uaihost/host-token").strip(), "64 root:uaihost 640"
        )
        self.assertEqual(machine.shell("ls /etc/uaihost").split(), ["host-token", "uaihost.toml"])
        self.connected()

    def typed(self) -> None:
        """What the doctor says to type of each of these, typed by root."""
        machine = self.machine
        machine.run("cp", "--preserve", "/etc/uaihost/host-token", "/root/token")
        for broken, word in (
            ("systemctl disable --now uaihost", "switched off"),
            ("systemctl mask --now uaihost", "masked"),
            (f"systemctl stop uaihost; printf '{OLDER}' >/etc/systemd/system/uaihost.service; "
             "systemctl daemon-reload", "takes the place"),
        ):  # fmt: skip
            machine.shell(broken)
            found = self.doctor("service")["service"]
            self.assertEqual((found["verdict"], word in found["text"]), ("fail", True), found)
            self.type_(found["fix"])
            machine.until_active("uaihost.service")
            self.assertEqual(self.doctor("service")["service"]["verdict"], "ok")
            self.assertEqual(machine.run("systemctl", "is-enabled", "uaihost").strip(), "enabled")
        # Killed, it waits to be started again: that is not well, and not for ever.
        machine.run("systemctl", "kill", "--signal=KILL", "uaihost")
        machine.until(
            lambda: machine.shown("uaihost.service")["SubState"] == "auto-restart", "it waits to be started"
        )
        self.assertIn("again and again", self.doctor("service")["service"]["text"])
        # The bridge has another token, and the host is told to show that one.
        machine.shell("echo another-token-0123456789 >/etc/uaihost/host-token; systemctl restart uaihost")
        machine.until(lambda: machine.shown("uaihost.service")["ActiveState"] == "failed", "it is refused")
        found = self.doctor("bridge-token")["bridge-token"]
        self.assertEqual(found["verdict"], "fail", found)
        self.type_([line.replace("FILE", "/root/token", 1) for line in found["fix"]])
        self.connected()
        self.assertEqual(self.doctor("bridge-token")["bridge-token"]["verdict"], "ok")
        self.assertEqual(
            machine.shell("stat -c '%U:%G %a' /etc/uaihost/host-token").strip(), "root:uaihost 640"
        )

    def no_room_for_an_upgrade(self) -> None:
        machine = self.machine
        machine.shell(FULL)
        version = machine.run("uaihost", "--version")
        self.assertIn("No space left", machine.run("dpkg", "--install", NEXT, status=1))
        # dpkg has put every file of the old one back, and Debian's scripts start that again.
        self.assertEqual(machine.run("dpkg", "--verify", "uaihost").strip(), "")
        self.assertEqual(machine.run("uaihost", "--version"), version)
        self.connected()
        machine.run("umount", "--lazy", "/opt")

    def a_bridge_elsewhere(self) -> None:
        """What is switched off stays so, whatever is upgraded or restarted; an edited file stays."""
        machine = self.machine
        machine.shell("systemctl disable --now uaibridge; echo '# mine' >>/etc/uaihost/uaihost.toml")
        machine.run("dpkg", "--install", NEXT)
        self.assertIn(NEWER.partition("-")[0], machine.run("uaihost", "--version"))
        machine.until_active("uaihost.service")
        self.assertIn("uaibridge is switched off", machine.run("uaihost", "restart"))
        self.assertEqual(machine.run("systemctl", "is-active", "uaibridge", status=3).strip(), "inactive")
        self.assertEqual(machine.shell("tail -n 1 /etc/uaihost/uaihost.toml").strip(), "# mine")

    def purged_beside_a_disk_of_the_owners(self) -> None:
        machine = self.machine
        machine.shell("mkdir /var/lib/uaihost/disk && mount -t tmpfs none /var/lib/uaihost/disk")
        machine.shell("touch /var/lib/uaihost/disk/precious")
        said = machine.run("dpkg", "--purge", "uaihost")
        self.assertIn("no engine answers", said)
        self.assertIn("of /var/lib/uaihost stays", said)
        self.assertEqual(
            machine.run("find", "/var/lib/uaihost", "-type", "f").split(), ["/var/lib/uaihost/disk/precious"]
        )
        self.assertEqual(machine.status("test", "-e", "/etc/uaihost"), 1)
        self.assertEqual(machine.run("dpkg", "--status", "uaihost", status=1).count("ok installed"), 0)

    def doctor(self, name: str) -> dict[str, Any]:
        report = json.loads(self.machine.run("uaihost", "doctor", "--json", "--only", name, status=None))
        return {one["name"]: one for one in report["checks"]}

    def type_(self, lines: list[str]) -> None:
        """As root does, who has no sudo here; what only shows something may end as it likes."""
        for line in lines:
            shows = line.startswith("journalctl")
            self.machine.shell(line, status=None if shows else 0)

    def connected(self) -> None:
        self.machine.until_active("uaihost.service")
        self.machine.until(
            lambda: "bridge connected" in self.machine.shown("uaihost.service").get("StatusText", ""),
            "the host is connected",
        )
