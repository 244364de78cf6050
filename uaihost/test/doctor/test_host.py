"""Checks of this process and this machine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from uaihost.containers.admission import Room
from uaihost.doctor import host
from uaihost.doctor.daemon import daemon
from uaihost.doctor.model import Finding, Verdict
from uaihost.doctor.patient import Patient, page, readable
from uaihost.test.doctor.patients import TOKEN, patient
from uaihost.test.support import short_folder


class Rig(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def find(self, check: Callable[[Patient], Coroutine[Any, Any, Finding]], who: Patient) -> Finding:
        found: Finding = self.successResultOf(check(who))
        return found


class SettingsTests(Rig):
    def test_every_bad_one_with_its_source(self) -> None:
        found = self.find(
            host.settings,
            patient(self.folder, UAI_TASK_MEMORY="lots", UAI_HOST_UI_PORT="0", UAI_HOST_TOKEN=TOKEN),
        )
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertIn("UAI_TASK_MEMORY: 'lots' is not legal", found.text)
        self.assertIn("UAI_HOST_UI_PORT: '0' is not legal", found.text)
        self.assertEqual([line.split("   #")[0] for line in found.fix],
                         ["unset UAI_HOST_UI_PORT", "unset UAI_TASK_MEMORY"])  # fmt: skip

    def test_a_file_that_is_no_toml(self) -> None:
        file = self.folder / "uaihost.toml"
        file.write_text("token = \n")
        found = self.find(host.settings, patient(self.folder, UAI_CONFIG=str(file)))
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertIn("is not TOML", found.text)
        self.assertIn(str(file), found.fix[0])
        # And the fix is one: put right, it is legal.
        file.write_text('log_level = "debug"\n')
        found = self.find(host.settings, patient(self.folder, UAI_CONFIG=str(file)))
        self.assertEqual(found.verdict, Verdict.OK)

    def test_an_unknown_key_leaves_the_others(self) -> None:
        file = self.folder / "uaihost.toml"
        file.write_text('colour = "red"\nlog_level = "debug"\n')
        who = patient(self.folder, UAI_CONFIG=str(file))
        self.assertIn("'colour'", self.find(host.settings, who).text)
        self.assertEqual(who.settings.log_level, "debug")

    def test_a_bad_token_is_not_shown(self) -> None:
        found = self.find(host.settings, patient(self.folder, UAI_HOST_TOKEN="with a space"))
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertNotIn("with a space", str(found))


class MachineTests(Rig):
    def test_what_is_installed_here_is_compiled(self) -> None:
        found = self.find(host.accelerations, patient(self.folder))
        self.assertEqual(found.verdict, Verdict.OK, found.text)

    def test_python_in_place_of_machine_code_is_told(self) -> None:
        with patch("autobahn.websocket.protocol.Utf8Validator", new=dict):
            found = self.find(host.accelerations, patient(self.folder))
        self.assertEqual(found.verdict, Verdict.WARN)
        self.assertIn("checking what comes over the WebSocket", found.text)
        self.assertIn("pip install --force-reinstall --no-cache-dir autobahn", found.fix[0])

    def test_a_module_of_python_and_one_that_is_not_there_are_not_compiled(self) -> None:
        self.assertFalse(host.compiled("uaihost.errors", ""))
        self.assertFalse(host.compiled("uaihost.nowhere", ""))

    def test_few_descriptors(self) -> None:
        with patch("resource.getrlimit", return_value=(256, 1024)):
            found = self.find(host.descriptors, patient(self.folder))
        self.assertEqual(found.verdict, Verdict.WARN)
        self.assertTrue(found.fix[0].startswith("ulimit -n "))

    def test_a_task_that_may_use_more_than_there_is(self) -> None:
        room = Room(3 << 30, 4 << 30, 100 << 30)
        with patch("uaihost.containers.admission.look", return_value=room):
            found = self.find(host.memory, patient(self.folder, UAI_TASK_MEMORY="8G"))
            self.assertEqual(found.verdict, Verdict.WARN)
            self.assertEqual(found.fix, ("export UAI_TASK_MEMORY=3G",))
            found = self.find(host.memory, patient(self.folder, UAI_TASK_MEMORY="3G"))
            self.assertEqual(found.verdict, Verdict.OK, found.text)

    def test_no_room_for_one_more_task(self) -> None:
        room = Room(300 << 20, 16 << 30, 100 << 30)
        with patch("uaihost.containers.admission.look", return_value=room):
            found = self.find(host.memory, patient(self.folder))
        self.assertEqual(found.verdict, Verdict.WARN)
        self.assertIn("would have to wait", found.text)

    def test_proxies_are_shown_without_their_password(self) -> None:
        for value in (
            "http://me:a-secret-word@proxy.example:3128",
            "me:a-secret-word@proxy.example:3128",
            "http://me:one@a-secret-word@proxy.example:3128",
        ):
            found = self.find(host.proxies, patient(self.folder, environ={"HTTPS_PROXY": value}))
            self.assertEqual(found.verdict, Verdict.OK)
            self.assertIn("HTTPS_PROXY=http://proxy.example:3128", found.text)
            self.assertNotIn("secret", str(found))

    def test_a_password_that_cannot_stand_in_an_address_is_not_shown(self) -> None:
        environ = {"https_proxy": "http://me:one/a-secret-word@proxy.example:3128"}
        found = self.find(host.proxies, patient(self.folder, environ=environ))
        self.assertEqual((found.verdict, found.fix), (Verdict.WARN, ("unset https_proxy",)))
        self.assertNotIn("secret", str(found))

    def test_a_proxy_that_is_none(self) -> None:
        found = self.find(host.proxies, patient(self.folder, environ={"http_proxy": "http://"}))
        self.assertEqual(found.verdict, Verdict.WARN)
        self.assertEqual(found.fix, ("unset http_proxy",))


class DaemonTests(Rig):
    STATUS = {"version": "0.0.1", "hostId": "h", "tasks": [], "outbox": 5000, "reactorLag": 2.0}

    def test_none_is_no_failure(self) -> None:
        self.assertEqual(self.find(daemon, patient(self.folder)).verdict, Verdict.WARN)

    def test_one_that_cannot_be_asked_is(self) -> None:
        found = self.find(daemon, patient(self.folder, problem="it belongs to another user"))
        self.assertEqual(found.verdict, Verdict.FAIL)
        self.assertIn("another user", found.text)

    def test_one_that_is_older_late_and_behind(self) -> None:
        found = self.find(daemon, patient(self.folder, status=self.STATUS))
        self.assertEqual(found.verdict, Verdict.WARN)
        for part in ("version 0.0.1", "5000 results", "2.0 s late"):
            self.assertIn(part, found.text)

    def test_the_running_host_says_which_bridge_counts(self) -> None:
        status = {"bridge": {"url": "wss://other.example/host", "state": "connected"}}
        who = patient(self.folder, status=status)
        self.assertEqual(who.bridge, ("other.example", 443, True))
        self.assertFalse(who.alone)
        self.assertTrue(patient(self.folder).alone)
        self.assertFalse(patient(self.folder, UAI_HOST_TOKEN=TOKEN).alone)


class WordTests(Rig):
    def test_paths_as_words_of_a_shell(self) -> None:
        self.assertEqual(readable(Path("/var/lib/uaihost")), "/var/lib/uaihost")
        self.assertEqual(readable(Path("/my data")), "'/my data'")

    def test_the_port_of_the_page(self) -> None:
        folders = patient(self.folder).folders
        self.assertEqual(page(folders), 5876)
        (self.folder / "ui-port").write_text("5880\n")
        self.assertEqual(page(folders), 5880)
