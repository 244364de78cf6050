"""Settings: one table says every name, source, default and legal range; docs/settings.md is made from it.

A value comes from the first source that has one: flag, environment variable, the file that a `*_FILE`
variable names (secrets), the TOML file, the default. A bad value is refused with its source and the legal
range; it never falls back to something else in silence.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from uaihost.errors import SettingError

DEFAULT_BRIDGE_PORT = 8789
DEFAULT_UI_PORT = 5876


@attrs.frozen
class Setting:
    """One row of the table.

    parse: text to value; raises ValueError when it is not in `legal`. default: as shown to people.
    secret: the value is never shown, and `<env>_FILE` may name a file that holds it.
    """

    name: str
    env: str
    meaning: str
    legal: str
    default: str
    parse: Callable[[str], Any]
    secret: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


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


def _port(text: str) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    if not 1 <= value <= 65535:
        raise ValueError
    return value


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError
    if parts.port == 0:
        raise ValueError
    return text


def _token(text: str) -> str:
    if not text or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _host_id(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text):
        raise ValueError
    return text


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute() or "\0" in text:
        raise ValueError
    return path


def _file(text: str) -> Path:
    path = _folder(text)
    if not path.is_file():
        raise ValueError
    return path


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(_folder(part) for part in text.split(os.pathsep) if part)


def _engine(text: str) -> str:
    if not re.match(r"(unix|tcp|http|https)://.", text):
        raise ValueError
    return text


def _image(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}", text):
        raise ValueError
    return text


def _bytes(text: str) -> int:
    value = _amount(text)
    if value < 64 << 20:
        raise ValueError
    return value


def _amount(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text)
    if not match:
        raise ValueError
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def _disk(text: str) -> int:
    value = _amount(text)
    if value < 1 << 30:
        raise ValueError
    return value


def _task_image(text: str) -> str:
    if text not in ("standard", "small"):
        raise ValueError
    return text


def _egress(text: str) -> str:
    if text not in ("open", "registries+git", "deny"):
        raise ValueError
    return text


def _destinations(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for part in found:
        host, _, port = part.partition(":") if part.count(":") == 1 else (part, "", "")
        if port:
            _port(port)
        try:
            ipaddress.ip_network(host, strict=False)
        except ValueError:
            if not re.fullmatch(r"(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", host):
                raise ValueError from None
    return found


def _cpus(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 1024:
        raise ValueError
    return value


def _pids(text: str) -> int:
    value = int(text)
    if not 16 <= value <= 1 << 20:
        raise ValueError
    return value


SETTINGS = (
    Setting(
        "token",
        "UAI_HOST_TOKEN",
        "What the host shows to the bridge to be let in",
        "printable characters without spaces",
        "none; needed",
        _token,
        secret=True,
    ),
    Setting(
        "cloud_url",
        "UAI_CLOUD_URL",
        "The bridge to dial",
        "`ws://host[:port]/path` or `wss://host[:port]/path`",
        "`ws://127.0.0.1:<bridge port>/host`",
        _url,
    ),
    Setting(
        "bridge_port",
        "UAI_HOST_BRIDGE_PORT",
        "Port of a bridge on this machine: where `uaibridge` listens and what the default URL names",
        "1 to 65535",
        str(DEFAULT_BRIDGE_PORT),
        _port,
    ),
    Setting(
        "host_id",
        "UAI_HOST_ID",
        "The name of this host at the bridge",
        "1 to 128 of A-Z a-z 0-9 . _ -",
        "the content of `<data dir>/host-id`, made on first start",
        _host_id,
    ),
    Setting(
        "ui_port",
        "UAI_HOST_UI_PORT",
        "Where the local status (JSON) listens on 127.0.0.1; one of the next 20 ports when it is taken",
        "1 to 65535",
        str(DEFAULT_UI_PORT),
        _port,
    ),
    Setting(
        "data_dir",
        "UAI_DATA_DIR",
        "Where everything the host keeps lies",
        "an absolute path",
        "`/var/lib/uaihost` for root, else `$XDG_DATA_HOME/uaihost` (`~/.local/share/uaihost`)",
        _folder,
    ),
    Setting(
        "ca_file",
        "UAI_CA_FILE",
        "Certificate authorities (PEM) to trust for a `wss://` bridge instead of the system's",
        "the absolute path of a file",
        "the system's",
        _file,
    ),
    Setting(
        "docker_host",
        "DOCKER_HOST",
        "The container engine",
        "`unix:///path`, `tcp://host:port` or `http(s)://host:port`",
        "`unix:///var/run/docker.sock`; where there is none, the engine that `uaihost up` started",
        _engine,
    ),
    Setting(
        "base_image",
        "UAI_BASE_IMAGE",
        "What the task image is built from; made with mmdebstrap when no image registry answers",
        "an image reference",
        "`debian:bookworm-slim`",
        _image,
    ),
    Setting(
        "local_repositories",
        "UAI_LOCAL_REPOSITORIES",
        "Folders in which repositories may be named by their path; whoever may create tasks can read them",
        "absolute paths, separated by `:`",
        "none (`uaihost up`: your home folder and the current one)",
        _folders,
    ),
    Setting(
        "task_image",
        "UAI_TASK_IMAGE",
        "What tasks run in: `standard` with the editor, the agents and their tools, or `small` without them",
        "`standard` or `small`",
        "`standard`",
        _task_image,
    ),
    Setting(
        "task_memory",
        "UAI_TASK_MEMORY",
        "Memory of one task",
        "a number of bytes with K, M or G, at least 64M",
        "4G",
        _bytes,
    ),
    Setting(
        "task_swap",
        "UAI_TASK_SWAP",
        "Swap of one task, beyond its memory",
        "a number of bytes with K, M or G",
        "0",
        _amount,
    ),
    Setting("task_cpus", "UAI_TASK_CPUS", "Processor time of one task, in cores", "0.1 to 1024", "2", _cpus),
    Setting(
        "task_pids", "UAI_TASK_PIDS", "Processes and threads of one task", "16 to 1048576", "1024", _pids
    ),
    Setting(
        "task_disk",
        "UAI_TASK_DISK",
        "Disk of one task: work copies, home and scratch folder",
        "a number of bytes with K, M or G, at least 1G",
        "20G",
        _disk,
    ),
    Setting(
        "disk_budget",
        "UAI_DISK_BUDGET",
        "Disk for everything that can be made again: beyond it the oldest goes first, in a fixed order",
        "a number of bytes with K, M or G, at least 1G",
        "50G",
        _disk,
    ),
    Setting(
        "egress",
        "UAI_EGRESS",
        "What tasks reach outside: all that is public, package registries, git hosts and models, or nothing",
        "`open`, `registries+git` or `deny`",
        "`open`",
        _egress,
    ),
    Setting(
        "egress_allow",
        "UAI_EGRESS_ALLOW",
        "What tasks may reach besides: host names, `*.name` for all below, addresses and networks of yours",
        "`name[:port]`, `*.name[:port]`, `address[:port]` or `network/bits`, separated by `,`",
        "none",
        _destinations,
    ),
)

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
    file, path = _toml(environ, home, root, config_file)
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        found = _find(setting, flags, environ, file, path)
        if found is not None:
            text, source = found
            values[setting.name] = _value(setting, text, source)
    bridge_port = values.get("bridge_port", DEFAULT_BRIDGE_PORT)
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
    )


def table() -> str:
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
            separator = "," if setting.name == "egress_allow" else os.pathsep
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
) -> tuple[dict[str, Any], Path | None]:
    path = given or (Path(environ["UAI_CONFIG"]) if environ.get("UAI_CONFIG") else None)
    if path is None:
        config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        path = Path("/etc/uaihost/uaihost.toml") if root else config_home / "uaihost" / "uaihost.toml"
        if not path.exists():
            return {}, None
    try:
        file = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read the settings file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from None
    unknown = sorted(set(file) - set(_BY_NAME))
    if unknown:
        raise SettingError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_BY_NAME)}")
    return file, path


def _default_data(environ: Mapping[str, str], home: Path, root: bool) -> Path:
    if root:
        return Path("/var/lib/uaihost")
    return Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "uaihost"
