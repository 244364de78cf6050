"""Property lists: what they hold, read back, and the keys and types that launchd.plist(5) documents."""

from __future__ import annotations

import plistlib
import re
from itertools import product
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.services import description, launchd
from uaihost.services.description import Kind
from uaihost.test.services.rig import PROGRAMS, places

# The keys of launchd.plist(5) that are used, and the type of each.
DOCUMENTED: dict[str, type] = {
    "Label": str,
    "UserName": str,
    "GroupName": str,
    "ProgramArguments": list,
    "EnvironmentVariables": dict,
    "WorkingDirectory": str,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "ProcessType": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "SoftResourceLimits": dict,
    "HardResourceLimits": dict,
    "Umask": int,
}
KINDS: tuple[Kind, ...] = ("user", "system")


class LaunchdTests(SynchronousTestCase):
    def read(self, kind: Kind, make: Any = description.host, **variables: str) -> dict[str, Any]:
        found: dict[str, Any] = plistlib.loads(launchd.text(make(places(kind), PROGRAMS), variables))
        return found

    def test_only_documented_keys_of_the_documented_types(self) -> None:
        for kind, make in product(KINDS, (description.host, description.bridge)):
            for key, value in self.read(kind, make).items():
                self.assertIs(type(value), DOCUMENTED[key], key)

    def test_it_is_started_again_unless_it_was_stopped(self) -> None:
        keys = self.read("user")
        self.assertEqual(keys["KeepAlive"], {"SuccessfulExit": False})
        self.assertIs(keys["RunAtLoad"], True)
        self.assertGreaterEqual(keys["ThrottleInterval"], 30)
        # Launchd's own words (launchd.plist(5), ProcessType).
        self.assertIn(keys["ProcessType"], ("Background", "Standard", "Adaptive", "Interactive"))

    def test_variables_are_in_it_and_what_the_service_says_itself_counts(self) -> None:
        said = self.read("user", UAI_TASK_MEMORY="2G <&>", PATH="/elsewhere")["EnvironmentVariables"]
        self.assertEqual(said["UAI_TASK_MEMORY"], "2G <&>")
        self.assertTrue(said["PATH"].startswith("/opt/venv/bin:"))
        self.assertEqual(said["UAI_HOST_TOKEN_FILE"], "/home/al/.config/uaihost/host-token")
        self.assertTrue(all(isinstance(value, str) for value in said.values()))

    def test_each_service_has_a_label_and_an_output_of_its_own(self) -> None:
        host, bridge = self.read("user"), self.read("user", description.bridge)
        self.assertEqual((host["Label"], bridge["Label"]), ("local.uaihost", "local.uaibridge"))
        self.assertNotEqual(host["StandardOutPath"], bridge["StandardOutPath"])
        self.assertTrue(re.fullmatch(r"[A-Za-z0-9.-]+", host["Label"]))

    def test_a_users_own_names_no_user(self) -> None:
        self.assertNotIn("UserName", self.read("user"))
        self.assertEqual(self.read("system")["UserName"], "uaihost")

    def test_its_program_is_read_back(self) -> None:
        written = launchd.text(description.host(places("user"), PROGRAMS), {})
        self.assertEqual(launchd.program(written), Path("/opt/venv/bin/twistd"))
        for other in (b"", b"<plist/>", b"not a list", plistlib.dumps({"Label": "x"}), plistlib.dumps([])):
            self.assertIsNone(launchd.program(other))
