"""Installing, upgrading and removing: each step once, and only where it is due."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import attrs
from twisted.trial.unittest import SynchronousTestCase

from uaihost.errors import HostError
from uaihost.services.install import Installer, Outcome, kind_of, user_manager
from uaihost.services.machine import Machine, Ran
from uaihost.test.services.rig import Programs, Units, machine


class InstallTests(SynchronousTestCase):
    """A user's services: no right of root's is needed to write them."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        self.units = Units()
        self.machine = machine(self.root, HOME=str(self.root / "home"), PATH=os.environ["PATH"])

    def installer(self, environ: Mapping[str, str] | None = None, *, dry_run: bool = False) -> Installer:
        known = attrs.evolve(self.machine, environ={**self.machine.environ, **(environ or {})})
        return Installer(known, "user", self.units, dry_run=dry_run, pause=lambda _: None)

    def install(self, **environ: str) -> Outcome:
        return self.installer(environ).install(bridge=True)

    def unit(self, name: str = "uaihost") -> Path:
        return self.machine.home / ".config/systemd/user" / f"{name}.service"

    @property
    def config(self) -> Path:
        return self.machine.home / ".config/uaihost"

    def done(self, outcome: Outcome) -> list[tuple[str, str]]:
        return [(step.action, Path(step.target).name) for step in outcome.steps if step.changed]

    def test_the_first_installation_writes_enables_and_starts(self) -> None:
        outcome = self.install()
        self.assertEqual(
            self.done(outcome),
            [
                ("make", "uaihost"),
                ("write", "host-token"),
                ("make", "uaihost"),
                ("make", "user"),
                ("write", "uaibridge.service"),
                ("reload", "uaibridge"),
                ("enable", "uaibridge"),
                ("start", "uaibridge"),
                ("write", "uaihost.service"),
                ("reload", "uaihost"),
                ("enable", "uaihost"),
                ("start", "uaihost"),
            ],
        )
        self.assertEqual(self.units.running, {"uaihost", "uaibridge"})
        self.assertEqual(self.units.enabled, {"uaihost", "uaibridge"})
        self.assertIn(str(self.machine.programs / "twistd"), self.unit().read_text())

    def test_secrets_are_for_their_owner_alone(self) -> None:
        self.install(UAI_TASK_MEMORY="2G")
        for path, mode in (
            (self.config, 0o700),
            (self.config / "host-token", 0o600),
            (self.config / "service.env", 0o600),
            (self.unit(), 0o644),
            (self.machine.home / ".local/share/uaihost", 0o700),
        ):
            self.assertEqual(path.stat().st_mode & 0o777, mode, path)

    def test_the_second_installation_changes_nothing_and_says_so(self) -> None:
        self.install()
        asked = len(self.units.changes())
        token = (self.config / "host-token").read_bytes()
        outcome = self.install()
        self.assertEqual((outcome.changed, self.done(outcome)), (False, []))
        self.assertIn("nothing was changed", outcome.notes[0])
        self.assertEqual(self.units.changes()[asked:], [])
        self.assertEqual((self.config / "host-token").read_bytes(), token)

    def test_an_upgrade_restarts_what_changed_and_nothing_else(self) -> None:
        self.install()
        self.unit().write_text(self.unit().read_text().replace("WatchdogSec=60", "WatchdogSec=61"))
        outcome = self.install()
        self.assertEqual(
            self.done(outcome),
            [
                ("write", "uaihost.service"),
                ("reload", "uaihost"),
                ("enable", "uaihost"),
                ("restart", "uaihost"),
            ],
        )

    def test_proxies_are_kept_whatever_their_variable(self) -> None:
        names = ("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")
        self.install(**dict.fromkeys(names, "proxy.example"))
        text = (self.config / "service.env").read_text()
        for name in names:
            self.assertIn(f'{name}="proxy.example"', text)

    def test_a_setting_of_the_environment_is_kept_until_another_value_is_found(self) -> None:
        self.install(UAI_TASK_MEMORY="2G", https_proxy='http://a"b\\c', EDITOR="vi")
        self.assertFalse(self.install().changed)
        self.assertFalse(self.install(UAI_TASK_MEMORY="2G").changed)
        text = (self.config / "service.env").read_text()
        self.assertNotIn("EDITOR", text)
        self.assertIn('https_proxy="http://a\\"b\\\\c"', text)
        outcome = self.install(UAI_TASK_MEMORY="3G")
        self.assertEqual(
            self.done(outcome),
            [("write", "service.env"), ("restart", "uaibridge"), ("restart", "uaihost")],
        )

    def test_a_token_that_is_given_is_shown_by_the_service_and_stands_in_no_other_file(self) -> None:
        self.install(UAI_HOST_TOKEN="a-token-given")
        self.assertEqual((self.config / "host-token").read_text(), "a-token-given\n")
        for path in self.root.rglob("*"):
            if path.is_file() and path.name != "host-token":
                self.assertNotIn(b"a-token-given", path.read_bytes(), path)

    def test_a_token_in_the_settings_file_stays_there(self) -> None:
        self.config.mkdir(parents=True)
        (self.config / "uaihost.toml").write_text('token = "in-the-file"\n')
        self.install()
        self.assertFalse((self.config / "host-token").exists())
        text = self.unit().read_text()
        self.assertNotIn("UAI_HOST_TOKEN_FILE", text)
        self.assertIn(f"UAI_CONFIG={self.config}/uaihost.toml", text)

    def test_a_host_without_a_bridge_to_dial_or_a_token_is_refused_and_nothing_is_written(self) -> None:
        before = sorted(self.root.rglob("*"))
        for bad, words in (
            ({}, "--bridge"),
            ({"UAI_CLOUD_URL": "wss://b.example/host"}, "UAI_HOST_TOKEN is not set"),
            ({"UAI_CLOUD_URL": "ftp://b.example"}, "UAI_CLOUD_URL"),
            ({"UAI_HOST_TOKEN": "t", "UAI_CLOUD_URL": "ws://b/h", "UAI_TASK_CPUS": "many"}, "UAI_TASK_CPUS"),
            ({"UAI_HOST_TOKEN": "t", "UAI_CLOUD_URL": "ws://b/h", "http_proxy": "a\nb"}, "one line each"),
        ):
            caught = self.assertRaises(HostError, self.installer(bad).install, bridge=False)
            self.assertIn(words, caught.message)
        self.assertEqual(sorted(self.root.rglob("*")), before)

    def test_a_host_with_a_bridge_elsewhere_comes_alone(self) -> None:
        outcome = self.installer().install(
            bridge=False, cloud_url="wss://bridge.example.org/host", token="given"
        )
        self.assertEqual(outcome.services, ("uaihost",))
        self.assertFalse(self.unit("uaibridge").exists())
        self.assertIn("the host dials wss://bridge.example.org/host", outcome.notes)
        # Remembered: the next one needs not say it.
        again = self.installer().install(bridge=False)
        self.assertEqual((again.changed, again.services), (False, ("uaihost",)))

    def test_a_bridge_that_is_installed_is_brought_up_to_date_too(self) -> None:
        self.install()
        outcome = self.installer().install(bridge=False)
        self.assertEqual((outcome.changed, outcome.services), (False, ("uaibridge", "uaihost")))

    def test_a_dry_run_says_the_same_and_does_nothing(self) -> None:
        before = sorted(self.root.rglob("*"))
        dry = self.installer(dry_run=True).install(bridge=True)
        self.assertEqual(sorted(self.root.rglob("*")), before)
        self.assertEqual(self.units.changes(), [])
        self.assertEqual(self.done(dry), self.done(self.install()))
        self.assertTrue(dry.as_json()["dryRun"])

    def test_removed_the_data_stays_and_it_says_where(self) -> None:
        self.install()
        data = self.machine.home / ".local/share/uaihost"
        (data / "state.db").write_text("rows")
        outcome = self.installer().uninstall()
        self.assertEqual(
            self.done(outcome),
            [
                ("stop and disable", "uaihost"),
                ("delete", "uaihost.service"),
                ("forget", "uaihost"),
                ("stop and disable", "uaibridge"),
                ("delete", "uaibridge.service"),
                ("forget", "uaibridge"),
            ],
        )
        self.assertEqual((self.units.running, self.units.enabled), (set(), set()))
        self.assertEqual((data / "state.db").read_text(), "rows")
        self.assertIn(f"data, settings and token stay in {data} and {self.config}", outcome.notes)
        again = self.installer().uninstall()
        self.assertFalse(again.changed)

    def test_start_and_stop_do_what_is_due_in_order(self) -> None:
        self.install()
        self.assertFalse(self.installer().start().changed)
        stopped = self.installer().stop()
        self.assertEqual(self.done(stopped), [("stop", "uaihost"), ("stop", "uaibridge")])
        self.assertFalse(self.installer().stop().changed)
        self.assertEqual(self.done(self.installer().start()), [("start", "uaibridge"), ("start", "uaihost")])
        self.assertEqual(
            self.done(self.installer().restart()), [("restart", "uaibridge"), ("restart", "uaihost")]
        )

    def test_a_bridge_that_was_switched_off_stays_off(self) -> None:
        self.install()
        self.units.enabled.discard("uaibridge")
        self.units.running.discard("uaibridge")
        restarted = self.installer().restart()
        self.assertEqual(self.done(restarted), [("restart", "uaihost")])
        self.assertTrue(any("uaibridge is switched off" in note for note in restarted.notes))
        self.assertNotIn("uaibridge", self.units.running)
        # Started by hand, it is wanted now.
        self.units.running.add("uaibridge")
        self.assertEqual(len(self.done(self.installer().restart())), 2)

    def test_what_fails_again_and_again_can_be_stopped_and_started_at_once(self) -> None:
        self.install()
        shown = "UnitFileState=enabled\nActiveState=activating\nSubState=auto-restart\nResult=exit-code\n"
        self.units.states["uaihost"] = shown
        self.assertEqual(self.done(self.installer().start()), [("start", "uaihost")])
        self.assertEqual(self.done(self.installer().stop())[0], ("stop", "uaihost"))

    def test_without_an_installation_there_is_nothing_to_start(self) -> None:
        for verb in ("start", "stop", "restart"):
            caught = self.assertRaises(HostError, getattr(self.installer(), verb))
            self.assertIn("`uaihost install`", caught.message)

    def test_whoever_means_the_machines_service_is_told_to_be_root(self) -> None:
        unit = self.machine.root / "etc/systemd/system/uaihost.service"
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\nExecStart=/bin/true\n")
        caught = self.assertRaises(HostError, self.installer().start)
        self.assertIn("as root", caught.message)

    def test_a_moved_installation_is_told_and_another_one_takes_its_place(self) -> None:
        self.install()
        old = self.machine.programs
        self.units.running.clear()
        old.rename(self.root / "moved")
        caught = self.assertRaises(HostError, self.installer().start)
        self.assertIn(f"{old}/twistd, which the service uaibridge starts, is gone", caught.message)
        self.machine = attrs.evolve(self.machine, programs=self.root / "moved")
        outcome = self.install()
        self.assertIn(
            f"uaihost was started by {old}/twistd, which is gone; now by {self.root}/moved/twistd",
            outcome.notes,
        )
        self.assertEqual(self.units.running, {"uaihost", "uaibridge"})

    def test_a_program_that_lies_elsewhere_is_found_by_the_service_too(self) -> None:
        strange = self.root / "strange"
        strange.mkdir()
        (strange / "git").write_text("#!/bin/sh\n")
        (strange / "git").chmod(0o755)
        with patch("uaihost.services.description.PROGRAMS", ("/nowhere",)):
            outcome = self.install(PATH=str(strange))
        self.assertIn(f"PATH={self.machine.programs}:{strange}:/nowhere\n", self.unit().read_text())
        self.assertIn("ssh is not installed, and the host needs it: Debian's openssh-client", outcome.notes)

    def test_a_user_who_does_not_linger_is_made_to_or_told(self) -> None:
        self.units.answers["loginctl show-user"] = Ran(0, "Linger=no\n", "")
        outcome = self.install()
        self.assertIn(("enable lingering", self.machine.user), self.done(outcome))
        self.units.answers["loginctl --no-ask-password enable-linger"] = Ran(1, "", "Access denied")
        outcome = self.install()
        self.assertTrue(any("sudo loginctl enable-linger" in note for note in outcome.notes))

    def test_what_a_manager_refuses_is_told_in_its_words(self) -> None:
        begin = "systemctl --user --no-pager --no-ask-password start"
        self.units.answers[begin] = Ran(1, "", "Job for uaibridge.service failed.")
        caught = self.assertRaises(HostError, self.install)
        self.assertIn("Job for uaibridge.service failed.; `journalctl --user -u uaibridge", caught.message)
        del self.units.answers[begin]
        # Said again it goes on where it was.
        self.assertEqual(self.install().services, ("uaibridge", "uaihost"))
        self.assertEqual(self.units.running, {"uaihost", "uaibridge"})

    def test_a_user_without_a_manager_is_told_how_to_get_one(self) -> None:
        self.units.answers["systemctl --user"] = Ran(1, "", "Failed to connect to bus: No medium found")
        caught = self.assertRaises(HostError, self.install)
        self.assertIn("loginctl enable-linger", caught.message)
        self.assertIn("--system", caught.message)


