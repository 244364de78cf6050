"""uai-init: what it reads, runs and reports; as a real process, without Docker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shim import init, leftovers, processes
from uaihost.test.support import short_folder

# Seconds until something that takes milliseconds counts as not happening.
LIMIT = 20.0
READY = {"state": "ready", "failed": [], "ports": []}


class LeftoversTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.place = self.folder / "a.log"

    def test_whatever_was_there_is_gone(self) -> None:
        kept = self.folder / "kept"
        kept.write_text("kept")

        def closed() -> None:
            (self.place / "full").mkdir(parents=True)
            self.place.chmod(0)

        for plant in (
            lambda: None,
            closed,
            lambda: os.mkfifo(self.place),
            lambda: self.place.symlink_to(kept),
        ):
            plant()
            leftovers.put_aside(self.place)
            self.assertFalse(os.path.lexists(self.place))
        self.assertEqual(kept.read_text(), "kept")

    def test_a_log_does_not_wait_for_a_pipes_reader(self) -> None:
        os.mkfifo(self.place)
        processes.Log(self.place).write(b"said")
        self.assertEqual(self.place.read_bytes(), b"said")

    def test_a_log_that_cannot_be_kept_is_no_error(self) -> None:
        log = processes.Log(self.folder / "missing" / "a.log")
        log.write(b"lost")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_log_that_is_full_begins_anew_beside_the_old_one(self) -> None:
        log = processes.Log(self.place)
        half = b"x" * (processes.LOG_LIMIT // 2 + 1)
        log.write(half)
        # In the way of the old one.
        (self.folder / "a.log.1" / "full").mkdir(parents=True)
        log.write(half)
        self.assertEqual(self.place.stat().st_size, len(half))
        (self.folder / "a.log.1").rename(self.folder / "b")
        log.write(half)
        self.assertEqual(self.place.stat().st_size, len(half))
        self.assertEqual((self.folder / "a.log.1").stat().st_size, len(half))


class ProcessTests(SynchronousTestCase):
    """The program, run as in a container but in folders of its own."""

    def setUp(self) -> None:
        self.root = short_folder(self)
        self.workspace, self.run_folder = self.root / "workspace", self.root / "run" / "uai"
        self.home, self.control = self.root / "home" / "dev", self.root / "run" / "host"
        for folder in (self.workspace, self.run_folder, self.home):
            folder.mkdir(parents=True)

    def project(self, slug: str, **files: str) -> Path:
        """A project with files: `setup` and `start` are .uai/*, `json` is devcontainer.json."""
        folder = self.workspace / slug
        (folder / ".uai").mkdir(parents=True)
        for name, text in files.items():
            path = folder / (".devcontainer.json" if name == "json" else f".uai/{name}")
            path.write_text(text)
            path.chmod(0o644 if name == "json" else 0o755)
        return folder

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-E", "-s", init.__file__, str(self.root)]
        env = {"PATH": os.environ.get("PATH", os.defpath), **env}
        with (self.root / "out").open("ab") as out:
            child = subprocess.Popen(words, env=env, stdout=out, stderr=out)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child

    def connect(self) -> socket.socket:
        limit = time.monotonic() + LIMIT
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(LIMIT)
            self.addCleanup(client.close)
            try:
                client.connect(str(self.run_folder / "init.sock"))
                return client
            except OSError:
                client.close()
                if time.monotonic() > limit:
                    raise

    def heard(self, client: socket.socket | None = None) -> list[dict[str, Any]]:
        """Every line until the connection is closed, the times left out."""
        with (client or self.connect()).makefile("rb") as lines:
            found = [json.loads(line) for line in lines]
        for entry in found:
            if "elapsedMs" in entry:
                self.assertGreaterEqual(entry.pop("elapsedMs"), 0)
        return found

    def end(self, child: subprocess.Popen[bytes]) -> float:
        """TERM and wait: the seconds that it took."""
        before = time.monotonic()
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(LIMIT), 0)
        return time.monotonic() - before

    def test_nothing_to_do_is_ready_at_once(self) -> None:
        self.project("plain")
        child = self.start()
        self.assertEqual(self.heard(), [READY])
        self.assertLess(self.end(child), 5)

    def test_setup_runs_once_and_post_start_at_every_start(self) -> None:
        folder = self.project(
            "web",
            setup="#!/bin/sh\npwd >> made\n",
            json='{"postStartCommand": "echo start >> started", "postCreateCommand": "touch never"}',
        )
        self.end_after(self.start())
        child = self.start()
        self.assertEqual(
            self.heard(),
            [
                {"step": "post-start web", "state": "started"},
                {"step": "post-start web", "state": "done"},
                READY,
            ],
        )
        self.end(child)
        self.assertEqual((folder / "made").read_text(), f"{folder}\n")
        self.assertEqual((folder / "started").read_text(), "start\nstart\n")
        self.assertFalse((folder / "never").exists())

    def end_after(self, child: subprocess.Popen[bytes]) -> None:
        self.assertEqual(self.heard()[-1]["state"], "ready")
        self.end(child)

    def test_post_create_in_all_its_forms(self) -> None:
        one = self.project("one", json='{"postCreateCommand": "echo $((1+1)) > sum"}')
        two = self.project("two", json='{"postCreateCommand": ["touch", "a b"]}')
        three = self.project("three", json='{"postCreateCommand": {"x": "touch x", "y": ["touch", "y"]}}')
        child = self.start()
        steps = self.heard()
        self.assertEqual(steps[-1], READY)
        done = {entry["step"] for entry in steps[:-1] if entry["state"] == "done"}
        self.assertEqual(done, {f"post-create {slug}" for slug in ("one", "two", "three")})
        self.assertEqual((one / "sum").read_text(), "2\n")
        self.assertTrue((two / "a b").exists() and (three / "x").exists() and (three / "y").exists())
        self.end(child)

    def test_a_failed_hook_is_told_and_tried_again_next_time(self) -> None:
        self.project(
            "bad",
            setup="#!/bin/sh\nfor i in $(seq 100); do echo line $i; done; echo 'no \"way\"' >&2; exit 7\n",
        )
        self.project("good", setup="#!/bin/sh\n")
        self.project("odd", json="{")
        for _ in range(2):
            child = self.start()
            steps = self.heard()
            self.assertEqual(steps[-1]["state"], "ready")
            (told,) = [entry for entry in steps if entry.get("step") == "setup bad" and "message" in entry]
            self.assertEqual(sorted(steps[-1]["failed"]), ["devcontainer odd", "setup bad"])
            self.end(child)
            lines = told["message"].splitlines()
            self.assertEqual((lines[0], lines[-2:]), ("ended with status 7", ["line 100", 'no "way"']))
            self.assertEqual(len(lines), processes.LAST_LINES + 1)

    def test_what_a_hook_leaves_in_the_background_does_not_hold_it(self) -> None:
        folder = self.project("web", setup="#!/bin/sh\nsleep 300 & echo $! > child\n")
        child = self.start()
        self.assertEqual(self.heard()[-1], READY)
        left = self.number(folder / "child")
        self.addCleanup(os.kill, left, signal.SIGKILL)
        self.assertFalse(Path(f"/proc/{left}/stat").read_text().rpartition(")")[2].split()[0] in "ZX")
        self.end(child)

    def test_a_hook_that_does_not_end_is_killed(self) -> None:
        words = ["sh", "-c", "echo begun; sleep 300"]
        problem = processes.run(words, str(self.root), processes.Children(), limit=1.0)
        self.assertEqual(problem, "did not end in 1 s\nbegun")

    def test_a_script_that_cannot_be_run(self) -> None:
        self.project("bad", setup="#!/no/such/interpreter\n")
        self.start()
        steps = self.heard()
        self.assertEqual(steps[-1], {**READY, "failed": ["setup bad"]})
        self.assertIn("cannot run", steps[1]["message"])

    def test_a_late_and_an_early_listener_hear_the_same(self) -> None:
        self.project("web", setup="#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\n")
        self.start()
        early = self.connect()
        first = early.recv(4096)
        self.assertEqual(json.loads(first), {"step": "setup web", "state": "started"})
        (self.workspace / "web" / "go").touch()
        rest = self.heard(early)
        late = self.heard()
        self.assertEqual([entry["state"] for entry in late], ["started", "done", "ready"])
        self.assertEqual(late[1:], rest)

    def test_a_server_is_kept_alive_and_ended_with_its_children(self) -> None:
        folder = self.project("web", start="#!/bin/sh\necho up $PPID\nsleep 300 & echo $! > child\nwait\n")
        child = self.start()
        self.assertEqual(self.heard(), [{"step": "start web", "state": "done"}, READY])
        first = self.number(folder / "child")
        log = self.run_folder / "start-web.log"
        self.written(log, f"up {child.pid}")
        os.kill(first, signal.SIGKILL)
        (folder / "child").unlink()
        second = self.number(folder / "child")
        self.written(log, "ended with status 0; it is started again")
        self.assertLess(self.end(child), 5)
        self.assertTrue(self.gone(second))

    def test_what_is_alone_is_started_again_though_its_children_live(self) -> None:
        children = processes.Children()
        script = "sleep 300 & echo $! > child; echo $$ > leader; wait"
        log = self.root / "kept.log"
        processes.keep_running(
            "x", ["sh", "-c", script], str(self.root), log, children, back_off=0.1, alone=True
        )
        self.addCleanup(children.end)
        leader, child = self.number(self.root / "leader"), self.number(self.root / "child")
        (self.root / "leader").unlink()
        os.kill(leader, signal.SIGKILL)
        self.assertTrue(self.gone(child))
        self.assertNotEqual(self.number(self.root / "leader"), leader)
        self.written(log, "[x ended with status -9; it is started again]")

    def test_what_ignores_term_is_killed(self) -> None:
        folder = self.project("web", start="#!/bin/sh\ntrap '' TERM\necho $$ > child\nsleep 300\nsleep 300\n")
        child = self.start()
        self.heard()
        stubborn = self.number(folder / "child")
        self.assertLess(self.end(child), processes.GRACE + 5)
        self.assertTrue(self.gone(stubborn))

    def test_nothing_runs_before_the_gate_opens(self) -> None:
        self.control.mkdir()
        child = self.start()
        early = self.connect()
        self.assertEqual(json.loads(early.recv(4096)), {"step": "gate", "state": "started"})
        # A work copy may come in until then.
        folder = self.project("web", setup="#!/bin/sh\ntouch made\n")
        time.sleep(20 * init.POLL)
        self.assertFalse((folder / "made").exists())
        (self.control / "go").touch()
        self.assertEqual(
            [entry.get("step", "end") for entry in self.heard(early)],
            ["gate", "setup web", "setup web", "end"],
        )
        self.assertTrue((folder / "made").exists())
        self.end(child)

    def test_a_container_that_ends_behind_the_gate(self) -> None:
        self.control.mkdir()
        self.project("web", setup="#!/bin/sh\ntouch ../made\n")
        child = self.start()
        self.connect().recv(4096)
        self.assertLess(self.end(child), 5)
        self.assertFalse((self.workspace / "made").exists())

    def test_the_home_folder_gets_what_it_lacks(self) -> None:
        skeleton = self.root / "opt" / "uai-skel"
        (skeleton / ".local" / "deep").mkdir(parents=True)
        (skeleton / ".local" / "deep" / "a").write_text("new")
        (skeleton / ".profile").write_text("new")
        (skeleton / "link").symlink_to(".profile")
        (skeleton / "file").mkdir()
        (skeleton / "file" / "b").write_text("new")
        (self.home / ".profile").write_text("mine")
        (self.home / "file").write_text("mine")
        self.end_after(self.start())
        self.assertEqual((self.home / ".profile").read_text(), "mine")
        self.assertEqual((self.home / "file").read_text(), "mine")
        self.assertEqual((self.home / ".local" / "deep" / "a").read_text(), "new")
        self.assertEqual((self.home / "link").readlink(), Path(".profile"))
        self.assertEqual(
            sorted(path.name for path in self.home.iterdir()), [".local", ".profile", "file", "link"]
        )

    def test_a_home_folder_that_cannot_be_filled_is_told(self) -> None:
        (self.root / "opt" / "uai-skel").mkdir(parents=True)
        (self.root / "opt" / "uai-skel" / "a").touch()
        self.home.rmdir()
        self.start()
        (told, last) = self.heard()
        self.assertEqual((told["step"], told["state"], last["failed"]), ("home", "failed", ["home"]))

    def test_the_relay_runs_before_the_gate_and_is_started_again(self) -> None:
        self.control.mkdir()
        relay = self.root / "opt" / "uai" / "relay.py"
        relay.parent.mkdir(parents=True)
        relay.write_text(f"import os\nprint(os.getpid())\nopen({str(self.root / 'up')!r}, 'a').write('x')\n")
        child = self.start()
        limit = time.monotonic() + LIMIT
        while not (self.root / "up").exists() or (self.root / "up").read_text() == "x":
            self.assertLess(time.monotonic(), limit)
            time.sleep(0.02)
        self.written(self.run_folder / "relay.log", "ended with status 0")
        self.end(child)

    def test_hooks_run_in_order_and_once_each_with_their_variables(self) -> None:
        names = ("onCreateCommand", "updateContentCommand", "postCreateCommand", "postStartCommand")
        settings: dict[str, Any] = {name: f"echo {name} $SAID $HOME ${{PATH%%:*}} >> out" for name in names}
        settings["postCreateCommand"] += "; test -e fixed"
        settings["remoteEnv"] = {"SAID": "so", "HOME": "/", "PATH": "/bin"}
        settings["image"] = "x"
        settings["forwardPorts"] = [3000]
        settings["portsAttributes"] = {"3000": {"label": "Web"}}
        folder = self.project("web", json=json.dumps(settings))
        for again in (names[2:], names[3:]):
            child = self.start()
            steps = self.heard()
            self.end(child)
            self.assertEqual(steps[0]["message"], "not supported in a task and left out: image")
            self.assertEqual(steps[-1]["ports"], [{"port": 3000, "name": "web"}])
            (folder / "fixed").touch()
            expected = names if again == names[2:] else names[2:]
            shims = self.home / ".local" / "share" / "mise" / "shims"
            self.assertEqual(
                (folder / "out").read_text(), "".join(f"{name} so {self.home} {shims}\n" for name in expected)
            )
            (folder / "out").unlink()
        self.end_after(self.start())
        self.assertEqual((folder / "out").read_text().split()[0], names[3])

    def test_tool_versions_are_linked_before_the_hooks(self) -> None:
        mise = self.root / "usr" / "local" / "bin" / "mise"
        shared = self.root / "opt" / "uai-tools" / "installs" / "node"
        links = self.home / ".local" / "share" / "mise" / "installs" / "node"
        for folder in (mise.parent, shared / "24.1.0", shared / "22.1.0", links / "22.1.0", self.control):
            folder.mkdir(parents=True)
        (links / "20.1.0").symlink_to(shared / "20.1.0")
        mise.write_text(f"#!/bin/sh\necho $* >> {self.root}/said\nln -s $4 {links}/24.1.0\n")
        mise.chmod(0o755)
        entry = {"tools": [["node", "24.1.0"], ["node", "22.1.0"]], "notes": ["go 99 could not be installed"]}
        (self.control / "tools.json").write_text(json.dumps({"web": entry}))
        (self.control / "go").touch()
        self.project("web", setup=f"#!/bin/sh\ntest -d {links}/24.1.0\n")
        self.project("plain")
        for _ in range(2):
            child = self.start()
            steps = self.heard()
            self.assertEqual((steps[-1]["failed"], steps[2]["step"]), ([], "tools web"))
            self.assertEqual(steps[3]["message"], "node 24.1.0\nnode 22.1.0\ngo 99 could not be installed")
            self.end(child)
        # Once, since the link stays; what the task has of its own is left alone, what is gone is forgotten.
        self.assertEqual((self.root / "said").read_text(), f"link --force node@24.1.0 {shared / '24.1.0'}\n")
        self.assertEqual(sorted(path.name for path in links.iterdir()), ["22.1.0", "24.1.0"])

    def test_a_tool_that_mise_does_not_take_is_told_and_the_hooks_run(self) -> None:
        self.control.mkdir()
        (self.control / "go").touch()
        (self.control / "tools.json").write_text('{"web": {"tools": [["node", "24.1.0"]]}}')
        folder = self.project("web", setup="#!/bin/sh\ntouch made\n")
        self.start()
        steps = self.heard()
        self.assertEqual(steps[-1]["failed"], ["tools web"])
        self.assertIn("node 24.1.0 cannot be used: cannot run", steps[3]["message"])
        self.assertTrue((folder / "made").exists())

    def test_a_missing_workspace_is_told_and_the_container_stays(self) -> None:
        self.workspace.rmdir()
        child = self.start()
        (last,) = self.heard()
        self.assertEqual(last["state"], "failed")
        self.assertIn("the set-up failed", last["message"])
        self.assertIsNone(child.poll())
        self.end(child)

    def written(self, log: Path, text: str) -> None:
        """What a server prints goes through a pipe, and so into its log a moment later."""
        limit = time.monotonic() + LIMIT
        while text not in log.read_text():
            self.assertLess(time.monotonic(), limit, f"{text!r} did not come: {log.read_text()!r}")
            time.sleep(0.02)

    def number(self, path: Path) -> int:
        limit = time.monotonic() + LIMIT
        while time.monotonic() < limit:
            if path.exists() and path.read_text().endswith("\n"):
                return int(path.read_text())
            time.sleep(0.02)
        self.fail(f"{path} did not appear")

    def gone(self, pid: int) -> bool:
        """Whether the process ends; where nobody reaps orphans a zombie counts as ended."""
        limit = time.monotonic() + LIMIT
        while time.monotonic() < limit:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                return True
            if state in "ZX":
                return True
            time.sleep(0.02)
        return False


class LogTests(SynchronousTestCase):
    def test_it_never_holds_more_than_twice_the_limit(self) -> None:
        self.patch(processes, "LOG_LIMIT", 1000)
        path = short_folder(self) / "start-web.log"
        log = processes.Log(path)
        for number in range(100):
            log.write(b"%099d\n" % number)
        total = sum(file.stat().st_size for file in path.parent.iterdir())
        self.assertLessEqual(total, 2000)
        self.assertTrue(path.read_bytes().endswith(b"99\n"))
