"""The standard image and the builds of images, on the real engine."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost import children
from uaihost.blocking import Threads
from uaihost.containers import image_build
from uaihost.containers.base import BaseImages
from uaihost.containers.client import connect
from uaihost.containers.image_inputs import Inputs, read_versions
from uaihost.containers.images import LABEL, Images
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Doing, Launch, Mount, Ran
from uaihost.test.integration.engine import (
    CHECKOUT,
    ENGINE_FOLDER,
    docker_host,
    make_images,
    real_engine,
    standard_image,
)
from uaihost.test.support import short_folder
from uaihost.wire.reasons import Reason

UID = 4321
# Waits for the editor on a port of its own and asks for its page; prints what came.
EDITOR = """
import subprocess, time, urllib.request
argv = ["/opt/node/bin/node", "/opt/code-server/out/node/entry.js"]
editor = subprocess.Popen([*argv, "--auth=none", "--bind-addr=127.0.0.1:8111"], stdout=subprocess.DEVNULL)
deadline = time.monotonic() + 60
while True:
    try:
        health = urllib.request.urlopen("http://127.0.0.1:8111/healthz", timeout=5).read()
        break
    except OSError:
        assert time.monotonic() < deadline and editor.poll() is None
        time.sleep(0.05)
page = urllib.request.urlopen("http://127.0.0.1:8111/", timeout=30)
print(page.status, b"workbench.js" in page.read(), b"alive" in health or b"expired" in health)
editor.terminate()
"""


class StandardImageTests(TestCase):
    """As a task's container runs: nothing to write but mounts, no capability, no network, an empty home."""

    timeout = 600

    async def setUp(self) -> None:  # type: ignore[override]
        address = await docker_host()
        self.said: list[str | Doing] = []
        await standard_image(self)
        # Other numbers than the default ones: cached but for the last layers.
        self.reference = await make_images(self, address, UID, UID, "standard").ensure(self.said.append)
        self.client = connect(address)
        self.addCleanup(self.client.close)
        self.root = short_folder(self)
        for name in ("home", "run", "tmp", "work", "control", "tools", "attachments"):
            (self.root / name).mkdir()
            os.chown(self.root / name, UID, UID)
        mounts = (
            ("home", "/home/dev", False),
            ("run", "/run/uai", False),
            ("tmp", "/tmp", False),
            ("work", "/workspace", False),
            ("control", "/run/host", True),
            ("tools", "/opt/uai-tools", True),
            ("attachments", "/attachments", True),
        )
        self.engine = await real_engine(self)
        await self.engine.launch(
            Launch(
                "one",
                self.reference,
                UID,
                UID,
                tuple(Mount(str(self.root / name), target, fixed) for name, target, fixed in mounts),
                (),
                network="none",
                read_only=True,
            )
        )

    async def shell(self, text: str) -> Ran:
        ran = await self.engine.execute("one", ["bash", "-c", text], cwd="/workspace")
        self.assertEqual(ran.status, 0, f"{text}: {ran.err.decode()}{ran.out.decode()}")
        return ran

    async def prints(self, text: str) -> str:
        return (await self.shell(text)).out.decode().strip()

    async def test_every_program_runs_in_its_pinned_version(self) -> None:
        versions = read_versions(CHECKOUT / "images" / "standard")
        for name, version in {**versions.runtimes, **versions.agents, **versions.debian}.items():
            program = {
                "code-server": "/opt/node/bin/node /opt/code-server/out/node/entry.js",
                "python": "python3",
            }.get(name, name)
            self.assertIn(version, await self.prints(f"{program} --version"), name)
        for program in ("git --version", "git lfs version", "gh --version", "rg --version", "npm --version"):
            self.assertRegex(await self.prints(program), r"\d+\.\d+", program)
        self.assertRegex(await self.prints("ssh -V 2>&1"), "OpenSSH")

    async def test_who_one_is_and_what_can_be_written(self) -> None:
        self.assertEqual(await self.prints("id -un; id -u; id -g; echo ~"), f"dev\n{UID}\n{UID}\n/home/dev")
        await self.shell("touch ~/a /tmp/a /run/uai/a /workspace/a")
        places = "/ /etc /opt/uai /opt/uai-skel /opt/uai-tools /usr/local/bin /run/host /attachments /home"
        self.assertEqual(await self.prints(f"for x in {places}; do test -w $x && echo $x; done; true"), "")
        self.assertEqual(
            await self.prints("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status | awk '{print $2}'"),
            "0000000000000000\n0000000000000000\n1",
        )
        self.assertEqual(await self.prints("find / -xdev -perm /6000 -type f -user root -writable; true"), "")
        paths = await self.prints("cd /opt/uai-skel && find . -type f | sort")
        self.assertEqual(
            paths.split(), ["./.bashrc", "./.local/share/code-server/User/settings.json", "./.profile"]
        )
        settings = json.loads(
            await self.prints("cat /opt/uai-skel/.local/share/code-server/User/settings.json")
        )
        self.assertEqual(settings["telemetry.telemetryLevel"], "off")

    async def test_git_python_and_node_work(self) -> None:
        identity = "-c user.name=x -c user.email=x@y"
        await self.shell(
            "git init -q r && cd r && echo '*.bin filter=lfs -text' > .gitattributes && seq 99 > a.bin && "
            f'git add -A && git {identity} commit -qm x && git checkout -q -b b && test -z "$(git status -s)"'
        )
        # A repository of another owner is worked in all the same, and a pointer stays one without a network.
        os.chown(self.root / "work" / "r" / ".git", 0, 0)
        self.assertIn("git-lfs", await self.prints("git -C r show HEAD:a.bin"))
        await self.shell("git clone -q --no-hardlinks r c && grep -q oid c/a.bin")
        await self.shell(
            "uv venv -q v && v/bin/python -c 'import ssl' && python3 -m venv w && w/bin/pip --version"
        )
        self.assertEqual(await self.prints("echo 'console.log(6*7)' > a.js && node a.js"), "42")
        self.assertEqual(await self.prints("npm config get prefix"), "/home/dev/.local")
        # A version that is pinned and not there: the image's own, and login shells have the same path.
        await self.shell("mkdir p && echo 'node 16.0.0' > p/.tool-versions")
        version = read_versions(CHECKOUT / "images" / "standard").runtimes["node"]
        self.assertEqual(await self.prints("cd p && mise exec -- node --version 2>/dev/null"), f"v{version}")
        self.assertEqual(await self.prints("bash -lc 'echo $PATH'"), await self.prints("echo $PATH"))

    async def test_ssh_leaves_through_the_proxy_only_where_there_is_one(self) -> None:
        asked = "ssh -G example.org 2>/dev/null | grep -i proxycommand; true"
        self.assertEqual(await self.prints(asked), "")
        self.assertEqual(
            await self.prints(f"export UAI_EGRESS=proxy; {asked}"),
            "proxycommand /usr/bin/python3 /opt/uai/connect.py %h %p",
        )

    async def test_the_editor_answers_on_loopback(self) -> None:
        self.assertEqual(await self.prints(f"python3 -c {shlex.quote(EDITOR)}"), "200 True True")

    async def test_other_numbers_share_all_layers_but_the_last(self) -> None:
        mine = self.client.inspect_image(self.reference)
        other = self.client.inspect_image(await standard_image(self))
        self.assertNotEqual(mine["Id"], other["Id"])
        self.assertEqual(mine["RootFS"]["Layers"][:-2], other["RootFS"]["Layers"][:-2])
        self.assertEqual(mine["Config"]["Labels"][LABEL], "standard")
        self.assertLess(mine["Size"], 1.9e9)


