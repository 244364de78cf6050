"""Names of branches."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from uaihost.errors import ErrorCode, HostError
from uaihost.workspaces.branches import checked, fault

GOOD = (
    "main",
    "fix/login",
    "uai/t1/wip",
    "v1.2",
    "ünïcode",
    "a@b",
    "a-b_c",
    "a{b}",
    "x.lock.y",
    "@a",
    "-".join("ab"),
)
BAD = (
    "",
    "-x",
    "--upload-pack=x",
    "HEAD",
    "@",
    "a b",
    "a..b",
    "a~1",
    "a^",
    "a:b",
    "a?b",
    "a*",
    "a[b",
    "a\\b",
    "a\x7fb",
    "a\nb",
    "a\0b",
    "/a",
    "a/",
    "a//b",
    "a.",
    ".a",
    "a/.b",
    "a.lock",
    "a.lock/b",
    "a@{1}",
    "\ud800",
    "x" * 201,
)


class BranchTests(TestCase):
    def test_names_that_git_allows_are_allowed(self) -> None:
        self.assertEqual([name for name in GOOD if fault(name) is not None], [])

    def test_names_that_git_refuses_are_refused(self) -> None:
        self.assertEqual([name for name in BAD if fault(name) is None], [])

    def test_the_error_names_the_branch_and_the_reason(self) -> None:
        error = self.assertRaises(HostError, checked, "a b")
        self.assertEqual(error.code, ErrorCode.INVALID_ARGS)
        self.assertIn("'a b'", error.message)
        self.assertIn("' '", error.message)

    def test_a_good_name_comes_back(self) -> None:
        self.assertEqual(checked("fix/login"), "fix/login")
