"""Builds of the task image, what is listed and removed, and the base image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker.errors
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.containers.base import DEFAULT, LOCAL, Base, BaseImages
from uaihost.containers.images import LABEL, STAGE_LABEL, ImageInfo, Images, superseded
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing
from uaihost.test.support import given, short_folder, strategies
from uaihost.wire.frames import Runtime
from uaihost.wire.reasons import Reason


class Reactor:
    """What a builder needs of one when everything happens in one thread."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)

    def seconds(self) -> float:
        return 1000.0


class Client:
    """The SDK's client, as far as images need it.

    has: names of images; shown: what the engine lists, by id; containers_of: ids of images in use.
    """

    def __init__(self, has: set[str], pull: str = "") -> None:
        self.has = has
        self.pull_error = pull
        self.shown: list[dict[str, Any]] = []
        self.stages: list[dict[str, Any]] = []
        self.containers_of: set[str] = set()
        self.removed: list[str] = []
        self.refused: set[str] = set()

    def __call__(self, docker_host: str, timeout: float = 60) -> Any:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.has:
            raise docker.errors.ImageNotFound(name)
        labels = {LABEL: "x"} if name.startswith("uaihost/") else None
        return {"Id": f"sha256:{name}", "Config": {"Labels": labels}}

    def inspect_distribution(self, name: str) -> dict[str, Any]:
        if self.pull_error:
            raise docker.errors.APIError("x", explanation=self.pull_error)
        return {}

    def pull(self, name: str, stream: bool, decode: bool) -> list[dict[str, Any]]:
        self.has.add(name)
        half = {"status": "Downloading", "id": "a", "progressDetail": {"current": 20, "total": 40}}
        return [
            {"status": "Pulling"},
            half,
            half,
            half | {"id": "b", "progressDetail": {"current": 60, "total": 60}},
            {"status": "Extracting", "id": "b", "progressDetail": {"current": 1, "total": 60}},
            {"status": "Done", "progressDetail": {}},
        ]

    def images(self, filters: dict[str, Any]) -> list[dict[str, Any]]:
        return self.stages if filters["label"] == STAGE_LABEL else self.shown

    def containers(self, all: bool) -> list[dict[str, str]]:
        return [{"ImageID": identity} for identity in self.containers_of]

    def remove_image(self, reference: str) -> None:
        if reference in self.refused:
            raise docker.errors.APIError("x", explanation="a container uses it")
        self.removed.append(reference)


