"""Services under a real systemd: installed by the command, alive, stuck, refused, upgraded and removed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.services import description, systemd
from uaihost.services.description import BRIDGE, HOST, Places
from uaihost.test.documents import agrees, commands_of
from uaihost.test.integration.documents_rig import by_page
from uaihost.test.integration.engine import CHECKOUT
from uaihost.test.integration.systemd_machine import Failed, SystemdMachine, machine

BIN = Path(sys.prefix) / "bin"
UAIHOST = str(BIN / "uaihost")


def binds() -> list[str]:
    """This checkout and this Python, at the same paths, to read only."""
    folders = {CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}
    # Debian's own Python is there already.
    return [f"{folder}:{folder}:ro" for folder in sorted(folders) if not folder.is_relative_to("/usr")]


class SystemServiceTests(TestCase):
    async def booted(self) -> SystemdMachine:
        return await machine(self, binds=binds())

    async def test_installed_upgraded_and_removed(self) -> None:
        inside = await self.booted()
        await deferToThread(self.life_of_an_installation, inside)

    def life_of_an_installation(self, inside: SystemdMachine) -> None:
        would = install(inside, "--bridge", "--dry-run")
        self.assertTrue(would["changed"])
        self.assertEqual(inside.status("test", "-e", "/etc/systemd/system/uaihost.service"), 1)
        first = install(inside, "--bridge")
        self.assertEqual((first["changed"], first["services"]), (True, [BRIDGE, HOST]))
        # `systemctl start` returned: both said that they are ready.
        before = {name: inside.shown(f"{name}.service") for name in (BRIDGE, HOST)}
        for shown in before.values():
            self.assertEqual((shown["ActiveState"], shown["UnitFileState"]), ("active", "enabled"))
        self.assertEqual(before[HOST]["User"], "uaihost")
        inside.until(
            lambda: "bridge connected; 0 tasks run" in inside.shown("uaihost.service").get("StatusText", ""),
            "the host says that it is connected",
        )
        self.assertIn("port 8789", inside.shown("uaibridge.service").get("StatusText", ""))
        # The daemon is not root and sets the packet filter for tasks nevertheless.
        inside.until(lambda: inside.status("iptables", "-S", "UAIHOST-IN") == 0, "the packet filter is set")
        self.assertEqual(self.modes(inside), ["750 root:uaihost", "640 root:uaihost", "700 uaihost:uaihost"])

        second = install(inside)
        self.assertEqual((second["changed"], second["services"]), (False, [BRIDGE, HOST]))
        for name, shown in before.items():
            self.assertEqual(inside.shown(f"{name}.service")["MainPID"], shown["MainPID"])

        third = install(inside, env={"UAI_TASK_MEMORY": "3G"})
        changed = [f"{step['action']} {step['target']}" for step in third["steps"] if step["changed"]]
        self.assertEqual(changed, ["write /etc/uaihost/service.env", "restart uaibridge", "restart uaihost"])
        after = inside.shown("uaihost.service")
        self.assertNotEqual(after["MainPID"], before[HOST]["MainPID"])
        self.assertIn(b"UAI_TASK_MEMORY=3G", environment(inside, after["MainPID"]))

        stopped = said(inside, "stop")
        self.assertEqual([step["target"] for step in stopped["steps"]], [HOST, BRIDGE])
        self.assertEqual(inside.shown("uaihost.service")["Result"], "success")
        self.assertEqual(inside.shown("uaihost.service")["ExecMainStatus"], "0")
        host_id = inside.run("cat", "/var/lib/uaihost/host-id")

        removed = said(inside, "uninstall")
        self.assertIn("data, settings and token stay in /var/lib/uaihost and /etc/uaihost", removed["notes"])
        self.assertEqual(inside.shown("uaihost.service")["LoadState"], "not-found")
        self.assertFalse(said(inside, "uninstall")["changed"])
        self.assertIn("no service is installed here", inside.run(UAIHOST, "start", status=None))
        # Whoever owns the data keeps it, also when that is root.
        inside.run("chown", "--recursive", "root:", "/var/lib/uaihost")
        install(inside, "--bridge")
        self.assertEqual(inside.shown("uaihost.service")["User"], "root")
        inside.until(
            lambda: "bridge connected" in inside.shown("uaihost.service").get("StatusText", ""),
            "root's is connected",
        )
        self.assertEqual(inside.run("cat", "/var/lib/uaihost/host-id"), host_id)

    async def test_what_ends_is_started_again_unless_only_its_owner_can_help(self) -> None:
        inside = await self.booted()
        await deferToThread(self.ends, inside)

    def ends(self, inside: SystemdMachine) -> None:
        for name in (BRIDGE, HOST):
            drop_in(inside, name, "RestartSec=0.2\nWatchdogSec=3\nTimeoutAbortSec=1")
        install(inside, "--bridge")

        # Fed for longer than the watchdog waits, it goes on.
        fed = inside.shown("uaihost.service")
        # A stopped process says nothing more, not even where it hangs.
        stuck = inside.shown("uaibridge.service")
        inside.run("kill", "-STOP", stuck["MainPID"])
        inside.until(
            lambda: inside.shown("uaibridge.service")["NRestarts"] == "1",
            "the stopped bridge is started again",
        )
        self.assertNotEqual(inside.until_active("uaibridge.service")["MainPID"], stuck["MainPID"])
        self.assertIn("Watchdog timeout", inside.journal("uaibridge.service"))
        self.assertEqual(inside.shown("uaihost.service")["MainPID"], fed["MainPID"])
        inside.until(
            lambda: "bridge connected" in inside.shown("uaihost.service").get("StatusText", ""),
            "connected again",
        )

        # Killed: tried again.
        inside.run("kill", "-KILL", fed["MainPID"])
        inside.until(
            lambda: inside.shown("uaihost.service")["NRestarts"] == "1", "the killed host is started again"
        )
        inside.until_active("uaihost.service")

        # Something that may pass: tried until it has.
        inside.run("systemctl", "stop", HOST, BRIDGE)
        inside.put("/opt/taken.py", TAKEN.encode())
        inside.run(
            "systemd-run", "--unit=taken", "--property=Type=notify", "/usr/bin/python3", "/opt/taken.py"
        )
        inside.run("systemctl", "start", "--no-block", "uaibridge")
        inside.until(
            lambda: int(inside.shown("uaibridge.service")["NRestarts"]) >= 2, "the bridge is tried again"
        )
        self.assertIn("status=75", inside.journal("uaibridge.service"))
        inside.run("systemctl", "stop", "taken")
        inside.until_active("uaibridge.service")

        # A refused token and a bad setting: for the owner.
        inside.put("/etc/uaihost/wrong", b"another-token\n")
        drop_in(inside, HOST, "Environment=UAI_HOST_TOKEN_FILE=/etc/uaihost/wrong\nRestartSec=0.2")
        self.refused(inside, "the bridge refused this host")
        drop_in(inside, HOST, "Environment=UAI_TASK_MEMORY=much\nRestartSec=0.2")
        self.refused(inside, "UAI_TASK_MEMORY: 'much' is not legal")

    def refused(self, inside: SystemdMachine, why: str) -> None:
        inside.run("systemctl", "reset-failed", "uaihost")
        inside.run("systemctl", "restart", "uaihost", status=None)
        inside.until(lambda: inside.shown("uaihost.service")["ActiveState"] == "failed", "it is refused")
        # Five times the delay after which it would be tried again.
        inside.run("sleep", "1")
        shown = inside.shown("uaihost.service")
        self.assertEqual(
            (shown["ActiveState"], shown["NRestarts"], shown["ExecMainStatus"]), ("failed", "0", "1")
        )
        self.assertIn(why, inside.journal("uaihost.service"))

    async def test_what_a_process_says_of_itself_counts(self) -> None:
        inside = await self.booted()
        await deferToThread(self.patience, inside)

    def patience(self, inside: SystemdMachine) -> None:
        """A start and a stop that take longer than allowed, and go on; then a blocked event loop."""
        inside.put("/opt/slow.py", SLOW.encode())
        inside.shell("useradd --system uaihost; mkdir -p /etc/uaihost")
        places = Places("system", Path("/etc/uaihost"), Path("/var/lib/uaihost"), "uaihost", read())
        unit = systemd.text(description.bridge(places, BIN))
        command = f"ExecStart={sys.executable} /opt/slow.py"
        lines = [command if line.startswith("ExecStart=") else line for line in unit.splitlines()]
        inside.put("/etc/systemd/system/slow.service", "\n".join(lines).encode())
        limits = "TimeoutStartSec=3\nTimeoutStopSec=1\nWatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=0.2"
        drop_in(inside, "slow", limits)
        inside.run("systemctl", "start", "slow")
        shown = inside.shown("slow.service")
        took = int(shown["ActiveEnterTimestampMonotonic"]) - int(shown["InactiveExitTimestampMonotonic"])
        self.assertGreater(took, 4_000_000)
        began = time.monotonic()
        inside.run("systemctl", "stop", "slow")
        self.assertGreater(time.monotonic() - began, 2)
        self.assertIn("slow.service: Deactivated successfully", inside.journal("slow.service"))

        drop_in(inside, "slow", f"{limits}\nEnvironment=BLOCK=yes")
        inside.run("systemctl", "start", "slow")
        inside.until(lambda: inside.shown("slow.service")["NRestarts"] == "1", "it is ended", 20)
        journal = inside.journal("slow.service")
        self.assertIn("Watchdog timeout", journal)
        # Its last word: in which line of which function.
        self.assertIn("Fatal Python error: Aborted", journal)
        self.assertIn("in a_long_computation", journal)

    async def test_a_person_has_services_of_his_own(self) -> None:
        inside = await self.booted()
        await deferToThread(self.own, inside)

    def own(self, inside: SystemdMachine) -> None:
        # The way to this Python may lead through a folder of root's.
        inside.shell("useradd --create-home alice; chmod 711 /root")
        person = {"HOME": "/home/alice", "PATH": "/usr/bin:/bin"}
        refused = inside.run(UAIHOST, "install", "--bridge", env=person, user="alice", status=3)
        self.assertIn("loginctl enable-linger alice", refused)
        inside.shell("loginctl enable-linger alice")
        inside.until(lambda: inside.status("test", "-S", "/run/user/1000/systemd/private") == 0, "a manager")
        first = install(inside, "--bridge", env=person, user="alice")
        self.assertEqual((first["kind"], first["manager"]), ("user", "systemd --user"))
        self.assertFalse(install(inside, env=person, user="alice")["changed"])
        state = inside.run(
            "systemctl",
            "--user",
            "is-active",
            HOST,
            BRIDGE,
            env={**person, "XDG_RUNTIME_DIR": "/run/user/1000"},
            user="alice",
        )
        self.assertEqual(state.split(), ["active", "active"])
        self.assertEqual(
            inside.run("stat", "--format=%a", "/home/alice/.config/uaihost/host-token").strip(), "600"
        )
        self.assertEqual(self.service(inside, person)["verdict"], "ok")
        # Once she leaves, nothing of hers runs: the doctor says so, and what keeps it running.
        inside.shell("loginctl disable-linger alice")
        inside.until(lambda: inside.status("test", "-e", "/run/user/1000") == 1, "her manager has ended")
        gone = self.service(inside, person)
        self.assertEqual((gone["verdict"], gone["fix"][0]), ("fail", "sudo loginctl enable-linger alice"))
        inside.shell(gone["fix"][0].removeprefix("sudo "))
        inside.until(lambda: self.service(inside, person)["verdict"] == "ok", "it runs again")
        said(inside, "uninstall", env=person, user="alice")
        self.assertEqual(inside.status("test", "-e", "/home/alice/.config/systemd/user/uaihost.service"), 1)

    def service(self, inside: SystemdMachine, person: dict[str, str]) -> Any:
        """What her doctor says of her service."""
        words = ("doctor", "--json", "--only", "service")
        (found,) = json.loads(inside.run(UAIHOST, *words, env=person, user="alice", status=None))["checks"]
        return found

    async def test_every_command_on_a_machine_with_systemd(self) -> None:
        inside = await self.booted()
        self.assertEqual(await deferToThread(self.typed, inside), [])

    def typed(self, inside: SystemdMachine) -> list[str]:
        """What the documents show, typed by root where the service is installed; what was wrong."""
        wrong = []
        for _, found in by_page(commands_of("systemd")):
            install(inside, "--bridge")
            for command in found:
                script = f"mkdir -p /tmp/reader && cd /tmp/reader && PATH={BIN}:$PATH\n{command.text}"
                try:
                    printed = inside.shell(script, status=command.status)
                except Failed as failure:
                    wrong.append(f"{command}\n{failure}")
                    continue
                if command.shown and not agrees(command.shown, printed):
                    wrong.append(f"{command}\n{printed}")
            # Pages do not find what another one left.
            inside.shell("rm -rf /tmp/reader")
            inside.run(UAIHOST, "uninstall", status=None)
            inside.shell("rm -rf /etc/uaihost /var/lib/uaihost")
        return wrong

    async def test_rights_of_the_service_go_to_no_program_that_does_not_need_them(self) -> None:
        inside = await self.booted()
        await deferToThread(self.rights, inside)

    def rights(self, inside: SystemdMachine) -> None:
        inside.run("chmod", "711", "/root")
        inside.put("/opt/rights.py", RIGHTS.encode())
        said = inside.run(
            "systemd-run",
            "--quiet",
            "--pipe",
            "--wait",
            "--property=User=daemon",
            "--property=AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
            sys.executable,
            "/opt/rights.py",
        )
        # Bits 12 and 13 (capabilities(7)), in what a program may do at once and in what it would hand on.
        self.assertEqual(said.split(), ["0000000000003000"] * 2 + ["0000000000000000"] * 2)

    def modes(self, inside: SystemdMachine) -> list[str]:
        places = ("/etc/uaihost", "/etc/uaihost/host-token", "/var/lib/uaihost")
        return inside.run("stat", "--format=%a %U:%G", *places).splitlines()


# Somebody else on the bridge's port.
TAKEN = """
import os, socket, time
listener = socket.create_server(("127.0.0.1", 8789))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(600)
"""

# A service that takes its time to start and to stop, or, once it is well, does nothing but compute.
SLOW = """
import os
import time
from twisted.internet import reactor
from twisted.internet.task import deferLater
from uaihost.exits import Exits
from uaihost.supervision import supervised

