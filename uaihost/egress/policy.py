"""Which destinations a task may reach: three modes, the table of the middle one, the owner's list. Pure.

docs/egress.md publishes the table, which is made here. Knows no sockets: names are judged before they are
looked up, addresses after.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

import attrs

from uaihost.egress.names import Destination, IPAddress, host_name, is_public, network, unmapped
from uaihost.errors import SettingError

MODES = ("open", "registries+git", "deny")

_WEB = frozenset({443, 80})
_GIT = frozenset({443, 80, 22})
_SECURE = frozenset({443})


@attrs.frozen
class Group:
    """Hosts that are permitted for one purpose. hosts: names; `*.name` stands for all below, not for it."""

    purpose: str
    ports: frozenset[int]
    hosts: tuple[str, ...]


# What `registries+git` permits. Left out on purpose: shared storage and delivery networks where anybody has a
# bucket, image registries, paste services, telemetry.
GROUPS = (
    Group(
        "JavaScript packages and Node",
        _WEB,
        (
            "registry.npmjs.org",
            "registry.yarnpkg.com",
            "repo.yarnpkg.com",
            "npm.jsr.io",
            "jsr.io",
            "deno.land",
            "dl.deno.land",
            "nodejs.org",
        ),
    ),
    Group(
        "Python packages",
        _WEB,
        (
            "pypi.org",
            "files.pythonhosted.org",
            "www.python.org",
            "conda.anaconda.org",
            "repo.anaconda.com",
        ),
    ),
    Group(
        "Rust crates and toolchains",
        _WEB,
        ("crates.io", "index.crates.io", "static.crates.io", "static.rust-lang.org", "sh.rustup.rs"),
    ),
    Group(
        "Go modules and toolchains",
        _WEB,
        ("proxy.golang.org", "sum.golang.org", "golang.org", "go.dev", "dl.google.com", "gopkg.in"),
    ),
    Group(
        "Ruby gems",
        _WEB,
        ("rubygems.org", "index.rubygems.org", "cache.ruby-lang.org"),
    ),
    Group(
        "Java and Kotlin: Maven and Gradle",
        _WEB,
        (
            "repo.maven.apache.org",
            "repo1.maven.org",
            "maven.google.com",
            "plugins.gradle.org",
            "plugins-artifacts.gradle.org",
            "services.gradle.org",
            "downloads.gradle.org",
            "api.adoptium.net",
        ),
    ),
    Group(
        ".NET: NuGet",
        _WEB,
        ("api.nuget.org", "www.nuget.org", "globalcdn.nuget.org", "builds.dotnet.microsoft.com"),
    ),
    Group(
        "PHP, Elixir, Erlang, Dart",
        _WEB,
        (
            "packagist.org",
            "repo.packagist.org",
            "getcomposer.org",
            "hex.pm",
            "repo.hex.pm",
            "builds.hex.pm",
            "pub.dev",
        ),
    ),
    Group(
        "Debian and Ubuntu packages",
        _WEB,
        (
            "deb.debian.org",
            "security.debian.org",
            "ftp.debian.org",
            "archive.ubuntu.com",
            "*.archive.ubuntu.com",
            "security.ubuntu.com",
            "ports.ubuntu.com",
        ),
    ),
    Group(
        "Tool versions and editor extensions",
        _SECURE,
        ("mise.jdx.dev", "mise-versions.jdx.dev", "open-vsx.org", "openvsx.eclipsecontent.org"),
    ),
    Group(
        "GitHub",
        _GIT,
        (
            "github.com",
            "ssh.github.com",
            "api.github.com",
            "gist.github.com",
            "codeload.github.com",
            "uploads.github.com",
            "npm.pkg.github.com",
            "maven.pkg.github.com",
            "nuget.pkg.github.com",
            "rubygems.pkg.github.com",
            "raw.githubusercontent.com",
            "objects.githubusercontent.com",
            "media.githubusercontent.com",
            "gist.githubusercontent.com",
            "release-assets.githubusercontent.com",
            "github-releases.githubusercontent.com",
            "github-cloud.githubusercontent.com",
            "github-cloud.s3.amazonaws.com",
        ),
    ),
    Group(
        "Other git hosts",
        _GIT,
        (
            "gitlab.com",
            "altssh.gitlab.com",
            "bitbucket.org",
            "altssh.bitbucket.org",
            "api.bitbucket.org",
            "codeberg.org",
            "git.sr.ht",
            "dev.azure.com",
            "ssh.dev.azure.com",
            "gitea.com",
            "salsa.debian.org",
            "git.kernel.org",
        ),
    ),
    Group(
        "Models and sign-in: Anthropic",
        _SECURE,
        (
            "api.anthropic.com",
            "console.anthropic.com",
            "platform.claude.com",
            "claude.ai",
        ),
    ),
    Group(
        "Models and sign-in: OpenAI",
        _SECURE,
        ("api.openai.com", "auth.openai.com", "chatgpt.com"),
    ),
    Group(
        "Models and sign-in: Google",
        _SECURE,
        (
            "generativelanguage.googleapis.com",
            "cloudcode-pa.googleapis.com",
            "aiplatform.googleapis.com",
            "oauth2.googleapis.com",
            "accounts.google.com",
        ),
    ),
)


@attrs.frozen
class Verdict:
    """why: a sentence for people; of a refusal it names the destination, the policy and what to change."""

    allowed: bool
    why: str


@attrs.frozen
class _Pattern:
    """One entry of a list. suffix: with a leading dot, for `*.name`. ports: None for every port."""

    why: str
    ports: frozenset[int] | None
    name: str = ""
    suffix: str = ""
    network: IPv4Network | IPv6Network | None = None

    def names(self, host: str, port: int) -> bool:
        if self.ports is not None and port not in self.ports:
            return False
        # With its dot, so that `evilname` and `name.evil` are others.
        return host == self.name if self.name else bool(self.suffix) and host.endswith(self.suffix)

    def holds(self, address: IPAddress, port: int) -> bool:
        return (
            self.network is not None
            and address in self.network
            and (self.ports is None or port in self.ports)
        )


class Policy:
    """What is permitted, by name before it is looked up and by address after.

    mode: one of MODES. allow: what is permitted besides (`name[:port]`, `*.name[:port]`, `address[:port]`,
    `network/bits[:port]`; without a port, all ports); an address there need not be public.

    Raises:
        SettingError: an unknown mode or an entry that is none of these.
    """

    def __init__(self, mode: str, allow: Sequence[str] = ()) -> None:
        if mode not in MODES:
            raise SettingError(f"UAI_EGRESS: {mode[:80]!r} is not legal; it must be {', '.join(MODES)}")
        self.mode = mode
        self._allow = tuple(_allowed(entry) for entry in allow)
        self._listed = tuple(
            _pattern(host, group.ports, group.purpose)
            for group in (GROUPS if mode == "registries+git" else ())
            for host in group.hosts
        )

    def verdict(self, host: str, port: int) -> Verdict:
        """Whether `host`, in any spelling, may be looked up and dialled at `port`.

        A name needs `reach` for each of its addresses besides. An address is judged for good.
        """
        try:
            wanted = Destination(host_name(host), port)
        except ValueError as error:
            return Verdict(False, str(error))
        address = wanted.address
        if address is not None:
            return self.reach(wanted, address)
        for pattern in (*self._allow, *self._listed):
            if pattern.names(wanted.host, port):
                return Verdict(True, pattern.why)
        if self.mode == "open":
            return Verdict(True, "the policy is open")
        return Verdict(False, self._refusal(wanted, "does not list it", str(wanted)))

    def reach(self, wanted: Destination, address: IPAddress) -> Verdict:
        """Whether `address`, which `wanted` is or was found to have, may be dialled."""
        address = unmapped(address)
        if self.lists(address, wanted.port):
            return Verdict(True, "its address is listed in UAI_EGRESS_ALLOW")
        entry = str(Destination(str(address), wanted.port)) if address.version == 4 else str(address)
        if not is_public(address):
            found = "it" if wanted.address else f"its address {address}"
            return Verdict(
                False, self._refusal(wanted, f"keeps tasks from {found}, which is not public", entry)
            )
        if wanted.address is not None and self.mode != "open":
            return Verdict(False, self._refusal(wanted, "does not list it", entry))
        return Verdict(True, "its address is public")

    def own_address(self, wanted: Destination, address: IPAddress) -> Verdict:
        """Whether `address`, which turned out to be this machine's own, may be talked to."""
        if self.lists(unmapped(address), wanted.port):
            return Verdict(True, "its address is listed in UAI_EGRESS_ALLOW")
        return Verdict(
            False, self._refusal(wanted, f"keeps tasks from {address}, which is this host", str(address))
        )

    def lists(self, address: IPAddress, port: int) -> bool:
        """Whether the owner's list names the address or its network."""
        return any(pattern.holds(address, port) for pattern in self._allow)

    def _refusal(self, wanted: Destination, reason: str, entry: str) -> str:
        return (
            f"{wanted} is blocked: the egress policy `{self.mode}` {reason}. "
            f"Whoever runs this host can permit it by adding `{entry}` to UAI_EGRESS_ALLOW."
        )


