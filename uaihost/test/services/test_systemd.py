"""Unit files: what stands in them, what systemd says to them, and how well they are hardened."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import attrs
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from uaihost.exits import FAILED, REFUSED
from uaihost.services import description, systemd
from uaihost.services.description import BRIDGE, HOST, Description, Kind
from uaihost.test.services.rig import PROGRAMS, places
from uaihost.test.support import given

KINDS: tuple[Kind, ...] = ("user", "system", "package")


def service(kind: Kind = "system", name: str = HOST, **more: object) -> Description:
    make = {HOST: description.host, BRIDGE: description.bridge}[name]
    return make(places(kind, **more), PROGRAMS)


def directives(text: str, section: str) -> list[tuple[str, str]]:
    """The lines of a section, in order."""
    body = re.search(rf"^\[{section}\]\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    return [(key, value) for key, _, value in (line.partition("=") for line in body[1].split("\n") if line)]


class TextTests(SynchronousTestCase):
    def value(self, text: str, key: str, section: str = "Service") -> list[str]:
        return [value for name, value in directives(text, section) if name == key]

    def test_a_status_that_the_owner_must_put_right_is_not_tried_again_and_others_are(self) -> None:
        for kind, name in product(KINDS, (HOST, BRIDGE)):
            text = systemd.text(service(kind, name))
            self.assertEqual(self.value(text, "Restart"), ["on-failure"])
            self.assertEqual(self.value(text, "RestartPreventExitStatus"), [str(REFUSED)])
            self.assertNotIn(str(FAILED), self.value(text, "RestartPreventExitStatus")[0].split())
            # It is never given up.
            self.assertEqual(self.value(text, "StartLimitIntervalSec", "Unit"), ["0"])

    def test_an_installation_in_the_folder_of_temporary_files_is_seen(self) -> None:
        own = systemd.text(service(reads=(Path("/tmp/trial/.venv"),)))
        self.assertEqual(self.value(own, "PrivateTmp"), ["no"])
        self.assertEqual(self.value(systemd.text(service()), "PrivateTmp"), ["yes"])

    def test_the_delay_grows_where_systemd_knows_how(self) -> None:
        self.assertEqual(self.value(systemd.text(service(), 252), "RestartSteps"), [])
        self.assertEqual(self.value(systemd.text(service(), 254), "RestartMaxDelaySec"), ["120"])

    def test_the_service_says_itself_that_it_is_ready_and_alive(self) -> None:
        for name in (HOST, BRIDGE):
            text = systemd.text(service(name=name))
            self.assertEqual(self.value(text, "Type"), ["notify"])
            self.assertEqual(self.value(text, "NotifyAccess"), ["main"])
            self.assertEqual(self.value(text, "WatchdogSec"), ["60"])
            self.assertEqual(self.value(text, "KillMode"), ["mixed"])

    def test_the_program_is_absolute_and_its_folder_comes_first_in_the_path(self) -> None:
        text = systemd.text(service())
        self.assertEqual(
            self.value(text, "ExecStart"), ["/opt/venv/bin/twistd --nodaemon --pidfile= uaihost"]
        )
        path = self.value(text, "Environment")[0]
        self.assertTrue(path.startswith("PATH=/opt/venv/bin:"))
        for folder in ("/usr/sbin", "/sbin", "/usr/bin", "/bin"):
            self.assertIn(folder, path.partition("=")[2].split(":"))

    def test_the_machines_service_has_the_rights_of_the_filter_and_no_more(self) -> None:
        text = systemd.text(service())
        self.assertEqual(self.value(text, "User"), ["uaihost"])
        for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
            self.assertEqual(self.value(text, key), ["CAP_NET_ADMIN CAP_NET_RAW"])
        bridge = systemd.text(service(name=BRIDGE))
        self.assertEqual(self.value(bridge, "CapabilityBoundingSet"), [""])
        self.assertIn("-/run/docker.sock", self.value(bridge, "InaccessiblePaths")[0].split())

    def test_a_service_that_is_root_has_what_it_needs_to_be_others(self) -> None:
        text = systemd.text(service(user="root"))
        held = set(self.value(text, "CapabilityBoundingSet")[0].split())
        self.assertEqual(held, {*description.FILTER_RIGHTS, *description.ROOT_RIGHTS})
        self.assertEqual(self.value(text, "AmbientCapabilities"), [])
        self.assertEqual(self.value(text, "UMask"), [])

    def test_a_users_service_names_no_unit_of_the_machine_and_no_user(self) -> None:
        text = systemd.text(service("user"))
        self.assertEqual(self.value(text, "After", "Unit"), ["uaibridge.service"])
        self.assertEqual(self.value(text, "Wants", "Unit"), [])
        self.assertEqual(self.value(text, "User"), [])
        self.assertEqual(self.value(text, "WantedBy", "Install"), ["default.target"])

    def test_homes_are_empty_but_for_what_this_python_needs(self) -> None:
        reads = (Path("/home/al/venv"), Path("/usr"), Path("/root/.pyenv/versions/3.12"))
        text = systemd.text(service(reads=reads))
        self.assertEqual(self.value(text, "ProtectHome"), ["tmpfs"])
        self.assertEqual(
            self.value(text, "BindReadOnlyPaths"), ["/home/al/venv", "/root/.pyenv/versions/3.12"]
        )
        self.assertEqual(self.value(systemd.text(service()), "ProtectHome"), ["yes"])

    def test_data_elsewhere_is_the_one_folder_that_is_written(self) -> None:
        elsewhere = attrs.evolve(service(), places=attrs.evolve(places(), data=Path("/srv/my data")))
        text = systemd.text(elsewhere)
        self.assertEqual(self.value(text, "ReadWritePaths"), ['"/srv/my data"'])
        self.assertEqual(self.value(text, "StateDirectory"), [])
        self.assertEqual(self.value(systemd.text(service()), "StateDirectory"), ["uaihost"])

    def test_no_secret_stands_in_a_unit(self) -> None:
        for kind, name in product(KINDS, (HOST, BRIDGE)):
            text = systemd.text(service(kind, name))
            self.assertIn("UAI_HOST_TOKEN_FILE=", text)
            self.assertNotIn("UAI_HOST_TOKEN=", text)

    @given(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), min_size=1),
            max_size=4,
        )
    )
    def test_words_survive_the_quoting(self, words: list[str]) -> None:
        command = ("/opt/a b/twistd", *words)
        text = systemd.text(attrs.evolve(service(), command=command))
        line = self.value(text, "ExecStart")[0]
        self.assertEqual(split(line), list(command))
        self.assertEqual(systemd.written(text).program, Path(command[0]))

    def test_a_unit_of_somebody_elses_has_a_program_too_or_none(self) -> None:
        self.assertEqual(systemd.written("[Service]\nExecStart=/bin/true x\n").program, Path("/bin/true"))
        self.assertIsNone(systemd.written("[Unit]\n").program)


def split(line: str) -> list[str]:
    """A command line of a unit as systemd splits it (systemd.syntax(7)): quotes, escapes, specifiers."""
    words: list[str] = []
    word: str | None = None
    quoted = False
    index = 0
    while index < len(line):
        char = line[index]
        if char == "\\" and quoted:
            index += 1
            word = (word or "") + line[index]
        elif char == '"':
            quoted = not quoted
            word = word or ""
        elif char == " " and not quoted:
            if word is not None:
                words.append(word)
            word = None
        elif char in "%$":
            assert line[index + 1] == char, "a specifier or a variable that nobody meant"
            index += 1
            word = (word or "") + char
        else:
            word = (word or "") + char
        index += 1
    return words if word is None else [*words, word]
