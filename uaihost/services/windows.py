"""A service's description as a task of Windows' Task Scheduler that starts it in WSL at log-on. Pure.

The host itself needs Linux or macOS: on Windows it runs in the Windows Subsystem for Linux, which ends what
nobody on the Windows side holds. This task holds it. The schema is the Task Scheduler's own, version 1.4
([MS-TSCH], section 2.5); it names no limit on how often a task that failed is started again beyond 255.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import attrs

from uaihost.services.description import Description

NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
VERSION = "1.4"
# As often as the schema can say, once a minute, the shortest that it takes.
COUNT, INTERVAL = 255, "PT1M"


@attrs.frozen
class Subsystem:
    """Where the service runs. distribution: its name in WSL; user: of it; account: of Windows."""

    distribution: str
    user: str
    account: str


def text(service: Description, variables: Mapping[str, str], where: Subsystem) -> bytes:
    """The task, in UTF-16 with its mark, as schtasks.exe reads it."""
    task = ElementTree.Element("Task", {"version": VERSION, "xmlns": NAMESPACE})
    _add(task, "RegistrationInfo", {"Description": service.purpose, "URI": f"\\{service.name}"})
    # The order of a trigger's elements is fixed: those of every trigger first.
    _add(task, "Triggers", {"LogonTrigger": {"Enabled": "true", "UserId": where.account}})
    principal = _add(
        task,
        "Principals",
        {
            "Principal": {
                "UserId": where.account,
                "LogonType": "InteractiveToken",
                "RunLevel": "LeastPrivilege",
            }
        },
    )[0]
    principal.set("id", "Author")
    _add(
        task,
        "Settings",
        {
            "MultipleInstancesPolicy": "IgnoreNew",
            "DisallowStartIfOnBatteries": "false",
            "StopIfGoingOnBatteries": "false",
            "AllowHardTerminate": "true",
            "StartWhenAvailable": "true",
            "RunOnlyIfNetworkAvailable": "false",
            "AllowStartOnDemand": "true",
            "Enabled": "true",
            "Hidden": "false",
            "RunOnlyIfIdle": "false",
            "WakeToRun": "false",
            # No limit.
            "ExecutionTimeLimit": "PT0S",
            "Priority": "7",
            "RestartOnFailure": {"Interval": INTERVAL, "Count": str(COUNT)},
        },
    )
    actions = _add(
        task, "Actions", {"Exec": {"Command": "wsl.exe", "Arguments": arguments(service, variables, where)}}
    )
    actions.set("Context", "Author")
    ElementTree.indent(task)
    body = ElementTree.tostring(task, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-16"?>\n{body}\n'.encode("utf-16")


def arguments(service: Description, variables: Mapping[str, str], where: Subsystem) -> str:
    """What follows `wsl.exe`: no shell of either side reads any of it."""
    settings = [f"{name}={value}" for name, value in {**variables, **service.environment}.items()]
    words = ["--distribution", where.distribution, "--user", where.user, "--exec", "/usr/bin/env", *settings]
    return " ".join(_word(word) for word in [*words, *service.command])


def program(task: bytes) -> Path | None:
    """The program that a task starts in WSL; None for one that is not of ours."""
    try:
        root = ElementTree.fromstring(task.decode("utf-16").partition("?>")[2].strip())
    except (UnicodeDecodeError, ElementTree.ParseError):
        return None
    words = shlex.split(root.findtext(f".//{{{NAMESPACE}}}Arguments") or "")
    for word in words[words.index("/usr/bin/env") + 1 :] if "/usr/bin/env" in words else []:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word):
            return Path(word)
    return None


# An element's text, or its elements by name, in order.
Tree = str | Mapping[str, "Tree"]


def _add(parent: ElementTree.Element, name: str, content: Tree) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, name)
    if isinstance(content, str):
        element.text = content
    else:
        for child, inner in content.items():
            _add(element, child, inner)
    return element


def _word(word: str) -> str:
    """A word of a Windows command line (CommandLineToArgvW)."""
    if word and not re.search(r'[\s"]', word):
        return word
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', word)
    escaped = re.sub(r"(\\+)\Z", r"\1\1", escaped)
    return f'"{escaped}"'
