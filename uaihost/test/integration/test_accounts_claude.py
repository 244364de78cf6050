"""Claude's own program gives its long-lived token to the sign-in of the command line, in a real container."""

from __future__ import annotations

import time

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from uaihost.cli.interactive import sign_in_id
from uaihost.credentials.formats import check_value
from uaihost.test.integration.bridged_engine import gateway
from uaihost.test.integration.claude_issuer import CODE, TOKEN, ClaudeIssuer
from uaihost.test.integration.engine import docker_host, real_engine, standard_image
from uaihost.test.integration.sign_in_person import COLUMNS, Person, signs_in
from uaihost.test.support import short_folder


class SetupTokenTests(TestCase):
    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]
        await standard_image(self)
        self.engine = await docker_host()
        self.folder = short_folder(self)
        self.issuer = ClaudeIssuer(await deferToThread(gateway, self.engine), self.folder)
        self.addCleanup(self.issuer.stop)
        self.typed, self.code = False, CODE
        self.pressed, self.at = 0, 0.0

    def does(self, person: Person) -> None:
        """Open the page that is named, and paste the code that it gives."""
        if "Paste code" in person.shown and not self.typed:
            self.typed = True
            self.assertRegex(person.shown, r"https://[a-z.]+/[a-z/]*oauth/authorize\?")
            person.type(f"{self.code}#state\r")
        elif "retry" in person.shown and self.pressed < 3 and time.monotonic() - self.at > 0.5:
            # It offers to try again, and does not end by one of these.
            self.pressed, self.at = self.pressed + 1, time.monotonic()
            person.type("\x03")

    async def test_the_token_that_it_shows_is_taken_over_whole(self) -> None:
        form, secrets = await deferToThread(
            signs_in, self.folder, self.engine, "claude", more=self.issuer.environment, does=self.does
        )
        self.assertEqual((form, secrets), ("token", {"token": TOKEN}))
        self.assertGreater(len(TOKEN), COLUMNS, "the terminal breaks it")
        check_value("claude", "token", secrets["token"], strict=True)
        (asked,) = self.issuer.exchanged
        self.assertEqual((asked["grant_type"], asked["code"]), ("authorization_code", CODE))

    async def test_who_gives_up_after_a_refused_code_has_changed_nothing(self) -> None:
        self.code = "another-code"
        try:
            await deferToThread(
                signs_in, self.folder, self.engine, "claude", more=self.issuer.environment, does=self.does
            )
        except AssertionError as error:
            self.assertIn("nothing was changed", " ".join(str(error).split()))
        else:
            self.fail("it signed in")
        self.assertFalse((self.folder / "result").exists())
        self.assertEqual([asked["code"] for asked in self.issuer.exchanged], ["another-code"])

    async def test_ended_by_a_signal_it_leaves_no_container(self) -> None:
        class GoneError(Exception):
            pass

        def leaves(person: Person) -> None:
            if "Paste code" in person.shown:
                raise GoneError

        with self.assertRaises(GoneError):
            await deferToThread(
                signs_in, self.folder, self.engine, "claude", more=self.issuer.environment, does=leaves
            )
        engine = await real_engine(self, sign_in_id(self.folder / "data"))
        self.assertEqual(await engine.all(), [])
