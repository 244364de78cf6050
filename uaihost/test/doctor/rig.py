"""A test of checks: a folder, what a person types, and a verdict with its words."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import TestCase

from uaihost.blocking import Inline
from uaihost.doctor.model import Finding, Verdict
from uaihost.paths import Folders, data_files
from uaihost.state.database import Database
from uaihost.test.support import short_folder


class Rig(TestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self)

    def is_(self, found: Finding, verdict: Verdict, *words: str) -> Finding:
        self.assertEqual(found.verdict, verdict, found)
        for word in words:
            self.assertIn(word, f"{found.text}\n" + "\n".join(found.fix))
        return found

    def type_(self, line: str) -> None:
        """What a person types; it must succeed."""
        subprocess.run(["sh", "-c", line], check=True)

    async def database(self) -> Database:
        return await Database.open(Folders(self.folder).database, data_files("migrations"), Inline())
