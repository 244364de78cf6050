"""What an image is made from, and the digest of it. Reads files; knows no engine."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

import attrs

from uaihost.errors import ErrorCode, HostError
from uaihost.wire.frames import Runtime

# The file of an image's folder where the versions of its programs are pinned.
VERSIONS = "versions.toml"


@attrs.frozen
class Versions:
    """The programs of an image, by name and version.

    runtimes: for the work on a repository; agents: their programs; debian: what the default base brings.
    """

    runtimes: Mapping[str, str] = attrs.field(factory=dict)
    agents: Mapping[str, str] = attrs.field(factory=dict)
    debian: Mapping[str, str] = attrs.field(factory=dict)

    def args(self) -> dict[str, str]:
        """Build arguments: `code-server` is CODE_SERVER_VERSION."""
        pinned = {**self.runtimes, **self.agents}
        return {f"{name.upper().replace('-', '_')}_VERSION": version for name, version in pinned.items()}

    def advertised(self, default_base: bool) -> list[Runtime]:
        """The runtimes, sorted by name; what Debian brings is known of the default base alone."""
        found = {**self.runtimes, **(self.debian if default_base else {})}
        return [Runtime(name, version) for name, version in sorted(found.items())]


def read_versions(image: Path) -> Versions:
    """The versions that the image's folder pins; none when it has no such file. Blocks.

    Raises:
        HostError: `invalid_args`; the file is not what it has to be.
    """
    path = image / VERSIONS
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Versions()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HostError(ErrorCode.INVALID_ARGS, f"{path} is not TOML: {error}") from None
    known = {field.name for field in attrs.fields(Versions)}
    for table, entries in tables.items():
        if table not in known or not isinstance(entries, dict):
            raise HostError(
                ErrorCode.INVALID_ARGS,
                f"{path}: {table!r} is not one of the tables {', '.join(sorted(known))}",
            )
        for name, version in entries.items():
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not _is_version(version):
                raise HostError(
                    ErrorCode.INVALID_ARGS,
                    f'{path}: {name!r} in [{table}] must be a name and a version, like node = "24.19.0"',
                )
    return Versions(**tables)


@attrs.frozen
class Inputs:
    """What an image is made from.

    files: path in the build context to its content and whether it is executable. args: of the build.
    """

    files: Mapping[str, tuple[bytes, bool]]
    args: Mapping[str, str]

    def digest(self, base_id: str) -> str:
        """Twelve hexadecimal digits that change with every input."""
        sha = hashlib.sha256(base_id.encode())
        for name, value in sorted(self.args.items()):
            sha.update(f"\0{name}={value}".encode())
        for path, (content, executable) in sorted(self.files.items()):
            sha.update(f"\0{path}\0{executable:d}\0{len(content)}\0".encode())
            sha.update(content)
        return sha.hexdigest()[:12]

    def context(self) -> bytes:
        """The build context as a tar; the same bytes for the same inputs."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            folders = {str(parent) for path in self.files for parent in Path(path).parents} - {"."}
            for name in sorted(folders | {"certs", "uai"}):
                entry = tarfile.TarInfo(name)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(entry)
            for path, (content, executable) in sorted(self.files.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o755 if executable else 0o644
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def gather(image: Path, shim: Path, certificates: Path, uid: int, gid: int) -> Inputs:
    """Read the inputs from disk. Blocks.

    image: the folder with the Dockerfile, whose Markdown is for people; shim: programs that become `uai/`;
    certificates: the machine's own authorities, which become `certs/`.
    """
    files: dict[str, tuple[bytes, bool]] = {}
    for path in sorted(image.rglob("*")):
        beside = path.suffix == ".md" or path == image / VERSIONS or "__pycache__" in path.parts
        if path.is_file() and not beside:
            files[str(path.relative_to(image))] = _read(path)
    for path in sorted(shim.glob("*.py")):
        files[f"uai/{path.name}"] = (path.read_bytes(), False)
    for path in sorted(certificates.rglob("*.crt")):
        files[f"certs/{'-'.join(path.relative_to(certificates).parts)}"] = (path.read_bytes(), False)
    numbers = {"DEV_UID": str(uid), "DEV_GID": str(gid)}
    return Inputs(files, {**read_versions(image).args(), **numbers})


def _read(path: Path) -> tuple[bytes, bool]:
    return path.read_bytes(), bool(path.stat().st_mode & 0o100)


def _is_version(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}", value) is not None
