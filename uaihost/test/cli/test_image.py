"""`uaihost image`: what it shows, and what it says when it cannot work."""

from __future__ import annotations

import io
from unittest.mock import patch

from click.testing import CliRunner
from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.image import age, image, kinds, megabytes, table
from uaihost.containers.images import ImageInfo
from uaihost.errors import HostError
from uaihost.test.support import short_folder


class ShownTests(SynchronousTestCase):
    def test_an_image_is_a_line(self) -> None:
        images = [
            ImageInfo("uaihost/standard:new", "standard", 1_830_000_000, 7_000_000, True, True),
            ImageInfo("uaihost/standard:old", "standard", 231_600_000, 0, False, False),
        ]
        out = io.StringIO()
        Console(file=out, width=90, color_system=None).print(table(images, now=10_600))
        lines = [line.split() for line in out.getvalue().splitlines()]
        self.assertEqual(
            lines[1:],
            [
                ["uaihost/standard:new", "1.83", "GB", "1", "h", "current,", "in", "use"],
                ["uaihost/standard:old", "232", "MB", "2", "h"],
            ],
        )

    def test_sizes_and_spans_have_one_unit(self) -> None:
        self.assertEqual([megabytes(size) for size in (0, 999_000_000, 10**9)], ["0 MB", "999 MB", "1.00 GB"])
        self.assertEqual([age(s) for s in (-5, 59, 60, 7200, 200_000)], ["now", "now", "1 min", "2 h", "2 d"])


class RefusalTests(SynchronousTestCase):
    def test_both_kinds_are_shipped(self) -> None:
        self.assertEqual(kinds(), ["small", "standard"])

    def test_without_an_engine_it_says_what_to_do(self) -> None:
        environ = {"DOCKER_HOST": f"unix://{short_folder(self)}/none.sock", "UAI_DATA_DIR": "/nonexistent"}
        with patch.dict("os.environ", environ):
            for words in (["ls"], ["build"], ["rm", "x"], ["base"]):
                done = CliRunner().invoke(image, words)
                self.assertIsInstance(done.exception, HostError, done.output)
                self.assertIn("DOCKER_HOST", str(done.exception))

    def test_bad_usage(self) -> None:
        for words in (["rm"], ["build", "--colour"], ["none"]):
            self.assertEqual(CliRunner().invoke(image, words).exit_code, 2)
