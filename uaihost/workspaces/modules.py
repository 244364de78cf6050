"""What a repository's .gitmodules may ask for. The repository is a stranger's, so this is stricter than git.

Pure. A submodule is fetched by the host with the owner's rights and then lies open to whoever works in the
task: one that reaches for more than the repository itself did is left empty. No path on this machine may be
named, and the owner's SSH key opens only the server that the owner opened with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import attrs

from uaihost.errors import HostError
from uaihost.workspaces.untrusted import is_plain
from uaihost.workspaces.urls import Repository, parse

# Characters of a name or path: it becomes several parts of paths of ours.
LONGEST = 500

# A name becomes a folder below .git/modules.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@ -]*(?:/[A-Za-z0-9_][A-Za-z0-9_.+@ -]*)*\Z")
_SCP = re.compile(r"(?:[^@/:]+@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@]+):(?!//)")


class Refused(Exception):
    """Why a submodule is left empty, as the end of a sentence."""


@attrs.frozen
class Module:
    """One section of .gitmodules, as it is there."""

    name: str
    path: str
    url: str
    update: str


def parse_modules(listed: bytes) -> dict[str, Module]:
    """The sections of .gitmodules by their path, from what `git config --list -z` prints.

    What says a thing twice or names one path twice is left out: programs disagree on what that means.
    """
    sections: dict[str, dict[str, str]] = {}
    twice: set[str] = set()
    for entry in listed.split(b"\0"):
        key, _, value = entry.decode("utf-8", "surrogateescape").partition("\n")
        section, _, rest = key.partition(".")
        name, dot, field = rest.rpartition(".")
        if section != "submodule" or not dot or field not in ("path", "url", "update"):
            continue
        fields = sections.setdefault(name, {})
        if field in fields:
            twice.add(name)
        fields[field] = value
    found: dict[str, Module] = {}
    for name, fields in sections.items():
        module = Module(name, fields.get("path", ""), fields.get("url", ""), fields.get("update", ""))
        if module.path in found:
            twice |= {name, found[module.path].name}
        found[module.path] = module
    return {path: module for path, module in found.items() if module.name not in twice}


def checked(path: bytes, modules: Mapping[str, Module]) -> Module:
    """The section for the submodule that the commit has at `path`, when its names can be used.

    Raises:
        Refused: with the reason.
    """
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("its path is not UTF-8") from None
    if text not in modules:
        raise Refused(".gitmodules does not say, or not clearly, where it comes from")
    module = modules[text]
    if not is_plain(path) or text.startswith("-") or "\\" in text or len(text) > LONGEST or _controls(text):
        raise Refused("its path is not allowed")
    if not _is_folder_name(module.name):
        raise Refused("its name is not allowed")
    if _within_another(module.name, (other.name for other in modules.values())):
        raise Refused("its name is a folder in another submodule's name")
    if module.update == "none":
        raise Refused("its update is set to none")
    if module.update not in ("", "checkout", "rebase", "merge"):
        raise Refused("its update is a command, which is never run")
    return module


def source(url: str, parent: str | None) -> Repository:
    """The repository that a submodule's address names.

    parent: the address of the repository it is in; None when that has none that others can reach.

    Raises:
        Refused: with the reason.
    """
    within = None if parent is None else _allowed(parent)
    if url.startswith(("./", "../")):
        if within is None:
            raise Refused("its address is relative, and the repository has no address that it could start at")
        url = resolved(url, within.url)
    elif url.startswith(("/", ".", "file:", "~")):
        raise Refused("its address is a path on this machine, which a repository may not choose")
    found = _allowed(url)
    if found.kind == "ssh" and (within is None or within.kind != "ssh" or host(within) != host(found)):
        raise Refused(
            "it wants this host's SSH key for a server that the repository was not fetched from with it"
        )
    if found.kind == "http" and (within is None or within.kind != "http" or host(within) != host(found)):
        raise Refused("its address is not encrypted")
    return found


def resolved(url: str, base: str) -> str:
    """`url`, which starts with ./ or ../, as seen from the address `base` (gitsubmodules, git-submodule(1)).

    Raises:
        Refused: it leads out of the server.
    """
    if scp := _SCP.match(base):
        start, path = scp.group(), base[scp.end() :]
    else:
        parts = urlsplit(base)
        start, path = f"{parts.scheme}://{parts.netloc}/", parts.path
    absolute = path.startswith("/") and scp is not None
    places = [part for part in path.split("/") if part]
    for part in url.split("/"):
        if part == "..":
            if not places:
                raise Refused("its address leads out of the server")
            places.pop()
        elif part not in ("", "."):
            places.append(part)
    if not places:
        raise Refused("its address names no repository")
    return start + ("/" if absolute else "") + "/".join(places)


def host(repository: Repository) -> str:
    """The server and port that a repository is on."""
    if scp := _SCP.match(repository.url):
        return scp["host"].strip("[]")
    parts = urlsplit(repository.url)
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.hostname or ''}{port}"


def _allowed(url: str) -> Repository:
    try:
        return parse(url)
    except HostError as refused:
        raise Refused(refused.message) from None


def _is_folder_name(name: str) -> bool:
    return (
        len(name) <= LONGEST
        and bool(_NAME.match(name))
        and not any(
            ".." in part or part.endswith((".", " ")) or part.lower().endswith((".lock", ".git"))
            for part in name.split("/")
        )
    )


def _within_another(name: str, names: Iterable[str]) -> bool:
    """Whether one name's folder would be inside the other's, also where case does not count."""
    own = name.lower()
    same = 0
    for other in (other.lower() for other in names):
        if own.startswith(f"{other}/") or other.startswith(f"{own}/"):
            return True
        same += other == own
    return same > 1


def _controls(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)
