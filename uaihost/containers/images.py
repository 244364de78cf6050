"""The task image: built when missing, under a tag that is the digest of everything it is made from.

Inputs: the image's folder, the programs of uaihost/shim (as `uai/` in the build context, /opt/uai in the
image), the machine's own certificate authorities (as `certs/`), the base image and the user's numbers.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import docker
import docker.errors
from twisted.internet.defer import DeferredLock

from uaihost.blocking import Blocking
from uaihost.containers.base import BaseImages
from uaihost.containers.client import connect, explained
from uaihost.errors import ErrorCode, HostError

REPOSITORY = "uaihost/small"
LABEL = "uaihost.image"
# Where Debian and Ubuntu keep authorities that the machine's owner added, a company proxy's for example.
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# The user inside when the daemon is root.
DEFAULT_UID = 1000
# Seconds without a line from a build; apt-get is silent while it downloads.
BUILD_LIMIT = 600
# Lines of a failed step that are told.
LAST_LINES = 12

_STEP = re.compile(r"Step \d+/\d+ : ")
# The builder's own bookkeeping, and its red for standard error.
_NOISE = re.compile(r" ---> |Removing intermediate container ")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


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
    """Read the inputs from disk. Blocks."""
    files: dict[str, tuple[bytes, bool]] = {}
    for path in sorted(image.rglob("*")):
        if path.is_file() and path.name != "README.md" and "__pycache__" not in path.parts:
            files[str(path.relative_to(image))] = _read(path)
    for path in sorted(shim.glob("*.py")):
        files[f"uai/{path.name}"] = (path.read_bytes(), False)
    for path in sorted(certificates.rglob("*.crt")):
        files[f"certs/{'-'.join(path.relative_to(certificates).parts)}"] = (path.read_bytes(), False)
    return Inputs(files, {"DEV_UID": str(uid), "DEV_GID": str(gid)})


class Images:
    """Builds the task image. Two callers at once share one build.

    image: the folder with the Dockerfile; shim: the programs for /opt/uai; uid, gid: the work
    copies' owner's. blocking: threads of its own, since a build holds one for its duration.
    """

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        docker_host: str,
        base: BaseImages,
        *,
        image: Path,
        shim: Path,
        uid: int,
        gid: int,
        certificates: Path = CERTIFICATES,
        connect: Callable[..., docker.APIClient] = connect,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._docker_host = docker_host
        self._base = base
        self._image = image
        self._shim = shim
        self._uid = uid
        self._gid = gid
        self._certificates = certificates
        self._connect = connect
        self._lock = DeferredLock()

    async def ensure(self, on_progress: Callable[[str], None]) -> str:
        """The image's reference; it is built first when the engine does not have it.

        on_progress: is told each line of the build.

        Raises:
            HostError: `unavailable`, with the last lines of the step that failed.
        """
        await self._lock.acquire()
        try:
            base = await self._base.ensure(on_progress)
            inputs = await self._blocking.call(
                gather, self._image, self._shim, self._certificates, self._uid, self._gid
            )
            tag = f"{REPOSITORY}:{inputs.digest(base.id)}"
            await self._blocking.call(self._have, tag, base.name, inputs, on_progress)
            return tag
        finally:
            self._lock.release()

    def _have(self, tag: str, base: str, inputs: Inputs, on_progress: Callable[[str], None]) -> None:
        """Build unless it is there. Blocks for as long as a build takes."""
        client = self._connect(self._docker_host, BUILD_LIMIT)
        try:
            try:
                client.inspect_image(tag)
            except docker.errors.NotFound:
                self._build(client, tag, base, inputs, on_progress)
        except Exception as error:
            raise explained(error, f"build the image {tag}") from error
        finally:
            client.close()

    def _build(
        self,
        client: docker.APIClient,
        tag: str,
        base: str,
        inputs: Inputs,
        on_progress: Callable[[str], None],
    ) -> None:
        self._reactor.callFromThread(on_progress, f"building {tag}")
        entries = client.build(
            fileobj=io.BytesIO(inputs.context()),
            custom_context=True,
            tag=tag,
            buildargs={"BASE": base, **inputs.args},
            labels={LABEL: "small"},
            rm=True,
            forcerm=True,
            decode=True,
        )
        step: deque[str] = deque(maxlen=LAST_LINES)
        for entry in entries:
            for line in _COLOUR.sub("", str(entry.get("stream") or "")).splitlines():
                if not line.strip() or _NOISE.match(line):
                    continue
                if _STEP.match(line):
                    step.clear()
                step.append(line.rstrip())
                self._reactor.callFromThread(on_progress, line.rstrip())
            if entry.get("error"):
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"the task image could not be built: {entry['error'].strip()}. Its last lines:\n"
                    + "\n".join(step),
                )


def owner() -> tuple[int, int]:
    """The numbers of the user inside containers and of the work copies: the daemon's own, never root's."""
    uid, gid = os.geteuid(), os.getegid()
    return (uid, gid) if uid != 0 else (DEFAULT_UID, DEFAULT_UID)


def _read(path: Path) -> tuple[bytes, bool]:
    return path.read_bytes(), bool(path.stat().st_mode & 0o100)
