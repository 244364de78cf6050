"""The renewal of a login, with a program in Codex' place; Codex itself is tried in the integration tests."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from uaihost.shim import renew
from uaihost.test.support import short_folder

# Reads requests as Codex' app server does, and does as the file `does` says, line by line: one of each start.
PROGRAM = """
import json, os, sys
folder = os.environ["CODEX_HOME"]
does = open(folder + "/does").read().split()
open(folder + "/does", "w").write(" ".join(does[1:]))
assert "UAI_LOGIN" not in os.environ, "its variables are seen by others of its user"
for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] != "account/read":
        continue
    with open(folder + "/forced", "a") as file:
        file.write(str(asked["params"]["refreshToken"]) + "\\n")
    print(json.dumps({"method": "a/notification", "params": {}}), flush=True)
    if does[0] == "silent":
        sys.exit(3)
    if does[0] == "noise":
        print("what is no answer", flush=True)
        continue
    if does[0] == "renew":
        kept = json.load(open(folder + "/auth.json"))
        kept["tokens"].update(access_token="fresh", refresh_token="r2")
        json.dump(kept, open(folder + "/auth.json", "w"))
    if does[0] in ("refuse", "unreachable"):
        print("\\x1b[31mERROR\\x1b[0m login::auth::manager: Failed: the vendor said no", file=sys.stderr)
    account = None if does[0] == "refuse" else {"type": "chatgpt"}
    print(json.dumps({"id": asked["id"], "result": {"account": account}}), flush=True)
"""


def auth(ends: float = 0.0, **tokens: Any) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": ends}).encode()).rstrip(b"=").decode()
    kept = {"access_token": f"head.{claims}.sign", "account_id": "me", "refresh_token": "r1", **tokens}
    return json.dumps({"tokens": kept})


class RenewCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = short_folder(self) / "codex"
        self.folder.mkdir()
        self.program = self.folder.parent / "program.py"
        self.program.write_text(PROGRAM)
        self.patch(renew, "COMMAND", (sys.executable, "-S", str(self.program)))

    def main(self, login: str, *words: str) -> dict[str, Any]:
        shown, mask = io.StringIO(), os.umask(0o077)
        self.addCleanup(os.umask, mask)
        environment = {**os.environ, "CODEX_HOME": str(self.folder), "UAI_LOGIN": login}
        argv = mock.patch.object(sys, "argv", ["renew.py", *words])
        with mock.patch.dict(os.environ, environment), argv, redirect_stdout(shown):
            self.assertEqual(renew.main(), 0)
        report: dict[str, Any] = json.loads(shown.getvalue())
        return report


class ProgramTests(RenewCase):
    def renewed(self, login: str, *does: str) -> dict[str, Any]:
        (self.folder / "does").write_text(" ".join(does))
        return self.main(login)

    def forced(self) -> list[str]:
        return (self.folder / "forced").read_text().split()

    def test_what_it_brought_is_reported_and_stays_in_the_folder(self) -> None:
        report = self.renewed(auth(time.time() + 999), "renew")
        self.assertEqual(report["outcome"], "renewed")
        self.assertEqual(json.loads(report["login"])["tokens"]["refresh_token"], "r2")
        self.assertEqual(self.forced(), ["True"])
        # A host that was killed before it stored that.
        self.assertEqual(self.main(auth(time.time() + 999), "look"), report)
        kept = self.folder / "auth.json"
        self.assertEqual(kept.stat().st_mode & 0o077, 0)

    def test_one_that_is_over_is_renewed_by_the_program_and_not_once_more(self) -> None:
        self.assertEqual(self.renewed(auth(1), "renew")["outcome"], "renewed")
        self.assertEqual(self.forced(), ["False"])

    def test_one_that_is_over_is_forced_when_the_program_does_not(self) -> None:
        self.assertEqual(self.renewed(auth(1), "nothing", "renew")["outcome"], "renewed")
        self.assertEqual(self.forced(), ["False", "True"])

    def test_a_refused_login_has_ended_and_its_last_words_are_told(self) -> None:
        report = self.renewed(auth(time.time() + 999), "refuse")
        self.assertEqual((report["outcome"], report["said"]), ("ended", "Failed: the vendor said no"))

    def test_a_vendor_out_of_reach_ends_nothing(self) -> None:
        report = self.renewed(auth(time.time() + 999), "unreachable")
        self.assertEqual((report["outcome"], report["said"]), ("failed", "Failed: the vendor said no"))

    def test_a_program_that_ends_or_babbles_ends_nothing(self) -> None:
        for does in ("silent", "noise"):
            report = self.renewed(auth(time.time() + 999), does)
            self.assertEqual((report["outcome"], report["said"]), ("failed", "it gave no answer"), does)

    def test_a_program_that_hangs_is_ended(self) -> None:
        self.patch(renew, "PATIENCE", 0.2)
        self.program.write_text("import time\ntime.sleep(600)\n")
        begun = time.monotonic()
        self.assertEqual(self.renewed(auth(time.time() + 999))["outcome"], "failed")
        self.assertLess(time.monotonic() - begun, 30)


class LookTests(RenewCase):
    def look(self, login: str) -> str:
        return str(self.main(login, "look")["outcome"])

    def test_only_what_an_exchange_of_this_login_made_is_found(self) -> None:
        self.assertEqual(self.look(auth()), "none")
        (self.folder / "begun").write_text(renew.digest(auth()))
        self.assertEqual(self.look(auth()), "none", "killed before the program kept anything")
        (self.folder / "auth.json").write_text(auth())
        self.assertEqual(self.look(auth()), "none", "killed before the exchange")
        (self.folder / "auth.json").write_text(auth(refresh_token="r2"))
        self.assertEqual(self.look(auth()), "renewed")
        self.assertEqual(self.look(auth(refresh_token="another's")), "none")
        for damaged in ("", "{", "[]", '{"tokens"', "{}"):
            (self.folder / "auth.json").write_text(damaged)
            self.assertEqual(self.look(auth()), "none", damaged)

    def test_over_is_what_says_so(self) -> None:
        for login, is_over in (
            (auth(1), True),
            (auth(time.time() + 99), False),
            (auth(access_token="opaque"), False),
            ("{", False),
        ):
            self.assertEqual(renew.over(login), is_over, login)
