"""The verbs about this machine: what they accept, and that they work without a daemon."""

from __future__ import annotations

import io
import os
from pathlib import Path
from unittest.mock import Mock, patch

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.local import expose, fetch, status, unexpose
from uaihost.errors import ErrorCode, HostError
from uaihost.offline import DataLock
from uaihost.paths import Folders
from uaihost.test.support import short_folder


class LocalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def run_verb(self, verb: object, *words: str) -> Result:
        with patch.dict(os.environ, {"UAI_DATA_DIR": str(self.folder)}):
            return CliRunner().invoke(verb, words)  # type: ignore[arg-type]

    def test_ports_are_exposed_without_a_daemon_and_taken_back(self) -> None:
        done = self.run_verb(expose, "--task", "mine", "web=8080", "editor=8100")
        self.assertEqual((done.exit_code, done.exception), (0, None))
        self.assertIn("mine: web -> 127.0.0.1:8080", done.output)
        self.assertEqual(self.run_verb(unexpose, "mine").exit_code, 0)
        again = self.run_verb(unexpose, "mine")
        assert isinstance(again.exception, HostError)
        self.assertEqual(again.exception.code, ErrorCode.NOT_FOUND)

    def test_bad_ports_are_bad_usage_and_say_what_is_legal(self) -> None:
        for text in ("web", "=80", "web=", "web=0", "web=65536", "web=http", "web=-1", "web=²"):
            done = self.run_verb(expose, "--task", "mine", "--", text)
            self.assertEqual(done.exit_code, 2, text)
            self.assertIn("from 1 to 65535", done.output)

    def test_a_name_twice_is_bad_usage(self) -> None:
        done = self.run_verb(expose, "--task", "mine", "web=1", "web=2")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("twice", done.output)

    def test_a_bad_task_or_name_is_refused_with_what_is_legal(self) -> None:
        for words in (["--task", "../x", "web=1"], ["--task", "mine", "We b=1"]):
            done = self.run_verb(expose, *words)
            assert isinstance(done.exception, HostError), words
            self.assertEqual(done.exception.code, ErrorCode.INVALID_ARGS)

    def test_a_locked_folder_says_who_to_stop(self) -> None:
        lock = DataLock(Folders(self.folder).lock)
        self.addCleanup(lock.release)
        done = self.run_verb(expose, "--task", "mine", "web=1")
        assert isinstance(done.exception, HostError)
        self.assertEqual(done.exception.code, ErrorCode.CONFLICT)
        self.assertIn("UAI_DATA_DIR", done.exception.message)

    def test_status_without_a_daemon_says_how_to_start_one(self) -> None:
        done = self.run_verb(status)
        assert isinstance(done.exception, HostError)
        self.assertIn("uaihost up", done.exception.message)


class _Answer:
    """An HTTP answer that holds `content` and says that it holds `said` bytes."""

    status = 200

    def __init__(self, content: bytes, said: int) -> None:
        self._content = io.BytesIO(content)
        self._said = said

    def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def getheader(self, name: str) -> str:
        return str(self._said)


class FetchTests(SynchronousTestCase):
    def fetched(self, content: bytes, said: int) -> Path:
        target = short_folder(self) / "t1.tar.gz"
        connection = Mock()
        connection.getresponse.return_value = _Answer(content, said)
        with patch("uaihost.cli.local._UnixConnection", return_value=connection):
            try:
                fetch("/api/downloads/x", target)
            finally:
                connection.close.assert_called_once_with()
                self.assertFalse(target.with_name("t1.tar.gz.partial").exists())
        return target

    def test_what_is_whole_is_there(self) -> None:
        self.assertEqual(self.fetched(b"an archive", 10).read_bytes(), b"an archive")

    def test_what_was_cut_off_is_not(self) -> None:
        error = self.assertRaises(HostError, self.fetched, b"an arch", 10)
        self.assertIn("try again", error.message)
