"""Tool versions that tasks share: installed once, whole or not at all, whatever repositories name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from uaihost.blocking import Inline
from uaihost.containers.tool_store import ANSWER_LIMIT, USE_GRAIN, ToolStore
from uaihost.containers.tool_versions import Request
from uaihost.containers.tools import ENVIRONMENT, MISE, PREFIX, REFUSED_LIMIT, Tools
from uaihost.errors import ErrorCode, HostError
from uaihost.interfaces import Container, Doing, Launch, Limits, Ran
from uaihost.paths import Folders, checked_task
from uaihost.test.fakes_containers import Call, FakeEngine
from uaihost.test.support import short_folder
from uaihost.wire.reasons import Reason

# What `latest`, `lts` and prefixes mean at first.
RELEASES = {"24": "24.2.0", "latest": "25.0.0", "v24.2.0": "24.2.0"}


class Mise(FakeEngine):
    """Installs into the folder that is mounted, as mise does: the whole version as a folder.

    releases: from what is asked to the version; None for one that there is not. gate: what an installation
    waits for, None when it does not. made: every launch.
    """

    def __init__(self) -> None:
        super().__init__(self._installed)
        self.releases: dict[str, str | None] = dict(RELEASES)
        self.gate: Deferred[None] | None = None
        self.made: list[Launch] = []

    async def launch(self, launch: Launch) -> Container:
        self.made.append(launch)
        return await super().launch(launch)

    async def execute(
        self,
        task_id: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Ran:
        if self.gate is not None:
            await self.gate
        return await super().execute(task_id, argv, env=env, cwd=cwd)

    def tools(self, call: Call) -> Path:
        (mount,) = [one for one in self.launches[call.task_id].mounts if one.target == "/opt/uai-tools"]
        return Path(mount.source)

    def _installed(self, call: Call) -> Ran:
        name, _, asked = call.argv[-1].partition("@")
        version = self.releases.get(asked, asked)
        if version is None:
            said = f"mise x\nmise ERROR Failed to install {name}@{asked}: 404 Not Found\nmise ERROR Version"
            return Ran(1, b"", said.encode())
        self.make(self.tools(call), name, version)
        return Ran(0, b"", b"")

    def make(self, tools: Path, name: str, version: str) -> None:
        made = tools / "installs" / name / version / "bin"
        made.mkdir(parents=True)
        (made / name).write_text(version)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folders = Folders(short_folder(self))
        self.engine = Mise()
        self.now = 1_000_000.0
        self.said: list[str | Doing] = []
        self.images = 0
        self.tools = self.make()

    def make(self, **more: Any) -> Tools:
        async def image(_: Any) -> str:
            self.images += 1
            return "image:1"

        return Tools(
            Inline(),
            self.engine,
            self.folders,
            image,
            uid=os.geteuid(),
            gid=os.getegid(),
            clock=lambda: self.now,
            **more,
        )

    def project(self, task_id: str, slug: str, text: str) -> Path:
        copy = self.folders.work_copy(task_id, slug)
        copy.mkdir(parents=True, exist_ok=True)
        (copy / ".tool-versions").write_text(text)
        self.folders.control(task_id).mkdir(exist_ok=True)
        return copy

    def ensured(self, task_id: str, **texts: str) -> dict[str, Any]:
        """What the task is told, by slug, for projects with these .tool-versions."""
        copies = [self.project(task_id, slug, text) for slug, text in texts.items()]
        self.successResultOf(Deferred.fromCoroutine(self.tools.ensure(task_id, copies, self.said.append)))
        told: dict[str, Any] = json.loads((self.folders.control(task_id) / "tools.json").read_bytes())
        return told

    def installed(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.folders.tools / "installs"))
            for path in (self.folders.tools / "installs").glob("*/*")
        )

    def list(self) -> list[tuple[str, str]]:
        found = self.successResultOf(Deferred.fromCoroutine(self.tools.list()))
        return [(one.name, one.version) for one in found]


class ToolsTests(Case):
    def test_what_is_missing_is_installed_in_a_container_of_its_own(self) -> None:
        self.tools = self.make(limits=Limits(pids=99), env={"MISE_X": "1"})
        told = self.ensured("t1", web="nodejs 24\n")
        self.assertEqual(told, {"web": {"tools": [["node", "24.2.0"]], "notes": []}})
        self.assertEqual(self.installed(), ["node/24.2.0"])
        (launch,), (call,) = self.engine.made, self.engine.calls
        self.assertTrue(launch.task_id.startswith(PREFIX))
        self.assertRaises(HostError, checked_task, launch.task_id)
        self.assertEqual((launch.image, launch.limits.pids, launch.read_only), ("image:1", 99, True))
        self.assertEqual((launch.network, launch.ports), ("own", ()))
        # Nothing of a task, nothing of what is shared.
        stage = self.folders.root / "tools-new" / launch.task_id
        self.assertEqual({Path(mount.source).parent for mount in launch.mounts}, {stage})
        self.assertEqual(call.argv, (MISE, "install", "--shared", "/opt/uai-tools/installs", "node@24"))
        self.assertEqual(call.env, {**ENVIRONMENT, "MISE_X": "1"})
        self.assertEqual(self.engine.containers, {})
        self.assertFalse(stage.exists())
        doing = [one for one in self.said if isinstance(one, Doing)]
        self.assertEqual(doing, [Doing(Reason.TOOLS, "installing node@24")])

    def test_what_is_there_costs_no_container(self) -> None:
        self.ensured("t1", web="node 24\npython 3.12.1\n", api="node 24.2.0\n")
        calls = len(self.engine.calls)
        self.said.clear()
        told = self.ensured("t2", web="node 24\nnode 24.2.0\npython 3.12.1\n", plain="", own="node system\n")
        self.assertEqual(told["web"]["tools"], [["node", "24.2.0"], ["python", "3.12.1"]])
        self.assertEqual(told["plain"], {"tools": [], "notes": []})
        self.assertEqual((len(self.engine.calls), self.said), (calls, []))

    def test_what_cannot_be_had_is_a_note_and_is_not_tried_again_at_once(self) -> None:
        self.engine.releases["99"] = None
        for _ in range(2):
            told = self.ensured("t1", web="node 99\ngo 1.25.0\n")
            self.assertEqual(told["web"]["tools"], [["go", "1.25.0"]])
            (note,) = told["web"]["notes"]
            self.assertEqual(
                note,
                "node 99 could not be installed, the image's own is used: mise ended with status 1: "
                "Failed to install node@99: 404 Not Found",
            )
        self.assertEqual(len(self.engine.calls), 2)
        self.engine.releases["99"] = "99.0.0"
        self.now += REFUSED_LIMIT
        self.assertEqual(len(self.ensured("t1", web="node 99\n")["web"]["tools"]), 1)

    def test_an_engine_that_fails_is_a_note_and_leaves_nothing(self) -> None:
        self.engine.answer = lambda _: (_ for _ in ()).throw(HostError(ErrorCode.TIMEOUT, "took too long"))
        told = self.ensured("t1", web="node 24\n")
        self.assertIn("took too long", told["web"]["notes"][0])
        self.assertEqual((self.engine.containers, self.tools.busy), ({}, set()))
        self.assertEqual(list((self.folders.root / "tools-new").iterdir()), [])
        # It says nothing of the version: the next start tries again.
        self.engine.answer = self.engine._installed
        self.assertEqual(self.ensured("t1", web="node 24\n")["web"]["notes"], [])

    def test_a_newer_release_comes_in_after_a_while(self) -> None:
        self.ensured("t1", web="node latest\n")
        self.engine.releases["latest"] = "25.1.0"
        self.now += ANSWER_LIMIT - 1
        self.assertEqual(self.ensured("t1", web="node latest\n")["web"]["tools"], [["node", "25.0.0"]])
        self.now += 2
        self.assertEqual(self.ensured("t1", web="node latest\n")["web"]["tools"], [["node", "25.1.0"]])
        self.engine.releases["latest"] = None
        self.now += ANSWER_LIMIT + 1
        told = self.ensured("t1", web="node latest\n")["web"]
        self.assertEqual(told["tools"], [["node", "25.1.0"]])
        self.assertIn("25.1.0 stays", told["notes"][0])

    def test_a_host_that_installs_nothing_says_why(self) -> None:
        self.tools = self.make(closed="tasks reach nothing outside (UAI_EGRESS=deny)")
        told = self.ensured("t1", web="node 24\n")
        self.assertIn("UAI_EGRESS=deny", told["web"]["notes"][0])
        self.assertEqual((self.engine.calls, self.images), ([], 0))

    def test_all_who_want_the_same_wait_for_one_installation(self) -> None:
        self.engine.gate = Deferred()
        copies = [[self.project(f"t{number}", "web", "node 24\n")] for number in range(3)]
        runs = [
            Deferred.fromCoroutine(self.tools.ensure(f"t{number}", copy, self.said.append))
            for number, copy in enumerate(copies)
        ]
        # The one that asked first goes away: the others get theirs.
        runs[0].cancel()
        self.failureResultOf(runs[0], CancelledError)
        self.engine.gate.callback(None)
        for run in runs[1:]:
            found = self.successResultOf(run).projects["web"]
            self.assertEqual((found.tools, found.notes), ((("node", "24.2.0"),), ()))
        self.assertEqual(len(self.engine.calls), 1)

    def test_a_stop_ends_what_is_being_installed(self) -> None:
        self.engine.gate = Deferred()
        copy = self.project("t1", "web", "node 24\n")
        run = Deferred.fromCoroutine(self.tools.ensure("t1", [copy], self.said.append))
        self.assertEqual(len(self.engine.containers), 1)
        self.successResultOf(Deferred.fromCoroutine(self.tools.stop()))
        self.assertEqual(self.engine.containers, {})
        self.engine.gate.callback(None)
        self.assertEqual(self.successResultOf(run).projects["web"].tools, ())

    def test_a_few_at_a_time(self) -> None:
        self.engine.gate = Deferred()
        copy = self.project("t1", "web", "node 20.1.0\nnode 22.1.0\nnode 24.1.0\n")
        run = Deferred.fromCoroutine(self.tools.ensure("t1", [copy], self.said.append))
        self.assertEqual(len(self.engine.containers), 2)
        self.engine.gate.callback(None)
        self.assertEqual(len(self.successResultOf(run).projects["web"].tools), 3)


class StoreTests(Case):
    def test_the_list_and_what_is_in_use(self) -> None:
        self.ensured("t1", web="node 24\n")
        self.now += USE_GRAIN + 1
        self.ensured("t2", web="go 1.25.0\n")
        self.assertEqual(self.list(), [("node", "24.2.0"), ("go", "1.25.0")])
        self.now += USE_GRAIN + 1
        self.ensured("t3", web="node 24\n")
        (go, node) = self.successResultOf(Deferred.fromCoroutine(self.tools.list()))
        self.assertEqual((go.name, go.tasks, node.tasks), ("go", ("t2",), ("t1", "t3")))
        self.assertEqual(node.last_used, self.now)
        self.assertGreaterEqual(node.bytes, 4096)
        refused = Deferred.fromCoroutine(self.tools.remove("go", "1.25.0"))
        self.assertEqual(self.failureResultOf(refused, HostError).value.code, ErrorCode.CONFLICT)
        self.ensured("t2", web="")
        self.successResultOf(Deferred.fromCoroutine(self.tools.remove("go", "1.25.0")))
        self.successResultOf(Deferred.fromCoroutine(self.tools.remove("go", "1.25.0")))
        self.assertEqual((self.list(), self.installed()), ([("node", "24.2.0")], ["node/24.2.0"]))
        self.assertEqual(list((self.folders.root / "tools-new").iterdir()), [])

    def test_another_daemon_finds_everything_again(self) -> None:
        self.ensured("t1", web="node 24\n")
        for damage in (None, b"{", b'{"versions": 5}'):
            index = self.folders.tools / "index.json"
            if damage is not None:
                index.write_bytes(damage)
            self.tools = self.make()
            self.assertEqual(self.list(), [("node", "24.2.0")])
            self.assertEqual(self.ensured("t1", web="node 24.2.0\n")["web"]["tools"], [["node", "24.2.0"]])
        self.assertEqual(len(self.engine.calls), 1)

    def test_what_a_killed_daemon_left_is_swept(self) -> None:
        self.ensured("t1", web="node 24\n")
        left = self.folders.root / "tools-new"
        for part in ("_tools-x/tools/installs/node/1.0.0", "gone-x/bin/deep"):
            (left / part).mkdir(parents=True)
        (left / "gone-x" / "bin").chmod(0o500)
        self.tools = self.make()
        self.successResultOf(Deferred.fromCoroutine(self.tools.sweep()))
        self.assertEqual(list(left.iterdir()), [])
        self.assertEqual(self.list(), [("node", "24.2.0")])

    def test_two_requests_for_one_version(self) -> None:
        told = self.ensured("t1", web="node 24\nnode v24.2.0\n")
        self.assertEqual(told["web"]["tools"], [["node", "24.2.0"]])
        self.assertEqual(self.installed(), ["node/24.2.0"])

    def test_what_an_installer_leaves_is_taken_without_following_links(self) -> None:
        outside = self.folders.root / "outside"
        (outside / "node" / "24.2.0").mkdir(parents=True)
        (outside / "24.2.0").mkdir()

        def linked(part: str) -> Any:
            def answer(call: Call) -> Ran:
                tools = self.engine.tools(call)
                path = tools / part
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(outside)
                return Ran(0, b"", b"")

            return answer

        def many(call: Call) -> Ran:
            for version in ("24.2.0", "24.3.0"):
                self.engine.make(self.engine.tools(call), "node", version)
            return Ran(0, b"", b"")

        answers = [linked("installs"), linked("installs/node"), linked("installs/node/24.2.0"), many]
        answers += [lambda _: Ran(0, b"", b"")]
        for answer in answers:
            self.engine.answer = answer
            told = self.ensured("t1", web="node 24\n")
            self.assertEqual(told["web"]["tools"], [])
            self.assertIn("the installation", told["web"]["notes"][0])
            self.assertEqual(self.installed(), [])
        self.assertTrue((outside / "node" / "24.2.0").is_dir() and (outside / "24.2.0").is_dir())

    def test_a_version_that_came_in_meanwhile_stays_as_it_is(self) -> None:
        store = ToolStore(self.folders, os.geteuid(), os.getegid(), lambda: self.now)
        for content in ("first", "second"):
            stage = store.stage(content)
            self.engine.make(stage / "tools", "node", "24.2.0")
            (stage / "tools" / "installs" / "node" / "24.2.0" / "bin" / "node").write_text(content)
            self.assertEqual(store.adopt(stage, Request("node", "24")), "24.2.0")
            store.discard(stage)
        node = self.folders.tools / "installs" / "node" / "24.2.0" / "bin" / "node"
        self.assertEqual(node.read_text(), "first")
