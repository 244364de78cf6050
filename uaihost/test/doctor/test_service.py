"""What is said of the host as a service, and what to type about it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from uaihost.doctor import service
from uaihost.doctor.daemon import daemon
from uaihost.doctor.model import Verdict
from uaihost.doctor.service import Installed, judged
from uaihost.services.machine import Ran
from uaihost.services.managers import State
from uaihost.test.doctor.patients import patient
from uaihost.test.doctor.rig import Rig
from uaihost.test.services.rig import Programs, machine

UNIT = "[Service]\nExecStart=/bin/true\n"
WELL = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\nResult=success\n"


def one(state: State, kind: str = "package", **more: object) -> Installed:
    title = "systemd --user" if kind == "user" else "systemd"
    return Installed(kind, title, True, state, **more)  # type: ignore[arg-type]


class WordTests(Rig):
    def test_none(self) -> None:
        known = patient(self.folder)
        with patch("uaihost.doctor.service.installed", return_value=None):
            self.is_(service.look_at_service(known), Verdict.SKIPPED)
        with patch("uaihost.doctor.service.installed", return_value=[]):
            self.is_(service.look_at_service(known), Verdict.WARN, "not installed", "uaihost install")

    def test_well(self) -> None:
        found = self.is_(judged(one(State(True, True, "active (running)"))), Verdict.OK, "active (running)")
        self.assertEqual(found.fix, ())

    def test_every_other_state_has_lines_of_its_own(self) -> None:
        for state, verdict, lines in (
            (
                State(True, False, "inactive (dead)"),
                Verdict.FAIL,
                ("uaihost start", "journalctl -u uaihost -n 50"),
            ),
            (
                State(True, False, "failed (failed) [exit-code]"),
                Verdict.FAIL,
                ("journalctl -u uaihost -n 50", "uaihost start"),
            ),
            (
                State(True, False, "activating (auto-restart)", again=True),
                Verdict.FAIL,
                ("journalctl -u uaihost -n 50",),
            ),
            (State(False, False, "inactive (dead)"), Verdict.FAIL, ("sudo systemctl enable --now uaihost",)),
            (State(False, True, "active (running)"), Verdict.WARN, ("sudo systemctl enable uaihost",)),
            (
                State(False, False, "inactive (dead)", masked=True),
                Verdict.FAIL,
                ("sudo systemctl unmask uaihost", "sudo systemctl enable --now uaihost"),
            ),
        ):
            found = judged(one(state))
            self.assertEqual((found.verdict, found.fix), (verdict, lines), state)

    def test_a_person_needs_no_sudo_for_services_of_his_own(self) -> None:
        found = judged(one(State(False, False, "inactive (dead)"), "user"))
        self.assertEqual(found.fix, ("systemctl --user enable --now uaihost",))
        failed = judged(one(State(True, False, "failed (failed)"), "user"))
        self.assertEqual(failed.fix[0], "journalctl --user -u uaihost -n 50")
        leaves = judged(one(State(True, True, "active (running)"), "user", ends="al"))
        self.is_(leaves, Verdict.WARN, "when al logs out", "sudo loginctl enable-linger al")

    def test_a_manager_that_cannot_be_asked_is_not_none(self) -> None:
        found = Installed("package", "systemd", True, None, "no bus here")
        self.is_(judged(found), Verdict.WARN, "no bus here", "sudo systemctl status uaihost")
        found = Installed("user", "systemd --user", True, None, "no manager", ends="al")
        self.is_(judged(found), Verdict.FAIL, "al is not logged in", "sudo loginctl enable-linger al")


class BridgeTests(Rig):
    def starts(self, found: list[Installed], url: str = "ws://127.0.0.1:8789/host") -> tuple[str, ...]:
        with patch("uaihost.doctor.service.installed", return_value=found):
            return service.bridge_starts(patient(self.folder, UAI_CLOUD_URL=url))

    def test_a_bridge_that_is_a_service_is_started_as_one(self) -> None:
        beside = one(State(True, True), bridge=True)
        lines = ("sudo systemctl enable --now uaibridge", "journalctl -u uaibridge -n 50")
        self.assertEqual(self.starts([beside]), lines)
        self.assertEqual(self.starts([]), ())
        self.assertEqual(self.starts([one(State(True, True))]), ())
        self.assertEqual(self.starts([beside], "ws://127.0.0.1:9/host"), ())


class WhoseTests(Rig):
    async def test_a_person_beside_a_service_of_the_machine_is_told_whose_it_is(self) -> None:
        known = patient(self.folder)
        for found, words in (
            ([one(State(True, True))], "sudo uaihost doctor"),
            ([one(State(True, True), "user")], "uaihost start"),
            ([], "uaihost start"),
        ):
            with patch("uaihost.doctor.service.installed", return_value=found):
                self.is_(await daemon(known), Verdict.WARN, words)
        with patch("uaihost.doctor.service.installed", return_value=[one(State(True, False))]):
            usual = patient(Path("/var/lib/uaihost"))
            self.is_(await daemon(usual), Verdict.WARN, "uaihost start")


class LookTests(Rig):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.folder

    def unit(self, path: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True)
        file.write_text(UNIT)
        return file

    def look(self, uid: int, shown: str) -> Installed:
        found = service.of(machine(self.root, uid=uid), Programs({"systemctl": Ran(0, shown, "")}))
        assert found
        return found[0]

    def test_a_file_of_the_owner_that_hides_the_packages_unit_is_named(self) -> None:
        self.unit("lib/systemd/system/uaihost.service")
        mine = self.unit("etc/systemd/system/uaihost.service")
        found = self.look(0, f"{WELL}FragmentPath={mine}\n")
        self.assertEqual((found.kind, found.hidden), ("package", mine))
        self.is_(judged(found), Verdict.WARN, f"sudo rm {mine}", "uaihost restart")
        package = self.look(0, f"{WELL}FragmentPath={self.root}/lib/systemd/system/uaihost.service\n")
        self.is_(judged(package), Verdict.OK)
        masked = self.look(0, f"LoadState=masked\nActiveState=inactive\nFragmentPath={mine}\n")
        self.is_(judged(masked), Verdict.FAIL, "masked")

    def test_a_persons_own_goes_before_the_machines(self) -> None:
        self.unit("lib/systemd/system/uaihost.service")
        self.assertEqual(self.look(1000, WELL).kind, "package")
        self.unit("home/.config/systemd/user/uaihost.service")
        own = self.look(1000, WELL)
        self.assertEqual((own.kind, own.title, own.command), ("user", "systemd --user", "uaihost"))
        user = machine(self.root).user
        self.assertEqual(own.ends, user)
        (self.root / service.LINGERING).mkdir(parents=True)
        (self.root / service.LINGERING / user).touch()
        self.assertEqual(self.look(1000, WELL).ends, "")
        self.assertEqual(self.look(0, WELL).kind, "package")

    def test_who_is_not_root_is_told_the_whole_path_that_sudo_does_not_know(self) -> None:
        self.unit("etc/systemd/system/uaihost.service")
        with patch("uaihost.doctor.service.shutil.which", return_value=None):
            self.assertEqual(self.look(1000, WELL).command, f"sudo {self.root}/venv/bin/uaihost")
        with patch("uaihost.doctor.service.shutil.which", return_value="/usr/bin/uaihost"):
            self.assertEqual(self.look(1000, WELL).command, "sudo uaihost")

    def test_without_a_bus_it_says_so(self) -> None:
        self.unit("lib/systemd/system/uaihost.service")
        refused = Programs({"systemctl": Ran(1, "", "Failed to connect to bus: No such file")})
        found = service.of(machine(self.root), refused)
        assert found
        self.assertIsNone(found[0].state)
        self.assertNotEqual(found[0].problem, "")

    def test_where_nothing_is_installed(self) -> None:
        self.assertEqual(service.of(machine(self.root), Programs()), [])
