"""What a service is given: the settings that are in force where it is installed, and the token.

A service starts with an environment of its own. What the environment of `uaihost install` says of settings is
kept in a file beside the settings, and stays there until it is said otherwise.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

import attrs

from uaihost import config
from uaihost.errors import ErrorCode, HostError
from uaihost.services.description import USER, Kind, Places
from uaihost.services.machine import Machine

# What programs that the host runs need to reach the network, besides settings.
PASSED_ON = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "SSL_CERT_FILE")
# What the service's own environment says.
FIXED = ("UAI_HOST_TOKEN", "UAI_HOST_TOKEN_FILE", "UAI_DATA_DIR", "UAI_CONFIG", "UAI_SECRETS_KEY_FILE")


@attrs.frozen
class Given:
    """places: where things lie. variables: for the file of that name. token: what `places.token` is to hold,
    None where it lies in the settings file. cloud_url: the bridge to dial; None for one on this machine."""

    places: Places
    variables: Mapping[str, str]
    token: str | None = attrs.field(repr=False)
    cloud_url: str | None


def given(machine: Machine, kind: Kind, *, bridge: bool, cloud_url: str | None, token: str | None) -> Given:
    """What a service installed here and now is given.

    bridge: one on this machine is installed too. cloud_url, token: said on the command line.

    Raises:
        HostError: no token, no bridge to dial, or a bad setting.
    """
    environ = {name: value for name, value in machine.environ.items() if value}
    places = _places(machine, kind, environ)
    variables = read_variables(places.variables) | _settings(environ)
    if cloud_url is not None:
        variables["UAI_CLOUD_URL"] = cloud_url
    if token is not None:
        environ["UAI_HOST_TOKEN"] = token
    elif not environ.get("UAI_HOST_TOKEN") and places.token.exists():
        environ.setdefault("UAI_HOST_TOKEN_FILE", str(places.token))
    loaded = _load(machine, {**environ, **variables})
    in_file = bool(loaded.token) and not (environ.keys() & {"UAI_HOST_TOKEN", "UAI_HOST_TOKEN_FILE"})
    # Its default names a bridge on this machine.
    near = loaded.cloud_url == f"ws://127.0.0.1:{loaded.bridge_port}/host"
    found = loaded.token or (secrets.token_urlsafe(32) if bridge else "")
    if not bridge and near and not _named(loaded, variables):
        raise HostError(
            ErrorCode.INVALID_ARGS,
            "which bridge should the host dial? Say --cloud-url wss://..., or --bridge for one on this "
            "machine",
        )
    if not found:
        loaded.require_token()
    reads = tuple(dict.fromkeys([*machine.needs, *map(Path, loaded.local_repositories)]))
    places = attrs.evolve(
        places, data=loaded.data_dir, reads=reads if kind == "system" else (), shown=not in_file
    )
    if kind == "system":
        places = attrs.evolve(places, user=_owner(places.data))
    return Given(places, variables, None if in_file else found, None if near else loaded.cloud_url)


def config_folder(machine: Machine, kind: Kind) -> Path:
    """Where the settings of a kind of service lie."""
    if kind != "user":
        return machine.root / "etc/uaihost"
    return Path(machine.environ.get("XDG_CONFIG_HOME") or machine.home / ".config") / "uaihost"


def variables_text(variables: Mapping[str, str]) -> str:
    """NAME="value" lines, as systemd reads them (systemd.exec(5), EnvironmentFile=)."""
    lines = [
        "# Settings that were in the environment when the service was installed. `uaihost install` keeps"
    ]
    lines.append("# them, and overwrites one when it finds another value.")
    for name, value in sorted(variables.items()):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name}="{escaped}"')
    return "\n".join(lines) + "\n"


def read_variables(path: Path) -> dict[str, str]:
    """Those of a file; none when it is not there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            try:
                found[name.strip()] = "".join(shlex.split(value))
            except ValueError:
                raise HostError(
                    ErrorCode.INVALID_ARGS, f"{path}: the value of {name.strip()} has no closing quote"
                ) from None
    return found


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    names = {setting.env for setting in config.SETTINGS}
    names |= {f"{setting.env}_FILE" for setting in config.SETTINGS if setting.secret}
    wanted = (names | set(PASSED_ON) | {name.upper() for name in PASSED_ON}) - set(FIXED)
    found = {name: value for name, value in environ.items() if name in wanted}
    for name, value in found.items():
        if "\n" in value:
            raise HostError(ErrorCode.INVALID_ARGS, f"{name}: a service's variables hold one line each")
    return found


def _places(machine: Machine, kind: Kind, environ: Mapping[str, str]) -> Places:
    folder = config_folder(machine, kind)
    places = Places(kind, folder, folder)
    # One of the machine gets a file to fill in; a user's own is found where it always is.
    named = environ.get("UAI_CONFIG")
    if named:
        return attrs.evolve(places, elsewhere=Path(named))
    return attrs.evolve(places, given=kind != "user" or places.settings.exists())


def _load(machine: Machine, environ: Mapping[str, str]) -> config.Settings:
    return config.load({}, environ, home=machine.home, root=machine.uid == 0)


def _named(loaded: config.Settings, variables: Mapping[str, str]) -> bool:
    """Whether somebody said that the bridge is on this machine: by its address, or by its port."""
    return bool(variables.get("UAI_CLOUD_URL") or variables.get("UAI_HOST_BRIDGE_PORT"))


def _owner(data: Path) -> str:
    """Whoever owns the data, if there is any: a service of another user could not read it."""
    try:
        return data.owner()
    except FileNotFoundError:
        return USER
    except KeyError:
        raise HostError(
            ErrorCode.CONFLICT,
            f"{data} belongs to user number {data.stat().st_uid}, whom this machine does not know: give it "
            "to somebody with chown, or name another folder with UAI_DATA_DIR",
        ) from None