class BuildTests(TestCase):
    """Small images of their own kind, so that nothing of others is touched."""

    timeout = 120

    async def setUp(self) -> None:  # type: ignore[override]
        self.address = await docker_host()
        self.folder = short_folder(self) / f"test-{secrets.token_hex(6)}"
        self.folder.mkdir()
        self.client = connect(self.address)
        self.addCleanup(self.client.close)
        self.addCleanup(self.clean)
        self.threads = Threads(reactor, "test-builds", 1)  # type: ignore[arg-type]
        self.addCleanup(self.threads.stop)
        self.base = BaseImages(reactor, self.threads, self.address, ENGINE_FOLDER)
        self.said: list[str | Doing] = []

    def clean(self) -> None:
        for image in self.client.images(filters={"label": f"{LABEL}={self.folder.name}"}):
            for container in self.client.containers(all=True, filters={"ancestor": image["Id"]}):
                self.client.remove_container(container["Id"], force=True)
            self.client.remove_image(image["Id"], force=True)

    def images(self, text: str) -> Images:
        (self.folder / "Dockerfile").write_text(f"ARG BASE\nFROM ${{BASE}}\n{text}\n")
        return Images(
            reactor,
            self.threads,
            self.address,
            self.base,
            image=self.folder,
            shim=CHECKOUT / "none",
            uid=1000,
            gid=1000,
            certificates=CHECKOUT / "none",
            environ={"HTTP_PROXY": "http://proxy.invalid:1"},
            grace=0,
        )

    async def refused(self, images: Images) -> HostError:
        try:
            return self.fail(f"it built {await images.ensure(self.said.append)}")
        except HostError as error:
            return error

    async def test_a_failed_command_is_told_with_its_last_lines(self) -> None:
        error = await self.refused(
            self.images("RUN echo before\nRUN (echo hello; echo the problem) >&2; exit 3")
        )
        self.assertEqual(error.code, ErrorCode.UNAVAILABLE)
        self.assertIn("non-zero code: 3", error.message)
        self.assertTrue(error.message.endswith("\nhello\nthe problem"), error.message)
        self.assertNotIn("before", error.message)
        told = [what for what in self.said if isinstance(what, Doing)][-1]
        self.assertEqual((told.reason, told.percent), (Reason.IMAGE_BUILDING, 60))
        self.assertIn("RUN (echo hello", told.text)

    async def test_what_the_engine_refuses_is_told(self) -> None:
        error = await self.refused(self.images("NONSENSE"))
        self.assertIn("NONSENSE", error.message)

    async def test_a_cancelled_build_stops_in_the_engine(self) -> None:
        marker = f"sleep 300 # {secrets.token_hex(8)}"
        done = Deferred.fromCoroutine(self.images(f"RUN echo here; {marker}").ensure(self.said.append))
        self.addCleanup(done.cancel)
        # What it prints may come before the engine says that it runs.
        while "here" not in self.said or not self.running(marker):
            self.assertFalse(done.called)
            await pause(0.05)
        done.cancel()
        await self.assertFailure(done, CancelledError)
        for _ in range(200):
            if not self.running(marker):
                return
            await pause(0.05)
        self.fail("the build's container goes on")

    def running(self, marker: str) -> list[Any]:
        return [one for one in self.client.containers(trunc=False) if marker in one["Command"]]

    async def test_older_images_go_but_those_in_use_and_the_last(self) -> None:
        references: list[str] = []
        for number in range(4):
            images = self.images(f"LABEL number={number}\nRUN echo {self.folder.name} $HTTP_PROXY > /seen")
            references.append(await images.ensure(self.said.append))
            if number == 0:
                self.client.create_container(references[0], ["true"])
            # The engine's times have whole seconds.
            await pause(1.1)
        found = {info.reference: (info.current, info.in_use) for info in await images.list()}
        first, _, third, last = references
        self.assertEqual(found, {first: (False, True), third: (False, False), last: (True, False)})
        with self.assertRaises(HostError) as caught:
            await images.remove(first)
        self.assertEqual(caught.exception.code, ErrorCode.CONFLICT)
        await images.remove(third)
        self.assertEqual([info.reference for info in await images.list()], [last, first])
        made = self.client.create_container(last, ["cat", "/seen"])
        self.client.start(made)
        self.client.wait(made)
        self.assertEqual(
            self.client.logs(made).decode().strip(), f"{self.folder.name} http://proxy.invalid:1"
        )

    async def test_callers_share_one_build(self) -> None:
        images = self.images(f"RUN echo {self.folder.name}; sleep 1")
        both = [Deferred.fromCoroutine(images.ensure(self.said.append)) for _ in range(2)]
        first, second = [await one for one in both]
        self.assertEqual(first, second)
        built = [
            line for line in self.said if isinstance(line, str) and line.startswith("Successfully built")
        ]
        self.assertEqual(len(built), 2)
        self.assertEqual(len(set(built)), 1)
        self.said.clear()
        self.assertEqual(await images.ensure(self.said.append), first)
        self.assertEqual(self.said, [])

    async def test_an_engine_that_is_not_there(self) -> None:
        with self.assertRaises(HostError) as caught:
            await image_build.build(
                reactor,
                "unix:///nowhere/docker.sock",
                Inputs({}, {}).context(),
                tag="x:y",
                args={},
                labels={},
                cached=True,
                say=self.said.append,
            )
        self.assertEqual(caught.exception.code, ErrorCode.UNAVAILABLE)

    async def test_the_command_line(self) -> None:
        async def run(*words: str, engine: str = self.address) -> children.Finished:
            env = {"PATH": os.environ["PATH"], "DOCKER_HOST": engine, "HOME": str(Path.home())}
            env["UAI_DATA_DIR"] = str(self.folder.parent / "data")
            argv = [sys.executable, "-m", "uaihost.cli", "image", *words]
            return await children.run(reactor, argv, env=env, cwd=str(CHECKOUT), timeout=100)

        built = await run("build", "--kind", "small", "--json")
        self.assertEqual(built.status, 0, built.err.decode())
        answer = json.loads(built.out)
        self.assertEqual(answer["reference"], await make_images(self, self.address).ensure(self.said.append))
        listed = await run("ls", "--json")
        (mine,) = [one for one in json.loads(listed.out) if one["reference"] == answer["reference"]]
        self.assertEqual((mine["current"], mine["kind"], mine["size"]), (True, "small", answer["size"]))
        self.assertIn(answer["reference"].encode(), (await run("ls")).out)
        refused = await run("rm", "uaihost/small:none")
        self.assertEqual((refused.status, refused.out), (1, b""))
        self.assertIn(b"uaihost/small:none", refused.err)
        nowhere = await run("ls", engine="unix:///nowhere/docker.sock")
        self.assertEqual(nowhere.status, 3)
        self.assertIn(b"no container engine answers at unix:///nowhere/docker.sock", nowhere.err)
        self.assertEqual((await run("build", "--kind", "other")).status, 2)


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds, lambda: None)
