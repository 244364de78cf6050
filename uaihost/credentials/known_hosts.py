"""Which SSH servers are who they say, by files of known hosts.

The format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT; authorities' lines (@cert-authority) are passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from uaihost.credentials.ssh_wire import Reader

PORT = 22
# Bytes of a known_hosts file that are read: some ten thousand servers.
LONGEST = 2 << 20
# Who signs in at a forge, when the repository's address does not say.
USER = "git"

_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@\[\]]+):(?!//)")
# What stands in a line of its own is a name or a number, whatever an address held.
_HOST = re.compile(r"[a-z0-9_.:-]+\Z")


@attrs.frozen
class Destination:
    """A server that is signed in to, and as whom. host: in lower case, an IPv6 address without brackets."""

    host: str
    port: int = PORT
    user: str = USER

    @property
    def name(self) -> str:
        """As known_hosts files call it."""
        return self.host if self.port == PORT else f"[{self.host}]:{self.port}"


def destinations(repositories: Iterable[str]) -> tuple[Destination, ...]:
    """The servers of repositories, each once; one that is fetched by https has its SSH server there too."""
    found = (_destination(url) for url in repositories)
    return tuple(dict.fromkeys(one for one in found if one is not None and _HOST.match(one.host)))


def _destination(url: str) -> Destination | None:
    if "://" not in url:
        scp = _SCP.match(url)
        return scp and Destination(scp["host"].strip("[]").lower(), PORT, scp["user"] or USER)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme == "ssh" and host:
        return Destination(host.lower(), port or PORT, parts.username or USER)
    # A port of https says nothing of ssh.
    return Destination(host.lower()) if parts.scheme == "https" and host else None


@attrs.frozen
class _Entry:
    names: str
    revoked: bool
    kind: str
    key: bytes

    def of(self, name: str) -> bool:
        """Whether it is about this server, as `Destination.name` calls it."""
        if self.names.startswith("|1|"):
            return _hashed(self.names, name)
        found = False
        for pattern in self.names.lower().split(","):
            if _matches(pattern.removeprefix("!"), name):
                if pattern.startswith("!"):
                    return False
                found = True
        return found


@attrs.frozen
class KnownHosts:
    """What files say, at one time. met: of servers that were believed when they were met first; they count
    only where nobody says more."""

    entries: tuple[_Entry, ...]
    met: tuple[_Entry, ...] = ()

    def keys(self, to: Destination) -> frozenset[bytes]:
        """The keys' blobs that this server may have; a line with its port comes before one without."""
        for entries in (self.entries, self.met):
            for name in dict.fromkeys((to.name, to.host)):
                found = frozenset(entry.key for entry in entries if not entry.revoked and entry.of(name))
                if found:
                    return found - self._revoked()
        return frozenset()

    def text(self, to: Iterable[Destination]) -> str:
        """A known_hosts file for these servers."""
        lines = [
            f"{one.name} {Reader(key).string().decode()} {b64encode(key).decode()}\n"
            for one in to
            for key in sorted(self.keys(one))
        ]
        return "".join(dict.fromkeys(lines))

    def _revoked(self) -> frozenset[bytes]:
        return frozenset(entry.key for entry in self.entries if entry.revoked)


def parse(text: str, met: str = "") -> KnownHosts:
    """What can be read of files; lines that cannot are passed over, as ssh does."""

    def entries(text: str) -> tuple[_Entry, ...]:
        found = (_entry(line) for line in text.splitlines())
        return tuple(entry for entry in found if entry is not None)

    return KnownHosts(entries(text), entries(met))


def read(files: Sequence[Path], met: Path) -> KnownHosts:
    """What the files say, as far as they are there. Blocking."""
    return parse("\n".join(map(_text, files)), _text(met))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _entry(line: str) -> _Entry | None:
    words = line.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
        return None
    names, kind, encoded = words[:3]
    try:
        key = b64decode(encoded, validate=True)
        if Reader(key).string().decode("ascii") != kind:
            return None
    except ValueError:
        return None
    return _Entry(names, marker == "@revoked", kind, key)


def _hashed(names: str, name: str) -> bool:
    try:
        salt, wanted = (b64decode(part, validate=True) for part in names.removeprefix("|1|").split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)


def _matches(pattern: str, name: str) -> bool:
    """ssh's patterns have `*` and `?` and no sets: brackets stand for themselves."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))
