"""Settings: one table says every name, source, default and legal range; docs/settings.md is made from it.

A value comes from the first source that has one: flag, environment variable, the file that a `*_FILE`
variable names (secrets), the TOML file, the default. A bad value is refused with its source and the legal
range; it never falls back to something else in silence.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from uaihost.config.table import DEFAULT_BRIDGE_PORT, DEFAULT_UI_PORT, SETTINGS, Setting
from uaihost.errors import SettingError

__all__ = [
    "DEFAULT_BRIDGE_PORT",
    "DEFAULT_UI_PORT",
    "SETTINGS",
    "Setting",
    "Settings",
    "load",
    "survey",
    "table_text",
]


@attrs.frozen
class Settings:
    """The values in force. `token` is empty when none was given: whoever needs it asks `require_token`."""

    token: str = attrs.field(repr=False)
    cloud_url: str
    bridge_port: int
    host_id: str | None
    ui_port: int
    data_dir: Path
    ca_file: Path | None
    docker_host: str | None
    base_image: str
    local_repositories: tuple[Path, ...]
    task_image: str
    task_memory: int
    task_swap: int
    task_cpus: float
    task_pids: int
    task_disk: int
    disk_budget: int
    egress: str
    egress_allow: tuple[str, ...]
    claude_base_url: str | None
    codex_base_url: str | None
    acp_agents: tuple[tuple[str, tuple[str, ...]], ...]
    permission_expiry: float
    budget_hops: int
    budget_turns: int
    budget_tokens: int
    budget_minutes: int
    github_url: str
    github_api_url: str
    github_client_id: str | None
    github_client_secret: str | None = attrs.field(repr=False)
    secrets_source: str
    co_author: bool
    log_format: str
    log_level: str

    @property
    def reachable(self) -> tuple[str, ...]:
        """What tasks may reach whatever the policy: the owner's list, and the gateways that agents need."""
        gateways = (self.claude_base_url, self.codex_base_url)
        return self.egress_allow + tuple(_destination(url) for url in gateways if url and not _own(url))

    def require_token(self) -> str:
        """The host's token.

        Raises:
            SettingError: none was given.
        """
        if not self.token:
            raise SettingError(
                "UAI_HOST_TOKEN is not set: give the host's token in UAI_HOST_TOKEN, in a file named by "
                "UAI_HOST_TOKEN_FILE, or as `token` in the TOML file; the bridge's operator has it"
            )
        return self.token


_BY_NAME = {setting.name: setting for setting in SETTINGS}


def load(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    home: Path,
    root: bool,
    config_file: Path | None = None,
) -> Settings:
    """The settings in force.

    Args:
        flags: by setting name; None for one that was not given.
        environ: the environment; an empty value counts as absent.
        home: the user's home folder; root: whether the user is root (both choose defaults).
        config_file: the TOML file; None looks at `UAI_CONFIG`, then at the default place if it is there.

    Raises:
        SettingError: a bad value, an unknown key in the file, an unreadable file.
    """
    settings, problems = survey(flags, environ, home=home, root=root, config_file=config_file)
    if problems:
        raise SettingError(problems[0])
    return settings


def survey(
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    home: Path,
    root: bool,
    config_file: Path | None = None,
) -> tuple[Settings, list[str]]:
    """As `load`, for whoever wants to know all that is wrong: the settings without what is not legal, and a
    sentence for each of that."""
    file, path, problems = _toml(environ, home, root, config_file)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        try:
            found = _find(setting, flags, environ, file, path)
            if found is not None:
                text, source = found
                values[setting.name] = _value(setting, text, source)
        except SettingError as error:
            problems.append(error.message)
    return _settings(values, environ, home, root), problems


@attrs.frozen
class Given:
    """Where a setting's value comes from. text: as it was written, None where the default counts; source: for
    people."""

    setting: Setting
    text: str | None
    source: str


def sources(environ: Mapping[str, str], *, home: Path, root: bool) -> tuple[list[Given], Path | None]:
    """Every setting with what was given for it outside of flags, and the TOML file if there is one."""
    file, path, _ = _toml(environ, home, root, None)
    found = []
    for setting in SETTINGS:
        try:
            given = _find(setting, {}, environ, file, path)
        except SettingError:
            given = ("", f"the file named by {setting.env}_FILE")
        found.append(Given(setting, *given) if given else Given(setting, None, "default"))
    return found, path


def default_file(environ: Mapping[str, str], home: Path, root: bool) -> Path:
    """Where the TOML file is looked for when no flag names one."""
    if environ.get("UAI_CONFIG"):
        return Path(environ["UAI_CONFIG"])
    if root:
        return Path("/etc/uaihost/uaihost.toml")
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uaihost" / "uaihost.toml"