class SystemTests(SynchronousTestCase):
    """Services of the machine, as far as they can be looked at without being root."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()

    def plan(self, known: Machine, units: Programs, **words: str) -> Outcome:
        installer = Installer(known, "system", units, dry_run=True)
        return installer.install(bridge=True, **words)

    def test_a_user_is_made_and_joins_the_engines_group(self) -> None:
        units = Units({"getent passwd": Ran(2, "", ""), "id ": Ran(1, "", "no such user")})
        known = machine(self.root, uid=0, UAI_DATA_DIR=str(self.root / "data"))
        outcome = self.plan(known, units)
        steps = [(step.action, step.target) for step in outcome.steps if step.changed]
        self.assertEqual(steps[:2], [("add user", "uaihost"), ("add to group", "uaihost docker")])
        self.assertIn(("write", str(self.root / "etc/systemd/system/uaihost.service")), steps)
        self.assertIn(("write", str(self.root / "etc/uaihost/uaihost.toml")), steps)
        self.assertEqual([line for line in units.changes() if line.startswith("user")], [])

    def test_without_an_engine_it_says_what_comes_next(self) -> None:
        units = Units({"getent group": Ran(2, "", "")})
        outcome = self.plan(machine(self.root, uid=0, UAI_DATA_DIR=str(self.root / "data")), units)
        self.assertTrue(any("there is no group docker" in note for note in outcome.notes))

    def test_whoever_owns_the_data_keeps_it(self) -> None:
        data = self.root / "data"
        data.mkdir()
        outcome = self.plan(machine(self.root, uid=0, UAI_DATA_DIR=str(data)), Units())
        self.assertEqual([step for step in outcome.steps if step.action == "add user"], [])

    def test_who_may_not_is_told_what_to_type(self) -> None:
        caught = self.assertRaises(HostError, self.plan, machine(self.root, uid=1000), Units())
        self.assertIn(f"sudo {self.root}/venv/bin/uaihost", caught.message)
        caught = self.assertRaises(HostError, self.plan, machine(self.root, uid=0, system="darwin"), Units())
        self.assertIn("without --system", caught.message)

    def test_beside_a_package_nothing_is_installed_and_its_services_are_started(self) -> None:
        known = machine(self.root, uid=0)
        unit = self.root / "lib/systemd/system/uaihost.service"
        unit.parent.mkdir(parents=True)
        unit.write_text("[Service]\nExecStart=/bin/true\n")
        units = Units()
        self.assertEqual(kind_of(known, units, None), "package")
        packaged = Installer(known, "package", units)
        for verb in (packaged.uninstall, lambda: packaged.install(bridge=True)):
            self.assertIn("apt remove uaihost", self.assertRaises(HostError, verb).message)
        self.assertEqual(packaged.start().services, ("uaihost",))
        self.assertEqual(units.running, {"uaihost"})

    def test_what_is_meant_depends_on_who_asks(self) -> None:
        for uid, system, kind in (
            (0, None, "system"),
            (0, False, "user"),
            (1000, None, "user"),
            (1000, True, "system"),
        ):
            self.assertEqual(kind_of(machine(self.root, uid=uid), Units(), system), kind)

    def test_a_manager_of_a_user_is_found_without_a_session(self) -> None:
        with patch("pathlib.Path.is_dir", return_value=True):
            found = user_manager({"HOME": "/"})
            self.assertEqual(found["XDG_RUNTIME_DIR"], f"/run/user/{os.geteuid()}")
            self.assertEqual(user_manager({"XDG_RUNTIME_DIR": "/mine"}), {"XDG_RUNTIME_DIR": "/mine"})
        with patch("pathlib.Path.is_dir", return_value=False):
            self.assertEqual(user_manager({}), {})
