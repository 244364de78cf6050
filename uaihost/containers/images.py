"""The task image: built when missing, under a tag that is the digest of everything it is made from.

Inputs: the image's folder, the programs of uaihost/shim (as `uai/` in the build context, /opt/uai in the
image), the machine's own certificate authorities (as `certs/`), the base image and the user's numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import docker
import docker.errors
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from uaihost.blocking import Blocking
from uaihost.containers.base import DEFAULT, BaseImages
from uaihost.containers.client import connect, explained
from uaihost.containers.image_build import build
from uaihost.containers.image_course import ImageCourse
from uaihost.containers.image_inputs import Inputs, Versions, gather, read_versions
from uaihost.counts import Lifecycle
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Say
from uaihost.wire.frames import Runtime
from uaihost.wire.reasons import Reason

__all__ = ["LABEL", "ImageInfo", "Images", "Inputs", "gather", "owner", "superseded"]

log = Logger()

# Says in the engine what kind of image of ours one is.
LABEL = "uaihost.image"
# Of a build's stage whose result is copied from: what is left of it is only a cache.
STAGE_LABEL = "uaihost.stage"
# Where Debian and Ubuntu keep authorities that the machine's owner added, a company proxy's for example.
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# The user inside when the daemon is root.
DEFAULT_UID = 1000
# Older images that stay after a newer one was built: the way back.
KEPT = 1
# Seconds in which an image that was built is left alone: a task may be about to start in it.
GRACE = 3600.0
# A build reaches outside as this machine does; never inputs, since they change nothing in the image.
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")

Builder = Callable[..., Coroutine[Any, Any, set[str]]]


@attrs.frozen
class ImageInfo:
    """An image of ours in the engine.

    reference: its name, or its id when another image took the name; size: bytes, what it shares included;
    created: milliseconds since the epoch; current: what the inputs give now; in_use: a container is made
    of it, running or not.
    """

    reference: str
    kind: str
    size: int
    created: int
    current: bool
    in_use: bool


def superseded(images: Sequence[ImageInfo], now: int, grace: float = GRACE, kept: int = KEPT) -> list[str]:
    """What can go after a build: of each kind all but the current, the `kept` newest others, and any in use.

    now: milliseconds since the epoch; what is younger than `grace` seconds stays.
    """
    gone = []
    for kind in sorted({image.kind for image in images}):
        others = [image for image in images if image.kind == kind and not image.current]
        others.sort(key=lambda image: (image.created, image.reference), reverse=True)
        gone += [
            image.reference
            for image in others[kept:]
            if not image.in_use and now - image.created >= grace * 1000
        ]
    return gone


class Images:
    """Builds the task image of one kind. Callers at the same time share one build.

    image: the folder with the Dockerfile, its name is the kind; shim: the programs for /opt/uai; uid, gid:
    the work copies' owner's. blocking: for files and the engine's short answers. environ: for proxies.
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
        environ: Mapping[str, str] | None = None,
        connect: Callable[..., docker.APIClient] = connect,
        builder: Builder = build,
        grace: float = GRACE,
    ) -> None:
        self.kind = image.name
        self._reactor = reactor
        self._blocking = blocking
        self._docker_host = docker_host
        self._base = base
        self._image = image
        self._shim = shim
        self._uid = uid
        self._gid = gid
        self._certificates = certificates
        self._environ = os.environ if environ is None else environ
        self._connect = connect
        self._builder = builder
        self._grace = grace
        self._running: dict[bool, _Shared] = {}
        # How it stands with the image, for people.
        self.course = ImageCourse(reactor)
        # Since the start; what is there already is not built.
        self.builds = Lifecycle()

    @property
    def repository(self) -> str:
        """The part of its references before the tag."""
        return f"uaihost/{self.kind}"

    def runtimes(self) -> Sequence[Runtime]:
        """What the image brings for the work on a repository, by name. Reads one small file."""
        return self._versions().advertised(self._base.wanted == DEFAULT)

    def agents(self) -> dict[str, str]:
        """The agents' programs in it: name to version. Reads one small file."""
        return dict(self._versions().agents)

    async def ensure(self, on_progress: Say) -> str:
        """The image's reference; it is built first when the engine does not have it.

        Raises:
            HostError: `unavailable`, with the last lines of the step that failed.
        """
        return await self.build(on_progress)

    async def build(self, on_progress: Say, force: bool = False) -> str:
        """As `ensure`; force: build it anew without the engine's cache, whether it is there or not.

        A build that nobody waits for any more, because each caller was cancelled, stops.
        """
        shared = self._running.get(force)
        if shared is None or shared.over:
            shared = self._running[force] = _Shared(lambda say: self._followed(say, force))
        return await shared.join(on_progress)

    async def list(self) -> Sequence[ImageInfo]:
        """The images of this kind in the engine, newest first."""
        base = await self._base.find()
        current = None if base is None else self._tag(await self._inputs(), base.id)
        found: Sequence[ImageInfo] = await self._blocking.call(
            self._with_client, "list the images", self._look, current
        )
        self.course.seen(next((image.reference for image in found if image.current), None))
        return found

    async def remove(self, reference: str) -> None:
        """Remove one of our images, of any kind.

        Raises:
            HostError: `not_found`; `conflict`: a container is made of it; `invalid_args`: it is not ours.
        """

        def remove(client: docker.APIClient) -> None:
            labels = client.inspect_image(reference)["Config"].get("Labels") or {}
            if LABEL not in labels:
                raise HostError(ErrorCode.INVALID_ARGS, f"{reference} is no image of uaihost; it stays")
            client.remove_image(reference)

        await self._blocking.call(self._with_client, f"remove the image {reference}", remove)

    # the build

    async def _followed(self, say: Say, force: bool) -> str:
        try:
            tag = await self._make(self.course.hearing(say), force)
        except Exception as error:
            self.course.failed(error)
            raise
        self.course.made(tag)
        return tag

    async def _make(self, say: Say, force: bool) -> str:
        base = await self._base.ensure(say)
        inputs = await self._inputs()
        tag = self._tag(inputs, base.id)
        if not force and await self._blocking.call(self._with_client, f"look for {tag}", _has, tag):
            return tag
        say(Doing(Reason.IMAGE_BUILDING, f"building {tag}", 0))
        say(f"building {tag}")
        with self.builds.run():
            layers = await self._builder(
                self._reactor,
                self._docker_host,
                await self._blocking.call(inputs.context),
                tag=tag,
                args={"BASE": base.name, **inputs.args, **self._proxies()},
                labels={LABEL: self.kind},
                cached=not force,
                say=say,
            )
        try:
            await self._blocking.call(self._with_client, "remove older images", self._tidy, tag, layers)
        except HostError as error:
            # The image is there; what is left over is removed after the next build.
            log.warn("older images stay: {why}", why=error.message)
        return tag

    async def _inputs(self) -> Inputs:
        return await self._blocking.call(
            gather, self._image, self._shim, self._certificates, self._uid, self._gid
        )

    def _tag(self, inputs: Inputs, base_id: str) -> str:
        return f"{self.repository}:{inputs.digest(base_id)}"

    def _proxies(self) -> dict[str, str]:
        return {name: value for name, value in self._environ.items() if value and name.lower() in PROXIES}

    def _versions(self) -> Versions:
        return read_versions(self._image)

    # in the threads of `blocking`

    def _with_client(self, doing: str, work: Callable[..., Any], *args: Any) -> Any:
        client = self._connect(self._docker_host)
        try:
            return work(client, *args)
        except Exception as error:
            raise explained(error, doing) from error
        finally:
            client.close()

    def _look(self, client: docker.APIClient, current: str | None) -> Sequence[ImageInfo]:
        used = {container["ImageID"] for container in client.containers(all=True)}
        found = [
            ImageInfo(
                reference=name,
                kind=self.kind,
                size=int(image["Size"]),
                created=int(image["Created"]) * 1000,
                current=name == current,
                in_use=image["Id"] in used,
            )
            for image in client.images(filters={"label": f"{LABEL}={self.kind}"})
            for name in _names(image)
        ]
        return sorted(found, key=lambda image: (-image.created, image.reference))

    def _tidy(self, client: docker.APIClient, current: str, layers: set[str]) -> None:
        """Remove what a build made superfluous. The caches that this one used stay."""
        now = int(self._reactor.seconds() * 1000)
        gone = superseded(self._look(client, current), now, self._grace)
        stages = client.images(filters={"dangling": True, "label": STAGE_LABEL})
        # A build that used none of them says nothing about whose they are.
        if any(_short(stage) in layers for stage in stages):
            gone += [
                str(stage["Id"])
                for stage in stages
                if _short(stage) not in layers and now - int(stage["Created"]) * 1000 >= self._grace * 1000
            ]
        for reference in gone:
            try:
                client.remove_image(reference)
            except docker.errors.APIError as error:
                # A container was made of it a moment ago, or another host removed it.
                log.debug("{reference} stays: {why}", reference=reference, why=str(error))


