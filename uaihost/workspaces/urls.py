"""Which repository addresses are allowed, and what git, the cache and people are to call each.

Pure but for resolving symbolic links of local paths. A password in an address never gets further than this
module: it is refused, and no message repeats it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.proofs import Reach

Kind = Literal["https", "http", "ssh", "local"]

# Characters: far above any real address, far below what a command line takes.
LONGEST = 2048

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_TRANSPORT = re.compile(r"[A-Za-z0-9+.-]*::")
_SCP = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:@]+):(?P<path>.+)\Z")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")
_PORTS = {"https": 443, "http": 80, "ssh": 22}
_FORMS = "use https://host/path, ssh://git@host/path or git@host:path"


@attrs.frozen
class Repository:
    """An allowed repository.

    url: what git is given; holds no secret. key: the name of its cache, the same for every spelling of one
    address. display: for people and logs. asker: whose credentials it is asked with, empty for the host's
    own; reach: what those are for git.
    """

    kind: Kind
    url: str
    key: str
    display: str
    asker: str = attrs.field(default="", eq=False)
    reach: Reach = attrs.field(factory=Reach, eq=False, repr=False)

    @property
    def protocol(self) -> str:
        """What git calls the way there (GIT_ALLOW_PROTOCOL)."""
        return "file" if self.kind == "local" else self.kind


def parse(
    text: str,
    *,
    allowed_roots: Sequence[Path] = (),
    allow_http: bool = False,
    realpath: Callable[[str], str] = os.path.realpath,
) -> Repository:
    """The repository that `text` names.

    Args:
        allowed_roots: the folders in which repositories may be named by an absolute path or file://.
        allow_http: also allow http:// to other machines; to this one it always is.
        realpath: resolves symbolic links; for tests.

    Raises:
        HostError: `invalid_args`, with the reason and what to use instead.
    """
    text = text.strip(" ")
    if not text:
        raise _refused("the repository address is empty", _FORMS)
    if len(text) > LONGEST:
        raise _refused(f"the repository address is longer than {LONGEST} characters", _FORMS)
    if _unprintable(text) or _unprintable(unquote(text)):
        raise _refused("the repository address holds a control character", "type it again")
    if text.startswith("-"):
        raise _refused("the repository address starts with '-', like an option", _FORMS)
    if transport := _TRANSPORT.match(text):
        raise _refused(f"addresses of the kind {transport.group()} run programs and are refused", _FORMS)
    if text.startswith("/"):
        return _local(text, allowed_roots, realpath)
    if scheme := _SCHEME.match(text):
        return _with_scheme(scheme.group(1).lower(), text, allowed_roots, allow_http, realpath)
    if scp := _SCP.match(text):
        return _scp(scp)
    raise _refused("this is not a repository address", f"{_FORMS}, or an absolute path")


def _with_scheme(
    scheme: str,
    text: str,
    roots: Sequence[Path],
    allow_http: bool,
    realpath: Callable[[str], str],
) -> Repository:
    if scheme == "git":
        raise _refused("git:// is neither encrypted nor authenticated and is refused", "use https://")
    if scheme not in ("https", "http", "ssh", "file"):
        raise _refused(f"addresses with {scheme[:20]}:// are not supported", _FORMS)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _refused("the repository address cannot be read", _FORMS) from None
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _refused("a file:// address must be file:///absolute/path", "give the absolute path")
        return _local(unquote(text.split("://", 1)[1].removeprefix("localhost")), roots, realpath)
    host = _host(parts)
    if parts.password is not None:
        raise _refused(
            "the repository address holds a password or token", "take it out of the address, it is not kept"
        )
    path = parts.path.rstrip("/")
    if not path:
        raise _refused("the repository address names a server but no repository", _FORMS)
    if port == _PORTS[scheme]:
        port = None
    place = host if port is None else f"{host}:{port}"
    if scheme == "ssh":
        user = parts.username or ""
        if user and not _USER.match(user):
            raise _refused("the user name in the repository address is not usable", "use git@")
        if parts.query or parts.fragment:
            path = parts._replace(scheme="", netloc="").geturl().rstrip("/")
        url = f"ssh://{user}@{place}{path}" if user else f"ssh://{place}{path}"
        return _made("ssh", url)
    if parts.query or parts.fragment:
        raise _refused("the repository address holds '?' or '#'", "leave out what follows it")
    if scheme == "http" and not allow_http and not _is_loopback(host):
        raise _refused("http:// to another machine is not encrypted and is refused", "use https://")
    # A user name alone is no use without a prompt, and some hosts take a token in its place: it is left out.
    return _made("https" if scheme == "https" else "http", f"{scheme}://{place}{path}")


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    if ":" in host:
        try:
            return f"[{ipaddress.IPv6Address(host).compressed}]"
        except ValueError:
            pass
    elif _HOST.match(host):
        return host
    raise _refused("the repository address has no usable host name", _FORMS)


def _scp(match: re.Match[str]) -> Repository:
    user, host, path = match["user"], match["host"].lower(), match["path"].rstrip("/")
    if not (_HOST.match(host) or host.startswith("[")) or (user and not _USER.match(user)):
        raise _refused("the repository address has no usable host or user name", _FORMS)
    if not path or path.startswith("-"):
        raise _refused("the repository address names a server but no repository", _FORMS)
    return _made("ssh", f"{user}@{host}:{path}" if user else f"{host}:{path}")


def _local(text: str, roots: Sequence[Path], realpath: Callable[[str], str]) -> Repository:
    path = Path(realpath(text))
    if _unprintable(str(path)):
        raise _refused("the repository's path holds a control character", "rename the folder")
    if not any(path.is_relative_to(realpath(str(root))) for root in roots):
        raise _refused(
            "this path is not in a folder whose repositories may be used",
            "add its folder to UAI_LOCAL_REPOSITORIES on the host",
        )
    return _made("local", str(path))


def _made(kind: Kind, url: str) -> Repository:
    key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    display = url if url.isascii() else quote(url, safe="/:@[]~ ", errors="replace")
    return Repository(kind, url, key, display)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _unprintable(text: str) -> bool:
    return any(ord(character) < 32 or 127 <= ord(character) < 160 for character in text) or any(
        "\ud800" <= character <= "\udfff" for character in text
    )


def _refused(what: str, instead: str) -> HostError:
    return HostError(ErrorCode.INVALID_ARGS, f"{what}; {instead}")
