"""Which SSH servers are who they say: the keys of public forges, and the owner's own known_hosts files.

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

# As the forges publish them; their other names serve those whose network lets only port 443 out.
SHIPPED = """
github.com,[ssh.github.com]:443 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
github.com,[ssh.github.com]:443 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=
github.com,[ssh.github.com]:443 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQCj7ndNxQowgcQnjshcLrqPEiiphnt+VTTvDP6mHBL9j1aNUkY4Ue1gvwnGLVlOhGeYrnZaMgRK6+PKCUXaDbC7qtbW8gIkhL7aGCsOr/C56SJMy/BCZfxd1nWzAOxSDPgVsmerOBYfNqltV9/hWCqBywINIR+5dIg6JTJ72pcEpEjcYgXkE2YEFXV1JHnsKgbLWNlhScqb2UmyRkQyytRLtL+38TGxkxCflmO+5Z8CSSNY7GidjMIZ7Q4zMjA2n1nGrlTDkzwDCsw+wqFPGQA179cnfGWOWRVruj16z6XyvxvjJwbz0wQZ75XK5tKSb7FNyeIEs4TT4jk+S4dhPeAUC5y+bDYirYgM4GC7uEnztnZyaVWQ7B381AK4Qdrwt51ZqExKbQpTUNn+EjqoTwvqNj4kqx5QUCI0ThS/YkOxJCXmPUWZbhjpCg56i+2aB6CmK2JGhn57K5mj0MNdBXA4/WnwH6XoPWJzK5Nyu2zB3nAZp+S5hpQs+p1vN1/wsjk=
gitlab.com,[altssh.gitlab.com]:443 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf
gitlab.com,[altssh.gitlab.com]:443 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFSMqzJeV9rUzU4kWitGjeR4PWSa29SPqJ1fVkhtj3Hw9xjLVXVYrU9QlYWrOLXBpQ6KWjbjTDTdDkoohFzgbEY=
gitlab.com,[altssh.gitlab.com]:443 ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQCsj2bNKTBSpIYDEGk9KxsGh3mySTRgMtXL583qmBpzeQ+jqCMRgBqB98u3z++J1sKlXHWfM9dyhSevkMwSbhoR8XIq/U0tCNyokEi/ueaBMCvbcTHhO7FcwzY92WK4Yt0aGROY5qX2UKSeOvuP4D6TPqKF1onrSzH9bx9XUf2lEdWT/ia1NEKjunUqu1xOB/StKDHMoX4/OKyIzuS0q/T1zOATthvasJFoPrAjkohTyaDUz2LN5JoH839hViyEG82yB+MjcFV5MU3N1l1QL3cVUCh93xSaua1N85qivl+siMkPGbO5xR/En4iEY6K2XPASUEMaieWVNTRCtJ4S8H+9
bitbucket.org,[altssh.bitbucket.org]:443 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIazEu89wgQZ4bqs3d63QSMzYVa0MuJ2e2gKTKqu+UUO
bitbucket.org,[altssh.bitbucket.org]:443 ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBPIQmuzMBuKdWeF4+a2sjSSpBK0iqitSQ+5BM9KhpexuGt20JpTVM7u5BDZngncgrqDMbWdxMWWOGtZ9UgbqgZE=
codeberg.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIVIC02vnjFyL+I4RHfvIGNtOgJMe769VTF1VR4EB3ZB
"""  # noqa: E501
# Keys that forges gave up because others may have them, in 2023: an owner's old file may still list them.
GIVEN_UP = frozenset(
    {
        "nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",  # github.com, RSA
        "zzXQOXSRBEiUtuE8AikJYKwbHaxvSc0ojez9YXaGp1A",  # bitbucket.org, RSA
    }
)

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
    """What files say, at one time."""

    entries: tuple[_Entry, ...]

    def keys(self, to: Destination) -> frozenset[bytes]:
        """The keys' blobs that this server may have; a line with its port comes before one without."""
        for name in dict.fromkeys((to.name, to.host)):
            about = [entry for entry in self.entries if entry.of(name)]
            if about:
                return frozenset(entry.key for entry in about if not entry.revoked) - self._revoked()
        return frozenset()

    def text(self, to: Iterable[Destination]) -> str:
        """A known_hosts file for these servers and the public forges."""
        lines = [*SHIPPED.strip().splitlines()]
        for one in to:
            for key in sorted(self.keys(one)):
                lines.append(f"{one.name} {Reader(key).string().decode()} {b64encode(key).decode()}")
        return "\n".join(dict.fromkeys(lines)) + "\n"

    def _revoked(self) -> frozenset[bytes]:
        return frozenset(entry.key for entry in self.entries if entry.revoked)


def parse(text: str) -> KnownHosts:
    """What can be read of a file; lines that cannot are passed over, as ssh does."""
    entries = (_entry(line) for line in text.splitlines())
    return KnownHosts(tuple(entry for entry in entries if entry is not None))


def read(files: Sequence[Path]) -> KnownHosts:
    """The public forges' keys and those of the files, as far as they are there. Blocking."""
    texts = [SHIPPED]
    for path in files:
        try:
            with path.open("rb") as file:
                texts.append(file.read(LONGEST).decode("utf-8", "replace"))
        except OSError:
            continue
    return parse("\n".join(texts))


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
    digest = b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")
    return _Entry(names, marker == "@revoked" or digest in GIVEN_UP, kind, key)


def _hashed(names: str, name: str) -> bool:
    try:
        salt, wanted = (b64decode(part, validate=True) for part in names.removeprefix("|1|").split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), wanted)


def _matches(pattern: str, name: str) -> bool:
    """ssh's patterns have `*` and `?` and no sets: brackets stand for themselves."""
    return fnmatchcase(name, pattern.replace("[", "[[]"))
