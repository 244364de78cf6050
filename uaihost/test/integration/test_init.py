"""uai-init and shared tool versions in real containers, behind the gate and with the mounts of a task."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from uaihost.blocking import Threads
from uaihost.containers.daemon import DockerEngine
from uaihost.containers.images import owner
from uaihost.containers.readiness import Forwarded, Readiness
from uaihost.containers.tool_versions import Request
from uaihost.containers.tools import PREFIX, Tools
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Doing, Launch, Limits, Mount, Ran, Step
from uaihost.paths import Folders
from uaihost.test.integration.engine import real_engine, standard_image, task_image
from uaihost.test.support import short_folder

LIMITS = Limits(memory=1 << 30, pids=256)
MIRROR = "http://127.0.0.1:18080/"


class Rig:
    """Tasks' folders and containers, as taskUp makes them."""

    def __init__(self, case: TestCase, engine: DockerEngine | MirrorEngine, image: str) -> None:
        self.folders = Folders(short_folder(case))
        self.engine = engine
        self.image = image
        self.uid, self.gid = owner()
        self.readiness = Readiness(reactor, self.folders.run)
        self.ports: list[Forwarded] = []

    def project(self, task_id: str, slug: str, files: Mapping[str, str]) -> Path:
        """A work copy, moved into place as a whole. Names that end in `!` are programs."""
        folders = self.folders
        folders.work(task_id).mkdir(parents=True, exist_ok=True)
        folders.work(task_id).chmod(0o755)
        made = folders.task(task_id) / f"new-{slug}"
        made.mkdir()
        for name, text in files.items():
            path = made / name.removesuffix("!")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755 if name.endswith("!") else 0o644)
        if os.geteuid() == 0:
            for path in (made, *made.rglob("*")):
                os.chown(path, self.uid, self.gid)
        return made.rename(folders.work_copy(task_id, slug))

    def places(self, task_id: str) -> None:
        folders = self.folders
        for path in (folders.work(task_id), folders.control(task_id), folders.tools):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        for path in (folders.home(task_id), folders.run(task_id), folders.scratch(task_id)):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o700)
            if os.geteuid() == 0:
                os.chown(path, self.uid, self.gid)

    async def launch(self, task_id: str, **env: str) -> Container:
        folders = self.folders
        self.places(task_id)
        mounts = (
            Mount(str(folders.work(task_id)), "/workspace"),
            Mount(str(folders.home(task_id)), "/home/dev"),
            Mount(str(folders.scratch(task_id)), "/tmp"),
            Mount(str(folders.run(task_id)), "/run/uai"),
            Mount(str(folders.control(task_id)), "/run/host", read_only=True),
            Mount(str(folders.tools), "/opt/uai-tools", read_only=True),
        )
        launch = Launch(
            task_id=task_id,
            image=self.image,
            uid=self.uid,
            gid=self.gid,
            mounts=mounts,
            ports=(),
            env=env,
            limits=LIMITS,
            network="none",
            read_only=True,
        )
        return await self.engine.launch(launch)

    async def ready(self, task_id: str) -> list[Step]:
        """Open the gate and wait; the steps."""
        (self.folders.control(task_id) / "go").touch(mode=0o444)
        steps: list[Step] = []
        self.ports = await self.readiness.ready(task_id, steps.append, timeout=60)
        return steps

    async def sh(self, task_id: str, script: str, cwd: str = "/workspace") -> Ran:
        return await self.engine.execute(task_id, ["sh", "-c", script], cwd=cwd)


def pause(seconds: float) -> Any:
    return deferLater(reactor, seconds, lambda: None)


