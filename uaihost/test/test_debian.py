"""The Debian package's files say what the code says; and all that it bundles has its licence in it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from importlib.metadata import distribution
from pathlib import Path

from packaging.markers import Marker
from twisted.trial.unittest import SynchronousTestCase

from uaihost import __version__
from uaihost.config.sample import sample
from uaihost.services import description
from uaihost.services.systemd import unit

TOP = Path(__file__).parents[2]
DEBIAN = TOP / "debian"


def text(*parts: str) -> str:
    return TOP.joinpath(*parts).read_text(encoding="utf-8")


def pinned(name: str) -> dict[str, str]:
    """What a list installs on this machine: name to version."""
    rows = re.findall(
        r"^([a-z0-9-]+)(?:\[[a-z,]+\])?==([^ ;]+)(?: ; (.*))? \\$", text("requirements", f"{name}.txt"), re.M
    )
    return {package: version for package, version, only in rows if not only or Marker(only).evaluate()}


class FilesTests(SynchronousTestCase):
    def test_the_units_are_those_of_the_services(self) -> None:
        for name in (description.HOST, description.BRIDGE):
            self.assertEqual(text("debian", f"uaihost.{name}.service"), unit("package", name))

    def test_the_settings_file_has_every_setting(self) -> None:
        self.assertEqual(text("debian", "uaihost.toml"), sample())

    def test_one_version_everywhere(self) -> None:
        first = text("debian", "changelog").splitlines()[0]
        found = re.match(r"uaihost \(([^-]+)-\d+\) ", first)
        assert found is not None, first
        (setup,) = re.findall(r'version="([^"]+)"', text("setup.py"))
        self.assertEqual((found[1], setup), (__version__, __version__))

    def test_building_uses_versions_that_tests_use(self) -> None:
        self.assertEqual(pinned("build").items() - pinned("dev").items(), set())

    def test_scripts_of_the_package_are_sh(self) -> None:
        for name in ("uaihost.postinst", "uaihost.prerm", "uaihost.postrm", "uaihost.sh"):
            done = subprocess.run(
                ["sh", "-n", str(DEBIAN / name)], capture_output=True, text=True, check=False
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), name)


class LicencesTests(SynchronousTestCase):
    def test_every_library_has_a_stanza_and_no_stranger_has(self) -> None:
        stanzas = set(re.findall(r"^License: ([a-z0-9-]+)-licence$", text("debian", "copyright"), re.M))
        self.assertEqual(stanzas, set(pinned("runtime")))

    def test_each_stanza_is_what_the_library_says(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for name in pinned("runtime"):
                found = Path(str(distribution(name).locate_file(""))).glob("*.dist-info")
                (notes,) = (one for one in found if names(one) == name)
                Path(folder, notes.name).symlink_to(notes)
            program = ["/usr/bin/env", "python3", str(DEBIAN / "bundle.py"), "licences", folder]
            made = subprocess.run(program, capture_output=True, text=True, check=True).stdout
        self.assertEqual(
            text("debian", "copyright").partition("\nFiles: opt/")[2], made.partition("Files: opt/")[2]
        )

    def test_every_stanza_says_who_and_what(self) -> None:
        for stanza in text("debian", "copyright").split("\n\n")[1:]:
            keys = re.findall(r"^([A-Z][a-z-]+): *(\S.*)$", stanza, re.M)
            self.assertEqual({"Files", "Copyright", "License"} - {key for key, _ in keys}, set(), stanza)


def names(folder: Path) -> str:
    """The name that a folder of metadata is of, as lists spell it."""
    return re.sub(r"[-_.]+", "-", re.sub(r"-[^-]+\.dist-info$", "", folder.name)).lower()