class _Shared:
    """One run of a coroutine for everybody who joins; it is cancelled when the last of them was.

    over: nobody can join any more.
    """

    def __init__(self, work: Callable[[Say], Coroutine[Any, Any, str]]) -> None:
        self.over = False
        self._begin = work
        self._work: Deferred[None] | None = None
        self._waiting: dict[Deferred[str], Say] = {}
        self._last: Doing | None = None

    async def join(self, say: Say) -> str:
        """The result; `say` hears what is said from now on, and first what it is at."""
        mine: Deferred[str] = Deferred(self._leave)
        self._waiting[mine] = say
        if self._work is None:
            self._work = Deferred.fromCoroutine(self._begin(self._say)).addCallbacks(self._done, self._failed)
        elif self._last is not None:
            say(self._last)
        return await mine

    def _say(self, what: str | Doing) -> None:
        if isinstance(what, Doing):
            self._last = what
        for say in list(self._waiting.values()):
            say(what)

    def _leave(self, mine: Deferred[str]) -> None:
        self._waiting.pop(mine, None)
        if not self._waiting and self._work is not None:
            self.over = True
            self._work.cancel()

    def _done(self, reference: str) -> None:
        for mine in self._end():
            mine.callback(reference)

    def _failed(self, failure: Failure) -> None:
        for mine in self._end():
            mine.errback(failure)

    def _end(self) -> Iterable[Deferred[str]]:
        self.over = True
        waiting, self._waiting = list(self._waiting), {}
        return waiting


def owner() -> tuple[int, int]:
    """The numbers of the user inside containers and of the work copies: the daemon's own, never root's."""
    uid, gid = os.geteuid(), os.getegid()
    return (uid, gid) if uid != 0 else (DEFAULT_UID, DEFAULT_UID)


def _has(client: docker.APIClient, reference: str) -> bool:
    try:
        client.inspect_image(reference)
    except docker.errors.NotFound:
        return False
    return True


def _names(image: Mapping[str, Any]) -> list[str]:
    """The image's names; its id when it has none."""
    names = [name for name in image.get("RepoTags") or [] if name != "<none>:<none>"]
    return names or [str(image["Id"])]


def _short(image: Mapping[str, Any]) -> str:
    """Its id as a build's output has it."""
    return str(image["Id"]).removeprefix("sha256:")[:12]