BLOCK = "BLOCK" in os.environ

class Inner:
    def startService(self):
        pass
    async def started(self):
        if not BLOCK:
            await deferLater(reactor, 4)
    def stopService(self):
        return deferLater(reactor, 2)
    async def summary(self):
        return "well"

def a_long_computation():
    time.sleep(60)

service = supervised(reactor, Inner(), os.environ)
service.startService()
Exits(reactor).watch_signals()
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
if BLOCK:
    reactor.callLater(0.5, a_long_computation)
reactor.run()
"""

# What children may do: one that is handed the rights, and one that is not.
RIGHTS = """
from twisted.internet.task import react
from twisted.internet.defer import ensureDeferred
from uaihost import children

async def main(reactor):
    for rights in (True, False):
        done = await children.run(
            reactor, ["sed", "-n", "s/^Cap\\(Eff\\|Amb\\):.//p", "/proc/self/status"],
            env={"PATH": "/usr/bin:/bin"}, timeout=10, rights=rights,
        )
        print(done.out.decode(), end="")

react(lambda reactor: ensureDeferred(main(reactor)))
"""


def read() -> tuple[Path, ...]:
    """What a service must see so that this Python runs."""
    return tuple({CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)})


def said(inside: SystemdMachine, *words: str, env: dict[str, str] | None = None, user: str = "") -> Any:
    """What `uaihost words... --json` answers."""
    return json.loads(inside.run(UAIHOST, *words, "--json", env=env, user=user))


def install(inside: SystemdMachine, *words: str, env: dict[str, str] | None = None, user: str = "") -> Any:
    """What `uaihost install` answers."""
    return said(inside, "install", *words, env=env, user=user)


def drop_in(inside: SystemdMachine, name: str, lines: str) -> None:
    """Lines of the section [Service] in place of the unit's own (systemd.unit(5))."""
    folder = f"/etc/systemd/system/{name}.service.d"
    inside.run("mkdir", "-p", folder)
    inside.put(f"{folder}/test.conf", f"[Service]\n{lines}\n".encode())
    inside.run("systemctl", "daemon-reload")


def environment(inside: SystemdMachine, pid: str) -> bytes:
    """The environment that a process inside was started with."""
    return inside.run("cat", f"/proc/{pid}/environ").encode()
