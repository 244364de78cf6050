"""What a remote says that it has, as git ls-remote prints it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from uaihost.test.support import given, strategies
from uaihost.workspaces.offers import Offer, offered

A, B = "a" * 40, "b" * 40


class OfferTests(SynchronousTestCase):
    def test_branches_tags_and_the_default(self) -> None:
        out = (
            f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/heads/fix/x\n"
            f"{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n{A}\trefs/pull/1/head\n"
        )
        refs = {"refs/remotes/origin/main": A, "refs/remotes/origin/fix/x": B, "refs/tags/v1": B}
        self.assertEqual(offered(out.encode(), False), Offer("main", A, refs))

    def test_a_head_that_is_on_no_branch_and_an_empty_remote(self) -> None:
        self.assertEqual(offered(f"{A}\tHEAD\n".encode(), False), Offer(None, A, {}))
        self.assertEqual(offered(b"", False), Offer(None, None, {}))

    def test_a_list_that_was_cut_off_says_nothing_of_what_is_there(self) -> None:
        cut = offered(f"ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A[:7]}".encode(), True)
        self.assertEqual(cut, Offer("main", A, None))

    @given(strategies.binary(max_size=200))
    def test_any_bytes(self, out: bytes) -> None:
        found = offered(out, False)
        self.assertTrue(
            all(name.startswith(("refs/remotes/origin/", "refs/tags/")) for name in found.refs or {})
        )
