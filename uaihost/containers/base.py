"""The base image: the configured one, pulled, or one made of Debian packages where no registry answers."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import docker
import docker.errors
from twisted.logger import Logger

from uaihost import children
from uaihost.blocking import Blocking
from uaihost.containers import apt
from uaihost.containers.client import connect, explained
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Say
from uaihost.wire.reasons import Reason

log = Logger()

DEFAULT = "debian:bookworm-slim"
RELEASE = "bookworm"
# What is made in place of the default.
LOCAL = f"uaihost/base:{RELEASE}"
# Seconds for a registry's first answer; where there is none, names do not resolve or nothing comes back.
REGISTRY_LIMIT = 10
# Seconds for mmdebstrap: measured 12, and 60 through a slow mirror.
MAKE_LIMIT = 900.0
# A tar of packages older than this misses security updates that a fresh one has.
TAR_AGE = 14 * 24 * 3600.0
# Bytes free in memory so that the packages are unpacked there: twice as quick as on disk.
MEMORY_ROOM = 2 << 30

# Deletion after unpacking is 6 s quicker than dpkg's path-exclude.
_SLIM = (
    'cd "$1" && rm -rf usr/share/man/* usr/share/locale/* usr/share/info/* etc/resolv.conf etc/hostname'
    " && find usr/share/doc -type f ! -name copyright -delete"
)


@attrs.frozen
class Base:
    """A base image that the engine has. id: of its content."""

    name: str
    id: str


class BaseImages:
    """Gets the base image. wanted: its name; folder: where one that is made is kept as a tar."""

    def __init__(
        self,
        reactor: Any,
        blocking: Blocking,
        docker_host: str,
        folder: Path,
        wanted: str = DEFAULT,
        environ: Mapping[str, str] | None = None,
        *,
        connect: Callable[..., docker.APIClient] = connect,
    ) -> None:
        self._reactor = reactor
        self._blocking = blocking
        self._docker_host = docker_host
        self._folder = folder
        self.wanted = wanted
        self._environ = os.environ if environ is None else environ
        self._connect = connect

    async def ensure(self, on_progress: Say) -> Base:
        """The base image, in the engine.

        Raises:
            HostError: `unavailable`; the message says how to get one.
        """
        found = await self.find()
        if found is not None:
            return found
        on_progress(Doing(Reason.IMAGE_PULLING, f"pulling {self.wanted}"))
        on_progress(f"pulling {self.wanted}")
        problem = await self._blocking.call(self._pull, on_progress)
        if problem is None:
            return await self._present(self.wanted)
        if self.wanted != DEFAULT:
            raise HostError(
                ErrorCode.UNAVAILABLE,
                f"the base image {self.wanted} is not there and cannot be pulled ({problem}): pull or load "
                "it, or leave UAI_BASE_IMAGE unset",
            )
        on_progress(f"no image registry answers ({problem}); making {LOCAL} from Debian packages")
        return await self.make(on_progress)

    async def find(self) -> Base | None:
        """The base image if the engine has it; nothing is pulled or made."""
        # A base that was made stays in use: another one would build every image again.
        names = [self.wanted, LOCAL] if self.wanted == DEFAULT else [self.wanted]
        for name in names:
            found = await self._inspect(name)
            if found is not None:
                return found
        return None

    async def make(self, on_progress: Say) -> Base:
        """Make the local base image of Debian packages, whatever is there already."""
        tar = self._folder / f"base-{RELEASE}.tar"
        if not tar.exists() or time.time() - tar.stat().st_mtime > TAR_AGE:
            await self._bootstrap(tar, on_progress)
        on_progress(f"importing {LOCAL}")
        await self._blocking.call(self._import, tar)
        return await self._present(LOCAL)

    async def _present(self, name: str) -> Base:
        found = await self._inspect(name)
        if found is None:
            raise HostError(ErrorCode.UNAVAILABLE, f"the image {name} vanished from the engine; try again")
        return found

    async def _inspect(self, name: str) -> Base | None:
        def inspect() -> Base | None:
            client = self._connect(self._docker_host)
            try:
                return Base(name, str(client.inspect_image(name)["Id"]))
            except docker.errors.NotFound:
                return None
            except Exception as error:
                raise explained(error, f"look for the image {name}") from error
            finally:
                client.close()

        return await self._blocking.call(inspect)

    def _pull(self, on_progress: Say) -> str | None:
        """None when the image was pulled, else why not. Blocks for as long as it takes."""
        # The registry is asked for its description first: that call alone can have a short limit.
        for limit, ask in ((REGISTRY_LIMIT, self._described), (60, self._pulled)):
            client = self._connect(self._docker_host, limit)
            try:
                ask(client, on_progress)
            except Exception as error:
                return explained(error, "pull it").message.rpartition(": ")[2]
            finally:
                client.close()
        return None

    def _described(self, client: docker.APIClient, _: Say) -> None:
        client.inspect_distribution(self.wanted)

    def _pulled(self, client: docker.APIClient, on_progress: Say) -> None:
        # Of each layer: bytes that have come and bytes in all. Layers become known one after another.
        layers: dict[str, tuple[int, int]] = {}
        said = -1
        for entry in client.pull(self.wanted, stream=True, decode=True):
            if entry.get("error"):
                raise docker.errors.DockerException(entry["error"])
            detail = entry.get("progressDetail") or {}
            if detail.get("total") and entry.get("status") == "Downloading":
                layers[entry["id"]] = (detail.get("current", 0), detail["total"])
                percent = _percent(layers.values())
                if percent != said:
                    said = percent
                    doing = Doing(Reason.IMAGE_PULLING, f"pulling {self.wanted}", percent)
                    self._reactor.callFromThread(on_progress, doing)
            elif not detail and entry.get("status"):
                self._reactor.callFromThread(on_progress, str(entry["status"]))

    def _import(self, tar: Path) -> None:
        client = self._connect(self._docker_host)
        repository, _, tag = LOCAL.partition(":")
        try:
            client.import_image_from_file(str(tar), repository=repository, tag=tag, changes=['CMD ["bash"]'])
        except Exception as error:
            raise explained(error, f"import {LOCAL}") from error
        finally:
            client.close()

    async def _bootstrap(self, tar: Path, on_progress: Say) -> None:
        env = apt.environment(self._environ)
        if shutil.which("mmdebstrap", path=env["PATH"]) is None:
            if os.geteuid() != 0 or shutil.which("apt-get", path=env["PATH"]) is None:
                raise HostError(
                    ErrorCode.UNAVAILABLE,
                    f"there is no base image: `docker pull {DEFAULT}` where a registry can be reached, or "
                    "`sudo apt-get install mmdebstrap debian-archive-keyring` and try again",
                )
            packages = ["mmdebstrap", "debian-archive-keyring"]
            await apt.install(self._reactor, packages, on_progress, self._environ)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = tar.with_suffix(".new")
        memory = Path("/dev/shm")
        if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_ROOM:
            env["TMPDIR"] = str(memory)
        on_progress(Doing(Reason.IMAGE_BUILDING, "making the base image of Debian packages"))
        on_progress("unpacking Debian packages")
        argv = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--customize-hook={_SLIM}"]
        done = await children.run(self._reactor, [*argv, RELEASE, str(fresh)], env=env, timeout=MAKE_LIMIT)
        if done.status != 0:
            said = done.err.decode("utf-8", "replace").strip().splitlines()[-6:]
            raise HostError(
                ErrorCode.UNAVAILABLE,
                "mmdebstrap could not make a base image; it needs a Debian mirror. It said:\n"
                + "\n".join(said),
            )
        fresh.rename(tar)


def _percent(layers: Iterable[tuple[int, int]]) -> int:
    came = size = 0
    for now, whole in layers:
        came, size = came + now, size + whole
    return min(100, came * 100 // size)
