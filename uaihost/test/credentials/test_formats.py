"""What vendors' secrets look like: a secret in the wrong place is told, and never shown."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.credentials.formats import LONGEST, check_value
from uaihost.errors import ErrorCode, HostError
from uaihost.test.support import given, strategies

KEY, TOKEN = "sk-ant-api03-secret", "sk-ant-oat01-secret"


class FormatsTests(SynchronousTestCase):
    def refused(self, provider: str, name: str, value: str, *, strict: bool = True) -> str:
        error = self.assertRaises(HostError, check_value, provider, name, value, strict=strict)
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        self.assertIn("nothing was changed", error.message)
        if "secret" in value:
            self.assertNotIn("secret", error.message)
        return str(error.message)

    def taken(self, provider: str, name: str, value: str, *, strict: bool = True) -> None:
        try:
            check_value(provider, name, value, strict=strict)
        except HostError as error:
            self.fail(error.message)

    def test_each_in_its_place(self) -> None:
        for provider, name, value in (
            ("claude", "key", KEY),
            ("claude", "token", TOKEN),
            ("codex", "key", "sk-proj-secret"),
            ("codex", "access", "head.body.sign"),
            ("codex", "auth", '{"with": "a space"}'),
        ):
            self.taken(provider, name, value, strict=True)

    def test_in_anothers_place_it_says_what_belongs_there(self) -> None:
        self.assertIn("begins with sk-ant-api", self.refused("claude", "key", TOKEN))
        self.assertIn("claude setup-token", self.refused("claude", "token", KEY))
        self.assertIn("uaihost login claude", self.refused("codex", "key", KEY))
        self.assertIn("begins with sk-", self.refused("codex", "key", "secret"))

    def test_a_gateway_has_keys_of_its_own_making(self) -> None:
        for value in ("anything-secret", KEY, TOKEN):
            self.taken("codex", "key", value, strict=False)
            self.taken("claude", "key", value, strict=False)
        self.assertIn("a space", self.refused("codex", "key", "my secret", strict=False))

    def test_what_can_be_no_line_of_a_header_or_a_file(self) -> None:
        for value in ("", "sk-\n", "sk-\x00", "sk-schl\u00fcssel", "sk-\u202e", "s" * (LONGEST + 1)):
            self.assertIn("printable characters", self.refused("codex", "key", value))
        self.taken("codex", "key", "sk-" + "s" * (LONGEST - 3), strict=True)

    @given(strategies.text(max_size=80))
    def test_what_is_taken_can_stand_in_a_variable_and_a_header(self, text: str) -> None:
        try:
            check_value("codex", "key", "sk-" + text, strict=True)
        except HostError:
            return
        self.assertTrue(text.isascii() and not set(text) & set("\r\n\0 "), repr(text))
