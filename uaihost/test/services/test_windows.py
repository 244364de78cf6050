"""Tasks of Windows' Task Scheduler, held against the published schema ([MS-TSCH], section 2.5)."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import attrs
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from uaihost.services import description, windows
from uaihost.services.windows import Subsystem
from uaihost.test.services.rig import PROGRAMS, places
from uaihost.test.support import given

WHERE = Subsystem("Debian", "al", "BOX\\Al")

# Of each element those that may be in it: `all` in any order, each once at most; `sequence` in this one.
SCHEMA: dict[str, tuple[str, tuple[str, ...]]] = {
    "Task": ("all", ("RegistrationInfo", "Triggers", "Settings", "Data", "Principals", "Actions")),
    "RegistrationInfo": (
        "all",
        (
            "URI",
            "SecurityDescriptor",
            "Source",
            "Date",
            "Author",
            "Version",
            "Description",
            "Documentation",
        ),
    ),
    "Triggers": ("choice", ("LogonTrigger", "BootTrigger", "TimeTrigger")),
    "LogonTrigger": (
        "sequence",
        (
            "Enabled",
            "StartBoundary",
            "EndBoundary",
            "Repetition",
            "ExecutionTimeLimit",
            "UserId",
            "Delay",
        ),
    ),
    "Principals": ("choice", ("Principal",)),
    "Principal": ("all", ("UserId", "LogonType", "GroupId", "DisplayName", "RunLevel")),
    "Settings": (
        "all",
        (
            "AllowStartOnDemand",
            "RestartOnFailure",
            "MultipleInstancesPolicy",
            "DisallowStartIfOnBatteries",
            "StopIfGoingOnBatteries",
            "AllowHardTerminate",
            "StartWhenAvailable",
            "NetworkProfileName",
            "RunOnlyIfNetworkAvailable",
            "WakeToRun",
            "Enabled",
            "Hidden",
            "DeleteExpiredTaskAfter",
            "IdleSettings",
            "NetworkSettings",
            "ExecutionTimeLimit",
            "Priority",
            "RunOnlyIfIdle",
        ),
    ),
    "RestartOnFailure": ("all", ("Interval", "Count")),
    "Actions": ("choice", ("Exec",)),
    "Exec": ("all", ("Command", "Arguments", "WorkingDirectory")),
}
# What the text of an element may be.
BOOLEAN, DURATION = r"true|false", r"PT?[0-9]+[DHMS]"
TEXTS = {
    "MultipleInstancesPolicy": r"Parallel|Queue|IgnoreNew|StopExisting",
    "LogonType": r"S4U|Password|InteractiveToken|InteractiveTokenOrPassword",
    "RunLevel": r"LeastPrivilege|HighestAvailable",
    "Interval": DURATION,
    "ExecutionTimeLimit": DURATION,
    "Priority": r"10|[0-9]",
    "Count": r"[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5]",
    **dict.fromkeys(
        (
            "Enabled",
            "Hidden",
            "WakeToRun",
            "RunOnlyIfIdle",
            "AllowStartOnDemand",
            "StartWhenAvailable",
            "AllowHardTerminate",
            "StopIfGoingOnBatteries",
            "DisallowStartIfOnBatteries",
            "RunOnlyIfNetworkAvailable",
        ),
        BOOLEAN,
    ),
}


def problems(element: ElementTree.Element) -> list[str]:
    """Where an element is not as the schema has it."""
    name = element.tag.removeprefix(f"{{{windows.NAMESPACE}}}")
    if len(element) == 0:
        wanted = TEXTS.get(name, ".+")
        return [] if re.fullmatch(wanted, element.text or "") else [f"{name}: {element.text!r}"]
    order, allowed = SCHEMA[name]
    inner = [child.tag.removeprefix(f"{{{windows.NAMESPACE}}}") for child in element]
    found = [f"{child} in {name}" for child in inner if child not in allowed]
    if order != "choice" and len(set(inner)) != len(inner):
        found.append(f"{name} has one twice")
    if order == "sequence" and inner != [child for child in allowed if child in inner]:
        found.append(f"{name} is out of order")
    return found + [problem for child in element for problem in problems(child)]


def split(line: str) -> list[str]:
    """A command line as CommandLineToArgvW splits what follows the program."""
    words: list[str] = []
    word: list[str] | None = None
    quoted, index = False, 0
    while index < len(line):
        run = len(line[index:]) - len(line[index:].lstrip("\\"))
        after = line[index + run : index + run + 1]
        if run:
            word = word if word is not None else []
            word.append("\\" * (run // 2 if after == '"' else run))
            if after == '"' and run % 2:
                word.append('"')
                index += 1
            index += run
            continue
        if after == '"':
            quoted = not quoted
            word = word if word is not None else []
        elif after in " \t" and not quoted:
            if word is not None:
                words.append("".join(word))
            word = None
        else:
            word = word if word is not None else []
            word.append(after)
        index += 1
    return words if word is None else [*words, "".join(word)]


class WindowsTests(SynchronousTestCase):
    def task(self, **variables: str) -> bytes:
        return windows.text(description.host(places("user"), PROGRAMS), variables, WHERE)

    def root(self, **variables: str) -> ElementTree.Element:
        return ElementTree.fromstring(self.task(**variables).decode("utf-16").partition("?>")[2].strip())

    def text(self, name: str) -> str | None:
        return self.root().findtext(f".//{{{windows.NAMESPACE}}}{name}")

    def test_it_is_utf_16_with_its_mark_and_says_so(self) -> None:
        task = self.task()
        self.assertEqual(task[:2], b"\xff\xfe")
        self.assertTrue(task.decode("utf-16").startswith('<?xml version="1.0" encoding="UTF-16"?>\n<Task '))

    def test_it_is_as_the_schema_has_it(self) -> None:
        root = self.root(UAI_TASK_MEMORY='2G" <&>')
        self.assertEqual(root.tag, f"{{{windows.NAMESPACE}}}Task")
        self.assertEqual(root.get("version"), "1.4")
        self.assertEqual(problems(root), [])

    def test_the_check_finds_what_is_wrong(self) -> None:
        for path, change in (
            ("Triggers/LogonTrigger", lambda found: found.insert(0, found[1])),
            ("Settings/RestartOnFailure", lambda found: found.append(found[0])),
            ("Settings", lambda found: setattr(found[0], "text", "Sometimes")),
            ("Settings/RestartOnFailure", lambda found: setattr(found[1], "text", "999")),
            ("Principals/Principal", lambda found: setattr(found[0], "tag", "Nobody")),
        ):
            root = self.root()
            found = root.find("/".join(f"{{{windows.NAMESPACE}}}{name}" for name in path.split("/")))
            change(found)
            self.assertEqual(len(problems(root)) > 0, True, path)

    def test_who_logs_on_is_who_it_runs_as(self) -> None:
        users = [element.text for element in self.root().iter(f"{{{windows.NAMESPACE}}}UserId")]
        self.assertEqual(users, ["BOX\\Al"] * 2)
        self.assertEqual(self.text("RunLevel"), "LeastPrivilege")
        root = self.root()
        principal = next(root.iter(f"{{{windows.NAMESPACE}}}Principal"))
        actions = next(root.iter(f"{{{windows.NAMESPACE}}}Actions"))
        self.assertEqual(principal.get("id"), actions.get("Context"))

    def test_it_runs_without_end_also_on_a_battery_and_once(self) -> None:
        for name, value in (
            ("ExecutionTimeLimit", "PT0S"),
            ("DisallowStartIfOnBatteries", "false"),
            ("StopIfGoingOnBatteries", "false"),
            ("MultipleInstancesPolicy", "IgnoreNew"),
        ):
            self.assertEqual(self.text(name), value)

    def test_the_command_starts_the_program_in_the_distribution_with_its_environment(self) -> None:
        self.assertEqual(self.text("Command"), "wsl.exe")
        words = split(self.text("Arguments") or "")
        self.assertEqual(words[:6], ["--distribution", "Debian", "--user", "al", "--exec", "/usr/bin/env"])
        self.assertEqual(words[-4:], ["/opt/venv/bin/twistd", "--nodaemon", "--pidfile=", "uaihost"])
        self.assertIn("UAI_DATA_DIR=/home/al/data", words)

    def test_its_program_is_read_back(self) -> None:
        self.assertEqual(windows.program(self.task(A="b c")), Path("/opt/venv/bin/twistd"))
        for other in (b"", b"\xff", "<Task/>".encode("utf-16"), "<Task".encode("utf-16")):
            self.assertIsNone(windows.program(other))

    @given(st.lists(st.text(st.characters(codec="ascii", min_codepoint=32)), min_size=1, max_size=4))
    def test_words_survive_the_quoting(self, words: list[str]) -> None:
        service = attrs.evolve(description.host(places("user"), PROGRAMS), command=tuple(words))
        self.assertEqual(split(windows.arguments(service, {}, WHERE))[-len(words) :], words)
