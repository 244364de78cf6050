"""How uai-init hears from the editor, with a socket in the editor's place."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shim import editor, places, processes, progress
from uaihost.test.support import short_folder


class EditorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.server.close)
        self.patch(editor, "PORT", self.server.getsockname()[1])

    def asked(self, answer: bytes) -> int:
        """What is made of an answer; the question must be an HTTP request."""
        heard: list[bytes] = []

        def serve() -> None:
            connection, _ = self.server.accept()
            with connection:
                heard.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        status = editor.asked("/healthz")
        thread.join(10)
        self.assertTrue(heard[0].startswith(b"GET /healthz HTTP/1.0\r\n") and heard[0].endswith(b"\r\n\r\n"))
        return status

    def test_the_status_of_an_answer(self) -> None:
        for answer, status in (
            (b"HTTP/1.1 200 OK\r\n\r\n{}", 200),
            (b"HTTP/1.1 404 \r\n\r\n", 404),
            (b"", 0),
            (b"\r\n", 0),
            (b"HTTP/1.1 x\r\n", 0),
            (b"x" * 1000, 0),
        ):
            self.assertEqual(self.asked(answer), status)

    def test_nobody_answers(self) -> None:
        self.server.close()
        self.assertEqual(editor.asked("/healthz"), 0)

    def test_it_is_asked_only_where_it_is(self) -> None:
        where = places.Places(short_folder(self))
        self.assertFalse(editor.wanted(where))
        where.editor.mkdir(parents=True)
        self.assertTrue(editor.wanted(where))

    def test_one_that_never_answers_is_a_failed_step(self) -> None:
        self.server.close()
        self.patch(editor, "LIMIT", 0.2)
        where = places.Places(short_folder(self))
        for folder in (where.run, where.workspace, where.home):
            folder.mkdir(parents=True)
        told, children = progress.Progress(), processes.Children()
        self.addCleanup(children.end)
        editor.start(where, told, children)
        self.assertEqual(told.failed, ["editor"])
        self.assertIn("cannot run", Path(where.run / "editor.log").read_text())
