"""`uaihost run`: what is said before anything begins, and what twistd is then given."""

from __future__ import annotations

import sys
from typing import Any

from click.testing import CliRunner
from twisted.scripts import twistd
from twisted.trial.unittest import TestCase

from uaihost.cli.run import run
from uaihost.offline import DataLock
from uaihost.paths import Folders
from uaihost.test.support import short_folder


class RunTests(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.begun: list[list[str]] = []
        self.patch(sys, "argv", list(sys.argv))
        self.patch(twistd, "run", lambda: self.begun.append(sys.argv))

    def run_verb(self, *words: str, **environ: str) -> Any:
        held = {
            "UAI_DATA_DIR": str(self.folder),
            "UAI_HOST_TOKEN": "a-token-of-the-tests",
            "DOCKER_HOST": f"unix://{self.folder}/no-engine.sock",
        }
        return CliRunner().invoke(run, list(words), env={**held, **environ})

    def test_the_service_is_run_in_the_foreground_with_its_options(self) -> None:
        done = self.run_verb("--ui-port", "6000")
        self.assertEqual(done.exception, None)
        self.assertEqual(self.begun, [["twistd", "--nodaemon", "--pidfile=", "uaihost", "--ui-port", "6000"]])

    def test_a_machine_without_an_engine_is_told_and_goes_on(self) -> None:
        self.assertIn("no container engine answers at unix:///", self.run_verb().output)
        self.assertEqual(len(self.begun), 1)

    def test_a_bad_setting_ends_it_with_the_sentence(self) -> None:
        for words, environ, said in (
            (["--ui-port", "99999"], {}, "it must be 1 to 65535"),
            ([], {"UAI_HOST_TOKEN": ""}, "UAI_HOST_TOKEN is not set"),
            (["--no-such"], {}, "no-such"),
        ):
            done = self.run_verb(*words, **environ)
            self.assertEqual((done.exit_code, self.begun), (2, []))
            self.assertIn(said, done.output)

    def test_a_host_that_runs_already_is_named(self) -> None:
        lock = DataLock(Folders(self.folder).lock)
        self.addCleanup(lock.release)
        self.assertIn("another uaihost uses", str(self.run_verb().exception))
        self.assertEqual(self.begun, [])
