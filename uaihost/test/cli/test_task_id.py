"""Tasks by the beginning of their id, for people and for the shell that completes."""

from __future__ import annotations

from typing import Any

import attrs
import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import local
from uaihost.cli.task_id import TaskId
from uaihost.config import Settings
from uaihost.errors import ErrorCode, HostError
from uaihost.paths import Folders
from uaihost.test.support import short_folder

settings = local.settings


@click.command()
@click.argument("task", type=TaskId())
def verb(task: str) -> None:
    click.echo(task)


class TaskIdTests(SynchronousTestCase):
    def setUp(self) -> None:
        # The name of a socket in it must fit.
        self.folder = short_folder(self)
        transcripts = Folders(self.folder).transcripts
        transcripts.mkdir(parents=True)
        for kept in ("01m84p1vy6", "01m84w5av3", "shop"):
            (transcripts / f"{kept}.jsonl").touch()
        self.status: Any = {"tasks": [{"id": "01m8523sz2"}, {"id": "01m84p1vy6"}]}
        self.patch(local, "settings", self.settings)
        self.patch(local, "ask", lambda *_: self.status)

    def settings(self) -> Settings:
        return attrs.evolve(settings(), data_dir=self.folder)

    def typed(self, word: str) -> Any:
        return CliRunner().invoke(verb, [word])

    def test_whole_and_begun(self) -> None:
        for word, task in (
            ("01m8523sz2", "01m8523sz2"),
            ("01m85", "01m8523sz2"),
            ("01m84w", "01m84w5av3"),
            ("shop", "shop"),
            # Too short to be meant, or of nobody: whoever does the work says so.
            ("sho", "sho"),
            ("other", "other"),
        ):
            self.assertEqual(self.typed(word).output, f"{task}\n")

    def test_the_beginning_of_several_is_refused(self) -> None:
        done = self.typed("01m84")
        self.assertEqual(done.exit_code, 2)
        self.assertIn("2 tasks begin with 01m84: 01m84p1vy6, 01m84w5av3; type more of it", done.output)

    def test_without_a_host_what_was_kept_counts(self) -> None:
        self.status = None
        self.assertEqual(self.typed("01m84w").output, "01m84w5av3\n")
        self.assertEqual(self.typed("01m85").output, "01m85\n")

    def test_what_cannot_be_seen_is_left_to_whoever_does_the_work(self) -> None:
        def refuse(*_: Any) -> Any:
            raise HostError(ErrorCode.UNAVAILABLE, "it belongs to another user")

        self.patch(local, "ask", refuse)
        self.assertEqual(self.typed("01m84w").output, "01m84w\n")

    def test_the_shell_completes(self) -> None:
        context = click.Context(verb)
        found = TaskId().shell_complete(context, verb.params[0], "01m84")
        self.assertEqual([one.value for one in found], ["01m84p1vy6", "01m84w5av3"])
