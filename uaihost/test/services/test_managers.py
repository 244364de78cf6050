"""What each service manager is asked, and what its answers mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest.mock import patch

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import HostError
from uaihost.services import description
from uaihost.services.install import Installer
from uaihost.services.machine import Ran, look, run
from uaihost.services.managers import Launchd, Systemd, TaskScheduler, manager_of
from uaihost.test.services.rig import PROGRAMS, Programs, machine, places


class ManagerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.programs = Programs()
        self.linux = machine(self.root)
        self.mac = machine(self.root, system="darwin")

    def test_each_machine_has_its_manager(self) -> None:
        config = self.root / "config"
        self.assertIsInstance(manager_of(self.linux, "user", config, self.programs), Systemd)
        self.assertIsInstance(manager_of(self.mac, "user", config, self.programs), Launchd)
        bare = attrs.evolve(self.linux, booted=False)
        wsl = attrs.evolve(bare, wsl="Debian")
        self.assertIsInstance(manager_of(wsl, "user", config, self.programs), TaskScheduler)
        for known, kind in ((bare, "user"), (wsl, "system")):
            caught = self.assertRaises(HostError, manager_of, known, kind, config, self.programs)
            self.assertIn("`uaihost run`", caught.message)

    def test_systemd_says_how_a_service_is(self) -> None:
        manager = Systemd(self.linux, "system", self.programs)
        for state, running, enabled in (
            (
                "UnitFileState=enabled\nActiveState=active\nSubState=running\nStatusText=bridge connected\n",
                1,
                1,
            ),
            ("UnitFileState=enabled-runtime\nActiveState=activating\nSubState=auto-restart\n", 0, 1),
            ("UnitFileState=disabled\nActiveState=failed\nSubState=failed\nResult=watchdog\n", 0, 0),
            ("UnitFileState=\nActiveState=inactive\nSubState=dead\nResult=success\n", 0, 0),
        ):
            self.programs.answers["systemctl"] = Ran(0, state, "")
            found = manager.state("uaihost")
            self.assertEqual((found.running, found.enabled), (bool(running), bool(enabled)), state)
        self.programs.answers["systemctl"] = Ran(
            0, "ActiveState=failed\nSubState=failed\nResult=watchdog", ""
        )
        self.assertEqual(manager.state("uaihost").detail, "failed (failed) [watchdog]")

    def test_systemds_version_is_asked_and_an_unknown_one_is_the_oldest(self) -> None:
        manager = Systemd(self.linux, "system", self.programs)
        for said, version in (("systemd 257 (257.8-1)\n+PAM", 257), ("", 252), ("upstart 1", 252)):
            self.programs.answers["systemctl --version"] = Ran(0, said, "")
            self.assertEqual(manager.version(), version)

    def test_a_user_asks_his_own_manager(self) -> None:
        Systemd(self.linux, "user", self.programs).stop("uaihost")
        self.assertEqual(
            self.programs.asked, ["systemctl --user --no-pager --no-ask-password stop uaihost.service"]
        )

    def test_launchd_takes_out_what_it_holds_before_it_reads_anew(self) -> None:
        manager = Launchd(self.mac, "user", self.programs)
        manager.restart("uaihost")
        plist = self.mac.home / "Library/LaunchAgents/local.uaihost.plist"
        self.assertEqual(
            self.programs.asked,
            [
                "launchctl bootout gui/1000/local.uaihost",
                "launchctl enable gui/1000/local.uaihost",
                f"launchctl bootstrap gui/1000 {plist}",
            ],
        )
        self.programs.asked.clear()
        manager.stop("uaihost")
        manager.start("uaihost")
        manager.disable("uaihost")
        self.assertEqual(
            self.programs.asked,
            [
                "launchctl kill SIGTERM gui/1000/local.uaihost",
                "launchctl kickstart gui/1000/local.uaihost",
                "launchctl bootout gui/1000/local.uaihost",
            ],
        )

    def test_launchd_says_how_a_service_is(self) -> None:
        manager = Launchd(self.mac, "user", self.programs)
        for ran, enabled, running in (
            (Ran(113, "", "Could not find service"), False, False),
            (Ran(0, "local.uaihost = {\n\tstate = running\n\tpid = 7\n}", ""), True, True),
            (Ran(0, "local.uaihost = {\n\tstate = not running\n\tlast exit code = 1\n}", ""), True, False),
        ):
            self.programs.answers["launchctl print"] = ran
            found = manager.state("uaihost")
            self.assertEqual((found.enabled, found.running), (enabled, running))
        self.assertEqual(found.detail, "not running; last exit: 1")

    def test_launchds_file_is_for_its_owner_alone(self) -> None:
        file = Launchd(self.mac, "user", self.programs).file(
            description.host(places("user"), PROGRAMS), {"UAI_GITHUB_CLIENT_SECRET": "s"}
        )
        self.assertEqual(file.mode, 0o600)
        self.assertNotIn("s3cret", repr(attrs.evolve(file, content=b"s3cret")))

    def test_a_mac_is_installed_upgraded_and_removed(self) -> None:
        loaded: set[str] = set()

        def launchctl(argv: list[str]) -> Ran:
            self.programs(argv)
            name = argv[-1].rpartition("/")[2].removesuffix(".plist")
            if argv[1] == "bootstrap":
                loaded.add(name)
            elif argv[1] == "bootout":
                loaded.discard(name)
            elif argv[1] == "print":
                return Ran(0, "\tstate = running\n", "") if name in loaded else Ran(113, "", "none")
            return Ran(0, "", "")

        def installer() -> Installer:
            return Installer(self.mac, "user", launchctl)  # type: ignore[arg-type]

        first = installer().install(bridge=True)
        self.assertEqual(loaded, {"local.uaihost", "local.uaibridge"})
        self.assertEqual((first.manager, first.changed), ("launchd", True))
        self.assertFalse(installer().install(bridge=True).changed)
        installer().uninstall()
        self.assertEqual(loaded, set())
        self.assertEqual(list((self.mac.home / "Library/LaunchAgents").iterdir()), [])

    def test_the_task_scheduler_is_given_a_file_and_stops_on_this_side(self) -> None:
        wsl = attrs.evolve(self.linux, booted=False, wsl="Debian")
        self.programs.answers = {
            "whoami.exe": Ran(0, "box\\al\r\n", ""),
            "wslpath": Ran(0, "\\\\wsl.localhost\\Debian\\x.xml\n", ""),
        }
        manager = TaskScheduler(wsl, self.root, self.programs)
        file = manager.file(description.host(places("user"), PROGRAMS), {})
        self.assertEqual((file.path, file.mode), (self.root / "uaihost.task.xml", 0o600))
        self.assertIn("box\\al<", file.content.decode("utf-16"))
        self.programs.asked.clear()
        manager.enable("uaihost")
        manager.start("uaihost")
        manager.disable("uaihost")
        self.assertEqual(
            [line.partition(" --exact")[0] for line in self.programs.asked],
            [
                f"wslpath -w {self.root}/uaihost.task.xml",
                "schtasks.exe /Create /TN uaihost /XML \\\\wsl.localhost\\Debian\\x.xml /F",
                "schtasks.exe /Run /TN uaihost",
                "pkill --uid 1000 --full",
                "schtasks.exe /Delete /TN uaihost /F",
            ],
        )

    def test_a_task_that_no_process_belongs_to_does_not_run(self) -> None:
        manager = TaskScheduler(attrs.evolve(self.linux, wsl="Debian"), self.root, self.programs)
        self.assertTrue(manager.state("uaihost").running)
        self.programs.answers["pgrep"] = Ran(1, "", "")
        self.assertEqual((manager.state("uaihost").enabled, manager.state("uaihost").running), (True, False))
        self.programs.answers["schtasks.exe"] = Ran(1, "", "ERROR: cannot find the file")
        self.assertFalse(manager.state("uaihost").enabled)


class ProgramTests(SynchronousTestCase):
    """The contract of Programs, with programs that are there."""

    def test_a_program_is_run_without_a_shell_and_its_end_is_told(self) -> None:
        self.assertEqual(run(["echo", "a  b", "$HOME;"]), Ran(0, "a  b $HOME;\n", ""))
        failed = run(["sh", "-c", "echo said >&2; exit 3"])
        self.assertEqual((failed.status, failed.said), (3, "said"))
        self.assertEqual(run(["cat"]).out, "")
        self.assertEqual(run(["sh", "-c", "echo $ONLY$HOME"], {"ONLY": "this"}).out, "this\n")

    def test_a_program_that_is_not_there_is_a_status_too(self) -> None:
        self.assertEqual(run(["no-such-program-anywhere"]).status, 127)

    def test_this_installation_and_what_it_is_made_of_are_found(self) -> None:
        found = look({"WSL_DISTRO_NAME": "Debian"})
        self.assertTrue(os.access(found.programs / "twistd", os.X_OK))
        self.assertTrue(found.programs.is_absolute())
        self.assertIn(Path(sys.prefix), found.needs)
        # Wherever links lead, the interpreter itself lies in one of them.
        real = Path(sys.executable).resolve()
        self.assertTrue(any(real.is_relative_to(folder) for folder in found.needs))
        self.assertEqual((found.wsl, found.uid), ("Debian", os.geteuid()))

    def test_an_installation_without_twistd_is_refused(self) -> None:
        with patch("os.access", return_value=False):
            self.assertIn("install uaihost again", self.assertRaises(HostError, look, {}).message)
