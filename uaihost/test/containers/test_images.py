"""The image's inputs: their digest and the build context; and a failed build's words."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker.errors
from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.containers.base import DEFAULT, LOCAL, Base, BaseImages
from uaihost.containers.images import Images, Inputs, gather
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder

INPUTS = Inputs({"Dockerfile": (b"FROM x", False), "uai/init.py": (b"pass", False)}, {"DEV_UID": "1000"})


class Reactor:
    """What a builder needs of one when everything happens in one thread."""

    def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)


class Client:
    """The SDK's client, as far as images need it. has: image names; entries: what a build prints."""

    def __init__(self, has: set[str], entries: list[dict[str, Any]] | None = None, pull: str = "") -> None:
        self.has = has
        self.entries = entries or [{"stream": "Successfully built\n"}]
        self.pull_error = pull
        self.builds: list[dict[str, Any]] = []

    def __call__(self, docker_host: str, timeout: float = 60) -> Any:
        return self

    def close(self) -> None:
        """Nothing is open."""

    def inspect_image(self, name: str) -> dict[str, str]:
        if name not in self.has:
            raise docker.errors.ImageNotFound(name)
        return {"Id": f"sha256:{name}"}

    def build(self, **options: Any) -> list[dict[str, Any]]:
        self.builds.append(options)
        if not any("error" in entry for entry in self.entries):
            self.has.add(options["tag"])
        return self.entries

    def inspect_distribution(self, name: str) -> dict[str, Any]:
        if self.pull_error:
            raise docker.errors.APIError("x", explanation=self.pull_error)
        return {}

    def pull(self, name: str, stream: bool, decode: bool) -> list[dict[str, Any]]:
        self.has.add(name)
        return [{"status": "Pulling"}, {"status": "Downloading", "progressDetail": {"current": 1}}]


class InputsTests(TestCase):
    def test_every_input_changes_the_digest(self) -> None:
        files = dict(INPUTS.files)
        others = [
            INPUTS.digest("other base"),
            Inputs(files, {"DEV_UID": "1001"}).digest("base"),
            Inputs(files | {"Dockerfile": (b"FROM y", False)}, INPUTS.args).digest("base"),
            Inputs(files | {"Dockerfile": (b"FROM x", True)}, INPUTS.args).digest("base"),
            Inputs(files | {"certs/a.crt": (b"", False)}, INPUTS.args).digest("base"),
            Inputs({"Dockerfile": (b"FROM x", False)}, INPUTS.args).digest("base"),
        ]
        self.assertEqual(len({INPUTS.digest("base"), *others}), len(others) + 1)
        again = Inputs(dict(reversed(files.items())), INPUTS.args)
        self.assertEqual(INPUTS.digest("base"), again.digest("base"))

    def test_the_context_is_the_same_bytes_and_holds_the_files(self) -> None:
        again = Inputs(dict(reversed(list(INPUTS.files.items()))), INPUTS.args)
        self.assertEqual(INPUTS.context(), again.context())
        with tarfile.open(fileobj=io.BytesIO(INPUTS.context())) as tar:
            self.assertEqual(tar.getnames(), ["certs", "uai", "Dockerfile", "uai/init.py"])
            entry = tar.extractfile("Dockerfile")
            assert entry is not None
            self.assertEqual(entry.read(), b"FROM x")
            self.assertEqual({(m.mtime, m.uid, m.gid) for m in tar.getmembers()}, {(0, 0, 0)})

    def test_gather_reads_image_shim_and_authorities(self) -> None:
        root = short_folder(self)
        for name in ("image/Dockerfile", "image/README.md", "image/sub/run", "shim/init.py", "ca/co/a.crt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        (root / "shim/notes.txt").write_text("not for the image")
        (root / "image/sub/run").chmod(0o755)
        found = gather(root / "image", root / "shim", root / "ca", 5, 6)
        self.assertEqual(set(found.files), {"Dockerfile", "sub/run", "uai/init.py", "certs/co-a.crt"})
        self.assertEqual(found.files["sub/run"], (b"image/sub/run", True))
        self.assertEqual(found.args, {"DEV_UID": "5", "DEV_GID": "6"})


class ImagesTests(TestCase):
    def make(self, client: Client) -> Images:
        root = short_folder(self)
        (root / "Dockerfile").write_text("FROM x")
        base = BaseImages(Reactor(), Inline(), "unix:///x", root, connect=client)
        return Images(
            Reactor(),
            Inline(),
            "unix:///x",
            base,
            image=root,
            shim=root / "none",
            uid=1000,
            gid=1000,
            certificates=root / "none",
            connect=client,
        )

    def ensured(self, images: Images, lines: list[str]) -> str:
        return str(self.successResultOf(images.ensure(lines.append)))

    def test_built_once(self) -> None:
        client = Client({DEFAULT})
        images, lines = self.make(client), list[str]()
        first = self.ensured(images, lines)
        self.assertRegex(first, r"\Auaihost/small:[0-9a-f]{12}\Z")
        self.assertEqual(self.ensured(images, lines), first)
        self.assertEqual([build["tag"] for build in client.builds], [first])
        self.assertEqual(client.builds[0]["buildargs"]["BASE"], DEFAULT)
        self.assertEqual(lines, [f"building {first}", "Successfully built"])

    def test_another_base_is_another_image(self) -> None:
        one = self.ensured(self.make(Client({DEFAULT})), [])
        self.assertNotEqual(one, self.ensured(self.make(Client({LOCAL})), []))

    def test_a_failed_step_says_its_last_lines(self) -> None:
        entries = [
            {"stream": "Step 1/3 : FROM x\n"},
            {"stream": " ---> 0123\n"},
            {"stream": "Step 2/3 : RUN apt-get\n"},
            {"stream": "\x1b[91mE: no network\n\x1b[0m"},
            {"error": "The command returned a non-zero code: 100\n"},
        ]
        images, lines = self.make(Client({DEFAULT}, entries)), list[str]()
        failure = self.failureResultOf(images.ensure(lines.append), HostError)
        message = failure.value.message
        self.assertEqual(failure.value.code, ErrorCode.UNAVAILABLE)
        self.assertTrue(message.endswith("Step 2/3 : RUN apt-get\nE: no network"), message)
        self.assertIn("non-zero code: 100", message)
        self.assertEqual(lines[1:], ["Step 1/3 : FROM x", "Step 2/3 : RUN apt-get", "E: no network"])
        # The lock is free again.
        self.failureResultOf(images.ensure(lines.append), HostError)


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
        lines: list[str] = []
        found = self.successResultOf(self.base(Client(set())).ensure(lines.append))
        self.assertEqual(found.name, DEFAULT)
        self.assertEqual(lines, [f"pulling {DEFAULT}", "Pulling"])

    def test_another_base_than_the_default_is_not_replaced(self) -> None:
        base = self.base(Client({LOCAL}, pull="lookup registry: no such host"), "ubuntu:24.04")
        failure = self.failureResultOf(base.ensure(lambda _: None), HostError)
        self.assertEqual(failure.value.code, ErrorCode.UNAVAILABLE)
        self.assertIn("ubuntu:24.04", failure.value.message)
        self.assertIn("no such host", failure.value.message)
