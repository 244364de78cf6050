"""git's credential helper, as git starts it: what it asks over its socket; it never stands in the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import TestCase

from uaihost.test.support import short_folder

PROGRAM = Path(__file__).parents[2] / "shim" / "credential.py"
QUESTION = b"protocol=https\nhost=github.com\npath=o/r.git\n\n"


class HelperTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.path = short_folder(self) / "git.sock"
        self.asked = b""

    def answer(self, text: bytes) -> None:
        """Say this to the one connection that comes, after its request."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                while not self.asked.endswith(QUESTION):
                    self.asked += connection.recv(4096)
                connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(listening.close)
        self.addCleanup(thread.join)

    def run_helper(self, *words: str) -> tuple[int, bytes, str]:
        done = subprocess.run(
            [sys.executable, "-I", str(PROGRAM), *words],
            input=QUESTION,
            env={"PATH": os.environ["PATH"], "UAI_GIT_SOCKET": str(self.path)},
            capture_output=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr.decode()

    def test_an_answer_is_handed_to_git(self) -> None:
        said = b"username=x-access-token\npassword=t\n"
        self.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        self.assertEqual(self.run_helper("get"), (0, said, ""))
        self.assertTrue(self.asked.startswith(b"POST /credential/get HTTP/1.1\r\n"), self.asked)

    def test_a_refusal_is_told_and_git_goes_on(self) -> None:
        said = b'{"message": "o/r.git is not a repository of this task"}'
        self.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
        told = "uaihost: no credential: o/r.git is not a repository of this task\n"
        self.assertEqual(self.run_helper("get"), (0, b"", told))

    def test_an_answer_that_is_none(self) -> None:
        for text, told in (
            (b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\n[]", "it answered 500"),
            (b"", "cannot be asked"),
        ):
            self.path.unlink(missing_ok=True)
            self.asked = b""
            self.answer(text)
            status, out, err = self.run_helper("erase")
            self.assertEqual((status, out), (0, b""))
            self.assertIn(told, err)

    def test_no_socket(self) -> None:
        self.assertEqual(self.run_helper("get"), (0, b"", ""))

    def test_a_socket_that_nobody_answers(self) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        status, out, err = self.run_helper("get")
        self.assertEqual((status, out), (0, b""))
        self.assertIn("cannot be asked", err)

    def test_how_it_is_used(self) -> None:
        self.assertEqual(self.run_helper()[0], 2)
