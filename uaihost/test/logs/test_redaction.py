"""What is taken out of logged text and values, and what stays."""

from __future__ import annotations

import json

from hypothesis import strategies
from twisted.trial.unittest import TestCase

from uaihost.logs import redaction
from uaihost.logs.redaction import MARK, Redactor
from uaihost.test.support import given

# A line, and what of it must be gone.
SECRET_LINES = (
    ("cloning with ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdef"),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz failed", "11ABCDEFG0"),
    ("key sk-ant-api03-AbCdEfGhIjKlMnOpQrSt_uv-wx", "AbCdEfGhIj"),
    ("key sk-proj-AbCdEfGhIjKlMnOpQrStuv", "AbCdEfGhIj"),
    ("AWS says AKIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("npm_abcdefghijklmnopqrstuvwxyz0123456789", "abcdefghij"),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s1gnaturex", "eyJzdWIi"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----", "b3BlbnNz"),
    ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg", "MIIEvQ"),
    ("Authorization: token 0123456789abcdef", "0123456789"),
    ("authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpw"),
    ("sent Bearer abcdef0123456789", "abcdef0123"),
    ("{'Cookie': 'uai=abcdefghij; other=klmnop'}", "klmnop"),
    ("Set-Cookie: uai-5876=abcdefghij; HttpOnly", "abcdefghij"),
    ("https://user:pa55w0rd@forge.example/a.git", "pa55w0rd"),
    ("https://x-access-token:abc@forge.example/a.git", "x-access-token:abc"),
    ("GET /?key=abcdefghij&x=1 HTTP/1.1", "abcdefghij"),
    ("GET /?x=1&token=abcdefghij HTTP/1.1", "abcdefghij"),
    ("UAI_HOST_TOKEN=abcdefghij", "abcdefghij"),
    ("ANTHROPIC_API_KEY='abcdefghij'", "abcdefghij"),
    ('{"refresh_token": "abcdefghij", "n": 1}', "abcdefghij"),
    *((f"gh{kind}_" + "aB3" * 12, "aB3aB3") for kind in "oprsu"),
    ("glpat-abcdefghijklmnopqrst", "abcdefghij"),
    ("xoxb-123456789012-abcdef", "123456789012"),
    ("pypi-" + "AgEIcHlw" * 5, "AgEIcHlw"),
    ("AIza" + "SyA1b2C3d4" * 4, "SyA1b2C3d4"),
    ("ASIAIOSFODNN7EXAMPLE", "IOSFODNN7"),
    ("X-Api-Key: abcdefghij", "abcdefghij"),
    ("Private-Token: abcdefghij", "abcdefghij"),
    ("sent basic abcdefghij", "abcdefghij"),
    *((f"my_{name}=abcdefghij", "abcdefghij") for name in ("PassWord", "passwd", "passphrase", "apikey")),
    *((f"the {name}: abcdefghij", "abcdefghij") for name in ("private_key", "credential", "api-key")),
    *((f"GET /?x=1&{name}=abcdefghij", "abcdefghij") for name in ("code", "state", "sig", "signature")),
    ("client_secret=abcdefghij&grant_type=refresh_token", "abcdefghij"),
)

# What a reader of logs needs and must not lose.
HONEST_LINES = (
    "link connected",
    "task t1: 3 tokens used, 12 tokens left",
    "the bridge refused this host: token rejected; check UAI_HOST_TOKEN and the bridge's address",
    "https://github.com/uai/shop.git at 0123456789abcdef0123456789abcdef01234567",
    "cookies and keys are not logged",
    "2 secrets were sealed anew",
    "sha256:4bc453b53cb3d914b45f4b250294236adba2c0e09ff6f03793949e7e39fd4cc1",
)

# What shapes are made of, also in letters that only patterns that pass over case know: long s, Kelvin sign.
PIECES = (
    *(word for _, _, words in redaction._RULES for word in words),
    *(
        "pa\u017f\u017fword",
        "\u017fecret",
        "to\u212aen",
        "cook\u0131e",
        "bas\u0131c",
        "x-api-\u212aey",
        "API_KEY",
        "PassWord",
    ),
    *(
        "=",
        ": ",
        " ",
        '"',
        "?",
        "&",
        "\n",
        "://",
        "a",
        "abcdefghij",
        "A1B2" * 8,
        "PRIVATE KEY-----",
        "sig=",
        ".abcdef",
    ),
    *("AKIA", "ASIA", "AIza", "eyJ", "-----BEGIN "),
)


class ShapeTests(TestCase):
    @given(strategies.lists(strategies.sampled_from(PIECES), max_size=8).map("".join))
    def test_the_words_before_the_patterns_spare_nothing(self, text: str) -> None:
        every = text
        for pattern, shown, _ in redaction._RULES:
            every = pattern.sub(shown, every)
        self.assertEqual(Redactor().text(text), every)

    def test_each_shape_is_looked_for_in_plain_lines_and_in_others(self) -> None:
        redactor = Redactor()
        for text, gone in SECRET_LINES:
            self.assertNotIn(gone, redactor.text(f"{text} é"), text)

    def test_what_looks_like_a_secret_is_taken_out(self) -> None:
        redactor = Redactor()
        for text, gone in SECRET_LINES:
            found = redactor.text(text)
            self.assertNotIn(gone, found, text)
            self.assertIn(MARK, found)

    def test_what_stands_around_it_stays(self) -> None:
        redactor = Redactor()
        self.assertEqual(
            redactor.text("GET https://u:p4ssw0rd@h.example/a?x=1&key=abcdefghij#end"),
            f"GET https://{MARK}@h.example/a?x=1&key={MARK}#end",
        )

    def test_honest_lines_stay_as_they_are(self) -> None:
        redactor = Redactor()
        for text in HONEST_LINES:
            self.assertEqual(redactor.text(text), text)

    def test_a_field_whose_name_says_so_has_no_value(self) -> None:
        found = Redactor().value({"refreshToken": "short", "tokens": 7, "nested": [{"password": "x"}]})
        self.assertEqual(found, {"refreshToken": MARK, "tokens": 7, "nested": [{"password": MARK}]})


class LearntTests(TestCase):
    def test_what_was_learnt_is_taken_out_whatever_it_looks_like(self) -> None:
        redactor = Redactor()
        redactor.learn("correct horse battery")
        self.assertEqual(redactor.text("it is correct horse battery!"), f"it is {MARK}!")

    def test_each_line_of_a_learnt_one_counts(self) -> None:
        redactor = Redactor()
        redactor.learn("first line of it\nsecond line of it")
        self.assertEqual(redactor.text("> second line of it <"), f"> {MARK} <")

    def test_one_that_begins_with_another_is_taken_out_whole(self) -> None:
        redactor = Redactor()
        redactor.learn("abcdefgh")
        redactor.learn("abcdefgh-and-more")
        self.assertEqual(redactor.text("abcdefgh-and-more abcdefgh"), f"{MARK} {MARK}")

    def test_words_are_not_learnt(self) -> None:
        redactor = Redactor()
        redactor.learn("master")
        self.assertEqual(redactor.text("on master"), "on master")

    def test_what_is_stored_as_json_is_learnt_value_by_value(self) -> None:
        redactor = Redactor()
        redactor.learn_stored(b'{"a": {"token": "0123456789abcdefgh"}, "login": "octocat", "n": [1, null]}')
        redactor.learn_stored(b"a plain one of one line")
        redactor.learn_stored(b"\xff\xfe raw bytes")
        redactor.learn_stored(b'{"url": "https://ghe.example/api/v3"}')
        text = "octocat 0123456789abcdefgh https://ghe.example/api/v3 a plain one of one line"
        self.assertEqual(redactor.text(text), f"octocat {MARK} https://ghe.example/api/v3 {MARK}")

    def test_the_oldest_are_forgotten_first(self) -> None:
        redactor = Redactor()
        for number in range(redaction.REMEMBERED + 1):
            redactor.learn(f"value-{number:06}")
        self.assertEqual(redactor.text("value-000000"), "value-000000")
        self.assertEqual(redactor.text("value-000001"), MARK)

    @given(
        # The mark's own brackets would make a part of it a secret.
        strategies.text(min_size=redaction.SHORTEST, max_size=40).filter(
            lambda text: not set("[]") & set(text)
        ),
        strategies.recursive(
            strategies.text(max_size=20) | strategies.integers() | strategies.none(),
            lambda inner: (
                strategies.lists(inner, max_size=3)
                | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        strategies.text(max_size=10),
    )
    def test_no_learnt_secret_leaves_in_any_place(self, secret: str, other: object, around: str) -> None:
        redactor = Redactor()
        redactor.learn(secret)
        held = f"{around}{secret}{around}"
        found = redactor.value({"a": other, held: held, "deep": [[{"k": held}], (held,)]})
        # As it would be written, without JSON's own escapes between.
        for text in _texts(found):
            self.assertNotIn(secret, text)
        json.dumps(found)


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for side in pair for text in _texts(side)]
    if isinstance(value, list):
        return [text for held in value for text in _texts(held)]
    return []
