"""git's questions, and which repository an address is of."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.credentials import git_credentials
from uaihost.credentials.git_credentials import Question, granted, question, repository
from uaihost.test.support import given, strategies


class QuestionTests(SynchronousTestCase):
    def test_what_git_writes(self) -> None:
        asked = question(
            b"capability[]=authtype\nprotocol=https\nhost=GitHub.com\npath=O/r.git\nwwwauth[]=Basic x\n\n"
        )
        self.assertEqual(asked, Question("https", "github.com", "O/r.git"))
        self.assertEqual(question(b"password=p\n").password, "p")
        self.assertNotIn("secret", repr(question(b"password=secret\n")))

    def test_what_is_no_question(self) -> None:
        for data in (b"x\n", b"host=a\rb\n", b"host=a\0b\n", b"\xff=\n", b"host=\x1b[2J\n", b"a=b\n" * 5000):
            self.assertRaises(ValueError, question, data)

    @given(strategies.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        try:
            asked = question(data)
        except ValueError:
            return
        self.assertTrue((asked.protocol + asked.host + asked.path).isprintable())

    def test_an_answer(self) -> None:
        self.assertEqual(git_credentials.answer("t"), b"username=x-access-token\npassword=t\n")


class RepositoryTests(SynchronousTestCase):
    def test_paths(self) -> None:
        for path in ("o/r", "/O/R.git", "o/r.git/", "o/r.git/info/lfs", "o/r/info/lfs/objects/batch"):
            self.assertEqual(repository(path), ("o", "r"), path)
        self.assertEqual(repository("o/r.github.io"), ("o", "r.github.io"))
        for path in (
            "",
            "o",
            "o/",
            "o/r/s",
            "o//r",
            "../r",
            "o/..",
            "o/r/../s",
            "o/r.git/../s",
            "o%2fr",
            "o/r%00",
            "o/r?x",
            "o/r#x",
            "o/.git",
            "o/r\n",
            "ö/r",
            "o/r/info/lf",
            "x" * 200 + "/r",
        ):
            self.assertIsNone(repository(path), path)

    def test_addresses_of_a_task(self) -> None:
        for address in (
            "https://github.com/O/R.git",
            "https://github.com:443/o/r",
            "https://somebody@github.com/o/r",
            "git@github.com:o/r.git",
            "ssh://git@github.com/o/r",
            "ssh://git@GITHUB.com:22/o/r.git",
        ):
            self.assertEqual(granted([address], "github.com"), {("o", "r")}, address)
        for address in (
            "http://github.com/o/r",
            "https://github.com:8443/o/r",
            "https://github.com.evil.example/o/r",
            "https://evil.example/github.com/o/r",
            "https://github.com@evil.example/o/r",
            "https://evil.example\\@github.com/o/r",
            "git@evil.example:o/r",
            "/srv/o/r",
            "file:///github.com/o/r",
            "https://github.com:x/o/r",
            "https://[github.com/o/r",
        ):
            self.assertEqual(granted([address], "github.com"), frozenset(), address)
        self.assertEqual(granted(["https://ghe.example:8443/o/r"], "ghe.example:8443"), {("o", "r")})
        self.assertEqual(granted(["git@ghe.example:o/r"], "ghe.example:8443"), {("o", "r")})