class Builder:
    """The build of an image, ended by the test. Its contract is tested with the real one in integration."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.builds: list[dict[str, Any]] = []
        self.running: list[Deferred[set[str]]] = []
        self.cancelled = 0

    async def __call__(self, reactor: Any, docker_host: str, context: bytes, **options: Any) -> set[str]:
        self.builds.append({"context": context, **options})
        self.running.append(Deferred(self._cancel))
        layers = await self.running[-1]
        self.client.has.add(options["tag"])
        return layers

    def _cancel(self, _: Deferred[set[str]]) -> None:
        self.cancelled += 1

    def finish(self, layers: set[str] | None = None) -> None:
        self.running[-1].callback(layers or set())


images = strategies.builds(
    ImageInfo,
    reference=strategies.uuids().map(str),
    kind=strategies.sampled_from(["small", "standard"]),
    size=strategies.just(1),
    created=strategies.integers(0, 20_000),
    current=strategies.booleans(),
    in_use=strategies.booleans(),
)


class SupersededTests(TestCase):
    @given(strategies.lists(images, max_size=12), strategies.integers(0, 3), strategies.integers(0, 10))
    def test_only_old_unused_ones_go_and_the_newest_stay(
        self, found: list[ImageInfo], kept: int, grace: int
    ) -> None:
        now = 15_000
        gone = set(superseded(found, now, grace, kept))
        for image in found:
            newer = [
                other
                for other in found
                if other.kind == image.kind
                and not other.current
                and (other.created, other.reference) > (image.created, image.reference)
            ]
            goes = (
                not image.current
                and not image.in_use
                and len(newer) >= kept
                and image.created + grace * 1000 <= now
            )
            self.assertEqual(image.reference in gone, goes, image)


class ImagesTests(TestCase):
    def make(self, client: Client, environ: dict[str, str] | None = None) -> Images:
        self.root = short_folder(self) / "small"
        self.root.mkdir()
        (self.root / "Dockerfile").write_text("FROM x")
        self.client = client
        self.builder = Builder(client)
        self.lines: list[str | Doing] = []
        base = BaseImages(Reactor(), Inline(), "unix:///x", self.root, connect=client)
        return Images(
            Reactor(),
            Inline(),
            "unix:///x",
            base,
            image=self.root,
            shim=self.root / "none",
            uid=1000,
            gid=1000,
            certificates=self.root / "none",
            environ=environ or {},
            connect=client,
            builder=self.builder,
            grace=100,
        )

    def ensured(self, images: Images) -> str:
        done = Deferred.fromCoroutine(images.ensure(self.lines.append))
        if not done.called:
            self.builder.finish()
        return str(self.successResultOf(done))

    def test_built_once(self) -> None:
        images = self.make(Client({DEFAULT}), {"HTTPS_PROXY": "http://p", "no_proxy": "", "HOME": "/root"})
        first = self.ensured(images)
        self.assertRegex(first, r"\Auaihost/small:[0-9a-f]{12}\Z")
        self.assertEqual(self.ensured(images), first)
        self.assertEqual((images.builds.begun, images.builds.ended["completed"]), (1, 1))
        (build,) = self.builder.builds
        self.assertEqual((build["tag"], build["labels"], build["cached"]), (first, {LABEL: "small"}, True))
        self.assertEqual(
            build["args"],
            {"BASE": DEFAULT, "DEV_UID": "1000", "DEV_GID": "1000", "HTTPS_PROXY": "http://p"},
        )
        text = f"building {first}"
        self.assertEqual(self.lines, [Doing(Reason.IMAGE_BUILDING, text, 0), text])

    def test_what_does_not_go_into_the_image_changes_no_tag(self) -> None:
        first = self.ensured(self.make(Client({DEFAULT})))
        images = self.make(Client({DEFAULT}), {"https_proxy": "http://p"})
        (self.root / "LICENCES.md").write_text("for people")
        (self.root / "versions.toml").write_text('# for people\n[debian]\npython = "3.11"\n')
        self.assertEqual(self.ensured(images), first)
        (self.root / "versions.toml").write_text('[agents]\ncodex = "1"\n')
        self.assertNotEqual(self.ensured(images), first)

    def test_another_base_is_another_image(self) -> None:
        one = self.ensured(self.make(Client({DEFAULT})))
        self.assertNotEqual(one, self.ensured(self.make(Client({LOCAL}))))

    def test_force_builds_without_the_cache_what_is_there(self) -> None:
        images = self.make(Client({DEFAULT}))
        first = self.ensured(images)
        done = Deferred.fromCoroutine(images.build(self.lines.append, force=True))
        self.builder.finish()
        self.assertEqual(self.successResultOf(done), first)
        self.assertEqual([build["cached"] for build in self.builder.builds], [True, False])

    def test_callers_share_a_build_and_hear_of_it(self) -> None:
        images = self.make(Client({DEFAULT}))
        late: list[str | Doing] = []
        first = Deferred.fromCoroutine(images.ensure(self.lines.append))
        second = Deferred.fromCoroutine(images.ensure(late.append))
        self.assertEqual(late, self.lines[:1])
        say = self.builder.builds[0]["say"]
        say("Step 1/2")
        self.assertEqual((self.lines[-1], late[-1]), ("Step 1/2", "Step 1/2"))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        say("Step 2/2")
        self.assertEqual((self.lines[-1], late[-1]), ("Step 1/2", "Step 2/2"))
        self.builder.finish()
        self.assertIn("uaihost/small:", self.successResultOf(second))
        self.assertEqual((len(self.builder.builds), self.builder.cancelled), (1, 0))

    def test_a_build_that_nobody_waits_for_stops_and_the_next_begins_anew(self) -> None:
        images = self.make(Client({DEFAULT}))
        for _ in range(2):
            done = Deferred.fromCoroutine(images.ensure(self.lines.append))
            done.cancel()
            self.failureResultOf(done, CancelledError)
        self.assertEqual(self.builder.cancelled, 2)
        self.ensured(images)
        self.assertEqual(len(self.builder.builds), 3)
        self.assertEqual(images.builds.ended, {"completed": 1, "failed": 0, "interrupted": 2})

    def test_a_failure_reaches_every_caller_and_is_not_kept(self) -> None:
        images = self.make(Client({DEFAULT}))
        both = [Deferred.fromCoroutine(images.ensure(self.lines.append)) for _ in range(2)]
        self.builder.running[0].errback(HostError(ErrorCode.UNAVAILABLE, "no network"))
        for done in both:
            self.assertEqual(self.failureResultOf(done, HostError).value.message, "no network")
        self.ensured(images)
        self.assertEqual(images.builds.ended, {"completed": 1, "failed": 1, "interrupted": 0})

    def test_older_images_and_stages_go_after_a_build(self) -> None:
        client = Client({DEFAULT})
        images = self.make(client)
        client.shown = [
            {"Id": f"sha256:{n}", "RepoTags": [f"uaihost/small:{n}"], "Size": 1, "Created": 100 * n}
            for n in range(1, 6)
        ] + [{"Id": "sha256:untagged", "RepoTags": ["<none>:<none>"], "Size": 1, "Created": 50}]
        client.containers_of = {"sha256:1"}
        client.stages = [
            {"Id": "sha256:" + letter * 64, "Created": created}
            for letter, created in (("a", 50), ("b", 50), ("c", 950))
        ]
        client.refused = {"uaihost/small:2"}
        done = Deferred.fromCoroutine(images.ensure(self.lines.append))
        self.builder.finish({"a" * 12})
        self.successResultOf(done)
        self.assertEqual(
            client.removed, ["uaihost/small:4", "uaihost/small:3", "sha256:untagged", "sha256:" + "b" * 64]
        )

    def test_a_build_without_stages_leaves_those_of_others(self) -> None:
        client = Client({DEFAULT})
        images = self.make(client)
        client.stages = [{"Id": "sha256:" + "a" * 64, "Created": 0}]
        done = Deferred.fromCoroutine(images.ensure(self.lines.append))
        self.builder.finish({"b" * 12})
        self.successResultOf(done)
        self.assertEqual(client.removed, [])

    def test_the_list_says_which_is_current_and_which_is_used(self) -> None:
        client = Client({DEFAULT})
        images = self.make(client)
        current = self.ensured(images)
        client.shown = [
            {"Id": "sha256:1", "RepoTags": ["uaihost/small:old"], "Size": 7, "Created": 1},
            {"Id": "sha256:2", "RepoTags": [current], "Size": 8, "Created": 2},
        ]
        client.containers_of = {"sha256:1"}
        found = self.successResultOf(Deferred.fromCoroutine(images.list()))
        self.assertEqual(
            list(found),
            [
                ImageInfo(current, "small", 8, 2000, current=True, in_use=False),
                ImageInfo("uaihost/small:old", "small", 7, 1000, current=False, in_use=True),
            ],
        )
        client.has.clear()
        again = self.successResultOf(Deferred.fromCoroutine(images.list()))
        self.assertEqual([image.current for image in again], [False, False])

    def test_only_our_own_images_are_removed(self) -> None:
        client = Client({DEFAULT, "uaihost/small:1"})
        images = self.make(client)
        self.successResultOf(Deferred.fromCoroutine(images.remove("uaihost/small:1")))
        for reference, code in ((DEFAULT, ErrorCode.INVALID_ARGS), ("gone", ErrorCode.NOT_FOUND)):
            failure = self.failureResultOf(Deferred.fromCoroutine(images.remove(reference)), HostError)
            self.assertEqual(failure.value.code, code)
        self.assertEqual(client.removed, ["uaihost/small:1"])

    def test_python_is_advertised_of_the_default_base_alone(self) -> None:
        images = self.make(Client(set()))
        (self.root / "versions.toml").write_text('[debian]\npython = "3.11"\n[agents]\ncodex = "1"\n')
        self.assertEqual(images.runtimes(), [Runtime("python", "3.11")])
        self.assertEqual(images.agents(), {"codex": "1"})
        images._base.wanted = "ubuntu:24.04"
        self.assertEqual(images.runtimes(), [])


class BaseTests(TestCase):
    def base(self, client: Client, wanted: str = DEFAULT) -> BaseImages:
        folder = Path(os.devnull)
        return BaseImages(Reactor(), Inline(), "unix:///x", folder, wanted, {}, connect=client)

    def test_what_is_there_is_used(self) -> None:
        for has, wanted, name in (
            ({DEFAULT, LOCAL}, DEFAULT, DEFAULT),
            ({LOCAL}, DEFAULT, LOCAL),
            ({"ubuntu:24.04", LOCAL}, "ubuntu:24.04", "ubuntu:24.04"),
        ):
            found = self.successResultOf(self.base(Client(has), wanted).ensure(lambda _: None))
            self.assertEqual(found, Base(name, f"sha256:{name}"))

    def test_what_a_registry_has_is_pulled(self) -> None:
        lines: list[str | Doing] = []
        found = self.successResultOf(self.base(Client(set())).ensure(lines.append))
        self.assertEqual(found.name, DEFAULT)
        text = f"pulling {DEFAULT}"
        doing = [Doing(Reason.IMAGE_PULLING, text, percent) for percent in (None, 50, 80)]
        self.assertEqual(lines, [doing[0], text, "Pulling", doing[1], doing[2], "Done"])

    def test_looking_pulls_nothing(self) -> None:
        client = Client(set())
        self.assertIsNone(self.successResultOf(self.base(client).find()))
        self.assertEqual(client.has, set())

    def test_another_base_than_the_default_is_not_replaced(self) -> None:
        base = self.base(Client({LOCAL}, pull="lookup registry: no such host"), "ubuntu:24.04")
        failure = self.failureResultOf(base.ensure(lambda _: None), HostError)
        self.assertEqual(failure.value.code, ErrorCode.UNAVAILABLE)
        self.assertIn("ubuntu:24.04", failure.value.message)
        self.assertIn("no such host", failure.value.message)