class SmallTests(TestCase):
    """What needs neither editor nor tools."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.rig = Rig(self, await real_engine(self), await task_image(self))

    async def test_a_repository_waits_for_the_gate_and_the_relay_does_not(self) -> None:
        rig = self.rig
        await rig.launch("t1")
        early = await rig.sh("t1", "ls /run/uai; ls -A /home/dev")
        while "relay.sock" not in early.out.decode():
            await pause(0.1)
            early = await rig.sh("t1", "ls /run/uai; ls -A /home/dev")
        self.assertEqual(early.out.split(), [b"init.sock", b"relay.log", b"relay.sock"])
        # A copy comes in by rename while the container runs.
        web = rig.project("t1", "web", {".uai/setup!": "#!/bin/sh\ntouch made\n"})
        await pause(0.3)
        self.assertFalse((web / "made").exists())
        steps = await rig.ready("t1")
        self.assertEqual(
            [(step.step, step.state) for step in steps],
            [("gate", "started"), ("gate", "done"), ("setup web", "started"), ("setup web", "done")],
        )
        self.assertTrue((web / "made").exists())
        self.assertTrue((rig.folders.home("t1") / ".bashrc").is_file())

    async def test_a_second_container_of_the_task_runs_only_what_is_for_every_start(self) -> None:
        rig = self.rig
        names = ("onCreateCommand", "updateContentCommand", "postCreateCommand", "postStartCommand")
        settings: dict[str, Any] = {name: f"echo {name} $SAID >> out" for name in names}
        settings |= {"remoteEnv": {"SAID": "so${localEnv:PATH}"}, "image": "x", "forwardPorts": [3000]}
        settings["portsAttributes"] = {"3000": {"label": "web"}}
        web = rig.project("t2", "web", {".devcontainer/devcontainer.json": json.dumps(settings)})
        await rig.launch("t2")
        steps = await rig.ready("t2")
        (told,) = [step.message or "" for step in steps if step.step == "devcontainer web"]
        self.assertIn("left out: image", told)
        self.assertIn("empty: localEnv:PATH", told)
        self.assertEqual(rig.ports, [Forwarded(3000, "web")])
        self.assertEqual((web / "out").read_text().split(), [word for name in names for word in (name, "so")])
        await rig.engine.remove("t2")
        (rig.folders.control("t2") / "go").unlink()
        (web / "out").unlink()
        await rig.launch("t2")
        await rig.ready("t2")
        self.assertEqual((web / "out").read_text(), "postStartCommand so\n")

    async def test_what_a_task_left_at_home_does_not_run_before_the_gate(self) -> None:
        rig = self.rig
        rig.places("t3")
        packages = rig.folders.home("t3") / ".local" / "lib" / "python3.11" / "site-packages"
        packages.mkdir(parents=True)
        (packages / "usercustomize.py").write_text("open('/workspace/web/planted', 'w')\n")
        web = rig.project("t3", "web", {"a": ""})
        await rig.launch("t3", PYTHONSTARTUP="/x")
        await rig.ready("t3")
        self.assertFalse((web / "planted").exists())
        ran = await rig.sh("t3", "python3 -c ''")
        self.assertEqual((ran.status, (web / "planted").exists()), (0, True), "the trap itself must work")

    async def test_what_a_task_left_in_place_of_sockets_and_logs_does_not_keep_the_next_from_starting(
        self,
    ) -> None:
        rig = self.rig
        rig.project("t4", "web", {".uai/start": "echo served; exec sleep 60\n"})
        rig.places("t4")
        run = rig.folders.run("t4")
        (run / "init.sock" / "full").mkdir(parents=True)
        (run / "relay.sock" / "full").mkdir(parents=True)
        (run / "relay.new" / "full").mkdir(parents=True)
        os.mkfifo(run / "relay.log")
        outside = rig.folders.home("t4") / "kept"
        outside.write_text("kept")
        (run / "start-web.log").symlink_to("/home/dev/kept")
        closed = rig.folders.home("t4") / ".local"
        closed.mkdir()
        for path in (*run.rglob("*"), closed):
            if os.geteuid() == 0:
                os.chown(path, rig.uid, rig.gid, follow_symlinks=False)
        (run / "init.sock").chmod(0)
        closed.chmod(0)
        await rig.launch("t4")
        while not (run / "init.sock").is_socket():
            await pause(0.1)
        steps = await rig.ready("t4")
        self.assertIn(("start web", "done"), [(step.step, step.state) for step in steps])
        self.assertEqual(outside.read_text(), "kept")
        ran = await rig.sh(
            "t4",
            "until [ -S /run/uai/relay.sock ] && grep -q served /run/uai/start-web.log; do sleep 0.1; done",
        )
        self.assertEqual(ran.status, 0)
        self.assertTrue((run / "relay.log").is_file())


@attrs.define
class MirrorEngine:
    """The engine, but installers find a mirror of Node on their own loopback: no network is needed.

    launched: the installers, in order.
    """

    inner: DockerEngine
    mirror: Path
    launched: list[str] = attrs.field(factory=list)

    async def launch(self, launch: Launch) -> Container:
        if not launch.task_id.startswith(PREFIX):
            return await self.inner.launch(launch)
        self.launched.append(launch.task_id)
        mount = Mount(str(self.mirror), "/attachments", read_only=True)
        started = await self.inner.launch(attrs.evolve(launch, mounts=(*launch.mounts, mount)))
        serve = [
            "python3",
            "-m",
            "http.server",
            "18080",
            "--bind",
            "127.0.0.1",
            "--directory",
            "/attachments",
        ]
        await self.inner.start_process(launch.task_id, serve)
        ask = f"until curl -sf {MIRROR}index.json -o /dev/null; do sleep 0.05; done"
        await self.inner.execute(launch.task_id, ["timeout", "20", "sh", "-c", ask])
        return started

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        return await self.inner.execute(task_id, argv, env=env, cwd=cwd)

    async def remove(self, task_id: str) -> None:
        await self.inner.remove(task_id)


def make_mirror(folder: Path, versions: Sequence[str]) -> None:
    """What nodejs.org serves, as far as mise asks for it; each program prints its version."""
    index = []
    for version in versions:
        name = f"node-v{version}-linux-x64"
        place = folder / f"v{version}"
        place.mkdir(parents=True)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for program in ("node", "npm", "npx"):
                body = f"#!/bin/sh\necho v{version}\n".encode()
                entry = tarfile.TarInfo(f"{name}/bin/{program}")
                entry.mode, entry.size = 0o755, len(body)
                tar.addfile(entry, io.BytesIO(body))
        data = buffer.getvalue()
        (place / f"{name}.tar.gz").write_bytes(data)
        sums = f"{hashlib.sha256(data).hexdigest()}  {name}.tar.gz\n"
        (place / "SHASUMS256.txt").write_text(sums)
        index.append({"version": f"v{version}", "date": "2026-01-01", "files": ["linux-x64"], "lts": False})
    (folder / "index.json").write_text(json.dumps(index))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)


class StandardTests(TestCase):
    """The editor and the shared tool versions."""

    # Seconds: the first one builds the image.
    timeout = 600

    async def setUp(self) -> None:  # type: ignore[override]
        mirror = short_folder(self)
        make_mirror(mirror, ["24.21.0", "24.20.0", "22.11.0"])
        self.engine = MirrorEngine(await real_engine(self), mirror)
        self.image = await standard_image(self)
        self.rig = Rig(self, self.engine, self.image)
        threads = Threads(reactor, "test-tools", 2)  # type: ignore[arg-type]
        self.addCleanup(threads.stop)
        self.said: list[str | Doing] = []

        async def image(_: Any) -> str:
            return self.image

        self.tools = Tools(
            threads,
            self.engine,  # type: ignore[arg-type]
            self.rig.folders,
            image,
            uid=self.rig.uid,
            gid=self.rig.gid,
            limits=LIMITS,
            env={"MISE_NODE_MIRROR_URL": MIRROR, "MISE_USE_VERSIONS_HOST": "0"},
        )

    async def up(self, task_id: str, *slugs: str) -> list[Step]:
        """From work copies that are there to ready."""
        rig = self.rig
        rig.places(task_id)
        copies = [rig.folders.work_copy(task_id, slug) for slug in slugs]
        await self.tools.ensure(task_id, copies, self.said.append)
        await rig.launch(task_id, UAI_EDITOR="0")
        return await rig.ready(task_id)

    async def test_the_editor_answers_on_loopback_and_is_started_again(self) -> None:
        rig = self.rig
        rig.project("e1", "web", {"a": ""})
        await rig.launch("e1")
        ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8100/healthz"
        self.assertEqual((await rig.sh("e1", ask)).out, b"000")
        steps = await rig.ready("e1")
        (done,) = [step for step in steps if (step.step, step.state) == ("editor", "done")]
        self.assertLess(done.elapsedMs or 0, 30_000)
        self.assertEqual((await rig.sh("e1", ask)).out, b"200")
        bound = await rig.sh("e1", "cat /proc/net/tcp | awk '$4 == \"0A\" {print $2}'")
        self.assertIn(b"0100007F:1FA4", bound.out.split())
        killed = await rig.sh("e1", "pkill -9 -o -f '[o]ut/node/entry'; sleep 0.5; " + ask)
        self.assertNotEqual(killed.out[-3:], b"200")
        again = await rig.sh(
            "e1", f"for i in $(seq 100); do test $({ask}) = 200 && exit 0; sleep 0.2; done; exit 1"
        )
        self.assertEqual(again.status, 0)

    async def test_what_repositories_name_is_installed_once_and_used(self) -> None:
        rig = self.rig
        setup = "#!/bin/sh\nnode --version > out\n"
        hostile = (
            '[tools]\nnode = {version = "22", postinstall = "touch /tmp/evil"}\n"npm:prettier" = "3"\n'
            "[env]\nBAR = \"{{exec(command='touch /tmp/evil')}}\"\n[hooks]\nenter = 'touch /tmp/evil'\n"
        )
        one = rig.project("t1", "one", {".tool-versions": "nodejs 24\n", ".uai/setup!": setup})
        two = rig.project("t1", "two", {"mise.toml": hostile, ".uai/setup!": setup})
        three = rig.project("t1", "three", {".tool-versions": "nodejs 99\n", ".uai/setup!": setup})
        steps = await self.up("t1", "one", "two", "three")
        self.assertEqual([step.step for step in steps if step.state == "failed"], [])
        self.assertEqual((one / "out").read_text(), "v24.21.0\n")
        self.assertEqual((two / "out").read_text(), "v22.11.0\n")
        images_own = (await rig.sh("t1", "/opt/node/bin/node --version")).out.decode()
        self.assertEqual((three / "out").read_text(), images_own)
        told = {step.step: step.message for step in steps if step.step.startswith("tools ") and step.message}
        self.assertEqual(told["tools one"], "node 24.21.0")
        self.assertIn("npm:prettier is not installed by the host", told["tools two"] or "")
        self.assertIn(
            "node 99 could not be installed, the image's own is used: mise", told["tools three"] or ""
        )
        self.assertIn("404", told["tools three"] or "")
        self.assertFalse((rig.folders.scratch("t1") / "evil").exists())
        # A terminal and an agent's command see the same, quickly and without a word of mise.
        ran = await rig.engine.execute("t1", ["bash", "-lc", "node --version"], cwd="/workspace/two/.uai")
        self.assertEqual((ran.out, ran.err), (b"v22.11.0\n", b""))
        self.assertEqual(len(self.engine.launched), 3)
        self.assertEqual(list((rig.folders.root / "tools-new").iterdir()), [])
        # Another task needs no container, and nothing from outside.
        four = rig.project("t2", "four", {".tool-versions": "nodejs 24\n", ".uai/setup!": setup})
        await self.up("t2", "four")
        self.assertEqual((four / "out").read_text(), "v24.21.0\n")
        self.assertEqual(len(self.engine.launched), 3)
        every = {(one.name, one.version): one.tasks for one in await self.tools.list()}
        self.assertEqual(every, {("node", "24.21.0"): ("t1", "t2"), ("node", "22.11.0"): ("t1",)})

    async def test_no_task_can_change_what_another_gets(self) -> None:
        rig = self.rig
        rig.project("bad", "web", {".tool-versions": "node 24.20.0\n"})
        await self.up("bad", "web")
        attempts = {
            "write": "echo evil > $N/bin/node",
            "make": "mkdir /opt/uai-tools/installs/go",
            "replace": "mv $N /tmp/away; ln -s /workspace/web $N",
            "unlink": "rm -rf $N",
            "chmod": "chmod 777 $N/bin/node",
            "times": "touch $N/bin/node",
            "remount": "mount -o remount,rw /opt/uai-tools",
            "unmount": "umount /opt/uai-tools",
            "namespace": "unshare -Urm mount -o remount,rw,bind /opt/uai-tools && echo evil > $N/bin/node",
            "through the home folder": "cp /bin/true ~/.local/share/mise/installs/node/24.20.0/bin/node",
            "through mise": "MISE_OFFLINE=0 mise uninstall node@24.20.0; test ! -e $N/bin/node",
            "hard link": "ln $N/bin/node /tmp/node && echo evil > /tmp/node",
            "descriptor": "python3 -c \"import os; os.open('$N/bin/node', os.O_RDWR)\"",
        }
        there = await rig.sh("bad", "/opt/uai-tools/installs/node/24.20.0/bin/node")
        self.assertEqual(there.out, b"v24.20.0\n")
        for name, script in attempts.items():
            ran = await rig.sh("bad", f"N=/opt/uai-tools/installs/node/24.20.0; {script}", "/tmp")
            self.assertNotEqual(ran.status, 0, name)
        # What it can change is its own home, which it alone has.
        await rig.sh("bad", "rm -rf ~/.local/share/mise; ln -s /workspace/web ~/.local/share/mise")
        good = rig.project(
            "good", "web", {".tool-versions": "node 24.20.0\n", ".uai/setup!": "#!/bin/sh\nnode -v > out\n"}
        )
        await self.up("good", "web")
        self.assertEqual((good / "out").read_text(), "v24.20.0\n")
        self.assertEqual(len(self.engine.launched), 1)

    async def test_a_version_in_use_stays_and_a_lost_one_comes_back(self) -> None:
        rig = self.rig
        rig.project("t1", "web", {".tool-versions": "node 22.11.0\n"})
        await self.up("t1", "web")
        error = await self.assertFailure(_deferred(self.tools.remove("node", "22.11.0")), HostError)
        self.assertEqual(error.code, ErrorCode.CONFLICT)
        (rig.folders.control("t1") / "tools.json").unlink()
        await self.tools.remove("node", "22.11.0")
        self.assertEqual(await self.tools.list(), [])
        # The task that runs falls back to the image's own.
        ran = await rig.sh("t1", "node --version", "/workspace/web")
        self.assertEqual(ran.status, 0)
        self.assertNotEqual(ran.out, b"v22.11.0\n")
        await rig.engine.remove("t1")
        (rig.folders.control("t1") / "go").unlink()
        await self.up("t1", "web")
        ran = await rig.sh("t1", "node --version", "/workspace/web")
        self.assertEqual(ran.out, b"v22.11.0\n")

    async def test_an_installer_sees_nothing_of_others_and_is_gone_afterwards(self) -> None:
        rig = self.rig
        rig.places("t1")
        rig.project("t1", "web", {".tool-versions": "node 24.20.0\n"})
        copies = [rig.folders.work_copy("t1", "web")]
        installed = await self.tools.ensure("t1", copies, self.said.append)
        self.assertEqual(installed.projects["web"].tools, (("node", "24.20.0"),))
        self.assertIn(
            str(Request("node", "24.20.0")), [d.text.split()[-1] for d in self.said if isinstance(d, Doing)]
        )
        self.assertEqual(await self.engine.inner.all(), [])
        self.assertEqual(self.tools.busy, set())


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)
