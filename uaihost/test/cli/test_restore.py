"""`uaihost restore` without a daemon: usage, where clones go and to whom, what is said of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli import restore as verb
from uaihost.cli.main import cli
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import short_folder
from uaihost.workspaces.workspaces import Kept


def part(**fields: Any) -> dict[str, Any]:
    return {"wip": None, "index": None, "stashes": [], "past": [], **fields}


def kept(name: str, slug: str | None = None, *parts: dict[str, Any]) -> Kept:
    slug = name if slug is None else slug
    return Kept("t1", name, slug, "u", "fix", "1" * 40, None, "/v.git", None, None, 0, 0.0, parts)


class RestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)
        self.patch(os, "environ", {**os.environ, "UAI_DATA_DIR": str(self.folder / "none")})

    def test_options_that_need_a_task_are_refused_without_one(self) -> None:
        (self.folder / "none").mkdir()
        for options in (["--project", "app"], ["--to", "x"], ["--live"]):
            done = CliRunner().invoke(cli, ["restore", *options])
            self.assertEqual((done.exit_code, "go with a TASK" in done.output), (2, True), options)

    def test_a_data_folder_that_is_not_there_is_named_and_not_made(self) -> None:
        done = CliRunner().invoke(cli, ["restore"])
        self.assertIsInstance(done.exception, HostError)
        assert isinstance(done.exception, HostError)
        self.assertEqual(done.exception.code, ErrorCode.NOT_FOUND)
        self.assertIn(str(self.folder / "none"), done.exception.message)
        self.assertFalse((self.folder / "none").exists())

    def test_one_goes_where_it_is_told_to_and_several_below(self) -> None:
        one, two, beside = kept("app"), kept("app-2", "app"), kept(".task", "")
        self.assertEqual(verb.targets([one], Path("there")), [Path("there")])
        self.assertEqual(verb.targets([one], None), [Path("app-t1")])
        self.assertEqual(
            verb.targets([one, two, beside], Path("there")),
            [Path("there/app-t1"), Path("there/app-2-t1"), Path("there/beside-t1")],
        )

    def test_root_gives_it_to_the_owner_of_the_folder_above(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, 1234, 4321)
            expected: tuple[int, int] | None = (1234, 4321)
        else:
            expected = None
        self.assertEqual(verb.person(self.folder / "not" / "there"), expected)

    def test_what_it_holds_in_words(self) -> None:
        self.assertEqual(verb.holds(kept("app", None, part())), ["fix"])
        whole = kept("app", None, part(wip=["r", "o"], stashes=[1, 2]), part(index=["r", "o"], past=[1]))
        self.assertEqual(
            verb.holds(whole),
            ["fix", "uncommitted work", "2 stashes", "1 lost commits", "1 repositories in it"],
        )
