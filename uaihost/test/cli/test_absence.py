"""Who is told what where no host answers."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from uaihost.cli.absence import nobody


class AbsenceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.home = self.root / "home/al"
        self.home.mkdir(parents=True)

    def said(self, user: str) -> str:
        return nobody(self.root, user, self.home).message

    def unit(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "uaihost.service").touch()

    def test_without_a_service(self) -> None:
        for user in ("root", "al"):
            self.assertEqual(self.said(user), "no host is running here; start one with `uaihost up`")

    def test_a_service_of_the_machine_is_started_by_root_and_asked_by_root(self) -> None:
        self.unit(self.root / "lib/systemd/system")
        # In a container without a service manager nothing starts it.
        self.assertIn("uaihost up", self.said("root"))
        (self.root / "run/systemd/system").mkdir(parents=True)
        for user in ("root", "uaihost"):
            self.assertIn("`uaihost start`", self.said(user))
        self.assertIn("with sudo", self.said("al"))

    def test_a_service_of_ones_own_goes_before_the_machines(self) -> None:
        self.unit(self.root / "etc/systemd/system")
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.unit(self.home / ".config/systemd/user")
        self.assertIn("`uaihost start`", self.said("al"))