def table() -> str:
    """What `registries+git` permits, as a Markdown table."""
    rows = ["| for | hosts | ports |", "|---|---|---|"]
    for group in GROUPS:
        hosts = ", ".join(f"`{host}`" for host in group.hosts)
        ports = ", ".join(str(port) for port in sorted(group.ports, reverse=True))
        rows.append(f"| {group.purpose} | {hosts} | {ports} |")
    return "\n".join(rows) + "\n"


def _allowed(entry: str) -> _Pattern:
    """One entry of the owner's list."""
    why = f"`{entry}` is listed in UAI_EGRESS_ALLOW"
    host, ports = entry.strip(), None
    before, colon, after = host.rpartition(":")
    # An IPv6 address has more colons, and stands in brackets before a port.
    if colon and (":" not in before or before.endswith("]")):
        if not (after.isascii() and after.isdigit() and 1 <= int(after[:6]) <= 65535):
            raise SettingError(f"UAI_EGRESS_ALLOW: the port of {entry[:80]!r} must be 1 to 65535")
        host, ports = before, frozenset({int(after)})
    try:
        return _pattern(host, ports, why)
    except ValueError as error:
        raise SettingError(f"UAI_EGRESS_ALLOW: {entry[:80]!r} is no destination: {error}") from None


def _pattern(host: str, ports: frozenset[int] | None, why: str) -> _Pattern:
    if host.startswith("*."):
        below = host_name(host[2:])
        if Destination(below, 1).address is not None:
            raise ValueError("nothing is below an address")
        return _Pattern(why, ports, suffix=f".{below}")
    found = network(host)
    if found is not None:
        return _Pattern(why, ports, network=found)
    return _Pattern(why, ports, name=host_name(host))