def _settings(values: Mapping[str, Any], environ: Mapping[str, str], home: Path, root: bool) -> Settings:
    bridge_port = values.get("bridge_port", DEFAULT_BRIDGE_PORT)
    github = values.get("github_url", "https://github.com")
    return Settings(
        token=values.get("token", ""),
        cloud_url=values.get("cloud_url", f"ws://127.0.0.1:{bridge_port}/host"),
        bridge_port=bridge_port,
        host_id=values.get("host_id"),
        ui_port=values.get("ui_port", DEFAULT_UI_PORT),
        data_dir=values.get("data_dir") or _default_data(environ, home, root),
        ca_file=values.get("ca_file"),
        docker_host=values.get("docker_host"),
        base_image=values.get("base_image", "debian:bookworm-slim"),
        local_repositories=values.get("local_repositories", ()),
        task_image=values.get("task_image", "standard"),
        task_memory=values.get("task_memory", 4 << 30),
        task_swap=values.get("task_swap", 0),
        task_cpus=values.get("task_cpus", 2.0),
        task_pids=values.get("task_pids", 1024),
        task_disk=values.get("task_disk", 20 << 30),
        disk_budget=values.get("disk_budget", 50 << 30),
        egress=values.get("egress", "open"),
        egress_allow=values.get("egress_allow", ()),
        claude_base_url=values.get("claude_base_url"),
        codex_base_url=values.get("codex_base_url"),
        acp_agents=values.get("acp_agents", ()),
        permission_expiry=values.get("permission_expiry", 168 * 3600.0),
        budget_hops=values.get("budget_hops", 8),
        budget_turns=values.get("budget_turns", 40),
        budget_tokens=values.get("budget_tokens", 5_000_000),
        budget_minutes=values.get("budget_minutes", 240),
        github_url=github,
        github_api_url=values.get("github_api_url") or _github_api(github),
        github_client_id=values.get("github_client_id"),
        github_client_secret=values.get("github_client_secret"),
        secrets_source=values.get("secrets_source", "auto"),
        co_author=values.get("co_author", True),
        log_format=values.get("log_format", "text"),
        log_level=values.get("log_level", "info"),
    )


def table_text() -> str:
    """The settings as a Markdown table."""
    rows = [
        "| flag | environment | TOML key | meaning | legal values | default |",
        "|---|---|---|---|---|---|",
    ]
    for s in SETTINGS:
        env = f"`{s.env}`" + (f", `{s.env}_FILE`" if s.secret else "")
        # A secret on a command line is seen by every user of the machine.
        flag = "" if s.secret else f"`{s.flag}`"
        rows.append(f"| {flag} | {env} | `{s.name}` | {s.meaning} | {s.legal} | {s.default} |")
    return "\n".join(rows) + "\n"


def _destination(url: str) -> str:
    """`host:port` of a gateway, as `egress_allow` spells it."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own(url: str) -> bool:
    """Whether it names the machine that it is used on: for a task that is its own container, and nothing of
    this machine must be opened for it."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _find(
    setting: Setting,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    file: Mapping[str, Any],
    path: Path | None,
) -> tuple[str, str] | None:
    """The raw value and the name of its source."""
    given = flags.get(setting.name)
    if given is not None:
        return given, f"flag {setting.flag}"
    if environ.get(setting.env):
        return environ[setting.env], setting.env
    pointer = f"{setting.env}_FILE"
    if setting.secret and environ.get(pointer):
        try:
            return Path(environ[pointer]).read_text(encoding="utf-8").strip(), f"the file named by {pointer}"
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"{pointer}: cannot read {environ[pointer]}: {error}") from None
    if setting.name in file:
        value = file[setting.name]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            separator = {"egress_allow": ",", "acp_agents": ";"}.get(setting.name, os.pathsep)
            value = separator.join(value)
        return str(value), f"`{setting.name}` in {path}"
    return None


def _value(setting: Setting, text: str, source: str) -> Any:
    try:
        return setting.parse(text)
    except (ValueError, OverflowError):
        shown = "the value" if setting.secret else repr(text[:200])
        raise SettingError(f"{source}: {shown} is not legal; it must be {setting.legal}") from None


def _toml(
    environ: Mapping[str, str], home: Path, root: bool, given: Path | None
) -> tuple[dict[str, Any], Path | None, list[str]]:
    """What the file holds, where it is, and what is wrong with it."""
    path = given or default_file(environ, home, root)
    # One that was named must be there.
    if given is None and not environ.get("UAI_CONFIG") and not path.exists():
        return {}, None, []
    try:
        file = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, None, [f"cannot read the settings file {path}: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, None, [f"{path} is not TOML: {error}"]
    unknown = sorted(set(file) - set(_BY_NAME))
    known = ", ".join(_BY_NAME)
    return file, path, [f"{path}: unknown key {name!r}; known are {known}" for name in unknown]


def _github_api(url: str) -> str:
    """GitHub's own is a host of its own; a GitHub Enterprise Server has it below its address."""
    return "https://api.github.com" if url == "https://github.com" else f"{url}/api/v3"


def _default_data(environ: Mapping[str, str], home: Path, root: bool) -> Path:
    if root:
        return Path("/var/lib/uaihost")
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "uaihost"
