"""The part of devcontainer.json that tasks honour (containers.dev/implementors/json_reference). Mostly pure.

Honoured: onCreateCommand, updateContentCommand, postCreateCommand, postStartCommand, containerEnv, remoteEnv,
forwardPorts and the labels of portsAttributes. The image, what is mounted and what a container may do are the
host's alone; what a file says of these is named to people and left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# devcontainer.json is written by people: 1 MiB is far more than any of them.
FILE_LIMIT = 1 << 20
# Ports that one project forwards, characters of a port's name, and names in a sentence.
PORT_LIMIT = 32
NAME_LIMIT = 32
NAMED_LIMIT = 20
# Variables that one project sets, and characters of a value.
VARIABLE_LIMIT = 200
VALUE_LIMIT = 32 << 10

# In the order in which they run; each of the first three once.
CREATION = {
    "on-create": "onCreateCommand",
    "update-content": "updateContentCommand",
    "post-create": "postCreateCommand",
}
START = {"post-start": "postStartCommand"}
_HONOURED = {
    *CREATION.values(),
    *START.values(),
    "containerEnv",
    "remoteEnv",
    "forwardPorts",
    "portsAttributes",
}
# What describes itself, or says what is so here anyway.
_QUIET = {"$schema", "name", "workspaceFolder", "shutdownAction", "overrideCommand", "waitFor", "init"}

_JSONC = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])')
# Only these: a command's own `${HOME}` is the shell's.
_VARIABLE = re.compile(
    r"\$\{(localEnv|containerEnv|localWorkspaceFolderBasename|localWorkspaceFolder|devcontainerId"
    r"|containerWorkspaceFolderBasename|containerWorkspaceFolder)(?::([^}:]*))?(?::([^}]*))?\}"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def read(folder: Path) -> dict[str, Any]:
    """The project's devcontainer.json, with its comments and trailing commas; empty when there is none.

    Raises:
        ValueError: it is not what it should be; the text names the file.
    """
    for name in (".devcontainer/devcontainer.json", ".devcontainer.json"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                raw = file.read(FILE_LIMIT + 1)
            if len(raw) > FILE_LIMIT:
                raise ValueError(f"larger than {FILE_LIMIT >> 20} MiB")
            plain = _JSONC.sub(lambda match: match[1] or " ", raw.decode("utf-8-sig"))
            found = json.loads(_TRAILING.sub(lambda match: match[1] or "", plain))
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{name} cannot be read: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{name} cannot be read: it is not an object")
        return found
    return {}


class Devcontainer:
    """What a devcontainer.json says to the task in `folder`.

    environ: the container's own. variables: what the project's commands get beside it; None: not even that.
    ports: `{"port", "name"}` for each of forwardPorts.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._folder = folder
        self._environ = environ
        self._emptied: dict[str, None] = {}
        self._wrong: list[str] = []
        self.variables = self._variables()
        self.ports = self._ports()
        # Looked at now, so that what is not known in them is told before they run.
        self._commands = {
            key: self._expanded(settings[key])
            for key in (*CREATION.values(), *START.values())
            if settings.get(key)
        }

    @property
    def told(self) -> list[str]:
        """Sentences about what is left out, for people."""
        left = sorted(set(self._settings) - _HONOURED - _QUIET)
        sentences = list(self._wrong)
        if left:
            sentences.append(f"not supported in a task and left out: {_some(left)}")
        if self._emptied:
            sentences.append(f"not known in a task and so empty: {_some(list(self._emptied))}")
        return sentences

    def has(self, key: str) -> bool:
        return key in self._commands

    def commands(self, key: str) -> list[list[str]]:
        """The commands under `key`, to run side by side.

        Raises:
            ValueError: it is no command.
        """
        return commands(self._commands[key])

    def _variables(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for key in ("containerEnv", "remoteEnv"):
            table = self._settings.get(key) or {}
            if not isinstance(table, dict):
                self._wrong.append(f"{key} is not an object of strings")
                continue
            for name, value in list(table.items())[:VARIABLE_LIMIT]:
                text = self._expanded(value)
                legal = text is None or (isinstance(text, str) and "\0" not in text)
                if not legal or not _NAME.match(name) or len(text or "") > VALUE_LIMIT:
                    self._wrong.append(f"{key}: {name[:NAME_LIMIT]!r} is not a variable with a text")
                    continue
                found[name] = text
        return found

    def _ports(self) -> list[dict[str, Any]]:
        listed = self._settings.get("forwardPorts") or []
        labels = self._settings.get("portsAttributes") or {}
        if not isinstance(listed, list):
            self._wrong.append("forwardPorts is not a list")
            return []
        found: dict[int, str] = {}
        for entry in listed[:PORT_LIMIT]:
            port = port_of(entry)
            if port is None:
                self._wrong.append(f"forwardPorts: {str(entry)[:NAME_LIMIT]!r} is no port of the task")
                continue
            attributes = labels.get(str(port)) if isinstance(labels, dict) else None
            label = attributes.get("label") if isinstance(attributes, dict) else None
            found[port] = port_name(label) or f"port-{port}"
        return [{"port": port, "name": name} for port, name in found.items()]

    def _expanded(self, value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(self._replaced, value)
        if isinstance(value, list):
            return [self._expanded(part) for part in value]
        if isinstance(value, dict):
            return {name: self._expanded(part) for name, part in value.items()}
        return value

    def _replaced(self, match: re.Match[str]) -> str:
        kind, name, default = match[1], match[2] or "", match[3] or ""
        if kind == "containerEnv":
            return self._environ.get(name, default)
        if kind == "containerWorkspaceFolder":
            return str(self._folder)
        if kind.endswith("Basename"):
            return self._folder.name
        self._emptied[f"{kind}:{name}" if name else kind] = None
        return default


def commands(value: Any) -> list[list[str]]:
    """A command's words ("Lifecycle scripts"): a string is for the shell, a list is one program's words, an
    object holds several that run side by side.

    Raises:
        ValueError: it is nothing of these.
    """
    if isinstance(value, str):
        return [["sh", "-c", value]]
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return [value]
    if isinstance(value, dict) and not any(isinstance(part, dict) for part in value.values()):
        return [words for part in value.values() for words in commands(part)]
    raise ValueError("a command must be a string, a list of strings, or an object of these")


def port_of(entry: Any) -> int | None:
    """The port in an entry of forwardPorts, a number or `localhost:<number>`; None for another machine's."""
    text = str(entry) if isinstance(entry, (int, str)) and not isinstance(entry, bool) else ""
    match = re.fullmatch(r"(?:(?:localhost|127\.0\.0\.1):)?([0-9]{1,5})", text, re.ASCII)
    return int(match[1]) if match and 1 <= int(match[1]) <= 65535 else None


def port_name(label: Any) -> str:
    """A label as a name for a preview: lower-case letters, digits and dashes; empty when nothing is left."""
    if not isinstance(label, str):
        return ""
    return re.sub(r"[^a-z0-9]+", "-", label.lower())[:NAME_LIMIT].strip("-")


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:NAME_LIMIT] for name in names[:NAMED_LIMIT])
    return f"{shown} and {len(names) - NAMED_LIMIT} more" if len(names) > NAMED_LIMIT else shown
