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

from uaihost.shim import init
from uaihost.test.support import given, short_folder, strategies

# Seconds until something that takes milliseconds counts as not happening.
LIMIT = 20.0


class DevcontainerTests(SynchronousTestCase):
    def read(self, text: str | bytes, name: str = ".devcontainer/devcontainer.json") -> dict[str, Any]:
        path = short_folder(self) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return init.devcontainer(path.parents[len(Path(name).parts) - 1])

    def test_comments_and_trailing_commas(self) -> None:
        text = """\ufeff{ // a "comment"
            "image": "http://x/*y*/", /* two
            lines, "quoted" */ "list": [1, 2, ],
            "postCreateCommand": "echo \\"a,]\\" // b",
        }"""
        self.assertEqual(
            self.read(text),
            {"image": "http://x/*y*/", "list": [1, 2], "postCreateCommand": 'echo "a,]" // b'},
        )

    def test_the_other_place(self) -> None:
        self.assertEqual(self.read("{}", ".devcontainer.json"), {})
        self.assertEqual(self.read('{"a": 1}', ".devcontainer.json"), {"a": 1})
        self.assertEqual(init.devcontainer(short_folder(self)), {})

    def test_what_is_no_settings_file_names_itself(self) -> None:
        for text in ("", "[]", "{", '{"a": "', "/*", b"\xff\xfe", "[" * 100000, " " * (1 << 20) + "{}"):
            error = self.assertRaises(ValueError, self.read, text)
            self.assertIn("devcontainer.json cannot be read", str(error))

    @given(
        strategies.recursive(
            strategies.none() | strategies.booleans() | strategies.text(),
            lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
        )
    )
    def test_plain_json_is_read_as_it_is(self, value: Any) -> None:
        self.assertEqual(self.read(json.dumps({"x": value})), {"x": value})

    def test_commands(self) -> None:
        for value, expected in (
            ("make all", [["sh", "-c", "make all"]]),
            (["make", "all"], [["make", "all"]]),
            ({"a": "one", "b": ["two", "2"]}, [["sh", "-c", "one"], ["two", "2"]]),
            ({}, []),
        ):
            self.assertEqual(init.commands(value), expected)
        for wrong in (None, 5, [], [1], {"a": 1}, {"a": {"b": "c"}}):
            self.assertRaises(ValueError, init.commands, wrong)


class ProcessTests(SynchronousTestCase):
    """The program, run as in a container but in folders of its own."""

    def setUp(self) -> None:
        self.root = short_folder(self)
        for name in ("w", "r", "h"):
            (self.root / name).mkdir()

    def project(self, slug: str, **files: str) -> Path:
        """A project with files: `setup` and `start` are .uai/*, `json` is devcontainer.json."""
        folder = self.root / "w" / slug
        (folder / ".uai").mkdir(parents=True)
        for name, text in files.items():
            path = folder / (".devcontainer.json" if name == "json" else f".uai/{name}")
            path.write_text(text)
            path.chmod(0o644 if name == "json" else 0o755)
        return folder

    def start(self) -> subprocess.Popen[bytes]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.root / "h"),
            "UAI_WORKSPACE": str(self.root / "w"),
            "UAI_RUN": str(self.root / "r"),
        }
        with (self.root / "out").open("ab") as out:
            child = subprocess.Popen([sys.executable, init.__file__], env=env, stdout=out, stderr=out)
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
                client.connect(str(self.root / "r" / "init.sock"))
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
        self.assertEqual(self.heard(), [{"state": "ready", "failed": []}])
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
                {"state": "ready", "failed": []},
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
        self.assertEqual(steps[-1], {"state": "ready", "failed": []})
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
            self.assertEqual(len(lines), init.LAST_LINES + 1)

    def test_what_a_hook_leaves_in_the_background_does_not_hold_it(self) -> None:
        folder = self.project("web", setup="#!/bin/sh\nsleep 300 & echo $! > child\n")
        child = self.start()
        self.assertEqual(self.heard()[-1], {"state": "ready", "failed": []})
        left = self.number(folder / "child")
        self.addCleanup(os.kill, left, signal.SIGKILL)
        self.assertFalse(Path(f"/proc/{left}/stat").read_text().rpartition(")")[2].split()[0] in "ZX")
        self.end(child)

    def test_a_hook_that_does_not_end_is_killed(self) -> None:
        self.patch(init, "HOOK_LIMIT", 1.0)
        problem = init.run(["sh", "-c", "echo begun; sleep 300"], str(self.root), init.Children())
        self.assertEqual(problem, "did not end in 1 s\nbegun")

    def test_a_script_that_cannot_be_run(self) -> None:
        self.project("bad", setup="#!/no/such/interpreter\n")
        self.start()
        steps = self.heard()
        self.assertEqual(steps[-1], {"state": "ready", "failed": ["setup bad"]})
        self.assertIn("cannot run", steps[1]["message"])

    def test_a_late_and_an_early_listener_hear_the_same(self) -> None:
        self.project("web", setup="#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\n")
        self.start()
        early = self.connect()
        first = early.recv(4096)
        self.assertEqual(json.loads(first), {"step": "setup web", "state": "started"})
        (self.root / "w" / "web" / "go").touch()
        rest = self.heard(early)
        late = self.heard()
        self.assertEqual([entry["state"] for entry in late], ["started", "done", "ready"])
        self.assertEqual(late[1:], rest)

    def test_a_server_is_kept_alive_and_ended_with_its_children(self) -> None:
        folder = self.project("web", start="#!/bin/sh\necho up $PPID\nsleep 300 & echo $! > child\nwait\n")
        child = self.start()
        self.assertEqual(
            self.heard(), [{"step": "start web", "state": "done"}, {"state": "ready", "failed": []}]
        )
        first = self.number(folder / "child")
        log = self.root / "r" / "start-web.log"
        self.written(log, f"up {child.pid}")
        os.kill(first, signal.SIGKILL)
        (folder / "child").unlink()
        second = self.number(folder / "child")
        self.written(log, "ended with status 0; it is started again")
        self.assertLess(self.end(child), 5)
        self.assertTrue(self.gone(second))

    def test_what_ignores_term_is_killed(self) -> None:
        folder = self.project("web", start="#!/bin/sh\ntrap '' TERM\necho $$ > child\nsleep 300\nsleep 300\n")
        child = self.start()
        self.heard()
        stubborn = self.number(folder / "child")
        self.assertLess(self.end(child), init.GRACE + 5)
        self.assertTrue(self.gone(stubborn))

    def test_a_missing_workspace_is_told_and_the_container_stays(self) -> None:
        (self.root / "w").rmdir()
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
        self.patch(init, "LOG_LIMIT", 1000)
        path = short_folder(self) / "start-web.log"
        log = init.Log(path)
        for number in range(100):
            log.write(b"%099d\n" % number)
        total = sum(file.stat().st_size for file in path.parent.iterdir())
        self.assertLessEqual(total, 2000)
        self.assertTrue(path.read_bytes().endswith(b"99\n"))
